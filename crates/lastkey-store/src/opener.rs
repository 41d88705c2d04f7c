//! A store while it is sealed, and the way from there to its records.
//!
//! Room      `store`.
//! Source    `docs/formats/record.md`, "Bootstrap record".

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use lastkey_core::ports::{EntropySource, RecordKeys, SealedStore, Store, StoreError};
use lastkey_core::record::RecordPath;
use lastkey_core::seal_record::Bootstrap;

use crate::backend::{Backend, RawWrite};
use crate::encrypted::{EncryptedStore, store_error};
use crate::memory::MemoryStore;
use crate::record::{DecodeError, bootstrap};
use crate::sqlite::{OpenError, Snapshot, SqliteStore};

/// Path of what lies outside the root key.
pub(crate) const BOOTSTRAP: &str = "!bootstrap";

/// Sealed records in any backend. Cheap to open: nothing but the bootstrap record can be read
/// before [`SealedStore::open`] gets the keys.
pub struct SealedRecords<B> {
    backend: Arc<B>,
    entropy: Arc<dyn EntropySource>,
}

/// Sealed records in a directory on disk.
pub type SqliteSealedStore = SealedRecords<SqliteStore>;

/// Sealed records in memory.
pub type MemorySealedStore = SealedRecords<MemoryStore>;

impl<B: Backend> SealedRecords<B> {
    /// Stands on a backend; nonces are drawn from `entropy`.
    #[must_use]
    pub fn new(backend: B, entropy: Arc<dyn EntropySource>) -> Self {
        Self { backend: Arc::new(backend), entropy }
    }
}

impl SqliteSealedStore {
    /// Opens a data directory, or makes one; see [`SqliteStore::open`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_dir(dir: &Path, entropy: Arc<dyn EntropySource>) -> Result<Self, OpenError> {
        SqliteStore::open(dir).map(|backend| Self::new(backend, entropy))
    }

    /// Opens a data directory at the end of a restore, before
    /// [`finish_restore`](crate::sqlite::finish_restore).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_restored(dir: &Path, entropy: Arc<dyn EntropySource>) -> Result<Self, OpenError> {
        SqliteStore::open_restored(dir).map(|backend| Self::new(backend, entropy))
    }

    /// As [`SqliteStore::snapshot`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn snapshot(&self) -> Result<Snapshot, OpenError> {
        self.backend.snapshot()
    }
}

impl MemorySealedStore {
    /// An empty store that is gone with the process.
    #[must_use]
    pub fn in_memory(entropy: Arc<dyn EntropySource>) -> Self {
        Self::new(MemoryStore::new(), entropy)
    }
}

#[async_trait]
impl<B: Backend> SealedStore for SealedRecords<B> {
    async fn bootstrap(&self) -> Result<Option<Bootstrap>, StoreError> {
        let raw = self.backend.get(BOOTSTRAP).await.map_err(store_error)?;
        let path = || RecordPath::from_stored(BOOTSTRAP.to_owned());
        raw.map(|raw| bootstrap::decode(&raw.value)).transpose().map_err(|error| match error {
            DecodeError::Malformed => StoreError::Corrupt(path()),
            DecodeError::Newer => StoreError::Newer(path()),
        })
    }

    async fn initialise(&self, bootstrap: &Bootstrap) -> Result<(), StoreError> {
        let bytes = bootstrap::encode(bootstrap).map_err(|e| StoreError::Failed(e.into()))?;
        let path = BOOTSTRAP.to_owned();
        let write = RawWrite { path, expected: None, value: Some(bytes) };
        self.backend.commit(vec![write]).await.map(|_| ()).map_err(store_error)
    }

    async fn replace_bootstrap(
        &self,
        before: &Bootstrap,
        after: &Bootstrap,
    ) -> Result<(), StoreError> {
        let encode = |record| bootstrap::encode(record).map_err(|e| StoreError::Failed(e.into()));
        let (before, after) = (encode(before)?, encode(after)?);
        let found = self.backend.get(BOOTSTRAP).await.map_err(store_error)?;
        // One record has one encoding, so equal records are equal bytes.
        let found = found.filter(|found| found.value == before).ok_or(StoreError::Conflict)?;
        let (path, expected) = (BOOTSTRAP.to_owned(), Some(found.revision));
        let write = RawWrite { path, expected, value: Some(after) };
        self.backend.commit(vec![write]).await.map(|_| ()).map_err(store_error)
    }

    fn open(&self, keys: RecordKeys) -> Result<Arc<dyn Store>, StoreError> {
        let backend = Arc::clone(&self.backend);
        let store = EncryptedStore::new(backend, &keys, Arc::clone(&self.entropy))?;
        Ok(Arc::new(store))
    }
}
