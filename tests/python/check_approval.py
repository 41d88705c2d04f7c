#!/usr/bin/env python3
"""A second reader of approvals, written from docs/formats/device-seals.md.

    check_approval.py APPROVAL      checks the signature, after making the policy digest itself
"""

import hashlib
import json
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

# Command codes, algorithms and attributes of the TPM 2.0 Library, parts 2 and 3.
POLICY_NV, POLICY_PCR = 0x149, 0x17F
SHA256, P256 = 0x0B, ec.SECP256R1()
COUNTER_WRITTEN = 0x02060012 | 0x20000000
UNSIGNED_LE = 0x09


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def policy(approval):
    bits = sum(1 << number for number in approval["pcrs"])
    selection = struct.pack(">IHB", 1, SHA256, 3) + bits.to_bytes(3, "little")
    pcr = sha256(bytes(32), struct.pack(">I", POLICY_PCR), selection, bytes.fromhex(approval["pcr_digest"]))
    index = approval["anchor"]["counter_index"]
    counter = struct.pack(">IHIHH", index, SHA256, COUNTER_WRITTEN, 0, 8)
    name = struct.pack(">H", SHA256) + sha256(counter)
    arguments = sha256(struct.pack(">QHH", approval["version"], 0, UNSIGNED_LE))
    return sha256(pcr, struct.pack(">I", POLICY_NV), arguments, name)


def reference(anchor):
    parts = bytes.fromhex(anchor["parent"]), struct.pack(">I", anchor["counter_index"]), bytes.fromhex(anchor["salt"])
    return sha256(b"lastkey/tpm2-seal/v1", *parts)


def main(path):
    with open(path, encoding="utf-8") as file:
        approval = json.load(file)
    assert approval["format"] == "lastkey-tpm2-approval/1"
    key = ec.EllipticCurvePublicKey.from_encoded_point(P256, b"\x04" + bytes.fromhex(approval["key"]))
    raw = bytes.fromhex(approval["signature"])
    signature = utils.encode_dss_signature(*(int.from_bytes(half, "big") for half in (raw[:32], raw[32:])))
    try:
        key.verify(signature, policy(approval) + reference(approval["anchor"]), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        sys.exit("the signature does not hold")
    print("the signature holds")


if __name__ == "__main__":
    main(sys.argv[1])
