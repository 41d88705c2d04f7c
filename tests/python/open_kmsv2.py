#!/usr/bin/env python3
"""Second reader of the ciphertexts of the KMS v2 plugin, from docs/formats/kmsv2.md alone.

Recovers each seed of a file of vectors by the private half of the recovery key, without a server,
and refuses what must be refused. Needs only the PyPI package `cryptography`.

    python3 open_kmsv2.py crates/lastkey-node/tests/vectors/kmsv2.json
"""

import json
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAX_LEN = 1024
OVERHEAD = 24 + 16


class Refused(Exception):
    """The bytes are not what they claim to be."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


def split(data):
    """Header, local key for the service, local key for the recovery key, sealed seed."""
    require(len(data) <= MAX_LEN and data[:4] == b"LKS\x01", "magic or length")
    at, fields = 4, []
    for _ in range(2):
        require(at + 2 <= len(data), "length cut off")
        size = int.from_bytes(data[at : at + 2], "big")
        require(at + 2 + size <= len(data), "field cut off")
        fields.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    require(fields[0][:3] == b"LK\x01" and len(fields[0]) >= 104, "no ciphertext blob")
    require(len(data) - at > OVERHEAD, "no seed")
    return data[:at], fields[0], fields[1], data[at:]


def xaes_key(key, nonce):
    """The key of one message: two CMAC blocks under the long key (C2SP, XAES-256-GCM)."""
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    zero = int.from_bytes(ecb.update(bytes(16)), "big")
    k1 = ((zero << 1) & (2**128 - 1)) ^ (0x87 if zero >> 127 else 0)
    blocks = [bytes([0, counter, ord("X"), 0]) + nonce[:12] for counter in (1, 2)]
    return b"".join(
        ecb.update((int.from_bytes(block, "big") ^ k1).to_bytes(16, "big")) for block in blocks
    )


def field(data):
    return len(data).to_bytes(8, "big") + data


def open_seed(data, key_id, annotations, recovery):
    header, _, for_recovery, sealed = split(data)
    require(for_recovery, "no recovery key")
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    try:
        local = recovery.decrypt(for_recovery, oaep)
    except ValueError as error:
        raise Refused("recovery key") from error
    aad = field(header) + field(key_id.encode())
    for name in sorted(annotations):
        aad += field(name.encode()) + field(annotations[name])
    nonce = sealed[:24]
    try:
        return AESGCM(xaes_key(local, nonce)).decrypt(nonce[12:], sealed[24:], aad)
    except InvalidTag as error:
        raise Refused("tag") from error


def main(path):
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)
    der = bytes.fromhex(vectors["recovery_pkcs8"])
    recovery = serialization.load_der_private_key(der, None)
    count = 0
    for vector in vectors["vectors"]:
        annotations = {k: bytes.fromhex(v) for k, v in vector["annotations"].items()}
        data = bytes.fromhex(vector["ciphertext"])
        try:
            seed = open_seed(data, vector["key_id"], annotations, recovery).hex()
        except Refused:
            seed = None
        if seed != vector["seed"]:
            sys.exit(f"{vector['name']}: {seed} and not {vector['seed']}")
        count += 1
    print(f"{count} vectors agree")


if __name__ == "__main__":
    main(sys.argv[1])
