//! Proofs: what a scanner shows to the service in place of the text that it found.
//!
//! Room      `checks`, inside `scan`. The scanner makes them, the service judges them.
//! Source    docs/formats/scan-pack.md, "Confirmation". HMAC is RFC 2104, SHA-256 FIPS 180-4.
//! Holds     A proof tells nothing of a text to whoever does not have the value. It is judged in
//!           constant time, and never right for a value that could be guessed.

use std::fmt;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::{
    ValueId,
    stretch::{Kind, STRETCH_LEN, stretches},
};

/// First part of what is authenticated: no other use of HMAC gives the same value.
const DOMAIN: &[u8] = b"lastkey scan confirmation v1";

/// Length of keys and proofs, in bytes.
pub const PROOF_LEN: usize = 32;

/// Key of the proofs of one question, drawn for it.
pub struct ProofKey(hmac::Key);

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(..)")
    }
}

impl ProofKey {
    /// Takes a key of random bytes.
    #[must_use]
    pub fn new(key: &[u8; PROOF_LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Proves that a stretch of a value was seen.
    pub(super) fn prove(
        &self,
        value: &ValueId,
        kind: Kind,
        stretch: &[u8; STRETCH_LEN],
    ) -> [u8; PROOF_LEN] {
        let tag = hmac::sign(&self.0, &message(value, kind, stretch));
        // INVARIANT: HMAC-SHA-256 has this length.
        tag.as_ref().try_into().unwrap_or([0; PROOF_LEN])
    }

    /// Whether somebody who made this proof has seen a stretch of this value.
    #[must_use]
    pub fn holds(&self, proof: &[u8; PROOF_LEN], id: &ValueId, value: &[u8]) -> bool {
        stretches(value).iter().any(|stretch| {
            let message = message(id, stretch.kind, &stretch.bytes);
            hmac::verify(&self.0, &message, proof).is_ok()
        })
    }
}

fn message(value: &ValueId, kind: Kind, stretch: &[u8; STRETCH_LEN]) -> Zeroizing<Vec<u8>> {
    let kind = match kind {
        Kind::Raw => 0,
        Kind::Decoded => 1,
    };
    let version = value.version.to_be_bytes();
    Zeroizing::new([DOMAIN, &value.secret, &version, &[kind], stretch].concat())
}

#[cfg(test)]
mod tests {
    use super::{Kind, ProofKey, ValueId};
    use crate::scan::pack::tests::{bytes, vector};

    const VALUE: &[u8] = b"kT9vQ2xLmZ7wRb4N";
    const ID: ValueId = ValueId { secret: [5; 16], version: 3 };

    #[test]
    fn proof_holds_for_its_key_version_kind_and_value_alone() {
        let key = ProofKey::new(&[1; 32]);
        let proof = key.prove(&ID, Kind::Raw, &VALUE.try_into().unwrap());
        assert!(key.holds(&proof, &ID, VALUE));
        assert!(key.holds(&proof, &ID, b"{\"a\": \"kT9vQ2xLmZ7wRb4N\"}"));
        assert!(!ProofKey::new(&[2; 32]).holds(&proof, &ID, VALUE));
        assert!(!key.holds(&proof, &ValueId { version: 4, ..ID }, VALUE));
        assert!(!key.holds(&proof, &ValueId { secret: [6; 16], ..ID }, VALUE));
        assert!(!key.holds(&proof, &ID, b"kT9vQ2xLmZ7wRb4M"));
        let mut other = proof;
        other[31] ^= 1;
        assert!(!key.holds(&other, &ID, VALUE));
    }

    #[test]
    fn proofs_are_those_of_another_program() {
        let vector = vector();
        let array = |field: &str| -> [u8; 32] { bytes(&vector[field]).try_into().unwrap() };
        let secret = bytes(&vector["identity"]).try_into().unwrap();
        let version = vector["version"].as_u64().unwrap() as u32;
        let (key, value) = (ProofKey::new(&array("proof_key")), bytes(&vector["value"]));
        for (at, kind) in [Kind::Raw, Kind::Decoded].into_iter().enumerate() {
            let proof = key.prove(&ValueId { secret, version }, kind, value.first_chunk().unwrap());
            assert_eq!(proof.to_vec(), bytes(&vector["proofs"][at]));
        }
    }

    #[test]
    fn no_proof_holds_for_a_value_that_could_be_guessed() {
        let (key, weak) = (ProofKey::new(&[1; 32]), b"hunter2hunter2hunter2");
        for kind in [Kind::Raw, Kind::Decoded] {
            let proof = key.prove(&ID, kind, weak.first_chunk().unwrap());
            assert!(!key.holds(&proof, &ID, weak));
        }
    }
}
