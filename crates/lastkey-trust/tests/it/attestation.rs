//! What the TPM of a node says: the vector that libtpms has signed, and what is no evidence.
//!
//! Room      `trust`, tests.

use std::fs;
use std::path::{Path, PathBuf};

use lastkey_core::ids::Name;
use lastkey_core::time::Timestamp;
use lastkey_secret::SecretArray;
use lastkey_trust::attestation::{CHALLENGE_SECS, Evidence, bound_to, name_of, verify};
use lastkey_trust::refusal::Refusal;
use lastkey_trust::session::{EpochKeys, EpochRing};
use proptest::prelude::*;
use serde_json::Value;

pub(crate) fn vector_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/node-attestation.json")
}

struct Vector {
    node: Name,
    at: Timestamp,
    keys: EpochKeys,
    challenge: Vec<u8>,
    request: Vec<u8>,
    bound: [u8; 32],
    public: Vec<u8>,
    attestation: Vec<u8>,
    signature: Vec<u8>,
    key: Vec<u8>,
}

fn bytes(value: &Value) -> Vec<u8> {
    let digits: Vec<_> = value.as_str().unwrap().chars().collect();
    let digit = |of: char| u8::try_from(of.to_digit(16).unwrap()).unwrap();
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn vector() -> Vector {
    let all: Value = serde_json::from_str(&fs::read_to_string(vector_path()).unwrap()).unwrap();
    let secret = SecretArray::try_copy_of(&bytes(&all["epoch_secret"])).unwrap();
    let epoch = u32::try_from(all["epoch"].as_u64().unwrap()).unwrap();
    Vector {
        node: Name::parse(all["node"].as_str().unwrap()).unwrap(),
        at: Timestamp(all["at"].as_u64().unwrap()),
        keys: EpochKeys::derive(epoch, &secret).unwrap(),
        challenge: bytes(&all["challenge"]),
        request: bytes(&all["request"]),
        bound: bytes(&all["bound"]).try_into().unwrap(),
        public: bytes(&all["public"]),
        attestation: bytes(&all["attestation"]),
        signature: bytes(&all["signature"]),
        key: bytes(&all["key"]),
    }
}

impl Vector {
    fn judge(&self) -> Result<[u8; 32], Refusal> {
        let Self { public, attestation, signature, .. } = self;
        verify(&Evidence { public, attestation, signature }, &self.bound)
    }
}

#[test]
fn quote_of_a_tpm_names_the_key_that_signed_it() {
    let vector = vector();
    assert_eq!(vector.keys.challenge(&vector.node, vector.at), vector.challenge);
    let bound = bound_to(&vector.challenge, &vector.node, &vector.request);
    assert_eq!(bound, vector.bound);
    assert_eq!(vector.judge().unwrap().to_vec(), vector.key);
    assert_eq!(name_of(&vector.public).to_vec(), vector.key);
}

#[test]
fn quote_is_good_for_its_challenge_node_and_request_alone() {
    let vector = vector();
    let other = Name::parse("worker-2").unwrap();
    let changed = |bytes: &[u8]| [bytes, &[0]].concat();
    for bound in [
        bound_to(&changed(&vector.challenge), &vector.node, &vector.request),
        bound_to(&vector.challenge, &other, &vector.request),
        bound_to(&vector.challenge, &vector.node, &changed(&vector.request)),
    ] {
        assert_eq!(Vector { bound, ..self::vector() }.judge(), Err(Refusal::NonceMismatch));
    }
}

#[test]
fn every_byte_of_an_evidence_counts() {
    let whole = vector();
    for at in 0..whole.public.len() {
        let mut one = vector();
        one.public[at] ^= 1;
        one.judge().unwrap_err();
    }
    for at in 0..whole.attestation.len() {
        let mut one = vector();
        one.attestation[at] ^= 1;
        one.judge().unwrap_err();
    }
    for at in 0..whole.signature.len() {
        let mut one = vector();
        one.signature[at] ^= 1;
        one.judge().unwrap_err();
    }
}

#[test]
fn parts_that_are_cut_short_or_go_on_are_refused() {
    for change in [
        |part: &mut Vec<u8>| part.truncate(part.len() - 1),
        |part: &mut Vec<u8>| {
            part.push(0);
        },
    ] {
        let (mut public, mut attestation, mut signature) = (vector(), vector(), vector());
        change(&mut public.public);
        change(&mut attestation.attestation);
        change(&mut signature.signature);
        for one in [public, attestation, signature] {
            assert_eq!(one.judge(), Err(Refusal::Malformed));
        }
    }
    let mut long = vector();
    long.attestation.resize(1_025, 0);
    assert_eq!(long.judge(), Err(Refusal::TooLong));
}

#[test]
fn key_that_is_not_of_the_template_is_refused() {
    let attributes = 0x0005_0472_u32;
    for bit in 0..32 {
        let mut one = vector();
        one.public[4..8].copy_from_slice(&(attributes ^ 1 << bit).to_be_bytes());
        assert_eq!(one.judge(), Err(Refusal::UsageNotAllowed), "{bit}");
    }
    let mut by_policy = vector();
    by_policy.public.splice(8..10, [&[0, 32][..], &[7; 32]].concat());
    assert_eq!(by_policy.judge(), Err(Refusal::UsageNotAllowed));
    let mut rsa = vector();
    rsa.public[1] = 1;
    assert_eq!(rsa.judge(), Err(Refusal::AlgorithmNotAllowed));
}

#[test]
fn what_a_key_signs_for_others_is_no_quote() {
    // Neither a certification (8017) nor bytes that the TPM did not make itself.
    for (at, value) in [(5, 0x17), (0, 0xfe)] {
        let mut one = vector();
        one.attestation[at] = value;
        assert_eq!(one.judge(), Err(Refusal::UsageNotAllowed));
    }
    // Nor a quote of registers, which the agent of another service asks for.
    let mut one = vector();
    let signer = usize::from(one.attestation[7]);
    let count = 6 + 2 + signer + 2 + 32 + 25;
    assert_eq!(one.attestation[count..count + 4], [0; 4]);
    one.attestation.splice(count..count + 4, [0, 0, 0, 1, 0, 0x0b, 3, 1, 0, 0]);
    assert_eq!(one.judge(), Err(Refusal::UsageNotAllowed));
}

#[test]
fn challenge_is_good_for_its_node_for_two_minutes_and_on_servers_of_its_epoch() {
    let vector = vector();
    let mut ring = EpochRing::default();
    ring.insert(vector.keys);
    let judge = |node: &Name, challenge: &[u8], now: u64| {
        ring.check_challenge(node, challenge, Timestamp(now))
    };
    let (at, node, challenge) = (vector.at.0, &vector.node, &vector.challenge);
    for now in [at - 5, at, at + CHALLENGE_SECS - 1] {
        assert_eq!(judge(node, challenge, now), Ok(()));
    }
    assert_eq!(judge(node, challenge, at + CHALLENGE_SECS), Err(Refusal::Expired));
    assert_eq!(judge(node, challenge, at - 6), Err(Refusal::NotYetValid));
    let other = Name::parse("worker-2").unwrap();
    assert_eq!(judge(&other, challenge, at), Err(Refusal::NonceMismatch));
    for place in 0..challenge.len() {
        let mut changed = challenge.clone();
        changed[place] ^= 1;
        assert_eq!(judge(node, &changed, at), Err(Refusal::NonceMismatch), "{place}");
    }
    assert_eq!(judge(node, &challenge[1..], at), Err(Refusal::Malformed));
    assert_eq!(
        EpochRing::default().check_challenge(node, challenge, vector.at),
        Err(Refusal::NonceMismatch)
    );
}

proptest! {
    #[test]
    fn reading_does_not_panic(
        public in proptest::collection::vec(any::<u8>(), 0..200),
        attestation in proptest::collection::vec(any::<u8>(), 0..200),
        signature in proptest::collection::vec(any::<u8>(), 0..100),
        cut in 0_usize..200,
    ) {
        let (public, attestation) = (&public[..], &attestation[..]);
        let _ = verify(&Evidence { public, attestation, signature: &signature }, &[0; 32]);
        let good = vector();
        let part = |bytes: &[u8]| bytes[..cut.min(bytes.len())].to_vec();
        let mixed = [part(&good.attestation), attestation.to_vec()].concat();
        let _ = verify(
            &Evidence { public: &good.public, attestation: &mixed, signature: &good.signature },
            &good.bound,
        );
    }
}
