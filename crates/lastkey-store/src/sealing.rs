//! Sealed records: one record under the record key of an epoch, bound to where it lies.
//!
//! Room      `store`.
//! Source    `docs/formats/record.md`, "Sealed record"; XAES-256-GCM (C2SP).
//! Holds     a sealed record opens at the installation, path, revision and epoch it was sealed
//!           for, and nowhere else.

use std::sync::atomic::{AtomicU64, Ordering};

use lastkey_core::ports::{Cause, RecordKeys};
use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::wrap::{self, WrapKey};
use lastkey_secret::SecretVec;

const FORMAT: u8 = 1;
const LABEL: &[u8] = b"lastkey/record/v1";
const PREFIX_LEN: usize = 5;

/// How much longer a sealed record is than the record: format, epoch, nonce and tag, in bytes.
pub(crate) const OVERHEAD_LEN: usize = PREFIX_LEN + wrap::OVERHEAD_LEN;

/// Why a sealed record does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// Changed, moved, or sealed under a key that is not there.
    #[error("a sealed record does not open")]
    Corrupt,
    /// A format of a later version.
    #[error("a sealed record has a newer format")]
    Newer,
}

/// The keys that came in are not a keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record keys are missing or not in rising order of epochs")]
pub(crate) struct BadKeys;

/// Seals and opens the records of one installation.
pub(crate) struct RecordSealer {
    instance: [u8; 16],
    by_epoch: Vec<(u32, WrapKey)>,
    newest: u32,
    writes: AtomicU64,
}

impl RecordSealer {
    /// Takes the keys of the keyring.
    pub(crate) fn new(keys: &RecordKeys) -> Result<Self, Cause> {
        let rising = keys.by_epoch.is_sorted_by(|(a, _), (b, _)| a < b);
        let newest = keys.by_epoch.last().filter(|_| rising).ok_or(BadKeys)?.0;
        let by_epoch = keys
            .by_epoch
            .iter()
            .map(|(epoch, key)| WrapKey::new(key).map(|key| (*epoch, key)))
            .collect::<Result<_, _>>()?;
        Ok(Self { instance: keys.instance.0, by_epoch, newest, writes: AtomicU64::new(0) })
    }

    /// Seals a record for a path and the revision that it gets.
    pub(crate) fn seal(
        &self,
        path: &str,
        revision: u64,
        record: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, Cause> {
        let key = self.key(self.newest).ok_or(BadKeys)?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        let mut sealed = Vec::with_capacity(record.len().saturating_add(OVERHEAD_LEN));
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.newest.to_be_bytes());
        key.wrap_into(&self.aad(path, revision, self.newest), record, entropy, &mut sealed)?;
        Ok(sealed)
    }

    /// How many records were sealed under the newest epoch by this sealer.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Whether a sealed record lies under an older epoch than the newest.
    pub(crate) fn is_old(&self, sealed: &[u8]) -> bool {
        let prefix = sealed.first_chunk::<PREFIX_LEN>();
        prefix.is_some_and(|[_, epoch @ ..]| u32::from_be_bytes(*epoch) < self.newest)
    }

    /// Opens what lies at a path in a revision.
    pub(crate) fn open(
        &self,
        path: &str,
        revision: u64,
        sealed: &[u8],
    ) -> Result<SecretVec, OpenError> {
        let (format, rest) = sealed.split_first().ok_or(OpenError::Corrupt)?;
        match *format {
            FORMAT => {}
            0 => return Err(OpenError::Corrupt),
            _ => return Err(OpenError::Newer),
        }
        let (epoch, wrapped) = rest.split_first_chunk::<4>().ok_or(OpenError::Corrupt)?;
        let epoch = u32::from_be_bytes(*epoch);
        let key = self.key(epoch).ok_or(OpenError::Corrupt)?;
        key.unwrap(&self.aad(path, revision, epoch), wrapped).map_err(|_| OpenError::Corrupt)
    }

    fn key(&self, epoch: u32) -> Option<&WrapKey> {
        // The newest epoch protects nearly every record, so the search starts there.
        self.by_epoch.iter().rev().find(|(e, _)| *e == epoch).map(|(_, key)| key)
    }

    fn aad(&self, path: &str, revision: u64, epoch: u32) -> Vec<u8> {
        let path_len = u32::try_from(path.len()).unwrap_or(u32::MAX);
        let mut aad = Vec::with_capacity(path.len().saturating_add(LABEL.len() + 32));
        aad.extend_from_slice(LABEL);
        aad.extend_from_slice(&self.instance);
        aad.extend_from_slice(&path_len.to_be_bytes());
        aad.extend_from_slice(path.as_bytes());
        aad.extend_from_slice(&revision.to_be_bytes());
        aad.extend_from_slice(&epoch.to_be_bytes());
        aad
    }
}

#[cfg(test)]
mod tests {
    use lastkey_testkit::entropy::{Dry, Seeded};
    use lastkey_testkit::fixtures;

    use super::*;

    const PATH: &str = "key/a";
    const RECORD: &[u8] = b"a record";

    fn sealer() -> RecordSealer {
        RecordSealer::new(&fixtures::record_keys(&[1, 7])).unwrap()
    }

    fn sealed() -> Vec<u8> {
        sealer().seal(PATH, 3, RECORD, &mut Seeded::new(1)).unwrap()
    }

    fn open(path: &str, revision: u64, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        sealer().open(path, revision, sealed).map(|record| record.expose(<[u8]>::to_vec))
    }

    #[test]
    fn sealed_record_has_the_layout_of_the_document() {
        let sealed = sealed();
        assert_eq!(sealed.len(), RECORD.len() + OVERHEAD_LEN);
        assert_eq!(OVERHEAD_LEN, 45);
        assert_eq!(sealed[..5], [1, 0, 0, 0, 7]);
    }

    #[test]
    fn sealed_record_opens_where_it_belongs_and_nowhere_else() {
        let sealed = sealed();
        assert_eq!(open(PATH, 3, &sealed).as_deref(), Ok(RECORD));
        for (path, revision) in [(PATH, 2), (PATH, 4), ("key/b", 3), ("key/", 3), ("key/a\0", 3)] {
            assert_eq!(open(path, revision, &sealed), Err(OpenError::Corrupt), "{path} {revision}");
        }
        let elsewhere = RecordKeys {
            instance: lastkey_core::ids::InstanceId([0; 16]),
            ..fixtures::record_keys(&[1, 7])
        };
        let opened = RecordSealer::new(&elsewhere).unwrap().open(PATH, 3, &sealed);
        assert_eq!(opened.err(), Some(OpenError::Corrupt));
    }

    #[test]
    fn sealed_record_does_not_open_with_any_bit_changed_or_byte_cut() {
        let sealed = sealed();
        for place in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[place] ^= 1 << bit;
                let expected = if place == 0 && changed[0] != 0 {
                    OpenError::Newer
                } else {
                    OpenError::Corrupt
                };
                assert_eq!(open(PATH, 3, &changed), Err(expected), "byte {place} bit {bit}");
            }
            assert_eq!(open(PATH, 3, &sealed[..place]), Err(OpenError::Corrupt), "{place} bytes");
        }
    }

    #[test]
    fn same_record_sealed_twice_has_two_nonces() {
        let mut entropy = Seeded::new(1);
        let mut seal = || sealer().seal(PATH, 3, RECORD, &mut entropy).unwrap();
        assert_ne!(seal()[5..29], seal()[5..29]);
    }

    #[test]
    fn record_is_not_sealed_without_randomness() {
        assert!(sealer().seal(PATH, 3, RECORD, &mut Dry).is_err());
    }
}
