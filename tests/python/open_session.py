#!/usr/bin/env python3
"""Second implementation of sealed sessions, from docs/formats/session.md alone.

Opens every credential of the vectors, reads the session inside, checks the chain of caveats, and
refuses the bearers that must not open. Needs only the PyPI package `cryptography`.

    python3 open_session.py crates/lastkey-trust/tests/vectors/session.json
"""

import base64
import hashlib
import hmac
import json
import pathlib
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SUBJECTS = {1: "workload", 2: "federated", 3: "user", 4: "node", 5: "spiffe"}


class Refused(Exception):
    """The bytes are not what they claim to be."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def derive(epoch, secret, what):
    info = what + epoch.to_bytes(4, "big")
    return HKDF(hashes.SHA256(), 32, b"lastkey/session/v1", info).derive(secret)


def xaes_open(key, aad, sealed):
    """C2SP XAES-256-GCM: nonce 24, ciphertext, tag 16."""
    require(len(sealed) >= 40, "too short")
    nonce, rest = sealed[:24], sealed[24:]

    def block(data):
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        return encryptor.update(data) + encryptor.finalize()

    doubled = int.from_bytes(block(bytes(16)), "big") << 1
    k1 = ((doubled ^ 0x87 if doubled >> 128 else doubled) & ((1 << 128) - 1)).to_bytes(16, "big")
    halves = (bytes([0, counter]) + b"X\0" + nonce[:12] for counter in (1, 2))
    derived = b"".join(block(bytes(a ^ b for a, b in zip(half, k1))) for half in halves)
    try:
        return AESGCM(derived).decrypt(nonce[12:], rest, aad)
    except InvalidTag:
        raise Refused("not authentic") from None


def dearmor(prefix, text):
    require(text.startswith(prefix), "prefix")
    digits = text[len(prefix):]
    body = base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
    require(base64.urlsafe_b64encode(body).rstrip(b"=").decode() == digits, "base64url")
    body, checksum = body[:-4], body[-4:]
    require(hashlib.sha256(prefix.encode() + body).digest()[:4] == checksum, "checksum")
    return body


def session_id(access_key_id):
    require(access_key_id.startswith("LKTA") and len(access_key_id) == 36, "access key id")
    whole = base64.b32decode(access_key_id[4:])
    require(hashlib.sha256(b"LKTA" + whole[:16]).digest()[:4] == whole[16:], "checksum")
    return whole[:16]


def cbor(data, at=0):
    """One value of the subset that sessions use, and where it ends."""
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return {20: False, 21: True, 22: None}[info], at
    if info < 24:
        count = info
    else:
        width = {24: 1, 25: 2, 26: 4, 27: 8}[info]
        count, at = int.from_bytes(data[at:at + width], "big"), at + width
    if major == 0:
        return count, at
    if major in (2, 3):
        raw = data[at:at + count]
        return (raw if major == 2 else raw.decode()), at + count
    items = []
    for _ in range(count * (2 if major == 5 else 1)):
        item, at = cbor(data, at)
        items.append(item)
    return (items if major == 4 else dict(zip(items[::2], items[1::2]))), at


def read_session(encoded):
    fields, end = cbor(encoded)
    require(end == len(encoded) and isinstance(fields, dict), "not one map")
    require(set(fields) <= set(range(11)), "unknown field")
    return fields


def principal(fields):
    kind, (facts,) = fields[1]
    kind = SUBJECTS[kind]
    if kind == "workload":
        return f"k8s:{facts[0]}/{facts[1]}/{facts[2][0]}"
    if kind == "federated":
        return f"oidc:{facts[0]}/{facts[1]}"
    if kind == "user":
        return f"user:{facts[0]}"
    return f"node:{facts}" if kind == "node" else facts


def open_bearer(epoch, secret, text):
    """The encoded session and the caveats."""
    body = dearmor("lkb1_", text)
    require(len(body) > 39 and int.from_bytes(body[:4], "big") == epoch, "epoch")
    end = 6 + int.from_bytes(body[4:6], "big")
    head, sealed, at = body[:end], body[6:end], end + 1
    require(len(body) > end, "too short")
    tail, caveats = mac(derive(epoch, secret, b"caveats"), head), []
    for _ in range(body[end]):
        length = int.from_bytes(body[at:at + 2], "big")
        caveat = body[at + 2:at + 2 + length]
        at += 2 + length
        tail = mac(tail, caveat)
        caveats.append(cbor(caveat)[0])
    require(hmac.compare_digest(tail, body[at:]), "tail")
    return xaes_open(derive(epoch, secret, b"bearer"), b"lkb1_" + head[:4], sealed), caveats


def check_good(epoch, secret, vector):
    expected = bytes.fromhex(vector["session"])
    name = vector["access_key_id"]
    text = base64.urlsafe_b64encode(mac(derive(epoch, secret, b"secret"), name.encode())).decode()
    require(text[:40] == vector["secret"], "secret")
    key = derive(epoch, secret, b"session-token")
    sealed = dearmor("lks1.", vector["session_token"])
    require(xaes_open(key, b"lks1." + name.encode(), sealed) == expected, "session token")
    require(open_bearer(epoch, secret, vector["bearer"]) == (expected, []), "bearer")
    caveats = [[1, [["encrypt", "decrypt"]]], [2, [["key-1"]]], [3, [1_800_000_060]]]
    require(open_bearer(epoch, secret, vector["narrowed"]) == (expected, caveats), "narrowed")
    fields = read_session(expected)
    require(fields[0] == session_id(name) and fields[0][:4] == epoch.to_bytes(4, "big"), "id")
    require(principal(fields) == vector["principal"], "principal")
    return 4


def main():
    vectors = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    epoch, secret = vectors["epoch"], bytes.fromhex(vectors["epoch_secret"])
    checked = sum(check_good(epoch, secret, vector) for vector in vectors["good"])
    for name, text in vectors["bad_bearers"].items():
        try:
            open_bearer(epoch, secret, text)
        except Refused:
            checked += 1
        else:
            raise SystemExit(f"{name} opened")
    print(f"{checked} credentials agree")


if __name__ == "__main__":
    main()
