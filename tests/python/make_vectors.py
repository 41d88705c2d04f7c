#!/usr/bin/env python3
"""Writes the vectors of the blob, the context and the envelope.

The Rust tests open them and, with the same salts, make the same bytes; so each vector is the
agreement of two implementations. Writing is deterministic: running this again changes nothing.

    python3 make_vectors.py crates/lastkey-crypto/tests/vectors/ours
"""

import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from open_blob import SUITES, encode_context, message_keys, u32

from open_envelope import MAGIC, age_key, align, bech32_decode, payload_keys, slot_mac


def fixed(label, size):
    """Bytes that look random and are the same each time."""
    out, counter = b"", 0
    while len(out) < size:
        out += hashlib.sha256(f"{label}/{counter}".encode()).digest()
        counter += 1
    return out[:size]


def seal_aead(suite, key, nonce, plaintext, aad):
    spec, size = SUITES[suite]
    if spec == "SM4":
        sealer = Cipher(algorithms.SM4(key[:size]), modes.GCM(nonce)).encryptor()
        sealer.authenticate_additional_data(aad)
        return sealer.update(plaintext) + sealer.finalize() + sealer.tag
    return AESGCM(key[:size]).encrypt(nonce, plaintext, aad)


def seal_blob(suite, material, key_id, version, encoded_context, plaintext, salt):
    prefix = b"LK\x01" + bytes([suite]) + key_id + u32(version) + salt
    context_hash = hashlib.sha256(encoded_context).digest()
    spec = SUITES[suite][0]
    key, commitment, nonce = message_keys(spec, material, prefix, context_hash)
    header = prefix + commitment
    return header + seal_aead(suite, key, nonce, plaintext, header + context_hash)


def blob_vector(name, suite, context, plaintext, version=1):
    spec, size = SUITES[suite]
    material, salt = fixed(f"material/{spec}", size), fixed(f"salt/{name}", 32)
    key_id = fixed("key id", 16)
    encoded = encode_context(context)
    blob = seal_blob(suite, material, key_id, version, encoded, plaintext, salt)
    return {
        "name": name,
        "spec": spec,
        "material": material.hex(),
        "key_id": key_id.hex(),
        "version": version,
        "context": context,
        "context_encoded": encoded.hex(),
        "salt": salt.hex(),
        "plaintext": plaintext.hex(),
        "blob": blob.hex(),
    }


PAIRS = {"pairs": {"purpose": "backup", "Owner": "Zo\u00eb", "empty": ""}}


