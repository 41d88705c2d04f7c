//! The `Store` port over any backend: encodes and seals on the way in, opens and decodes on the
//! way out.
//!
//! Room      `store`.
//! Holds     sealing happens in the caller's task, so that a backend's writer only writes. This
//!           works because the revision of a write is the expected one and 1.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use lastkey_core::ports::{
    Arrival, Cause, CommitSeq, EntropySource, Expected, RecordKeys, Renewed, Revision, Store,
    StoreError, Stored, Watch, Write,
};
use lastkey_core::record::{PathRange, RecordPath};
use lastkey_secret::SecretVec;
use tokio::sync::watch;

use crate::backend::{
    Backend, BackendError, MAX_PATH_LEN, OUTSIDE, RawExchange, RawStored, RawWrite,
};
use crate::record::{self, DecodeError};
use crate::sealing::{OpenError, RecordSealer};

/// How many records of a range are opened before other tasks get a turn (about 0.5 ms).
const RECORDS_PER_TURN: usize = 128;

/// Records of a renewal that are read, encrypted and handed to the backend at once.
const EXCHANGED_AT_ONCE: usize = 4_096;

/// Records that were looked at, and those of older epochs under the newest one.
struct RenewedPage {
    last: Option<Arrival>,
    exchanges: Vec<RawExchange>,
}

/// A batch that no caller may hand in. A fault of the program, not of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum BadBatch {
    #[error("a batch writes one path twice")]
    Twice,
    #[error("a path is longer than 512 bytes, empty, or outside the root key")]
    Path,
    #[error("a record was written so often that its revision cannot rise")]
    Revision,
}

/// Records of one installation, sealed, in a backend.
pub(crate) struct EncryptedStore<B> {
    backend: Arc<B>,
    newest: RwLock<Newest>,
    entropy: Arc<dyn EntropySource>,
}

/// What is written with, and who still writes with what came before it.
struct Newest {
    sealer: Arc<RecordSealer>,
    /// Each write that is under way has a receiver of this.
    writes: Arc<watch::Sender<()>>,
    /// The same of sealers that came before.
    older_writes: Vec<Arc<watch::Sender<()>>>,
}

impl<B: Backend> EncryptedStore<B> {
    pub(crate) fn new(
        backend: Arc<B>,
        keys: &RecordKeys,
        entropy: Arc<dyn EntropySource>,
    ) -> Result<Self, StoreError> {
        let sealer = Arc::new(RecordSealer::new(keys).map_err(StoreError::Failed)?);
        let newest = Newest { sealer, writes: Arc::default(), older_writes: Vec::new() };
        Ok(Self { backend, newest: RwLock::new(newest), entropy })
    }

