//! What lies in storage outside the root key: the installation, its keyring, and its seals.
//!
//! Room      `core`.
//! Holds     every secret in these records is wrapped; they can be read while sealed and
//!           changed only by who holds the root key.

use core::fmt;

use crate::ids::InstanceId;
use crate::time::Timestamp;

/// The installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its identity.
    pub id: InstanceId,
    /// When it was initialised, by the wall clock.
    pub created_at: Timestamp,
}

/// One entry of the keyring: a secret from which the record and material keys are derived.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyringEntry {
    /// Its epoch, from 1; the highest one protects new records.
    pub epoch: u32,
    /// The secret, wrapped under the root key.
    pub wrapped: Vec<u8>,
}

impl fmt::Debug for KeyringEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyringEntry(epoch {})", self.epoch)
    }
}

/// How a seal protects the root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealKind {
    /// A passphrase, stretched by Argon2id with these recorded costs.
    Passphrase {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over the memory.
        passes: u32,
        /// Lanes.
        lanes: u32,
        /// Salt.
        salt: [u8; 16],
    },
    /// A file of 32 random bytes. For development only.
    Keyfile,
}

impl SealKind {
    /// The word in commands and answers.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Passphrase { .. } => "passphrase",
            Self::Keyfile => "keyfile",
        }
    }
}

/// One seal: the root key, wrapped in one way.
#[derive(Clone, PartialEq, Eq)]
pub struct SealRecord {
    /// Identity of the seal, a random UUID.
    pub id: [u8; 16],
    /// How it protects the root key.
    pub kind: SealKind,
    /// The root key, wrapped.
    pub wrapped_root: Vec<u8>,
    /// When it was added, by the wall clock.
    pub created_at: Timestamp,
}

impl fmt::Debug for SealRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealRecord({})", self.kind.as_str())
    }
}

/// Everything that lies outside the root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The installation.
    pub instance: Instance,
    /// The keyring, all epochs.
    pub keyring: Vec<KeyringEntry>,
    /// The seals; any one of them opens the root key.
    pub seals: Vec<SealRecord>,
}
