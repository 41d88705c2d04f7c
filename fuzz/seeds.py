#!/usr/bin/env python3
"""Turns the vectors of the formats into seeds: fuzz/seeds/<target>/<name>.

    python3 fuzz/seeds.py
"""

import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent
VECTORS = ROOT.parent / "crates/lastkey-crypto/tests/vectors/ours"
RECORDS = ROOT.parent / "crates/lastkey-store/tests/golden/records-v1.txt"


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def folder(name):
    return [load(path) for path in sorted((VECTORS / name).glob("*.json"))]


def write(target, name, data):
    directory = ROOT / "seeds" / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(bytes.fromhex(data))


for vector in load(VECTORS / "blob.json") + folder("blob_refused"):
    write("blob", vector["name"], vector["blob"])
for kind in ("good", "bad"):
    for vector in load(VECTORS / "context.json")[kind]:
        write("context", f"{kind}_{vector['name']}", vector["encoded"])
for vector in folder("envelope") + folder("envelope_refused"):
    write("envelope", vector["name"], vector["envelope"])
for name, text in {
    "recipient": "age1p5z6n9gplrv72tah09ydesmg5z59nv6p0yqy7fkahhq07dd7732smyg0pd",
    "identity": "# a\nAGE-SECRET-KEY-1V5V6FRYJKY6N4JN8JZL6YHWCTMFKE3HD3DYGSUENT8XJRN39W9NQHTPM0Y\n",
}.items():
    write("age", name, text.encode().hex())
for name, changes in {"good": "", "flip": "000064", "cut": "011014", "swap": "030001"}.items():
    write("segments", name, changes)
for number, line in enumerate(RECORDS.read_text(encoding="utf-8").split(), 1):
    write("record", f"golden_{number}", line)
