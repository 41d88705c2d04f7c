#!/usr/bin/env python3
"""Turns the vectors of the formats into seeds: fuzz/seeds/<target>/<name>.

    python3 fuzz/seeds.py
"""

import hashlib
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent
VECTORS = ROOT.parent / "crates/lastkey-crypto/tests/vectors/ours"
TRUST = ROOT.parent / "crates/lastkey-trust/tests/vectors"
APPROVALS = ROOT.parent / "crates/lastkey-connect/tests/vectors"
POLICIES = ROOT.parent / "docs/policies.md"
AUDIT = ROOT.parent / "crates/lastkey-store/tests/golden/audit-v1"
RECORDS = ROOT.parent / "crates/lastkey-store/tests/golden/records-v1.txt"


CHECKS = ROOT.parent / "crates/lastkey-checks/tests/data"
KEPT = ROOT.parent / "crates/lastkey-node/tests/vectors/kept.json"
NODE_KEY = ROOT.parent / "crates/lastkey-node/tests/vectors/node-key.json"

SCAN_PACK = ROOT.parent / "crates/lastkey-checks/tests/vectors/scan_pack.json"


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def folder(name):
    return [load(path) for path in sorted((VECTORS / name).glob("*.json"))]


def write(target, name, data):
    write_bytes(target, name, bytes.fromhex(data))


def write_bytes(target, name, data):
    directory = ROOT / "seeds" / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)


# Made by `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=worker-1`; the key is gone.
REQUEST = (
    "3081cd307502010030133111300f06035504030c08776f726b65722d313059301306072a8648ce3d02010608"
    "2a8648ce3d0301070342000437490fd203522c3ffa79bd569d3c568d265d0853684beff7930c03a0dc892a0e"
    "7a0181c5b9f833fbd260dbac9f81727f22cff996ce44ad1005dbd2e7f03fea2ba000300a06082a8648ce3d04"
    "0302034800304502201c4c893bdfaf90f46cd6fc92bdc219b83a7585dc2bc0838f0bd1bd575cd1211d022100"
    "8738bee83a144d3bac341526d6b605768e59422ff17727df44d89f15a7cc0061"
)

