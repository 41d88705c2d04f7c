//! One version of a key: one generation of its material, with a life of its own.
//!
//! Room      `core`.
//! Holds     a version carries its material only wrapped; destroyed (unusable, at once) and
//!           erased (no copy is left in any journal, backup or escrow) are two facts.

use core::fmt;

use crate::ids::{KeyId, VersionNo};
use crate::state::State;
use crate::time::Timestamp;

/// Key material as it lies in storage: wrapped under the keyring. Safe to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Epoch of the keyring entry that wraps it.
    pub epoch: u32,
    /// Nonce, ciphertext and tag, in that order.
    pub sealed: Vec<u8>,
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey(epoch {}, {} bytes)", self.epoch, self.sealed.len())
    }
}

/// Where material comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Drawn by this service.
    Generated,
    /// Brought by its owner.
    Imported,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// The key it belongs to.
    pub key: KeyId,
    /// Its number.
    pub number: VersionNo,
    /// Its state.
    pub state: State,
    /// Where its material comes from.
    pub origin: Origin,
    /// Activation generation of the key when this version last became primary; 0 before.
    pub activation: u32,
    /// When it was created, by the wall clock.
    pub created_at: Timestamp,
    /// The material; gone once the version is destroyed.
    pub material: Option<WrappedKey>,
    /// Public half as SubjectPublicKeyInfo (RFC 5280) in DER; `None` for symmetric keys.
    pub public_key: Option<Vec<u8>>,
    /// When it was destroyed.
    pub destroyed_at: Option<Timestamp>,
    /// When the last copy of the wrapped material had expired everywhere.
    pub erased_at: Option<Timestamp>,
}

/// When a version was used last, kept apart from its record so that use never competes with
/// changes of state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Uses that protected data.
    pub protected: u64,
    /// Uses that processed protected data.
    pub processed: u64,
    /// Uses that were refused because the version is shadow-disabled.
    pub refused: u64,
    /// Last use, by the wall clock.
    pub last_used_at: Option<Timestamp>,
}

impl Usage {
    /// This and `more` together.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            protected: self.protected.saturating_add(more.protected),
            processed: self.processed.saturating_add(more.processed),
            refused: self.refused.saturating_add(more.refused),
            last_used_at: self.last_used_at.max(more.last_used_at),
        }
    }
}