def good_blobs():
    yield blob_vector("aes_256_no_context", 1, None, b"attack at dawn")
    yield blob_vector("aes_256_pairs", 1, PAIRS, fixed("data key", 32), 7)
    yield blob_vector("aes_256_raw_context", 1, {"raw": "00ff10"}, b"raw", 2**32 - 1)
    yield blob_vector("aes_256_empty_plaintext", 1, PAIRS, b"")
    yield blob_vector("aes_256_one_block", 1, None, fixed("block", 16))
    yield blob_vector("aes_256_four_kib", 1, None, fixed("page", 4096))
    yield blob_vector("aes_128_no_context", 2, None, b"attack at dawn")
    yield blob_vector("aes_128_pairs", 2, PAIRS, fixed("data key", 32), 2)
    yield blob_vector("sm4_no_context", 3, None, b"attack at dawn")
    yield blob_vector("sm4_pairs", 3, PAIRS, fixed("data key", 32), 3)


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def replace(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def bad_blobs():
    base = blob_vector("base", 1, PAIRS, b"attack at dawn")
    blob = bytes.fromhex(base["blob"])
    damaged = {
        "shorter_than_the_overhead": blob[:88] + blob[-15:],
        "empty": b"",
        "wrong_magic": replace(blob, 0, b"KL"),
        "unknown_format": replace(blob, 2, b"\x02"),
        "unknown_suite": replace(blob, 3, b"\x09"),
        "suite_of_another_spec": replace(blob, 3, b"\x02"),
        "other_key_id": flip(blob, 4),
        "other_version": flip(blob, 23),
        "altered_salt": flip(blob, 24),
        "altered_commitment": flip(blob, 56),
        "altered_ciphertext": flip(blob, 88),
        "altered_tag": flip(blob, len(blob) - 1),
        "last_byte_missing": blob[:-1],
        "one_byte_more": blob + b"\0",
    }
    for name, bytes_ in damaged.items():
        yield {**base, "name": name, "blob": bytes_.hex()}
    yield {**base, "name": "other_material", "material": fixed("other", 32).hex()}
    others = {
        "context_missing": None,
        "context_with_another_value": {"pairs": {**PAIRS["pairs"], "empty": "x"}},
        "context_with_an_entry_less": {"pairs": {"purpose": "backup"}},
        "context_normalised": {"pairs": {**PAIRS["pairs"], "Owner": "Zoe\u0308"}},
        "context_as_raw_bytes": {"raw": encode_context(PAIRS).hex()},
    }
    for name, context in others.items():
        encoded = encode_context(context).hex()
        yield {**base, "name": name, "context": context, "context_encoded": encoded}


def context_vectors():
    good = {
        "none": None,
        "pairs": PAIRS,
        "one_empty_pair": {"pairs": {"": ""}},
        "sorted_by_bytes_not_by_letters": {"pairs": {"b": "1", "B": "2", "a": "3", "\u00e9": "4"}},
        "raw": {"raw": "00ff10"},
        "longest_raw": {"raw": bytes(8187).hex()},
    }
    bad = {
        "nothing": b"",
        "unknown_type": b"\x03",
        "none_with_a_byte_more": b"\0\0",
        "empty_map": b"\1" + u32(0),
        "empty_raw": b"\2" + u32(0),
        "raw_cut_off": b"\2" + u32(2) + b"a",
        "raw_with_a_byte_more": b"\2" + u32(1) + b"ab",
        "map_cut_off": b"\1" + u32(1) + u32(1) + b"a",
        "map_with_a_byte_more": b"\1" + u32(1) + u32(1) + b"a" + u32(0) + b"x",
        "map_not_sorted": b"\1" + u32(2) + u32(1) + b"b" + u32(0) + u32(1) + b"a" + u32(0),
        "name_twice": b"\1" + u32(2) + (u32(1) + b"a" + u32(0)) * 2,
        "not_utf8": b"\1" + u32(1) + u32(1) + b"\xff" + u32(0),
        "count_of_four_billion": b"\1" + u32(2**32 - 1),
        "too_long": b"\2" + u32(8188) + bytes(8188),
    }
    return {
        "good": [
            {
                "name": name,
                "context": context,
                "encoded": encode_context(context).hex(),
                "sha256": hashlib.sha256(encode_context(context)).hexdigest(),
            }
            for name, context in good.items()
        ],
        "bad": [{"name": name, "encoded": encoded.hex()} for name, encoded in bad.items()],
    }


# Of `age-keygen`.
IDENTITY = "AGE-SECRET-KEY-1V5V6FRYJKY6N4JN8JZL6YHWCTMFKE3HD3DYGSUENT8XJRN39W9NQHTPM0Y"
PASSPHRASE = "correct horse battery staple"


class Envelope:
    """The parts of an envelope under construction; each may be replaced before `join`."""

    def __init__(self, name, plaintext, context=None, log2=12, slot_len=512, suite=1):
        self.suite = suite
        self.slot_len, self.segment_len = slot_len, 1 << log2
        self.context, self.salt = encode_context(context), fixed(f"salt/{name}", 32)
        self.material, self.data_key = fixed("material/AES_256", 32), fixed(f"key/{name}", 32)
        self.blob_salt = fixed(f"blob salt/{name}", 32)
        self.hashed = (
            MAGIC + bytes([1, suite, log2, 0]) + u32(slot_len) + u32(len(self.context))
            + bytes(12) + self.salt
        )
        self.hash = hashlib.sha256(self.hashed + self.context).digest()
        self.key, self.mac_key, self.commitment = payload_keys(self.data_key, self.salt, self.hash)
        self.padding = bytes(align(96 + len(self.context)) - 96 - len(self.context))
        self.recipients = [(1, self.wrapped())]
        self.slots = [self.slot(1, self.recipients), bytes(slot_len)]
        self.plaintext = plaintext
        cuts = range(0, max(len(plaintext), 1), self.segment_len)
        pieces = [plaintext[at : at + self.segment_len] for at in cuts]
        self.segments = [
            self.seal(piece, index, index + 1 == len(pieces)) for index, piece in enumerate(pieces)
        ]

    def wrapped(self):
        key_id = fixed("key id", 16)
        return seal_blob(1, self.material, key_id, 1, self.context, self.data_key, self.blob_salt)

    def seal(self, piece, index, is_last):
        nonce = bytes(3) + index.to_bytes(8, "big") + bytes([is_last])
        if self.suite == 2:
            return ChaCha20Poly1305(self.key).encrypt(nonce, piece, b"")
        return seal_aead(self.suite, self.key, nonce, piece, b"")

    def age(self, share_secret=None):
        """The data key for IDENTITY."""
        secret = X25519PrivateKey.from_private_bytes(bech32_decode("age-secret-key-", IDENTITY))
        public = secret.public_key()
        ephemeral = X25519PrivateKey.from_private_bytes(share_secret or fixed("ephemeral", 32))
        share, public_bytes = ephemeral.public_key().public_bytes_raw(), public.public_bytes_raw()
        key = age_key(ephemeral.exchange(public), share, public_bytes)
        wrapped = ChaCha20Poly1305(key).encrypt(bytes(12), self.data_key, b"")
        return public_bytes + share + wrapped

    def passphrase(self, memory=64, passes=2, lanes=2):
        """The data key under PASSPHRASE, at a cost for tests."""
        salt = fixed("argon2 salt", 16)
        key = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes,
                       memory_cost=memory).derive(PASSPHRASE.encode())
        wrapped = ChaCha20Poly1305(key).encrypt(bytes(12), self.data_key, b"")
        return u32(memory) + u32(passes) + u32(lanes) + salt + wrapped

    def opened_by(self, recipients):
        """The same with these recipients."""
        self.slots[0] = self.slot(1, recipients)
        return self

    def slot(self, sequence, recipients, mac_key=None):
        body = len(recipients).to_bytes(2, "big") + b"".join(
            bytes([kind]) + len(item).to_bytes(2, "big") + item for kind, item in recipients
        )
        return self.frame(sequence, body, mac_key)

    def frame(self, sequence, body, mac_key=None):
        mac = slot_mac(mac_key or self.mac_key, self.hash, sequence, body)
        covered = sequence.to_bytes(8, "big") + u32(len(body)) + body + mac
        slot = covered + hashlib.sha256(covered).digest()
        return slot + bytes(self.slot_len - len(slot))

    def join(self):
        fixed_part = self.hashed + self.commitment + self.context + self.padding
        return fixed_part + b"".join(self.slots) + b"".join(self.segments)


