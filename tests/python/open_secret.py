#!/usr/bin/env python3
"""Second implementation of stored values of secrets, from docs/formats/secret.md alone.

Checks every vector of a file: values that must open, and values that must not. With `--make` it
writes the vectors; writing is deterministic. Needs only the PyPI package `cryptography`.

    python3 open_secret.py crates/lastkey-service/tests/vectors/secret.json
"""

import json
import pathlib
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from open_blob import Refused, encode_context, open_blob, require, u32

KINDS = {"opaque": 1, "fields": 2}


def xaes_key(key, nonce):
    """The key of C2SP XAES-256-GCM for the first 12 bytes of a nonce."""

    def block(data):
        sealer = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        return sealer.update(data) + sealer.finalize()

    doubled = int.from_bytes(block(bytes(16)), "big") << 1
    k1 = (doubled ^ (0x87 if doubled >> 128 else 0)) & (2**128 - 1)
    halves = [
        block((int.from_bytes(bytes([0, n, 0x58, 0]) + nonce[:12], "big") ^ k1).to_bytes(16, "big"))
        for n in (1, 2)
    ]
    return halves[0] + halves[1]


def context_of(name, version):
    return {"pairs": {"lastkey:secret": name, "lastkey:version": str(version)}}


def aad_of(vector):
    number, kind = u32(vector["version"]), bytes([KINDS[vector["kind"]]])
    return b"lastkey/secret-value/v1" + bytes.fromhex(vector["id"]) + number + kind


def encode_fields(fields):
    parts = sorted((name.encode(), bytes.fromhex(value)) for name, value in fields.items())
    return b"".join(
        len(name).to_bytes(2, "big") + name + u32(len(value)) + value for name, value in parts
    )


def read_fields(data):
    fields, at, names = {}, 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        name = data[at + 2 : at + 2 + size]
        at += 2 + size
        size = int.from_bytes(data[at : at + 4], "big")
        require(at + 4 + size <= len(data), "field cut off")
        names.append(name)
        fields[name.decode()] = data[at + 4 : at + 4 + size].hex()
        at += 4 + size
    require(all(a < b for a, b in zip(names, names[1:])), "not sorted, or twice")
    require(len(names) > 0, "no fields")
    return fields


def check(vector):
    encoded = encode_context(context_of(vector["name"], vector["version"]))
    data_key = open_blob(bytes.fromhex(vector["data_key"]), "AES_256",
                         bytes.fromhex(vector["material"]), encoded)
    require(len(data_key) == 32, "length of the data key")
    sealed = bytes.fromhex(vector["sealed"])
    nonce, rest = sealed[:24], sealed[24:]
    try:
        value = AESGCM(xaes_key(data_key, nonce)).decrypt(nonce[12:], rest, aad_of(vector))
    except InvalidTag as error:
        raise Refused("tag") from error
    if vector["kind"] == "fields":
        require(read_fields(value) == vector["fields"], "fields")
    else:
        require(value.hex() == vector["value"], "value")


def make():
    from make_vectors import fixed, seal_blob

    def vector(label, name, version, kind, content):
        material, data_key = fixed("secret/material", 32), fixed(f"secret/data key/{label}", 32)
        made = {"label": label, "name": name, "version": version, "kind": kind,
                "id": fixed(f"secret/id/{label}", 16).hex(), "material": material.hex()}
        made["fields" if kind == "fields" else "value"] = content
        encoded = encode_context(context_of(name, version))
        made["data_key"] = seal_blob(1, material, fixed("secret/key id", 16), 3, encoded, data_key,
                                     fixed(f"secret/salt/{label}", 32)).hex()
        value = encode_fields(content) if kind == "fields" else bytes.fromhex(content)
        nonce = fixed(f"secret/nonce/{label}", 24)
        sealed = AESGCM(xaes_key(data_key, nonce)).encrypt(nonce[12:], value, aad_of(made))
        made["sealed"] = (nonce + sealed).hex()
        return made

    good = [
        vector("bytes", "prod/shop/db", 1, "opaque", b"hunter2".hex()),
        vector("empty", "a", 2, "opaque", ""),
        vector("long", "prod/tls.key", 2**32 - 1, "opaque", fixed("secret/long", 5000).hex()),
        vector("fields", "prod/api", 7, "fields",
               {"user": b"app".hex(), "password": "00ff", "empty": ""}),
    ]
    base = good[3]
    other_kind = {key: held for key, held in base.items() if key != "fields"}
    bad = [
        {**base, "label": "another_name", "name": "prod/apj"},
        {**base, "label": "another_version", "version": 8},
        {**base, "label": "another_secret", "id": fixed("secret/other", 16).hex()},
        {**other_kind, "label": "another_kind", "kind": "opaque", "value": ""},
        {**base, "label": "value_of_another", "sealed": good[0]["sealed"]},
        {**base, "label": "data_key_of_another", "data_key": good[0]["data_key"]},
    ]
    return {"good": good, "bad": bad}


def main(arguments):
    path = pathlib.Path(arguments[-1])
    if "--make" in arguments:
        path.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
    vectors, count = json.loads(path.read_text(encoding="utf-8")), 0
    for vector in vectors["good"]:
        check(vector)
        count += 1
    for vector in vectors["bad"]:
        try:
            check(vector)
        except Refused:
            count += 1
            continue
        raise SystemExit(f"{vector['label']}: opened, but must not")
    print(f"open_secret: {count} vectors agree")


if __name__ == "__main__":
    main(sys.argv[1:])
