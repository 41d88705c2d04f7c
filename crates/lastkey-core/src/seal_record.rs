//! What lies in storage outside the root key: the installation, its keyring, and its seals.
//!
//! Room      `core`.
//! Source    docs/formats/hierarchy.md.
//! Holds     every secret in these records is wrapped; they can be read while sealed and
//!           changed only by who holds the root key.

use core::fmt;

use crate::ids::InstanceId;
use crate::seal_device::{DeviceKind, DeviceSettings};
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
    /// When it was added, by the wall clock.
    pub created_at: Timestamp,
}

impl fmt::Debug for KeyringEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyringEntry(epoch {})", self.epoch)
    }
}

/// What opens a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Some of several shares, each with a holder.
    Shamir {
        /// How many shares open it.
        threshold: u8,
        /// Who holds them: share 1, share 2, and so on.
        holders: Vec<ShareHolder>,
    },
    /// A device or service.
    Device {
        /// What it is.
        kind: DeviceKind,
        /// Where it is.
        settings: DeviceSettings,
    },
}

/// The holder of one share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareHolder {
    /// The public key that the share was encrypted to, as text; empty for a share that was
    /// written in clear.
    pub recipient: String,
    /// What the share is checked by, see [`lastkey_crypto::share`].
    pub check_value: [u8; 32],
}

impl SealKind {
    /// The word in commands and answers.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Passphrase { .. } => "passphrase",
            Self::Keyfile => "keyfile",
            Self::Shamir { .. } => "shamir",
            Self::Device { kind, .. } => kind.as_str(),
        }
    }
}

/// How a seal holds the root key.
#[derive(Clone, PartialEq, Eq)]
pub enum RootWrap {
    /// Version 1: wrapped under what opens the seal. Its holder must be there to receive a new
    /// root key.
    Direct(Vec<u8>),
    /// Encrypted to a key pair of the seal, under a key that seal and server share. Both come from
    /// one seed.
    Keyed {
        /// The public half.
        public: [u8; 32],
        /// The seed, wrapped under what opens the seal.
        wrapped_seed: Vec<u8>,
        /// What is shared, wrapped under the root key.
        wrapped_shared: Vec<u8>,
        /// The root key, encrypted to the public half.
        sealed_root: Vec<u8>,
    },
}

/// One seal: the root key, protected in one way.
#[derive(Clone, PartialEq, Eq)]
pub struct SealRecord {
    /// Identity of the seal, a random UUID.
    pub id: [u8; 16],
    /// What opens it.
    pub kind: SealKind,
    /// The root key in it.
    pub root: RootWrap,
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
    /// No record of the store is under an older epoch than this.
    pub records_from: u32,
    /// The seals; any one of them opens the root key.
    pub seals: Vec<SealRecord>,
    /// MAC under the root key over everything here that is not wrapped under it; `None` in
    /// version 1.
    pub authentication: Option<[u8; 32]>,
}

/// What is remembered of the seals, under the root key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealBook {
    /// When seals opened, by seal.
    pub proofs: Vec<SealProof>,
    /// Weaknesses that somebody has accepted.
    pub accepted: Option<AcceptedWeakness>,
    /// The epoch whose writes are counted.
    pub epoch: u32,
    /// Records that were written under that epoch, as of the last minute.
    pub writes: u64,
}

/// When a seal was last seen to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealProof {
    /// The seal.
    pub seal: [u8; 16],
    /// When it last opened the root key.
    pub opened_at: Option<Timestamp>,
    /// When the holders of its shares last showed that they have them, by number of the share.
    pub shares: Vec<(u8, Timestamp)>,
}

/// Somebody said that a configuration in which one loss is fatal is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedWeakness {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Which weaknesses, as words.
    pub weaknesses: Vec<String>,
}

impl SealBook {
    /// What is remembered of a seal; made when there is nothing yet.
    pub fn proof_mut(&mut self, seal: [u8; 16]) -> &mut SealProof {
        let place = self.proofs.iter().position(|proof| proof.seal == seal);
        let place = place.unwrap_or_else(|| {
            self.proofs.push(SealProof { seal, opened_at: None, shares: Vec::new() });
            self.proofs.len().saturating_sub(1)
        });
        #[expect(clippy::indexing_slicing, reason = "the place was found, or was just made")]
        &mut self.proofs[place]
    }

    /// What is remembered of a seal.
    #[must_use]
    pub fn proof(&self, seal: &[u8; 16]) -> Option<&SealProof> {
        self.proofs.iter().find(|proof| proof.seal == *seal)
    }

    /// Notes that a seal opened the root key.
    pub fn opened(&mut self, seal: [u8; 16], at: Timestamp) {
        self.proof_mut(seal).opened_at = Some(at);
    }

    /// Notes that the holder of a share has shown it.
    pub fn share_shown(&mut self, seal: [u8; 16], share: u8, at: Timestamp) {
        let shares = &mut self.proof_mut(seal).shares;
        shares.retain(|(number, _)| *number != share);
        shares.push((share, at));
        shares.sort_unstable();
    }
}