    fn newest(&self) -> RwLockReadGuard<'_, Newest> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealer(&self) -> Arc<RecordSealer> {
        Arc::clone(&self.newest().sealer)
    }

    /// The sealer for a write that is under way for as long as the receiver is there.
    fn begin_write(&self) -> (Arc<RecordSealer>, watch::Receiver<()>) {
        let newest = self.newest();
        (Arc::clone(&newest.sealer), newest.writes.subscribe())
    }

    /// Waits until everything is written that was sealed under an older epoch.
    async fn await_older_writes(&self) -> Result<(), StoreError> {
        let older = self.newest().older_writes.clone();
        for writes in older {
            writes.closed().await;
        }
        // Who went away may have left his batch to the backend, which does one after the other.
        self.backend.exchange(Vec::new()).await.map_err(store_error)
    }

    fn open(sealer: &RecordSealer, raw: RawStored) -> Result<Stored, StoreError> {
        let opened = sealer.open(&raw.path, raw.revision, &raw.value);
        let path = RecordPath::from_stored(raw.path);
        let bytes = match opened {
            Ok(bytes) => bytes,
            Err(OpenError::Corrupt) => return Err(StoreError::Corrupt(path)),
            Err(OpenError::Newer) => return Err(StoreError::Newer(path)),
        };
        match bytes.expose(record::decode) {
            Ok(record) => Ok(Stored { path, revision: Revision(raw.revision), record }),
            Err(DecodeError::Malformed) => Err(StoreError::Corrupt(path)),
            Err(DecodeError::Newer) => Err(StoreError::Newer(path)),
        }
    }

    async fn renewed_page(
        &self,
        after: Option<Arrival>,
        limit: usize,
    ) -> Result<RenewedPage, StoreError> {
        let raw = self.backend.walk(after, limit).await.map_err(store_error)?;
        let last = raw.last().map(|(place, _)| *place);
        // After the read, as for a scan.
        let sealer = self.sealer();
        let mut exchanges = Vec::with_capacity(raw.len());
        for (at, (place, one)) in raw.into_iter().enumerate() {
            exchanges.extend(self.renewed(&sealer, place, one)?);
            if at.is_multiple_of(RECORDS_PER_TURN) {
                tokio::task::yield_now().await;
            }
        }
        Ok(RenewedPage { last, exchanges })
    }

    async fn exchange(&self, exchanges: Vec<RawExchange>) -> Result<(), StoreError> {
        if exchanges.is_empty() {
            return Ok(());
        }
        self.backend.exchange(exchanges).await.map_err(store_error)
    }

    /// The same record under the newest epoch; `None` when it is under it already, or under none.
    fn renewed(
        &self,
        sealer: &RecordSealer,
        place: Arrival,
        raw: RawStored,
    ) -> Result<Option<RawExchange>, StoreError> {
        if raw.path.starts_with(OUTSIDE) || !sealer.is_old(&raw.value) {
            return Ok(None);
        }
        let RawStored { path, revision, value: before } = raw;
        let record = sealer.open(&path, revision, &before).map_err(|error| {
            let path = RecordPath::from_stored(path.clone());
            match error {
                OpenError::Corrupt => StoreError::Corrupt(path),
                OpenError::Newer => StoreError::Newer(path),
            }
        })?;
        let mut entropy = self.entropy.open();
        let after = record.expose(|r| sealer.seal(&path, revision, r, entropy.as_mut()));
        let after = after.map_err(StoreError::Failed)?;
        Ok(Some(RawExchange { place, before, after }))
    }

    fn seal_batch(&self, sealer: &RecordSealer, batch: &[Write]) -> Result<Vec<RawWrite>, Cause> {
        let mut paths = BTreeSet::new();
        if !batch.iter().all(|write| paths.insert(&write.path)) {
            return Err(BadBatch::Twice.into());
        }
        batch.iter().map(|write| self.seal(sealer, write)).collect()
    }

    fn seal(&self, sealer: &RecordSealer, write: &Write) -> Result<RawWrite, Cause> {
        let path = write.path.as_str();
        if path.is_empty() || path.len() > MAX_PATH_LEN || path.starts_with(OUTSIDE) {
            return Err(BadBatch::Path.into());
        }
        let expected = match write.expected {
            Expected::Absent => None,
            Expected::At(revision) => Some(revision.0),
        };
        let revision = expected.unwrap_or(0).checked_add(1).ok_or(BadBatch::Revision)?;
        let value = match &write.record {
            Some(record) => {
                let bytes = SecretVec::take(record::encode(record)?);
                let mut entropy = self.entropy.open();
                let seal = |b: &[u8]| sealer.seal(path, revision, b, entropy.as_mut());
                Some(bytes.expose(seal)?)
            }
            None => None,
        };
        Ok(RawWrite { path: path.to_owned(), expected, value })
    }
}

#[async_trait]
impl<B: Backend> Store for EncryptedStore<B> {
    async fn get(&self, path: &RecordPath) -> Result<Option<Stored>, StoreError> {
        if path.as_str().starts_with(OUTSIDE) {
            return Ok(None);
        }
        let raw = self.backend.get(path.as_str()).await.map_err(store_error)?;
        raw.map(|raw| Self::open(&self.sealer(), raw)).transpose()
    }

    async fn scan(&self, range: &PathRange) -> Result<Vec<Stored>, StoreError> {
        let raw = self.backend.scan(&under_root_key(range)).await.map_err(store_error)?;
        // After the read: what was read may be under an epoch that was just adopted.
        let sealer = self.sealer();
        let mut records = Vec::with_capacity(raw.len());
        for one in raw {
            records.push(Self::open(&sealer, one)?);
            if records.len().is_multiple_of(RECORDS_PER_TURN) {
                tokio::task::yield_now().await;
            }
        }
        Ok(records)
    }

    async fn commit(&self, batch: Vec<Write>) -> Result<CommitSeq, StoreError> {
        let (sealer, _under_way) = self.begin_write();
        let sealed = self.seal_batch(&sealer, &batch).map_err(StoreError::Failed)?;
        self.backend.commit(sealed).await.map_err(store_error)
    }

    fn last_commit(&self) -> CommitSeq {
        self.backend.last_commit()
    }

    fn watch(&self, prefix: &str) -> Box<dyn Watch> {
        self.backend.watch(prefix)
    }

