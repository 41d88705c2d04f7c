//! What the TPMs of nodes have proved, so that each proof lets in once.
//!
//! Room      `service`.
//! Holds     a proof that was used is known until its challenge is over. Kept in memory: after a
//!           start one is good once more, for what is left of its two minutes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use lastkey_core::time::Timestamp;
use lastkey_trust::attestation::{CHALLENGE_SECS, CLOCK_SKEW_SECS};

/// How many are known at once. Each has cost a node a write.
const MAX_PROOFS: usize = 65_536;

/// Proofs that were used, by what was signed, with the moment.
#[derive(Debug, Default)]
pub(crate) struct UsedProofs(Mutex<HashMap<[u8; 32], Timestamp>>);

impl UsedProofs {
    /// Whether a proof may be used; else the word for the log. Nobody is let in by a proof that
    /// could not be remembered.
    pub(crate) fn check(&self, bound: &[u8; 32], now: Timestamp) -> Result<(), &'static str> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.contains_key(bound) {
            return Err("used");
        }
        if used.len() >= MAX_PROOFS {
            used.retain(|_, at| is_recent(*at, now));
        }
        if used.len() < MAX_PROOFS { Ok(()) } else { Err("too_many_proofs") }
    }

    /// Remembers a proof, and forgets those whose challenge is over.
    pub(crate) fn remember(&self, bound: [u8; 32], now: Timestamp) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, at| is_recent(*at, now));
        used.insert(bound, now);
    }
}

/// A challenge that was good at one moment may be by another.
const fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.0 < at.0.saturating_add(CHALLENGE_SECS + CLOCK_SKEW_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: u64 = CHALLENGE_SECS + CLOCK_SKEW_SECS;

    fn proof(number: usize) -> [u8; 32] {
        let mut bound = [0; 32];
        bound[..8].copy_from_slice(&number.to_be_bytes());
        bound
    }

    #[test]
    fn used_proof_is_known_until_its_challenge_is_over() {
        let used = UsedProofs::default();
        assert_eq!(used.check(&proof(1), Timestamp(100)), Ok(()));
        used.remember(proof(1), Timestamp(100));
        used.remember(proof(2), Timestamp(100 + KEPT - 1));
        assert_eq!(used.check(&proof(1), Timestamp(100 + KEPT - 1)), Err("used"));
        used.remember(proof(3), Timestamp(100 + KEPT));
        assert_eq!(used.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn full_memory_lets_nobody_in_until_there_is_room() {
        let used = UsedProofs::default();
        let all = (0..MAX_PROOFS).map(|number| (proof(number), Timestamp(100)));
        *used.0.lock().unwrap() = all.collect();
        let another = proof(MAX_PROOFS);
        assert_eq!(used.check(&another, Timestamp(100)), Err("too_many_proofs"));
        assert_eq!(used.check(&another, Timestamp(100 + KEPT)), Ok(()));
    }
}
