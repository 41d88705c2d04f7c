//! Leaks: what a scanner claims to have seen of a managed value, and who judges that.
//!
//! Room      `core`. A port, and the plain facts that go through it.
//! Source    `docs/formats/scan-pack.md`, "Confirmation".
//! Holds     a claim carries no text that was seen, only a proof under a key that was drawn for
//!           the question.

use crate::ids::VersionNo;
use crate::outside::Nobody;
use crate::secret_item::SecretId;

/// Most claims of one question.
pub const MAX_CLAIMS: usize = 64;

/// Length of keys and proofs, in bytes.
pub const PROOF_LEN: usize = 32;

/// A scanner says that it has seen a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The secret.
    pub secret: SecretId,
    /// The version.
    pub version: VersionNo,
    /// What only somebody can make who has seen a part of the value that nobody guesses.
    pub proof: [u8; PROOF_LEN],
}

/// Judges claims.
pub trait Claims: Send + Sync {
    /// Whether the proof of a claim, under this key, is right for the value. Always no for a value
    /// that could be guessed.
    fn holds(&self, key: &[u8; PROOF_LEN], claim: &Claim, value: &[u8]) -> bool;
}

impl Claims for Nobody {
    fn holds(&self, _: &[u8; PROOF_LEN], _: &Claim, _: &[u8]) -> bool {
        false
    }
}
