//! When each version was used last: counted in memory, written every minute.
//!
//! Room      `service`.
//! Holds     counting costs a use two atomic additions; a kill loses at most what was counted
//!           since the last write, never what was written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lastkey_core::ids::{KeyId, VersionNo};
use lastkey_core::ports::{Expected, Store, StoreError, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::state::Purpose;
use lastkey_core::time::Timestamp;
use lastkey_core::version::Usage;

/// Uses of one version that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct UsageCell {
    protected: AtomicU64,
    processed: AtomicU64,
    refused: AtomicU64,
    last: AtomicU64,
}

impl UsageCell {
    /// Counts one use.
    pub(crate) fn count(&self, purpose: Purpose, at: Timestamp) {
        let counter = match purpose {
            Purpose::Protect => &self.protected,
            Purpose::Process => &self.processed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if self.last.load(Ordering::Relaxed) < at.0 {
            self.last.fetch_max(at.0, Ordering::Relaxed);
        }
    }

    /// Counts one use that was refused because the version is shadow-disabled.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn peek(&self) -> Usage {
        let last = self.last.load(Ordering::Relaxed);
        Usage {
            protected: self.protected.load(Ordering::Relaxed),
            processed: self.processed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            last_used_at: (last > 0).then_some(Timestamp(last)),
        }
    }

    /// Takes away what has been written. The time of the last use stays: it only ever rises.
    fn subtract(&self, written: &Usage) {
        self.protected.fetch_sub(written.protected, Ordering::Relaxed);
        self.processed.fetch_sub(written.processed, Ordering::Relaxed);
        self.refused.fetch_sub(written.refused, Ordering::Relaxed);
    }
}

/// The cells of all versions that were used since the start.
#[derive(Debug, Default)]
pub(crate) struct UsageBook(Mutex<HashMap<(KeyId, VersionNo), Arc<UsageCell>>>);

impl UsageBook {
    /// Versions written in one batch.
    const GROUP: usize = 512;

    /// The cell of one version.
    pub(crate) fn cell(&self, key: KeyId, version: VersionNo) -> Arc<UsageCell> {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry((key, version)).or_default())
    }

    /// What has not been written yet of one version.
    pub(crate) fn pending(&self, key: KeyId, version: VersionNo) -> Usage {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cells.get(&(key, version)).map(|cell| cell.peek()).unwrap_or_default()
    }

    /// Writes what was counted, and forgets the cells that nobody holds any more.
    ///
    /// # Errors
    /// [`StoreError`]; what was not written stays counted.
    pub(crate) async fn write_to(&self, store: &dyn Store) -> Result<(), StoreError> {
        let counted = |usage: &Usage| usage.protected | usage.processed | usage.refused != 0;
        let dirty: Vec<_> = {
            let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            cells.retain(|_, cell| Arc::strong_count(cell) > 1 || counted(&cell.peek()));
            let all = cells.iter().map(|(place, cell)| (*place, Arc::clone(cell), cell.peek()));
            all.filter(|(_, _, usage)| counted(usage)).collect()
        };
        for group in dirty.chunks(Self::GROUP) {
            let mut batch = Vec::with_capacity(group.len());
            for ((key, version), _, usage) in group {
                batch.push(Self::addition(store, *key, *version, *usage).await?);
            }
            store.commit(batch).await?;
            for (_, cell, usage) in group {
                cell.subtract(usage);
            }
        }
        Ok(())
    }

    async fn addition(
        store: &dyn Store,
        key: KeyId,
        version: VersionNo,
        more: Usage,
    ) -> Result<Write, StoreError> {
        let path = RecordPath::usage(key, version);
        let (expected, before) = match store.get(&path).await? {
            None => (Expected::Absent, Usage::default()),
            Some(stored) => {
                let Record::Usage(before) = stored.record else {
                    return Err(StoreError::Corrupt(path));
                };
                (Expected::At(stored.revision), before)
            }
        };
        Ok(Write { path, expected, record: Some(Record::Usage(before.plus(more))) })
    }
}