# RFC 7515, appendix A.3, and RFC 8037, appendix A.2.
TOKEN = (
    "eyJhbGciOiJFUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)
KEYS = """{"keys":[
 {"kty":"EC","crv":"P-256","kid":"1","use":"sig","alg":"ES256",
  "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
 {"kty":"OKP","crv":"Ed25519","key_ops":["verify"],"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"""

SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJotDuUDDI8J67qcCeehNvTu30La/zZsnRCGGJgpSz4Q a comment"


for vector in load(VECTORS / "blob.json") + folder("blob_refused"):
    write("blob", vector["name"], vector["blob"])
for kind in ("good", "bad"):
    for vector in load(VECTORS / "context.json")[kind]:
        write("context", f"{kind}_{vector['name']}", vector["encoded"])
write("secret_fields", "two", "000870617373776f72640000000000047573657200000003617070")
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
SHARES = load(ROOT.parent / "crates/lastkey-crypto/tests/vectors/share.json")["shares"]
write_bytes("share", "enough", "\n".join(SHARES).encode())
write_bytes("share", "ssh", SSH.encode())
LUKS = ROOT.parent / "crates/lastkey-luks/tests/vectors/token.json"
for vector in load(LUKS)["good"] + load(LUKS)["refused"]:
    header = {"keyslots": {}, "tokens": {"0": vector["token"]}, "segments": {}, "digests": {}, "config": {}}
    write_bytes("luks_header", vector["name"], b"\x01" + json.dumps(header).encode())
SESSIONS = load(TRUST / "session.json")
for vector in SESSIONS["good"]:
    write("session", f"encoded_{vector['name']}", vector["session"])
    write_bytes("session", f"bearer_{vector['name']}", vector["bearer"].encode())
    write_bytes("session", f"narrowed_{vector['name']}", vector["narrowed"].encode())
for name, bearer in SESSIONS["bad_bearers"].items():
    write_bytes("session", f"bad_{name}", bearer.encode())
for path in sorted(APPROVALS.glob("*.json")):
    write_bytes("approval", path.stem, path.read_bytes())
for vector in load(TRUST / "sigv4.json"):
    text = "\n".join([vector["authorization"], vector["path"], vector["query"], "a  b"])
    write_bytes("sigv4", vector["name"], text.encode())
write_bytes("jwt", "es256", TOKEN.encode())
write("node_request", "p256", REQUEST)
SAID = load(TRUST / "node-attestation.json")
parts = [bytes.fromhex(SAID[name]) for name in ("public", "attestation", "signature")]
write_bytes("node_attestation", "libtpms", b"".join(len(part).to_bytes(2, "big") + part for part in parts))
write_bytes("jwks", "two_keys", KEYS.encode())
for number, example in enumerate(POLICIES.read_text(encoding="utf-8").split("```cedar\n")[1:], 1):
    write("policy", f"example_{number}", example.split("```")[0].encode().hex())

bundle = (AUDIT / "tile/entries/001.p/3").read_bytes()
write("audit_bundle", "golden", bundle.hex())
write("audit_record", "golden", bundle[2 : 2 + int.from_bytes(bundle[:2], "big")].hex())
for name in ("checkpoint", "public-keys"):
    write("audit_note", name, (AUDIT / name).read_bytes().hex())

PACK = load(SCAN_PACK)
for number, case in enumerate(PACK["texts"], 1):
    body = bytes.fromhex(PACK["pack"])[8:-96]
    seed = len(body).to_bytes(2, "big") + body + bytes.fromhex(case["text"])
    write_bytes("scan_pack", f"text_{number}", seed)

# The head of the golden backup, the smallest stream, and a list that nobody has signed.
BACKUP = (ROOT.parent / "crates/lastkey-store/tests/golden/backup-v1.backup").read_bytes()
write_bytes("backup", "head", BACKUP[: 16 + int.from_bytes(BACKUP[12:16], "big")])
item = b"\x01" + len(PATH := b"!bootstrap").to_bytes(2, "big") + PATH + bytes(7) + b"\x01\0\0\0\x01x"
none = hashlib.sha256().digest()
manifest = b"\x85\x01\x58\x20" + hashlib.sha256(item).digest() + b"\0\x58\x20" + none + b"\0"
write_bytes("backup", "stream", item + b"\x03" + len(manifest).to_bytes(4, "big") + manifest)
KEY = "01010101-0101-4101-8101-010101010101"
write_bytes("backup", "list", f"{KEY} * 7\n{KEY} 3 7\n\nsigned\nlastkey-tombstones/v1\n".encode())
write("device_blob", "tpm2", "010002aabb0001cc" + "dd" * 72)
write("device_blob", "pkcs11", "0101" + "ee" * 16 + "0002aabb" + "dd" * 72)
write("device_blob", "kms", "010003aabbcc" + "dd" * 72)

write_bytes("etcd", "database", (CHECKS / "etcd-mixed.db").read_bytes())
for number, vector in enumerate(load(CHECKS / "kmsv2.json")["vectors"], 1):
    write("etcd", f"sealed_{number}", vector["etcd_value_hex"])
for vector in load(KEPT)["vectors"]:
    write("kmsv2_kept", vector["name"], vector["file"])
# What a file holds, which no mutation of the file itself reaches.
write("kmsv2_kept", "content", "00" * 32 + "0003" + "6c6b31" + "0001" + "aa" + "0000" + "0001" + "bb" * 64)
for vector in load(NODE_KEY)["vectors"]:
    write_bytes("node_key", vector["name"], vector["file"].encode())
write("node_key", "block", "4c4b4e01" + "0001" + "61" + "0002" + "bbbb" + "cc" * 48)
