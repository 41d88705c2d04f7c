//! Claims of scanners, judged by what scan packs are made of.
//!
//! Room      the binary: `service` knows the port, `checks` the format.

use lastkey_checks::scan::pack::{ProofKey, ValueId};
use lastkey_core::leak::{Claim, Claims, PROOF_LEN};

/// Judges by the stretches that a pack has of a value.
pub(crate) struct ScanPackClaims;

impl Claims for ScanPackClaims {
    fn holds(&self, key: &[u8; PROOF_LEN], claim: &Claim, value: &[u8]) -> bool {
        let id = ValueId { secret: claim.secret.0, version: claim.version.number() };
        ProofKey::new(key).holds(&claim.proof, &id, value)
    }
}