def envelope_vector(name, envelope, sequence=1, recipients=1, data=None, **means):
    return {
        "name": name,
        "spec": "AES_256",
        "material": envelope.material.hex(),
        "data_key": envelope.data_key.hex(),
        "salt": envelope.salt.hex(),
        "context_encoded": envelope.context.hex(),
        "blob": envelope.recipients[0][1].hex(),
        "sequence": sequence,
        "recipients": recipients,
        "plaintext": envelope.plaintext.hex(),
        "envelope": (envelope.join() if data is None else data).hex(),
        **means,
    }


LONG = fixed("long", 4106)


def good_envelopes():
    for name, plaintext in {
        "empty": b"",
        "one_byte": b"x",
        "full_last_segment": fixed("full", 4096),
        "two_segments": LONG,
    }.items():
        yield envelope_vector(name, Envelope(name, plaintext))
    name = "default_options"
    yield envelope_vector(name, Envelope(name, b"attack at dawn", None, 18, 1024))
    name = "with_context"
    yield envelope_vector(name, Envelope(name, b"attack at dawn", PAIRS))
    name = "context_that_fills_a_block"
    yield envelope_vector(name, Envelope(name, b"attack at dawn", {"raw": bytes(411).hex()}))
    name = "unknown_recipient_kind"
    envelope = Envelope(name, b"attack at dawn")
    envelope.slots[0] = envelope.slot(1, [(200, b"later"), *envelope.recipients])
    yield envelope_vector(name, envelope, 1, 2)
    name = "rewrapped"
    envelope = Envelope(name, b"attack at dawn")
    envelope.slots[1] = envelope.slot(2, [*envelope.recipients, (2, b"age")])
    yield envelope_vector(name, envelope, 2, 2)
    name = "rewrapped_twice"
    envelope = Envelope(name, b"attack at dawn")
    envelope.slots[1] = envelope.slot(2, [*envelope.recipients, (2, b"age")])
    envelope.slots[0] = envelope.slot(3, envelope.recipients)
    yield envelope_vector(name, envelope, 3, 1)
    for name, suite in {"chacha20_poly1305": 2, "sm4_gcm": 3}.items():
        yield envelope_vector(name, Envelope(name, LONG, PAIRS, suite=suite))
    name = "age_recipient"
    envelope = Envelope(name, b"attack at dawn", PAIRS)
    envelope.opened_by([*envelope.recipients, (2, envelope.age())])
    yield envelope_vector(name, envelope, 1, 2, identity=IDENTITY)
    name = "passphrase"
    envelope = Envelope(name, b"attack at dawn", PAIRS)
    envelope.opened_by([*envelope.recipients, (3, envelope.passphrase())])
    yield envelope_vector(name, envelope, 1, 2, passphrase=PASSPHRASE)
    name = "torn_while_rewrapping"
    envelope = Envelope(name, b"attack at dawn")
    envelope.slots[1] = replace(bytes(512), 0, envelope.slot(2, envelope.recipients)[:200])
    yield envelope_vector(name, envelope)


