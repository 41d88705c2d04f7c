#!/usr/bin/env python3
"""Second implementation of the key hierarchy, from docs/formats/hierarchy.md and record.md alone.

Opens the seal of a passphrase, the root key and the keyring, and every record of a database. Needs
only the PyPI package `cryptography`.

    python3 open_root.py DATA/records.db < PASSPHRASE
"""

import hashlib
import hmac
import sqlite3
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from open_session import Refused, cbor, require, xaes_open

KEM, SUITE = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x03"
PASSPHRASE = 1


def u32(number):
    return number.to_bytes(4, "big")


def u64(number):
    return number.to_bytes(8, "big")


def extract(salt, secret):
    return hmac.new(salt, secret, hashlib.sha256).digest()


def expand(prk, info, length):
    require(length <= 32, "one block is enough here")
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()[:length]


def derive(secret, label):
    return expand(extract(b"", secret), label, 32)


def labeled_extract(suite, salt, label, secret):
    return extract(salt, b"HPKE-v1" + suite + label + secret)


def labeled_expand(suite, prk, label, info, length):
    return expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def hpke_open(private, psk, psk_id, info, sealed):
    """RFC 9180, mode_psk, single-shot."""
    share, ciphertext = sealed[:32], sealed[32:]
    public = private.public_key().public_bytes_raw()
    agreed = private.exchange(X25519PublicKey.from_public_bytes(share))
    prk = labeled_extract(KEM, b"", b"eae_prk", agreed)
    shared = labeled_expand(KEM, prk, b"shared_secret", share + public, 32)
    context = b"\x01" + labeled_extract(SUITE, b"", b"psk_id_hash", psk_id)
    context += labeled_extract(SUITE, b"", b"info_hash", info)
    secret = labeled_extract(SUITE, shared, b"secret", psk)
    key = labeled_expand(SUITE, secret, b"key", context, 32)
    nonce = labeled_expand(SUITE, secret, b"base_nonce", context, 12)
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, b"")
    except InvalidTag:
        raise Refused("the root key does not open") from None


def kind_of(seal):
    """What opens a seal of a passphrase, as it is authenticated."""
    require(seal[1] == PASSPHRASE, "this reader opens seals of passphrases alone")
    memory, passes, lanes, salt = seal[6]
    return bytes([PASSPHRASE]) + u32(memory) + u32(passes) + u32(lanes) + salt


def open_seal(instance, seal, passphrase):
    """The root key, and what the seal shares with the server."""
    identity, public, wrapped_seed, sealed_root = seal[0], seal[2], seal[3], seal[4]
    memory, passes, lanes, salt = seal[6]
    stretch = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    aad = b"lastkey/seal-seed/v1" + instance + identity + kind_of(seal) + public
    seed = xaes_open(stretch.derive(passphrase), aad, wrapped_seed)
    private = X25519PrivateKey.from_private_bytes(derive(seed, b"lastkey/seal-private/v1"))
    require(private.public_key().public_bytes_raw() == public, "another public half")
    shared = derive(seed, b"lastkey/seal-shared/v1")
    info = b"lastkey/for-seal/v2" + instance + identity + b"root"
    return hpke_open(private, shared, identity, info, sealed_root), shared


def authenticated(fields):
    instance, created_at, keyring, records_from, seals = fields[:5]
    data = instance + u64(created_at) + u32(records_from) + u32(len(keyring))
    for epoch, _, began in keyring:
        data += u32(epoch) + u64(began)
    data += u32(len(seals))
    for seal in seals:
        data += seal[0] + kind_of(seal) + u64(seal[5]) + seal[2] + u32(len(seal[3])) + seal[3]
    return data


def open_keyring(fields, passphrase):
    """The secrets of the epochs."""
    instance, keyring, seals, mac = fields[0], fields[2], fields[4], fields[5]
    root, shared = open_seal(instance, seals[0], passphrase)
    authority = derive(root, b"lastkey/seals/v1")
    hashed = hashlib.sha256(authenticated(fields)).digest()
    require(derive(authority, b"lastkey/seals-mac/v2" + hashed) == mac, "another MAC")
    place = b"lastkey/sharing/v1" + instance + seals[0][0]
    wrapped = xaes_open(derive(root, b"lastkey/sharing/v1"), place, seals[0][9])
    require(wrapped == shared, "another shared key")
    key, secrets = derive(root, b"lastkey/keyring/v1"), {}
    for epoch, wrapped, _ in keyring:
        secrets[epoch] = xaes_open(key, b"lastkey/keyring/v1" + instance + u32(epoch), wrapped)
    return secrets


def open_record(instance, secrets, path, revision, value):
    require(value[0] == 1, "another format")
    epoch = int.from_bytes(value[1:5], "big")
    path = path.encode()
    aad = b"lastkey/record/v1" + instance + u32(len(path)) + path + u64(revision) + u32(epoch)
    return xaes_open(derive(secrets[epoch], b"lastkey/record-key/v1"), aad, value[5:])


def main(database, passphrase):
    rows = sqlite3.connect(f"file:{database}?mode=ro", uri=True).execute(
        "SELECT path, revision, value FROM records"
    )
    values = {path: (revision, value) for path, revision, value in rows}
    _, bootstrap = values["!bootstrap"]
    require(bootstrap[0] == 3, "another version")
    fields, end = cbor(bootstrap, 1)
    require(end == len(bootstrap), "bytes after the end")
    secrets, opened = open_keyring(fields, passphrase), 0
    for path, (revision, value) in values.items():
        if not path.startswith("!"):
            record = open_record(fields[0], secrets, path, revision, value)
            require(record[0] == 1, "another version of a record")
            opened += 1
    print(f"{opened} records opened under {len(secrets)} epochs")


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer.read())