    fn adopt(&self, keys: &RecordKeys) -> Result<(), StoreError> {
        let sealer = RecordSealer::new(keys).map_err(StoreError::Failed)?;
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        newest.sealer = Arc::new(sealer);
        let older = std::mem::take(&mut newest.writes);
        newest.older_writes.retain(|writes| !writes.is_closed());
        newest.older_writes.push(older);
        Ok(())
    }

    fn writes_of_epoch(&self) -> u64 {
        self.sealer().writes()
    }

    async fn renew(&self, after: Option<Arrival>, limit: usize) -> Result<Renewed, StoreError> {
        if after.is_none() {
            self.await_older_writes().await?;
        }
        let (mut renewed, mut left) = (Renewed::default(), limit);
        let mut ready = Vec::new();
        while left > 0 {
            let (from, page) = (renewed.last.or(after), left.min(EXCHANGED_AT_ONCE));
            // The next ones are read and encrypted while the last ones are written.
            let (written, next) = tokio::join!(self.exchange(ready), self.renewed_page(from, page));
            written?;
            let RenewedPage { last, exchanges } = next?;
            ready = exchanges;
            if last.is_none() {
                break;
            }
            renewed.met = renewed.met.saturating_add(ready.len());
            renewed.last = last;
            left = left.saturating_sub(page);
        }
        self.exchange(ready).await?;
        Ok(renewed)
    }

    async fn erase_residue(&self) -> Result<CommitSeq, StoreError> {
        self.backend.erase_residue().await.map_err(store_error)
    }
}

/// The character after [`OUTSIDE`].
const FLOOR: &str = "\"";

/// The range without what lies outside the root key.
fn under_root_key(range: &PathRange) -> PathRange {
    // INVARIANT: every path outside the root key begins with `!`, sorts before this floor, and
    // no record path sorts between the two.
    let floor = || RecordPath::from_stored(FLOOR.to_owned());
    let after = range.after.clone().max(range.prefix.is_empty().then(floor));
    PathRange { after, ..range.clone() }
}

