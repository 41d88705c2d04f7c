#!/usr/bin/env python3
"""Reads scan packs and makes the proofs of matches: a second implementation of docs/formats/scan-pack.md.

    python3 scan_pack.py make FILE          writes the vector; doing it again changes nothing
    python3 scan_pack.py find PACK TEXT     prints the labels of the values that a text holds
"""

import base64
import hashlib
import hmac
import json
import pathlib
import re
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAGIC = b"LKSPACK\x02"
RAW, DECODED = 0, 1


def tag(key, stretch, width):
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(stretch)
    return int.from_bytes(block[:8], "big") >> (64 - width)


def write(pack_id, made, expires, width, keys, values, stretches, seed):
    """`stretches` are (kind, 16 bytes, label)."""
    tags = sorted({(tag(keys[16 * kind :][:16], stretch, width), label) for kind, stretch, label in stretches})
    pack = MAGIC + pack_id + made.to_bytes(8, "big") + expires.to_bytes(8, "big")
    pack += width.to_bytes(2, "big") + bytes(2) + len(tags).to_bytes(4, "big") + keys
    pack += b"".join(tag.to_bytes(8, "big") + label.to_bytes(4, "big") for tag, label in tags)
    pack += len(values).to_bytes(4, "big")
    pack += b"".join(secret + version.to_bytes(4, "big") for secret, version in values)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    pack += key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return pack + key.sign(pack)


def read(pack):
    assert pack[:8] == MAGIC
    Ed25519PublicKey.from_public_bytes(pack[-96:-64]).verify(pack[-64:], pack[:-64])
    number = lambda at, size: int.from_bytes(pack[at : at + size], "big")
    width, count = number(40, 2), number(44, 4)
    at = 80 + 12 * count
    entries = {}
    for place in range(80, at, 12):
        entries.setdefault(number(place, 8), []).append(number(place + 8, 4))
    values = number(at, 4)
    assert len(pack) == at + 4 + 20 * values + 96
    return width, pack[48:80], entries


def found(pack, text):
    width, keys, entries = read(pack)
    stretches = {(RAW, text[at : at + 16]) for at in range(len(text) - 15)}
    stretches = {one for one in stretches if min(one[1]) > 0x20}
    texts = [text]
    for run in re.findall(rb"[A-Za-z0-9+/_-]{22,}", text):
        for skipped in range(4):
            letters = run[skipped:].translate(bytes.maketrans(b"-_", b"+/"))
            letters = letters[: len(letters) - (len(letters) % 4 == 1)]
            decoded = base64.b64decode(letters + b"=" * (-len(letters) % 4))
            stretches |= {(DECODED, decoded[at : at + 16]) for at in range(len(decoded) - 15)}
            texts.append(decoded)
    for part in texts:
        for at in range(len(part) - 31):
            if re.fullmatch(rb"[0-9A-Fa-f]{32}", part[at : at + 32]):
                stretches.add((DECODED, bytes.fromhex(part[at : at + 32].decode())))
    labels = [entries.get(tag(keys[16 * kind :][:16], stretch, width), []) for kind, stretch in stretches]
    return sorted({label for some in labels for label in some})


def prove(key, secret, version, kind, stretch):
    message = b"lastkey scan confirmation v1" + secret + version.to_bytes(4, "big") + bytes([kind]) + stretch
    return hmac.new(key, message, hashlib.sha256).digest()


def make():
    fixed = lambda label, size: hashlib.shake_128(f"scan pack/{label}".encode()).digest(size)
    letters = lambda label: base64.b64encode(fixed(label, 15))[:20].replace(b"/", b"x").replace(b"+", b"y")
    values = [letters("first"), letters("second"), fixed("third", 16)]
    ids = [(fixed(f"secret {number}", 16), number + 1) for number in range(len(values))]
    stretches = [(RAW, values[0][:16], 0), (DECODED, values[0][:16], 0), (RAW, values[1][2:18], 1)]
    stretches.append((DECODED, values[2], 2))
    pack = write(fixed("id", 16), 1_800_000_000, 1_900_000_000, 48, fixed("keys", 32), ids, stretches, fixed("seed", 32))
    texts = [
        (b'a = "' + values[0] + b'"', [0]),
        (b"a: " + base64.b64encode(b"xy" + values[0] + b"z"), [0]),
        (b"a: " + values[0].hex().upper().encode(), [0]),
        (b"k" + base64.urlsafe_b64encode(values[2] + values[2]), [2]),
        (values[1] + b" " + base64.b64encode(values[2].hex().encode()), [1, 2]),
        (values[1][:17] + b" " + values[0][1:16], []),
    ]
    assert all(found(pack, text) == labels for text, labels in texts)
    key, stretch = fixed("proof key", 32), values[0][:16]
    return {
        "now": 1_850_000_000,
        "pack": pack.hex(),
        "signer": pack[-96:-64].hex(),
        "texts": [{"text": text.hex(), "labels": labels} for text, labels in texts],
        "proof_key": key.hex(),
        "value": values[0].hex(),
        "identity": ids[0][0].hex(),
        "version": ids[0][1],
        "proofs": [prove(key, *ids[0], kind, stretch).hex() for kind in (RAW, DECODED)],
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", path]:
            pathlib.Path(path).write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
        case ["find", pack, text]:
            print(*found(pathlib.Path(pack).read_bytes(), pathlib.Path(text).read_bytes()))
        case _:
            sys.exit(__doc__)