def bad_headers(base):
    data = base.join()
    yield "wrong_magic", replace(data, 5, b"\n")
    yield "unknown_format", replace(data, 8, b"\2")
    yield "unknown_suite", replace(data, 9, b"\4")
    yield "suite_of_another_envelope", replace(data, 9, b"\2")
    yield "segment_too_short", replace(data, 10, b"\x0b")
    yield "segment_too_long", replace(data, 10, b"\x19")
    yield "segment_of_another_length", replace(data, 10, b"\x0d")
    yield "unknown_flag", replace(data, 11, b"\1")
    yield "slot_length_zero", replace(data, 12, u32(0))
    yield "slot_length_not_aligned", replace(data, 12, u32(513))
    yield "slot_length_too_long", replace(data, 12, u32((1 << 20) + 512))
    yield "context_length_zero", replace(data, 16, u32(0))
    yield "context_length_too_long", replace(data, 16, u32(8193))
    yield "reserved_byte_set", replace(data, 31, b"\1")
    yield "altered_salt", flip(data, 32)
    yield "altered_commitment", flip(data, 64)
    yield "altered_context", replace(data, 96 + 13, b"o")
    yield "padding_not_zero", replace(data, 511, b"\1")
    yield "header_cut_off", data[:1000]
    yield "prefix_cut_off", data[:95]
    yield "nothing", b""


def bad_slots(fresh):
    envelope = fresh()
    envelope.slots[0] = flip(envelope.slots[0], 20)
    yield "both_slots_torn", envelope
    envelope = fresh()
    envelope.slots[0] = envelope.slot(1, envelope.recipients, fixed("other", 32))
    yield "slot_mac_of_another_key", envelope
    envelope = fresh()
    other = Envelope("other", b"")
    envelope.slots[1] = other.slot(2, other.recipients)
    yield "newer_slot_of_another_envelope", envelope
    envelope = fresh()
    envelope.slots[1] = envelope.slots[0]
    yield "one_sequence_twice", envelope
    envelope = fresh()
    envelope.slots[0] = envelope.slot(1, [])
    yield "no_recipient", envelope
    envelope = fresh()
    body = b"\0\1\1" + (136).to_bytes(2, "big") + envelope.recipients[0][1] + b"x"
    envelope.slots[0] = envelope.frame(1, body)
    yield "recipients_with_a_byte_more", envelope
    envelope = fresh()
    envelope.slots[0] = envelope.frame(1, b"\0\2" + b"\1\0\0")
    yield "recipients_cut_off", envelope
    envelope = fresh()
    envelope.slots[0] = replace(envelope.slots[0], 511, b"\1")
    yield "slot_padding_not_zero", envelope
    envelope = fresh()
    envelope.slots[0] = replace(envelope.slots[0], 8, u32(2**32 - 1))
    yield "slot_body_of_four_gigabytes", envelope
    envelope = fresh()
    envelope.data_key = fixed("other", 32)
    envelope.recipients = [(1, envelope.wrapped())]
    envelope.slots[0] = envelope.slot(1, envelope.recipients)
    yield "data_key_of_another_envelope", envelope


