//! A backend on disk: SQLite in one directory, one writer thread, a few readers.
//!
//! Room      `store`.
//! Source    `docs/formats/record.md`, "Data directory".
//! Holds     one process at a time has the directory. What [`Backend::commit`] acknowledged is
//!           on the disk; a process killed at any moment leaves every batch whole or absent.

mod connection;
mod directory;
mod failure;
mod load;
mod readers;
mod snapshot;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use lastkey_core::ports::{Arrival, CommitSeq, Watch};
use lastkey_core::record::PathRange;

use self::directory::Claim;
pub use self::directory::OpenError;
pub(crate) use self::failure::is_full;
pub use self::load::{Load, finish_restore};
use self::readers::Readers;
pub use self::snapshot::Snapshot;
pub(crate) use self::snapshot::next_value;
use self::writer::Writer;
use crate::backend::{Backend, BackendError, RawExchange, RawStored, RawWrite};
use crate::watch::Hub;

/// Ranges of up to this many values are read on the caller's thread (about 0.1 ms), longer ones
/// on a thread for blocking work.
const SHORT_RANGE: usize = 32;

/// Values in a SQLite database that this process alone has open.
#[derive(Debug)]
pub struct SqliteStore {
    // INVARIANT: dropped in this order. The writer's connection closes last, so it takes the
    // journal back into the database; the lock goes when nothing of the store is open.
    readers: Arc<Readers>,
    writer: Writer,
    hub: Hub,
    database: PathBuf,
    _claim: Claim,
}

impl SqliteStore {
    /// Opens the store in a directory; makes both when nothing is there.
    ///
    /// Reads no record: its time does not grow with their number.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has it open, [`OpenError::Newer`] when a newer
    /// version wrote it, [`OpenError::Damaged`], and others.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        if directory::is_restoring(dir) {
            return Err(OpenError::HalfRestored(dir.to_owned()));
        }
        Self::open_restored(dir)
    }

    /// The same for the end of a restore, before [`finish_restore`].
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub(crate) fn open_restored(dir: &Path) -> Result<Self, OpenError> {
        let claim = directory::claim(dir)?;
        let is_new = directory::is_new(dir)?;
        let database = dir.join(directory::DATABASE);
        if is_new {
            directory::create_private(&database)?;
        }
        let connection = connection::open_writer(&database, is_new)?;
        if is_new {
            directory::finish_new(dir)?;
        }
        let readers = Arc::new(Readers::open(&database)?);
        let hub = Hub::new();
        let writer = Writer::start(connection, &database, hub.clone())?;
        Ok(Self { readers, writer, hub, database, _claim: claim })
    }

    /// Holds still what is stored now. The store goes on meanwhile.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn snapshot(&self) -> Result<Snapshot, OpenError> {
        Snapshot::begin(&self.database)
    }
}

#[async_trait]
impl Backend for SqliteStore {
    /// Reads on the caller's thread: a point read of a cached page takes a few microseconds,
    /// less than handing it to another thread and back.
    async fn get(&self, path: &str) -> Result<Option<RawStored>, BackendError> {
        self.readers.get(path)
    }

    async fn scan(&self, range: &PathRange) -> Result<Vec<RawStored>, BackendError> {
        if range.limit <= SHORT_RANGE {
            return self.readers.scan(range);
        }
        let (readers, range) = (Arc::clone(&self.readers), range.clone());
        tokio::task::spawn_blocking(move || readers.scan(&range))
            .await
            .map_err(|error| BackendError::Failed(error.into()))?
    }

    async fn walk(
        &self,
        after: Option<Arrival>,
        limit: usize,
    ) -> Result<Vec<(Arrival, RawStored)>, BackendError> {
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.walk(after, limit))
            .await
            .map_err(|error| BackendError::Failed(error.into()))?
    }

    async fn commit(&self, batch: Vec<RawWrite>) -> Result<CommitSeq, BackendError> {
        self.writer.commit(batch).await
    }

    async fn exchange(&self, values: Vec<RawExchange>) -> Result<(), BackendError> {
        self.writer.exchange(values).await
    }

    fn last_commit(&self) -> CommitSeq {
        self.writer.last_commit()
    }

    fn watch(&self, prefix: &str) -> Box<dyn Watch> {
        self.hub.watch(prefix)
    }

    async fn erase_residue(&self) -> Result<CommitSeq, BackendError> {
        self.writer.erase_residue().await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use lastkey_core::ports::{SealedStore as _, Store};
    use lastkey_testkit::conformance;
    use lastkey_testkit::entropy::SeededSource;
    use lastkey_testkit::fixtures;
    use tempfile::TempDir;

    use crate::opener::SqliteSealedStore;

    use super::*;

    /// Each call gives a store in a directory of its own; all go when this goes.
    #[derive(Default)]
    struct Dirs(RefCell<Vec<TempDir>>);

    impl Dirs {
        fn sealed(&self) -> SqliteSealedStore {
            let dir = tempfile::tempdir().unwrap();
            let entropy = Arc::new(SeededSource::new(1));
            let sealed = SqliteSealedStore::open_dir(dir.path(), entropy).unwrap();
            self.0.borrow_mut().push(dir);
            sealed
        }

        fn store(&self) -> Arc<dyn Store> {
            self.sealed().open(fixtures::record_keys(&[1])).unwrap()
        }
    }

    #[tokio::test]
    async fn sqlite_store_is_a_store() {
        let dirs = Dirs::default();
        conformance::store::run(|| dirs.store()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn sqlite_store_is_a_store_on_many_threads() {
        let dirs = Dirs::default();
        conformance::store::run(|| dirs.store()).await;
    }

    #[tokio::test]
    async fn sealed_sqlite_store_is_a_sealed_store() {
        let dirs = Dirs::default();
        conformance::sealed_store::run(|| Box::new(dirs.sealed())).await;
    }
}
