//! Local keys: what seeds are sealed under, in memory.
//!
//! Room      `node`.
//! Holds     A local key leaves the ring when the service refuses it, and is asked about again
//!           after ten minutes of use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lastkey_crypto::digest::sha256;
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::{SecretArray, SecretVec};
use tokio::time::Instant;

/// How long a local key is used before the service is asked again whether it still may be.
const GOOD_FOR: Duration = Duration::from_secs(600);
/// One for each restart of a plugin since the objects were last written; the least recently
/// confirmed leave first.
const MAX_KEYS: usize = 256;

/// A local key that the service has given out.
#[derive(Debug)]
pub(crate) struct LocalKey {
    pub(crate) key: WrapKey,
    /// The same, to be kept on disk.
    bytes: SecretArray<32>,
    /// When the service last said that it may be used.
    confirmed: Instant,
}

impl LocalKey {
    /// Takes over 32 bytes; `None` when there are not 32.
    pub(crate) fn new(bytes: &SecretVec, confirmed: Instant) -> Option<Self> {
        Self::of(bytes.to_array()?, confirmed)
    }

    /// Takes over bytes that were kept: the service is asked about them before they are used,
    /// where it answers.
    pub(crate) fn kept(bytes: SecretArray<32>) -> Option<Self> {
        Self::of(bytes, Instant::now().checked_sub(GOOD_FOR)?)
    }

    fn of(bytes: SecretArray<32>, confirmed: Instant) -> Option<Self> {
        Some(Self { key: WrapKey::new(&bytes).ok()?, bytes, confirmed })
    }

    /// Whether the service need not be asked before it is used.
    pub(crate) fn is_fresh(&self) -> bool {
        self.confirmed.elapsed() < GOOD_FOR
    }
}

/// Local keys by the hash of what the service has to unwrap for them.
#[derive(Debug, Default)]
pub(crate) struct Ring(Mutex<HashMap<[u8; 32], Arc<LocalKey>>>, AtomicUsize);

impl Ring {
    pub(crate) fn find(&self, by_service: &[u8]) -> Option<Arc<LocalKey>> {
        self.lock().get(&sha256(by_service)).cloned()
    }

    pub(crate) fn insert(&self, by_service: &[u8], local: Arc<LocalKey>) {
        self.insert_named(sha256(by_service), local);
    }

    /// Takes over a local key that was kept, by the hash of what the service has to unwrap for
    /// it; one that is there is better.
    pub(crate) fn adopt(&self, name: [u8; 32], bytes: SecretArray<32>) {
        if !self.lock().contains_key(&name)
            && let Some(local) = LocalKey::kept(bytes)
        {
            self.insert_named(name, Arc::new(local));
        }
    }

    fn insert_named(&self, name: [u8; 32], local: Arc<LocalKey>) {
        let mut keys = self.lock();
        if keys.insert(name, local).is_none() {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        if keys.len() > MAX_KEYS {
            let oldest = keys.iter().min_by_key(|(_, local)| local.confirmed);
            if let Some(name) = oldest.map(|(name, _)| *name) {
                keys.remove(&name);
            }
        }
    }

    pub(crate) fn remove(&self, by_service: &[u8]) {
        self.lock().remove(&sha256(by_service));
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Counts the local keys that came in.
    pub(crate) fn arrivals(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }

    /// All of them, to be kept.
    pub(crate) fn copies(&self) -> Vec<([u8; 32], SecretArray<32>)> {
        let keys = self.lock();
        let copy = |(name, local): (&[u8; 32], &Arc<LocalKey>)| {
            (*name, local.bytes.expose(SecretArray::copy_of))
        };
        keys.iter().map(copy).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Every change is one call on the map, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<LocalKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(at: Instant) -> Arc<LocalKey> {
        Arc::new(LocalKey::new(&SecretVec::copy_of(&[1; 32]), at).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn ring_keeps_a_bounded_number_and_the_freshest() {
        let ring = Ring::default();
        for n in 0..300_u32 {
            tokio::time::advance(Duration::from_millis(1)).await;
            ring.insert(&n.to_be_bytes(), local(Instant::now()));
        }
        assert_eq!(ring.len(), MAX_KEYS);
        assert!(ring.find(&0_u32.to_be_bytes()).is_none());
        assert!(ring.find(&299_u32.to_be_bytes()).is_some());
        ring.remove(&299_u32.to_be_bytes());
        assert!(ring.find(&299_u32.to_be_bytes()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn key_is_fresh_for_ten_minutes() {
        let key = local(Instant::now());
        tokio::time::advance(Duration::from_secs(599)).await;
        assert!(key.is_fresh());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!key.is_fresh());
    }

    #[test]
    fn another_length_is_no_local_key() {
        let bytes = SecretVec::copy_of(&[1; 31]);
        assert!(LocalKey::new(&bytes, Instant::now()).is_none());
    }
}
