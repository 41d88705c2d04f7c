#!/usr/bin/env python3
"""Second implementation of backups, from docs/formats alone.

Opens a backup by its key, checks every part of it against the others and the signature against the
public key of the audit log, and prints what is in it as JSON.
Needs only the PyPI package `cryptography`.

    python3 open_backup.py FILE KEY-IN-HEX PUBLIC-KEY
"""

import base64
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from open_blob import expand, extract, require
from open_envelope import open_envelope

MAGIC = b"LKBAK\r\n\x1a"
FOLDERS = ("approvals/", "audit/", "tls/")


def cbor(data, at=0):
    """The definite-length CBOR of the formats: (value, offset after it)."""
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        require(low == 22, "only null")
        return None, at
    if low >= 24:
        size = 1 << (low - 24)
        require(low <= 27, "indefinite length")
        low, at = int.from_bytes(data[at : at + size], "big"), at + size
    if major == 0:
        return low, at
    if major in (2, 3):
        value = data[at : at + low]
        require(len(value) == low, "cut off")
        return (value.decode() if major == 3 else value), at + low
    require(major == 4, "another kind of CBOR")
    items = []
    for _ in range(low):
        item, at = cbor(data, at)
        items.append(item)
    return items, at


def whole(data):
    value, end = cbor(data)
    require(end == len(data), "something after the CBOR")
    return value


def parse_head(data):
    require(data[:8] == MAGIC and data[8:12] == b"\1\0\0\0", "magic or format")
    length = int.from_bytes(data[12:16], "big")
    require(length <= 4 << 20, "length of the head")
    head = data[: 16 + length]
    backup, begun_at, begun, commit, bootstrap, wrapped = whole(head[16:])
    require(len(backup) == 16 and all(len(seal) == 16 for seal, _ in wrapped), "ids")
    return head, backup, commit, bootstrap


def check_note(data, head, backup, instance, public_key):
    """Bytes that are signed."""
    length = int.from_bytes(data[-4:], "big")
    require(length <= 4096, "length of the note")
    note, signed = data[-4 - length : -4].decode(), data[: -4 - length]
    text, lines = note[: note.rindex("\n\n") + 1], note[note.rindex("\n\n") + 2 :]
    digest = base64.b64encode(hashlib.sha256(signed).digest()).decode()
    lines_of = ["lastkey-backup/v1", instance, backup.hex(), str(len(signed)), digest]
    require(text == "".join(line + "\n" for line in lines_of), "text of the note")
    name, number, key = public_key.strip().split("+", 2)
    key = base64.b64decode(key)
    require(key[0] == 1, "kind of the key")
    mark, signer, signature = lines.rstrip("\n").split(" ")
    signature = base64.b64decode(signature)
    require(mark == "\u2014" and signer == name and signature[:4].hex() == number, "signer")
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text.encode())
    return signed[len(head) :]


def items(stream):
    at = 0

    def take(size):
        nonlocal at
        part = stream[at : at + size]
        require(len(part) == size, "an item is cut off")
        at += size
        return part

    def number(size):
        return int.from_bytes(take(size), "big")

    while at < len(stream):
        start, kind = at, number(1)
        if kind == 1:
            path = take(number(2)).decode()
            revision = number(8)
            item = (path, revision, take(number(4)))
        elif kind == 2:
            name = take(number(2)).decode()
            item = (name, take(number(4)))
        else:
            require(kind == 3, "kind of an item")
            item = whole(take(number(4)))
        yield kind, item, stream[start:at]


def uuid(data):
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def main(path, key, public_key):
    data = pathlib.Path(path).read_bytes()
    head, backup, commit, bootstrap = parse_head(data)
    require(bootstrap[0] in (1, 2, 3), "version of the bootstrap record")
    instance = uuid(whole(bootstrap[1:])[0])
    envelope = check_note(data, head, backup, instance, public_key)
    label = b"lastkey/backup/v1" + hashlib.sha256(head).digest()
    data_key = expand(extract(b"", bytes.fromhex(key)), label, 32)

    def unwrap(context, recipients):
        require(context == b"\0" and recipients == [(4, backup)], "recipient")
        return data_key

    stream, _, _ = open_envelope(envelope, unwrap)
    records, files = hashlib.sha256(), hashlib.sha256()
    paths, names, manifest = [], [], None
    for kind, item, raw in items(stream):
        require(manifest is None, "something after the manifest")
        if kind == 1:
            require(not names and (not paths or paths[-1] < item[0]), "order of the records")
            require(item[0] != "!bootstrap" or item[2] == bootstrap, "another bootstrap record")
            paths.append(item[0])
            records.update(raw)
        elif kind == 2:
            require(item[0].startswith(FOLDERS) and ".." not in item[0], "name of a file")
            names.append(item[0])
            files.update(raw)
        else:
            manifest = item
    require(manifest is not None and "!bootstrap" in paths, "it ends too early")
    tombstones = sum(path.startswith("tombstone/") for path in paths)
    expected = [len(paths), records.digest(), len(names), files.digest(), tombstones]
    require(manifest[:5] == expected, "manifest")
    audit = manifest[5] if len(manifest) > 5 else None
    print(json.dumps({
        "instance": instance,
        "commit": commit,
        "paths": paths,
        "files": sorted(names),
        "audit_records": audit[0] if audit else None,
    }))


if __name__ == "__main__":
    main(*sys.argv[1:])
