//! Scan packs, signed by whoever made them, over any text: the first two bytes say where the text
//! begins.
#![no_main]

use lastkey_checks::scan::pack::{Matcher, ProofKey};
use lastkey_crypto::{
    material::MaterialSpec,
    sign::{Message, SignAlgorithm, SigningKey},
};
use lastkey_secret::SecretVec;
use libfuzzer_sys::fuzz_target;

/// PKCS#8 of an Ed25519 key (RFC 8410), up to its 32 bytes.
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

fuzz_target!(|input: &[u8]| {
    let Some((len, rest)) = input.split_first_chunk() else { return };
    let (body, text) = rest.split_at(rest.len().min(u16::from_be_bytes(*len).into()));
    let material = SecretVec::take([&PKCS8[..], &[7; 32]].concat());
    let key = SigningKey::new(MaterialSpec::Ed25519, &material).expect("a key");
    let public = key.public_key_der().expect("a public key");
    let mut pack = [b"LKSPACK\x02", body, &public[public.len() - 32..]].concat();
    pack.extend(key.sign(SignAlgorithm::Ed25519, Message::Raw(&pack)).expect("a signature"));
    let Ok(matcher) = Matcher::parse(&pack, 0, None) else { return };
    let matcher = matcher.with_proofs(ProofKey::new(&[1; 32]));
    for found in matcher.search(text, 0..text.len()) {
        assert!(found.span.start < found.span.end && found.span.end <= text.len());
        assert!(matcher.claim(&found).is_some());
    }
});
