#!/usr/bin/env python3
"""Second implementation of the file envelope, from docs/formats alone.

Checks every envelope vector below a directory: those that must open and those that must not.
Needs only the PyPI package `cryptography`.

    python3 open_envelope.py crates/lastkey-crypto/tests/vectors/ours
"""

import hashlib
import hmac
import pathlib
import sys

from open_blob import Refused, check_context, expand, extract, load, must_refuse, open_aead
from open_blob import open_blob, require

MAGIC = b"LKENV\r\n\x1a"
LABEL = b"lastkey/envelope/v1"


def align(length):
    return (length + 511) // 512 * 512


def parse_fixed(envelope):
    """The immutable part: (segment length, slot length, context, hash, first slot's offset)."""
    require(len(envelope) >= 96, "cut off")
    require(envelope[:8] == MAGIC, "magic")
    require(envelope[8] == 1 and envelope[9] == 1 and envelope[11] == 0, "version")
    require(12 <= envelope[10] <= 24, "segment size")
    slot_len = int.from_bytes(envelope[12:16], "big")
    require(512 <= slot_len <= 1 << 20 and slot_len % 512 == 0, "slot length")
    context_len = int.from_bytes(envelope[16:20], "big")
    require(1 <= context_len <= 8192, "context length")
    require(envelope[20:32] == bytes(12), "reserved")
    slots_at = align(96 + context_len)
    require(len(envelope) >= slots_at + 2 * slot_len, "cut off")
    context = envelope[96 : 96 + context_len]
    check_context(context)
    require(not any(envelope[96 + context_len : slots_at]), "padding")
    return 1 << envelope[10], slot_len, context, slots_at


def parse_slot(slot):
    """(sequence, body, MAC) of a whole slot, or None."""
    sequence, body_len = int.from_bytes(slot[:8], "big"), int.from_bytes(slot[8:12], "big")
    end = 12 + body_len + 32
    if end + 32 > len(slot) or any(slot[end + 32 :]):
        return None
    if hashlib.sha256(slot[:end]).digest() != slot[end : end + 32]:
        return None
    return sequence, slot[12 : 12 + body_len], slot[end - 32 : end]


def parse_recipients(body):
    require(len(body) >= 2, "count cut off")
    at, recipients = 2, []
    for _ in range(int.from_bytes(body[:2], "big")):
        require(at + 3 <= len(body), "recipient cut off")
        size = int.from_bytes(body[at + 1 : at + 3], "big")
        require(at + 3 + size <= len(body), "recipient cut off")
        recipients.append((body[at], body[at + 3 : at + 3 + size]))
        at += 3 + size
    require(at == len(body) and recipients, "recipients")
    return recipients


def choose_slot(first, second):
    slots = [slot for slot in (parse_slot(first), parse_slot(second)) if slot]
    require(slots, "no whole slot")
    require(len({slot[0] for slot in slots}) == len(slots), "one sequence twice")
    return max(slots)


def payload_keys(data_key, salt, header_hash):
    okm = expand(extract(salt, data_key), LABEL + header_hash, 96)
    return okm[:32], okm[32:64], okm[64:]


def slot_mac(mac_key, header_hash, sequence, body):
    message = b"slot" + header_hash + sequence.to_bytes(8, "big") + body
    return hmac.new(mac_key, message, hashlib.sha256).digest()


def open_segments(payload, key, segment_len):
    unit, plaintext, index = segment_len + 16, b"", 0
    while True:
        segment = payload[index * unit : (index + 1) * unit]
        is_last = (index + 1) * unit >= len(payload)
        require(len(segment) >= 16, "no segment")
        require(len(segment) > 16 or index == 0, "empty last segment")
        nonce = bytes(3) + index.to_bytes(8, "big") + bytes([is_last])
        plaintext += open_aead(1, key, nonce, segment[:-16], segment[-16:], b"")
        index += 1
        if is_last:
            return plaintext


def open_envelope(envelope, unwrap):
    """`unwrap` gets the context and the recipients and gives the data key."""
    segment_len, slot_len, context, slots_at = parse_fixed(envelope)
    slots_end = slots_at + 2 * slot_len
    sequence, body, mac = choose_slot(
        envelope[slots_at : slots_at + slot_len], envelope[slots_at + slot_len : slots_end]
    )
    recipients = parse_recipients(body)
    header_hash = hashlib.sha256(envelope[:64] + context).digest()
    data_key = unwrap(context, recipients)
    key, mac_key, commitment = payload_keys(data_key, envelope[32:64], header_hash)
    require(hmac.compare_digest(commitment, envelope[64:96]), "commitment")
    expected = slot_mac(mac_key, header_hash, sequence, body)
    require(hmac.compare_digest(expected, mac), "slot MAC")
    return open_segments(envelope[slots_end:], key, segment_len), sequence, recipients


def check_vector(vector):
    material = bytes.fromhex(vector["material"])

    def unwrap(context, recipients):
        blob = next((body for kind, body in recipients if kind == 1), None)
        require(blob is not None, "no Lastkey recipient")
        data_key = open_blob(blob, vector["spec"], material, context)
        require(len(data_key) == 32, "data key length")
        return data_key

    plaintext, sequence, recipients = open_envelope(bytes.fromhex(vector["envelope"]), unwrap)
    require(plaintext.hex() == vector.get("plaintext"), "plaintext")
    require(sequence == vector["sequence"], "sequence")
    require(len(recipients) == vector["recipients"], "recipients")


def main(directory):
    root, count = pathlib.Path(directory), 0
    for path in sorted((root / "envelope").glob("*.json")):
        try:
            check_vector(load(path))
        except Refused as error:
            raise SystemExit(f"{path.name}: refused ({error}), but must open") from error
        count += 1
    for path in sorted((root / "envelope_refused").glob("*.json")):
        must_refuse(check_vector, load(path), path.name)
        count += 1
    print(f"open_envelope: {count} vectors agree")


if __name__ == "__main__":
    main(sys.argv[1])