def bad_segments(fresh):
    def change(name, alter):
        envelope = fresh()
        envelope.segments = alter(envelope)
        return name, envelope

    yield change("no_segment", lambda e: [])
    yield change("altered_segment", lambda e: [flip(e.segments[0], 100), e.segments[1]])
    yield change("altered_tag", lambda e: [e.segments[0], flip(e.segments[1], 20)])
    yield change("last_byte_missing", lambda e: [e.segments[0], e.segments[1][:-1]])
    yield change("last_segment_missing", lambda e: e.segments[:1])
    yield change("one_byte_more", lambda e: [*e.segments, b"\0"])
    yield change("segments_exchanged", lambda e: [e.segments[1], e.segments[0]])
    yield change("segment_twice", lambda e: [e.segments[0], *e.segments])
    yield change("last_segment_not_marked", lambda e: [e.segments[0], e.seal(LONG[4096:], 1, 0)])
    yield change("every_segment_marked", lambda e: [e.seal(LONG[:4096], 0, 1), e.segments[1]])
    yield change(
        "empty_segment_at_the_end",
        lambda e: [e.segments[0], e.seal(fixed("x", 4096), 1, 0), e.seal(b"", 2, 1)],
    )
    yield change("short_segment_inside", lambda e: [e.seal(b"x" * 4000, 0, 0), e.segments[1]])
    yield change("counter_from_one", lambda e: [e.seal(LONG[:4096], 1, 0), e.seal(b"x", 2, 1)])


def bad_recipients(fresh):
    envelope = fresh()
    yield "age_share_of_low_order", envelope, {"identity": IDENTITY}, (
        2, replace(envelope.age(), 32, bytes(32)))
    yield "age_wrapped_key_altered", envelope, {"identity": IDENTITY}, (
        2, flip(envelope.age(), 100))
    yield "age_body_cut_off", envelope, {"identity": IDENTITY}, (2, envelope.age()[:-1])
    yield "age_body_too_long", envelope, {"identity": IDENTITY}, (2, envelope.age() + b"x")
    yield "age_key_of_somebody_else", envelope, {"identity": IDENTITY}, (
        2, replace(envelope.age(), 0, fixed("somebody", 32)))
    yield "age_key_of_another_envelope", envelope, {"identity": IDENTITY}, (
        2, Envelope("other", b"").age())
    right = {"passphrase": PASSPHRASE}
    yield "another_passphrase", envelope, {"passphrase": "correct horse"}, (
        3, envelope.passphrase())
    yield "passphrase_salt_altered", envelope, right, (3, flip(envelope.passphrase(), 20))
    yield "passphrase_body_cut_off", envelope, right, (3, envelope.passphrase()[:-1])
    for what, at, number in [
        ("memory_of_two_gib", 0, 1 << 21), ("memory_of_nothing", 0, 0), ("no_pass", 4, 0),
        ("seventeen_passes", 4, 17), ("no_lane", 8, 0), ("seventeen_lanes", 8, 17),
    ]:
        yield f"passphrase_with_{what}", envelope, right, (
            3, replace(envelope.passphrase(), at, u32(number)))
    yield "passphrase_of_too_much_work", envelope, right, (
        3, replace(envelope.passphrase(), 0, u32(1 << 20) + u32(5)))
    yield "no_recipient_of_age", envelope, {"identity": IDENTITY}, (3, envelope.passphrase())


def bad_envelopes():
    base = Envelope("base", b"attack at dawn", PAIRS)
    for name, data in bad_headers(base):
        yield envelope_vector(name, base, data=data)
    for name, envelope in bad_slots(lambda: Envelope("base", b"attack at dawn", PAIRS)):
        yield envelope_vector(name, envelope)
    for name, envelope in bad_segments(lambda: Envelope("base", LONG)):
        yield envelope_vector(name, envelope)
    for name, envelope, means, recipient in bad_recipients(lambda: Envelope("base", b"x", PAIRS)):
        envelope.opened_by([*envelope.recipients, recipient])
        yield envelope_vector(name, envelope, 1, 2, **means)
    envelope = Envelope("base", b"x", slot_len=4096)
    envelope.opened_by([*envelope.recipients, *[(200, b"")] * 1024])
    yield envelope_vector("too_many_recipients", envelope, 1, 1025)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1, ensure_ascii=True)
    path.write_text(text + "\n", encoding="utf-8")


def main(directory):
    root = pathlib.Path(directory)
    write(root / "context.json", context_vectors())
    write(root / "blob.json", list(good_blobs()))
    for folder, vectors in {
        "blob_refused": bad_blobs(),
        "envelope": good_envelopes(),
        "envelope_refused": bad_envelopes(),
    }.items():
        for vector in vectors:
            write(root / folder / f"{vector['name']}.json", vector)


if __name__ == "__main__":
    main(sys.argv[1])
