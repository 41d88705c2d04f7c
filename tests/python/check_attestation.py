#!/usr/bin/env python3
"""A second reader of what a node's TPM signs, written from docs/formats/node-attestation.md.

    check_attestation.py crates/lastkey-trust/tests/vectors/node-attestation.json
"""

import hashlib
import hmac
import json
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

ATTRIBUTES = 0x00050472


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


class Reader:
    def __init__(self, data):
        self.data = data

    def take(self, length):
        assert len(self.data) >= length, "too short"
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def read(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))

    def sized(self):
        return self.take(self.read("H")[0])

    def number(self):
        return int.from_bytes(self.sized(), "big")

    def end(self):
        assert not self.data, "bytes after the end"


def challenge(vector):
    secret, number = bytes.fromhex(vector["epoch_secret"]), struct.pack(">I", vector["epoch"])
    prk = hmac.digest(b"lastkey/session/v1", secret, "sha256")
    key = hmac.digest(prk, b"node-challenge" + number + b"\x01", "sha256")
    time = struct.pack(">Q", vector["at"])
    return number + time + hmac.digest(key, time + vector["node"].encode(), "sha256")


def key_of(public):
    reader = Reader(public)
    assert reader.read("HH") == (0x23, 0x0B)
    (attributes,) = reader.read("I")
    assert attributes == ATTRIBUTES, "attributes"
    assert not reader.sized(), "policy"
    assert reader.read("HHHHH") == (0x10, 0x18, 0x0B, 0x03, 0x10)
    x, y = reader.number(), reader.number()
    reader.end()
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def data_of(attestation):
    reader = Reader(attestation)
    assert reader.read("IH") == (0xFF544347, 0x8018), "no quote"
    reader.sized()
    data = reader.sized()
    reader.take(25)
    assert reader.read("I") == (0,), "registers"
    reader.sized()
    reader.end()
    return data


def check(vector, public, attestation, signature):
    asked, node, request = challenge(vector), vector["node"].encode(), bytes.fromhex(vector["request"])
    assert asked.hex() == vector["challenge"]
    bound = sha256(b"lastkey node attestation v1\0", sha256(asked), sha256(node), sha256(request))
    assert bound.hex() == vector["bound"]
    assert data_of(attestation) == bound, "signed for something else"
    reader = Reader(signature)
    assert reader.read("HH") == (0x18, 0x0B)
    der = utils.encode_dss_signature(reader.number(), reader.number())
    reader.end()
    key_of(public).verify(der, attestation, ec.ECDSA(hashes.SHA256()))
    assert sha256(public).hex() == vector["key"], "another key"


def main(path):
    with open(path, encoding="utf-8") as file:
        vector = json.load(file)
    parts = [bytes.fromhex(vector[name]) for name in ("public", "attestation", "signature")]
    check(vector, *parts)
    refused = 0
    # An attribute, the clock, what was given to sign, and s.
    for part, at in ((0, 7), (1, 80), (1, 50), (2, -1)):
        changed = [bytearray(one) for one in parts]
        changed[part][at] ^= 1
        try:
            check(vector, *map(bytes, changed))
        except (AssertionError, InvalidSignature):
            refused += 1
    print(f"the evidence holds, {refused} changed ones do not")


if __name__ == "__main__":
    main(sys.argv[1])
