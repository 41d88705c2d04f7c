#!/usr/bin/env python3
"""Second implementation of the ciphertext blob, from docs/formats alone.

Checks every vector below a directory: blobs that must open, blobs that must not, and context
encodings. Needs only the PyPI package `cryptography`.

    python3 open_blob.py crates/lastkey-crypto/tests/vectors/ours
"""

import hashlib
import hmac
import json
import pathlib
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

SUITES = {1: ("AES_256", 32), 2: ("AES_128", 16), 3: ("SM4", 16)}
MAX_CONTEXT = 8192
MAX_PLAINTEXT = 65536


class Refused(Exception):
    """The bytes are not what they claim to be."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


def u32(number):
    return number.to_bytes(4, "big")


def encode_context(context):
    """None, {"pairs": {name: value}} or {"raw": hex} to the canonical bytes."""
    if context and context.get("pairs"):
        pairs = sorted((k.encode(), v.encode()) for k, v in context["pairs"].items())
        body = b"".join(u32(len(k)) + k + u32(len(v)) + v for k, v in pairs)
        encoded = b"\x01" + u32(len(pairs)) + body
    elif context and context.get("raw"):
        raw = bytes.fromhex(context["raw"])
        encoded = b"\x02" + u32(len(raw)) + raw
    else:
        encoded = b"\x00"
    require(len(encoded) <= MAX_CONTEXT, "context too long")
    return encoded


def check_context(encoded):
    """Refuses every encoding that encode_context would not give."""
    require(1 <= len(encoded) <= MAX_CONTEXT, "context length")
    at = 1

    def take():
        nonlocal at
        require(at + 4 <= len(encoded), "length cut off")
        size = int.from_bytes(encoded[at : at + 4], "big")
        require(at + 4 + size <= len(encoded), "field cut off")
        field = encoded[at + 4 : at + 4 + size]
        at += 4 + size
        return field

    if encoded[0] == 1:
        require(len(encoded) >= 5, "count cut off")
        count = int.from_bytes(encoded[1:5], "big")
        at = 5
        require(count > 0, "empty map is type 0")
        names = []
        for _ in range(count):
            names.append(take())
            try:
                names[-1].decode(), take().decode()
            except UnicodeDecodeError as error:
                raise Refused("not UTF-8") from error
        require(all(a < b for a, b in zip(names, names[1:])), "not sorted, or twice")
    elif encoded[0] == 2:
        require(len(take()) > 0, "no bytes are type 0")
    else:
        require(encoded[0] == 0, "unknown type")
    require(at == len(encoded), "trailing bytes")


def extract(salt, secret):
    """HKDF-Extract, RFC 5869."""
    return hmac.new(salt, secret, hashlib.sha256).digest()


def expand(prk, info, length):
    """HKDF-Expand, RFC 5869."""
    return HKDFExpand(hashes.SHA256(), length, info).derive(prk)


def message_keys(spec, material, prefix, context_hash):
    prk = extract(b"lastkey/blob/v1/" + spec.encode(), material)
    okm = expand(prk, prefix + context_hash, 76)
    return okm[:32], okm[32:64], okm[64:]


def open_aead(suite, key, nonce, ciphertext, tag, aad):
    spec, size = SUITES[suite]
    try:
        if spec == "SM4":
            mode = modes.GCM(nonce, tag)
            opener = Cipher(algorithms.SM4(key[:size]), mode).decryptor()
            opener.authenticate_additional_data(aad)
            return opener.update(ciphertext) + opener.finalize()
        return AESGCM(key[:size]).decrypt(nonce, ciphertext + tag, aad)
    except InvalidTag as error:
        raise Refused("tag") from error


def open_blob(blob, spec, material, encoded_context):
    require(104 <= len(blob) <= 104 + MAX_PLAINTEXT, "length")
    require(blob[:3] == b"LK\x01", "magic or format")
    require(blob[3] in SUITES, "unknown suite")
    require(SUITES[blob[3]] == (spec, len(material)), "suite of another spec")
    context_hash = hashlib.sha256(encoded_context).digest()
    key, commitment, nonce = message_keys(spec, material, blob[:56], context_hash)
    require(hmac.compare_digest(commitment, blob[56:88]), "commitment")
    return open_aead(blob[3], key, nonce, blob[88:-16], blob[-16:], blob[:88] + context_hash)


def check_blob_vector(vector):
    encoded = encode_context(vector["context"])
    require(encoded.hex() == vector.get("context_encoded", encoded.hex()), "context encoding")
    material, blob = bytes.fromhex(vector["material"]), bytes.fromhex(vector["blob"])
    plaintext = open_blob(blob, vector["spec"], material, encoded)
    require(plaintext.hex() == vector.get("plaintext"), "plaintext")
    require(blob[4:20].hex() == vector["key_id"], "key id")
    require(int.from_bytes(blob[20:24], "big") == vector["version"], "version")


def must_refuse(check, vector, name):
    try:
        check(vector)
    except Refused:
        return
    raise SystemExit(f"{name}: opened, but must not")


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def main(directory):
    root, count = pathlib.Path(directory), 0
    for vector in load(root / "context.json")["good"]:
        encoded = encode_context(vector["context"])
        check_context(encoded)
        require(encoded.hex() == vector["encoded"], vector["name"])
        require(hashlib.sha256(encoded).hexdigest() == vector["sha256"], vector["name"])
        count += 1
    for vector in load(root / "context.json")["bad"]:
        must_refuse(lambda v: check_context(bytes.fromhex(v["encoded"])), vector, vector["name"])
        count += 1
    for vector in load(root / "blob.json"):
        check_blob_vector(vector)
        count += 1
    for path in sorted((root / "blob_refused").glob("*.json")):
        must_refuse(check_blob_vector, load(path), path.name)
        count += 1
    print(f"open_blob: {count} vectors agree")


if __name__ == "__main__":
    main(sys.argv[1])