pub(crate) fn store_error(error: BackendError) -> StoreError {
    match error {
        BackendError::Conflict => StoreError::Conflict,
        BackendError::Full => StoreError::Full,
        BackendError::Failed(cause) => StoreError::Failed(cause),
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use lastkey_core::ports::SealedStore as _;
    use lastkey_testkit::conformance::store::put;
    use lastkey_testkit::entropy::{Dry, SeededSource};
    use lastkey_testkit::fixtures;

    use super::*;
    use crate::memory::MemoryStore;
    use crate::opener::SealedRecords;
    use crate::sqlite::SqliteStore;

    fn over(backend: &Arc<MemoryStore>) -> EncryptedStore<MemoryStore> {
        let entropy = Arc::new(SeededSource::new(1));
        EncryptedStore::new(Arc::clone(backend), &fixtures::record_keys(&[1]), entropy).unwrap()
    }

    /// Puts the value of one record where another is, and reads that.
    async fn read_with(
        change: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> Result<Option<Stored>, StoreError> {
        let backend = Arc::new(MemoryStore::new());
        let store = over(&backend);
        let (from, to) = (put(1, Expected::Absent), put(2, Expected::Absent));
        let path = to.path.clone();
        let from_path = from.path.clone();
        store.commit(vec![from, to]).await.unwrap();
        let value = backend.get(from_path.as_str()).await.unwrap().unwrap().value;
        let raw =
            |expected, value| vec![RawWrite { path: path.as_str().to_owned(), expected, value }];
        backend.commit(raw(Some(1), None)).await.unwrap();
        backend.commit(raw(None, Some(change(value)))).await.unwrap();
        store.get(&path).await
    }

    #[tokio::test]
    async fn record_that_was_moved_is_corrupt() {
        let read = read_with(|value| value).await;
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
    }

    #[tokio::test]
    async fn record_of_a_newer_format_is_newer() {
        let read = read_with(|mut value| {
            value[0] = 2;
            value
        });
        let read = read.await;
        assert!(matches!(read, Err(StoreError::Newer(_))), "{read:?}");
    }

    #[tokio::test]
    async fn record_of_an_older_revision_is_corrupt_in_a_later_one() {
        let backend = Arc::new(MemoryStore::new());
        let store = over(&backend);
        let path = put(1, Expected::Absent).path;
        store.commit(vec![put(1, Expected::Absent)]).await.unwrap();
        let old = backend.get(path.as_str()).await.unwrap().unwrap().value;
        let path_text = path.as_str().to_owned();
        backend
            .commit(vec![RawWrite { path: path_text, expected: Some(1), value: Some(old) }])
            .await
            .unwrap();
        assert!(matches!(store.get(&path).await, Err(StoreError::Corrupt(p)) if p == path));
    }

    #[tokio::test]
    async fn record_with_a_newer_version_inside_is_newer() {
        let backend = Arc::new(MemoryStore::new());
        let store = over(&backend);
        let path = put(1, Expected::Absent).path;
        let mut entropy = store.entropy.open();
        let value = store.sealer().seal(path.as_str(), 1, &[2, 1], entropy.as_mut()).unwrap();
        let path_text = path.as_str().to_owned();
        backend
            .commit(vec![RawWrite { path: path_text, expected: None, value: Some(value) }])
            .await
            .unwrap();
        assert!(matches!(store.get(&path).await, Err(StoreError::Newer(p)) if p == path));
    }

    #[tokio::test]
    async fn nothing_of_a_record_is_in_clear() {
        let backend = Arc::new(MemoryStore::new());
        let store = over(&backend);
        let (key, path) = (fixtures::full_key(1), RecordPath::key(fixtures::key_id(1)));
        let text = key.description.as_str().to_owned();
        let record = Some(lastkey_core::record::Record::Key(key));
        store
            .commit(vec![Write { path: path.clone(), expected: Expected::Absent, record }])
            .await
            .unwrap();
        let value = backend.get(path.as_str()).await.unwrap().unwrap().value;
        assert!(!value.windows(text.len()).any(|window| window == text.as_bytes()));
    }

    #[tokio::test]
    async fn nothing_is_written_without_randomness() {
        let sealed = SealedRecords::new(MemoryStore::new(), Arc::new(Dry));
        let store = sealed.open(fixtures::record_keys(&[1])).unwrap();
        let write = put(1, Expected::Absent);
        let path = write.path.clone();
        assert!(matches!(store.commit(vec![write]).await, Err(StoreError::Failed(_))));
        assert_eq!(store.get(&path).await.unwrap(), None);
    }

    #[tokio::test]
    async fn path_outside_the_root_key_cannot_be_written_or_read() {
        let backend = Arc::new(MemoryStore::new());
        let store = over(&backend);
        for path in ["!bootstrap", "", "!", &"x".repeat(513)] {
            let path = RecordPath::from_stored(path.to_owned());
            let write = Write { path: path.clone(), ..put(1, Expected::Absent) };
            let result = store.commit(vec![write]).await;
            assert!(matches!(result, Err(StoreError::Failed(_))), "{path:?}");
            assert_eq!(store.get(&path).await.unwrap(), None);
        }
    }

    /// A write that was sealed before the epoch began was not there yet when the records were gone
    /// through: it stayed under the key of before, and every record was said to be under the new.
    #[tokio::test]
    async fn renewal_begins_when_what_was_sealed_before_is_written() {
        let store = over(&Arc::new(MemoryStore::new()));
        let under_way = store.begin_write();
        store.adopt(&fixtures::record_keys(&[1, 2])).unwrap();
        let mut renewal = store.renew(None, 10);
        let mut context = Context::from_waker(Waker::noop());
        assert!(renewal.as_mut().poll(&mut context).is_pending());
        // Writes of the new epoch do not wait, and are not waited for.
        store.commit(vec![put(1, Expected::Absent)]).await.unwrap();
        let _new = store.begin_write();
        drop(under_way);
        assert_eq!(renewal.await.unwrap().met, 0);
    }

    #[tokio::test]
    async fn renewal_meets_what_was_left_to_the_writer_by_somebody_who_went_away() {
        let dir = tempfile::tempdir().unwrap();
        let backend = Arc::new(SqliteStore::open(dir.path()).unwrap());
        let entropy = Arc::new(SeededSource::new(1));
        let store = EncryptedStore::new(backend, &fixtures::record_keys(&[1]), entropy).unwrap();
        let mut commit = store.commit(vec![put(1, Expected::Absent)]);
        assert!(commit.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(commit);
        store.adopt(&fixtures::record_keys(&[1, 2])).unwrap();
        assert_eq!(store.renew(None, 10).await.unwrap().met, 1);
    }

    #[tokio::test]
    async fn revision_that_cannot_rise_is_refused() {
        let store = over(&Arc::new(MemoryStore::new()));
        let result = store.commit(vec![put(1, Expected::At(Revision(u64::MAX)))]).await;
        assert!(matches!(result, Err(StoreError::Failed(_))), "{result:?}");
    }
}
