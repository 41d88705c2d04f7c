#!/usr/bin/env python3
"""Second reader of the volumes' headers, from docs/formats/luks2-token.md and the LUKS2
specification alone.

Reads both copies of a header, checks the token, and opens its key slot with the data key of the
vectors. Needs only the PyPI package `cryptography`.

    python3 open_luks2.py IMAGE crates/lastkey-luks/tests/vectors/token.json
"""

import base64
import hashlib
import json
import struct
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

STATES = ["luks", "fs", "ready"]
CONTENTS = ["none", "ext4", "xfs", "block"]
FIELDS = {
    "type", "keyslots", "version", "cluster", "volume", "lineage", "key", "wrapped", "state",
    "content",
}


class Refused(Exception):
    """The bytes are not what they claim to be."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


def copy_at(image, offset, magic):
    image.seek(offset)
    binary = image.read(4096)
    require(binary[:6] == magic and binary[6:8] == b"\0\2", "no LUKS2 header")
    length, sequence = struct.unpack(">QQ", binary[8:24])
    image.seek(offset)
    whole = image.read(length)
    require(whole[72:104].rstrip(b"\0") == b"sha256", "another checksum")
    zeroed = whole[:448] + bytes(64) + whole[512:]
    require(hashlib.sha256(zeroed).digest() == whole[448:480], "the checksum differs")
    require(struct.unpack(">Q", whole[256:264])[0] == offset, "another place")
    return length, sequence, json.loads(whole[4096:].rstrip(b"\0"))


def check_token(token):
    require(set(token) == FIELDS, "fields")
    require(token["type"] == "lastkey" and token["version"] == 1, "type or version")
    for name in ("cluster", "volume", "lineage", "key"):
        require(isinstance(token[name], str) and len(token[name].encode()) <= 256, name)
    wrapped = base64.b64decode(token["wrapped"], validate=True)
    require(len(wrapped) <= 1024, "wrapped")
    require(token["state"] in STATES and token["content"] in CONTENTS, "state or content")
    require(all(isinstance(slot, str) and slot.isdigit() for slot in token["keyslots"]), "keyslots")


def xts_decrypt(key, data):
    out = b""
    for number in range(len(data) // 512):
        tweak = struct.pack("<QQ", number, 0)
        sector = Cipher(algorithms.AES(key), modes.XTS(tweak)).decryptor()
        out += sector.update(data[number * 512 : number * 512 + 512]) + sector.finalize()
    return out


def diffuse(block):
    out = b""
    for number, at in enumerate(range(0, len(block), 32)):
        chunk = block[at : at + 32]
        out += hashlib.sha256(struct.pack(">I", number) + chunk).digest()[: len(chunk)]
    return out


def merge(parts, length):
    key = bytes(length)
    for at in range(0, length * 3999, length):
        key = diffuse(bytes(a ^ b for a, b in zip(key, parts[at : at + length])))
    return bytes(a ^ b for a, b in zip(key, parts[length * 3999 : length * 4000]))


def open_slot(image, slot, secret):
    kdf, area = slot["kdf"], slot["area"]
    require(kdf["type"] == "pbkdf2" and slot["af"]["stripes"] == 4000, "another kind of slot")
    salt = base64.b64decode(kdf["salt"])
    key = hashlib.pbkdf2_hmac(kdf["hash"], secret, salt, kdf["iterations"], area["key_size"])
    image.seek(int(area["offset"]))
    length = slot["key_size"] * 4000
    sectors = image.read((length + 511) // 512 * 512)
    return merge(xts_decrypt(key, sectors), slot["key_size"])


def check_container(image, vectors):
    length, sequence, header = copy_at(image, 0, b"LUKS\xba\xbe")
    _, other_sequence, other = copy_at(image, length, b"SKUL\xba\xbe")
    require((sequence, header) == (other_sequence, other), "the copies differ")
    (token,) = [token for token in header["tokens"].values() if token["type"] == "lastkey"]
    check_token(token)
    expected = vectors["container"]
    slot = header["keyslots"][token["keyslots"][0]]
    volume_key = open_slot(image, slot, bytes.fromhex(expected["data_key"]))
    digest = header["digests"]["0"]
    found = hashlib.pbkdf2_hmac(
        digest["hash"], volume_key, base64.b64decode(digest["salt"]), digest["iterations"], 32
    )
    require(found == base64.b64decode(digest["digest"]), "another volume key")
    require(hashlib.sha256(volume_key).hexdigest() == expected["volume_key_sha256"], "vector")


def main():
    with open(sys.argv[2], encoding="utf-8") as file:
        vectors = json.load(file)
    with open(sys.argv[1], "rb") as image:
        check_container(image, vectors)
    print("container agrees")
    for vector in vectors["good"]:
        check_token(vector["token"])
    for vector in vectors["refused"]:
        try:
            check_token(vector["token"])
        except (Refused, KeyError, TypeError, ValueError):
            continue
        raise SystemExit(f"{vector['name']}: not refused")
    print(f"{len(vectors['good']) + len(vectors['refused'])} tokens agree")


main()
