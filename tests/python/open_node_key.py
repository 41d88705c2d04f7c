#!/usr/bin/env python3
"""Second reader of the sealed key of a node, from docs/formats/node-key.md alone.

Opens each file of the vectors by the key that a TPM would have given back, compares the private
key in it, and refuses what must be refused. Needs only the PyPI package `cryptography`.

    python3 open_node_key.py crates/lastkey-node/tests/vectors/node-key.json
"""

import base64
import binascii
import json
import re
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from open_kept import Reader
from open_kmsv2 import OVERHEAD, Refused, field, require, xaes_key

DOMAIN = b"lastkey/node-key/v1\0"
BLOCK = re.compile("-----BEGIN LASTKEY SEALED KEY-----(.*?)-----END LASTKEY SEALED KEY-----", re.S)


def block_in(text):
    blocks = BLOCK.findall(text)
    require(len(blocks) == 1, "not one block")
    try:
        return base64.b64decode("".join(blocks[0].split()), validate=True)
    except binascii.Error as error:
        raise Refused("base64") from error


def open_node_key(text, file_key):
    """The way to the TPM, and the private key."""
    data = block_in(text)
    require(data[:4] == b"LKN\x01", "magic")
    reader = Reader(data[4:])
    try:
        tpm = reader.sized().decode()
    except UnicodeDecodeError as error:
        raise Refused("way to the TPM") from error
    reader.sized()
    wrapped = reader.data
    require(len(wrapped) >= OVERHEAD, "no key")
    header = data[: len(data) - len(wrapped)]
    nonce = wrapped[:24]
    try:
        aes = AESGCM(xaes_key(file_key, nonce))
        return tpm, aes.decrypt(nonce[12:], wrapped[24:], DOMAIN + field(header))
    except InvalidTag as error:
        raise Refused("tag") from error


def main(path):
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)["vectors"]
    for vector in vectors:
        try:
            tpm, private = open_node_key(vector["file"], bytes.fromhex(vector["file_key"]))
            found = [tpm, private.hex()]
        except Refused:
            found = None
        if found != vector["content"]:
            sys.exit(f"{vector['name']}: {found} and not {vector['content']}")
    print(f"{len(vectors)} vectors agree")


if __name__ == "__main__":
    main(sys.argv[1])
