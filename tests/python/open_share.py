#!/usr/bin/env python3
"""Second implementation of shares, from docs/formats/share.md alone. Needs nothing but Python.

Reads the shares of the vectors, combines every set of them that is large enough, and checks each
share against its check value.

    python3 open_share.py crates/lastkey-crypto/tests/vectors/share.json
"""

import hashlib
import hmac
import itertools
import json
import pathlib
import sys

LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
PART = "lastkey-share-"


def polymod(values):
    checksum = 1
    for value in values:
        top, checksum = checksum >> 25, (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum


def parse(text):
    part, data = text.rsplit("1", 1)
    assert part == PART, "another kind of text"
    values = [LETTERS.index(letter) for letter in data]
    high = [ord(letter) >> 5 for letter in part] + [0] + [ord(letter) & 31 for letter in part]
    assert polymod(high + values) == 1, "mistyped"
    number = 0
    for value in values[:-6]:
        number = number << 5 | value
    bits = 5 * len(values[:-6])
    share = (number >> bits % 8).to_bytes(bits // 8, "big")
    assert len(share) == 68 and share[0] == 1, "not a share of version 1"
    return {"place": share[1:33], "threshold": share[33], "count": share[34], "index": share[35],
            "value": share[36:]}


def multiply(a, b):
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def invert(a):
    return next(b for b in range(1, 256) if multiply(a, b) == 1)


def combine(shares):
    secret = [0] * 32
    for share in shares:
        weight = 1
        for other in shares:
            if other is not share:
                step = multiply(other["index"], invert(other["index"] ^ share["index"]))
                weight = multiply(weight, step)
        secret = [s ^ multiply(weight, v) for s, v in zip(secret, share["value"])]
    return bytes(secret)


def derive(secret, label):
    prk = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(prk, label + b"\x01", hashlib.sha256).digest()


def main(path):
    vectors = json.loads(pathlib.Path(path).read_text())
    secret = bytes.fromhex(vectors["secret"])
    shares = [parse(text) for text in vectors["shares"]]
    for share, check_value in zip(shares, vectors["check_values"], strict=True):
        proof = derive(share["value"], b"lastkey/share-proof/v1")
        assert hashlib.sha256(proof).hexdigest() == check_value, "check value"
    sets = 0
    threshold = shares[0]["threshold"]
    for size in range(threshold, len(shares) + 1):
        for some in itertools.permutations(shares, size):
            assert combine(some) == secret, "combination"
            sets += 1
    for some in itertools.combinations(shares, threshold - 1):
        assert combine(some) != secret, "too few"
    assert derive(secret, b"lastkey/shares/v1").hex() == vectors["seal_key"], "seal key"
    print(f"{sets} sets of shares agree")


if __name__ == "__main__":
    main(sys.argv[1])
