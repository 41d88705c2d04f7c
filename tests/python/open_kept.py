#!/usr/bin/env python3
"""Second reader of the file of local keys, from docs/formats/kmsv2.md ("Local keys on disk") alone.

Opens each file of the vectors by the key that a machine would have given back, compares what is in
it, and refuses what must be refused. Needs only the PyPI package `cryptography`.

    python3 open_kept.py crates/lastkey-node/tests/vectors/kept.json
"""

import json
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from open_kmsv2 import OVERHEAD, Refused, field, require, xaes_key

DOMAIN = b"lastkey/kmsv2/kept/v1\0"
MAX_LEN = 65_536


class Reader:
    """Takes fields off the front."""

    def __init__(self, data):
        self.data = data

    def take(self, size):
        require(size <= len(self.data), "cut off")
        head, self.data = self.data[:size], self.data[size:]
        return head

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def sized(self):
        return self.take(self.number(2))


def content_of(data):
    reader = Reader(data)
    content = {"heard_at": reader.number(8), "key": reader.take(16).hex()}
    content |= {"version": reader.number(4), "activation": reader.number(4)}
    try:
        content["key_id"] = reader.sized().decode()
    except UnicodeDecodeError as error:
        raise Refused("key id") from error
    content |= {"by_service": reader.sized().hex(), "for_recovery": reader.sized().hex()}
    content["locals"] = [
        [reader.take(32).hex(), reader.take(32).hex()] for _ in range(reader.number(2))
    ]
    require(not reader.data, "bytes after the end")
    return content


def open_kept(data, file_key, key, cluster):
    require(len(data) <= MAX_LEN and data[:4] == b"LKL\x01", "magic or length")
    reader = Reader(data[4:])
    reader.sized()
    wrapped = reader.data
    require(len(wrapped) >= OVERHEAD, "no content")
    header = data[: len(data) - len(wrapped)]
    aad = DOMAIN + field(header) + field(key.encode()) + field(cluster.encode())
    nonce = wrapped[:24]
    try:
        content = AESGCM(xaes_key(file_key, nonce)).decrypt(nonce[12:], wrapped[24:], aad)
    except InvalidTag as error:
        raise Refused("tag") from error
    return content_of(content)


def main(path):
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)["vectors"]
    for vector in vectors:
        data, file_key = bytes.fromhex(vector["file"]), bytes.fromhex(vector["file_key"])
        try:
            content = open_kept(data, file_key, vector["key"], vector["cluster"])
        except Refused:
            content = None
        if content != vector["content"]:
            sys.exit(f"{vector['name']}: {content} and not {vector['content']}")
    print(f"{len(vectors)} vectors agree")


if __name__ == "__main__":
    main(sys.argv[1])
