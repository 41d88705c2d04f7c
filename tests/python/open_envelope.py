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

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from open_blob import Refused, check_context, expand, extract, load, must_refuse, open_aead
from open_blob import open_blob, require

try:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
except ImportError:
    Argon2id = None

MAGIC = b"LKENV\r\n\x1a"
LABEL = b"lastkey/envelope/v1"
AGE_LABEL = b"age-encryption.org/v1/X25519"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
MAX_RECIPIENTS = 1024


def align(length):
    return (length + 511) // 512 * 512


def parse_fixed(envelope):
    """The immutable part: (suite, segment length, slot length, context, first slot's offset)."""
    require(len(envelope) >= 96, "cut off")
    require(envelope[:8] == MAGIC, "magic")
    require(envelope[8] == 1 and envelope[9] in (1, 2, 3) and envelope[11] == 0, "version")
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
    return envelope[9], 1 << envelope[10], slot_len, context, slots_at


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
    at, recipients, count = 2, [], int.from_bytes(body[:2], "big")
    require(count <= MAX_RECIPIENTS, "too many recipients")
    for _ in range(count):
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


def bech32_decode(part, text):
    """BIP 173, without its limit of 90 characters."""
    text = text.lower()
    require(text.startswith(part + "1"), "bech32 prefix")
    values = [BECH32.find(letter) for letter in text[len(part) + 1 :]]
    require(-1 not in values and len(values) >= 6, "bech32 letter")
    generator, check = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3), 1
    for value in [ord(c) >> 5 for c in part] + [0] + [ord(c) & 31 for c in part] + values:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit in range(5):
            check ^= generator[bit] if top >> bit & 1 else 0
    require(check == 1, "bech32 checksum")
    bits = "".join(f"{value:05b}" for value in values[:-6])
    whole = len(bits) // 8 * 8
    require(len(bits) - whole < 5 and "1" not in bits[whole:], "bech32 padding")
    return bytes(int(bits[at : at + 8], 2) for at in range(0, whole, 8))


def unwrap_once(key, wrapped):
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), wrapped, b"")
    except InvalidTag:
        raise Refused("wrapped data key") from None


def age_key(shared, share, public):
    return expand(extract(share + public, shared), AGE_LABEL, 32)


def unwrap_age(body, identity):
    require(len(body) == 112, "length of an age recipient")
    secret = X25519PrivateKey.from_private_bytes(bech32_decode("age-secret-key-", identity))
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    public = secret.public_key().public_bytes(*raw)
    require(body[:32] == public, "another age recipient")
    share = body[32:64]
    try:
        shared = secret.exchange(X25519PublicKey.from_public_bytes(share))
    except ValueError:
        raise Refused("share of low order") from None
    return unwrap_once(age_key(shared, share, public), body[64:])


def unwrap_passphrase(body, passphrase):
    require(len(body) == 76, "length of a passphrase")
    memory, passes, lanes = (int.from_bytes(body[at : at + 4], "big") for at in (0, 4, 8))
    require(1 <= passes <= 16 and 1 <= lanes <= 16, "passes and lanes")
    require(8 * lanes <= memory <= 1 << 20 and memory * passes <= 1 << 22, "memory")
    key = Argon2id(salt=body[12:28], length=32, iterations=passes, lanes=lanes,
                   memory_cost=memory).derive(passphrase.encode())
    return unwrap_once(key, body[28:])


def open_segment(suite, key, nonce, ciphertext, tag):
    if suite == 2:
        try:
            return ChaCha20Poly1305(key).decrypt(nonce, ciphertext + tag, b"")
        except InvalidTag:
            raise Refused("tag") from None
    return open_aead(suite, key[:16] if suite == 3 else key, nonce, ciphertext, tag, b"")


def open_segments(payload, suite, key, segment_len):
    unit, plaintext, index = segment_len + 16, b"", 0
    while True:
        segment = payload[index * unit : (index + 1) * unit]
        is_last = (index + 1) * unit >= len(payload)
        require(len(segment) >= 16, "no segment")
        require(len(segment) > 16 or index == 0, "empty last segment")
        nonce = bytes(3) + index.to_bytes(8, "big") + bytes([is_last])
        plaintext += open_segment(suite, key, nonce, segment[:-16], segment[-16:])
        index += 1
        if is_last:
            return plaintext


def open_envelope(envelope, unwrap):
    """`unwrap` gets the context and the recipients and gives the data key."""
    suite, segment_len, slot_len, context, slots_at = parse_fixed(envelope)
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
    return open_segments(envelope[slots_end:], suite, key, segment_len), sequence, recipients


def check_vector(vector):
    material = bytes.fromhex(vector["material"])

    def of_kind(wanted, recipients):
        body = next((body for kind, body in recipients if kind == wanted), None)
        require(body is not None, "no recipient of this kind")
        return body

    def unwrap(context, recipients):
        if "identity" in vector:
            return unwrap_age(of_kind(2, recipients), vector["identity"])
        if "passphrase" in vector:
            return unwrap_passphrase(of_kind(3, recipients), vector["passphrase"])
        data_key = open_blob(of_kind(1, recipients), vector["spec"], material, context)
        require(len(data_key) == 32, "data key length")
        return data_key

    plaintext, sequence, recipients = open_envelope(bytes.fromhex(vector["envelope"]), unwrap)
    require(plaintext.hex() == vector.get("plaintext"), "plaintext")
    require(sequence == vector["sequence"], "sequence")
    require(len(recipients) == vector["recipients"], "recipients")


def main(directory):
    root, count = pathlib.Path(directory), 0
    for path in sorted((root / "envelope").glob("*.json")):
        if "passphrase" in load(path) and Argon2id is None:
            print(f"open_envelope: NOT CHECKED: {path.name}: needs cryptography 44 and OpenSSL 3.2")
            continue
        try:
            check_vector(load(path))
        except Refused as error:
            raise SystemExit(f"{path.name}: refused ({error}), but must open") from error
        count += 1
    for path in sorted((root / "envelope_refused").glob("*.json")):
        if "passphrase" in load(path) and Argon2id is None:
            continue
        must_refuse(check_vector, load(path), path.name)
        count += 1
    print(f"open_envelope: {count} vectors agree")


if __name__ == "__main__":
    main(sys.argv[1])
