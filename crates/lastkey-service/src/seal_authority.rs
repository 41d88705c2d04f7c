//! What authenticates the seals: a MAC under the root key over everything that is not wrapped under
//! it.
//!
//! Room      `service`.
//! Source    docs/formats/hierarchy.md, "Seals".
//! Holds     a record with key pairs and without a MAC is never taken for one that needs none.

use lastkey_core::ports::Cause;
use lastkey_core::seal_record::{Bootstrap, RootWrap, SealKind, SealRecord};
use lastkey_crypto::digest::sha256;
use lastkey_crypto::kdf;
use lastkey_secret::SecretArray;

use crate::custody::Custody;
use crate::error::Error;
use crate::root::RootKey;

/// Authenticates the seals; derived from the root key.
pub(crate) struct SealAuthority(SecretArray<32>);

impl SealAuthority {
    pub(crate) fn of(root: &RootKey) -> Result<Self, Cause> {
        root.derive(b"lastkey/seals/v1").map(Self)
    }

    /// The MAC of everything that is not wrapped under the root key.
    pub(crate) fn authenticate(&self, bootstrap: &Bootstrap) -> Result<[u8; 32], Cause> {
        let label = [b"lastkey/seals-mac/v2", &sha256(&authenticated(bootstrap))[..]].concat();
        Ok(kdf::derive(&self.0, &label)?.expose(|mac| *mac))
    }

    /// Whether a bootstrap record was written by who held the root key.
    pub(crate) fn has_written(&self, bootstrap: &Bootstrap) -> bool {
        let expected = self.authenticate(bootstrap);
        match (bootstrap.authentication, expected) {
            (Some(found), Ok(expected)) => lastkey_secret::ct_eq(&found, &expected),
            (Some(_) | None, _) => false,
        }
    }
}

/// Whether a bootstrap record is one of version 1, which what opens its seal authenticates. Of one
/// with key pairs somebody has taken the authentication away.
pub(crate) fn is_of_version_1(bootstrap: &Bootstrap) -> bool {
    let is_direct = |seal: &SealRecord| matches!(seal.root, RootWrap::Direct(_));
    bootstrap.authentication.is_none() && bootstrap.seals.iter().all(is_direct)
}

/// Whether the seals are those that the root key knows.
///
/// # Errors
/// [`Error::SealRefused`] when they are not.
pub(crate) fn check_root(root: &RootKey, bootstrap: &Bootstrap) -> Result<(), Error> {
    if is_of_version_1(bootstrap) || Custody::is_root_of(root, bootstrap) {
        return Ok(());
    }
    Err(Error::SealRefused(CHANGED.into()))
}

/// What the seals are when the root key does not know them.
pub(crate) const CHANGED: &str = "the seals were changed by somebody who does not hold the root key; restore the data directory, or unseal an older copy of it";

/// Everything that the root key authenticates.
fn authenticated(bootstrap: &Bootstrap) -> Vec<u8> {
    let mut bytes = bootstrap.instance.id.0.to_vec();
    bytes.extend_from_slice(&bootstrap.instance.created_at.0.to_be_bytes());
    bytes.extend_from_slice(&bootstrap.records_from.to_be_bytes());
    append_count(&mut bytes, bootstrap.keyring.len());
    for entry in &bootstrap.keyring {
        bytes.extend_from_slice(&entry.epoch.to_be_bytes());
        bytes.extend_from_slice(&entry.created_at.0.to_be_bytes());
    }
    append_count(&mut bytes, bootstrap.seals.len());
    for seal in &bootstrap.seals {
        bytes.extend_from_slice(&seal.id);
        append_kind(&mut bytes, &seal.kind);
        bytes.extend_from_slice(&seal.created_at.0.to_be_bytes());
        if let RootWrap::Keyed { public, wrapped_seed, .. } = &seal.root {
            bytes.extend_from_slice(public);
            append_bytes(&mut bytes, wrapped_seed);
        }
    }
    bytes
}

/// What opens a seal, in a way that no other reads the same.
pub(crate) fn append_kind(bytes: &mut Vec<u8>, kind: &SealKind) {
    match kind {
        SealKind::Passphrase { memory_kib, passes, lanes, salt } => {
            bytes.push(1);
            for cost in [memory_kib, passes, lanes] {
                bytes.extend_from_slice(&cost.to_be_bytes());
            }
            bytes.extend_from_slice(salt);
        }
        SealKind::Keyfile => bytes.push(2),
        SealKind::Shamir { threshold, holders } => {
            bytes.extend_from_slice(&[3, *threshold]);
            append_count(bytes, holders.len());
            for holder in holders {
                append_bytes(bytes, holder.recipient.as_bytes());
                bytes.extend_from_slice(&holder.check_value);
            }
        }
        SealKind::Device { kind, settings } => {
            bytes.push(4);
            append_bytes(bytes, kind.as_str().as_bytes());
            append_count(bytes, settings.len());
            for (name, value) in settings {
                append_bytes(bytes, name.as_bytes());
                append_bytes(bytes, value.as_bytes());
            }
        }
    }
}

fn append_bytes(bytes: &mut Vec<u8>, part: &[u8]) {
    append_count(bytes, part.len());
    bytes.extend_from_slice(part);
}

fn append_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}
