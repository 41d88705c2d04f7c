//! A backend in memory: for tests, and for a server that keeps nothing.
//!
//! Room      `store`. Same conformance suite as SQLite.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lastkey_core::ports::{CommitSeq, Watch};
use lastkey_core::record::{PathRange, RecordPath};

use crate::backend::{Backend, BackendError, RawExchange, RawStored, RawWrite};
use crate::watch::Hub;

/// Values in a map. Gone with the process.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    hub: Hub,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<String, (u64, Vec<u8>)>,
    last: CommitSeq,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Mutex::default(), hub: Hub::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // INVARIANT: `State::apply` checks before it changes, so a panic leaves no half a batch.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn holds(&self, write: &RawWrite) -> bool {
        self.values.get(&write.path).map(|(revision, _)| *revision) == write.expected
    }

    fn apply(&mut self, batch: &[RawWrite]) -> Result<CommitSeq, BackendError> {
        if !batch.iter().all(|write| self.holds(write)) {
            return Err(BackendError::Conflict);
        }
        for write in batch {
            match (&write.value, write.next_revision()) {
                (Some(value), Some(revision)) => {
                    self.values.insert(write.path.clone(), (revision, value.clone()));
                }
                (_, _) => {
                    self.values.remove(&write.path);
                }
            }
        }
        self.last = CommitSeq(self.last.0.saturating_add(1));
        Ok(self.last)
    }

    fn scan(&self, range: &PathRange) -> Vec<RawStored> {
        let after = range.after.as_ref().map(RecordPath::as_str);
        let start = match after {
            Some(after) if after >= range.prefix.as_str() => Bound::Excluded(after),
            Some(_) | None => Bound::Included(range.prefix.as_str()),
        };
        self.values
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(&range.prefix))
            .take(range.limit)
            .map(|(path, stored)| raw_stored(path, stored))
            .collect()
    }
}

fn raw_stored(path: &str, (revision, value): &(u64, Vec<u8>)) -> RawStored {
    RawStored { path: path.to_owned(), revision: *revision, value: value.clone() }
}

#[async_trait]
impl Backend for MemoryStore {
    async fn get(&self, path: &str) -> Result<Option<RawStored>, BackendError> {
        Ok(self.state().values.get(path).map(|stored| raw_stored(path, stored)))
    }

    async fn scan(&self, range: &PathRange) -> Result<Vec<RawStored>, BackendError> {
        Ok(self.state().scan(range))
    }

    async fn commit(&self, batch: Vec<RawWrite>) -> Result<CommitSeq, BackendError> {
        let mut state = self.state();
        let commit = state.apply(&batch)?;
        self.hub.publish(commit, &batch);
        Ok(commit)
    }

    async fn exchange(&self, values: Vec<RawExchange>) -> Result<(), BackendError> {
        let mut state = self.state();
        for RawExchange { path, before, after } in values {
            if let Some((_, value)) = state.values.get_mut(&path).filter(|(_, v)| *v == before) {
                *value = after;
            }
        }
        Ok(())
    }

    fn watch(&self, prefix: &str) -> Box<dyn Watch> {
        self.hub.watch(prefix)
    }

    async fn erase_residue(&self) -> Result<CommitSeq, BackendError> {
        Ok(self.state().last)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lastkey_core::ports::{SealedStore as _, Store};
    use lastkey_testkit::conformance;
    use lastkey_testkit::entropy::SeededSource;
    use lastkey_testkit::fixtures;

    use crate::opener::MemorySealedStore;

    fn sealed() -> MemorySealedStore {
        MemorySealedStore::in_memory(Arc::new(SeededSource::new(1)))
    }

    fn store() -> Arc<dyn Store> {
        sealed().open(fixtures::record_keys(&[1])).unwrap()
    }

    #[tokio::test]
    async fn memory_store_is_a_store() {
        conformance::store::run(store).await;
    }

    #[tokio::test]
    async fn sealed_memory_store_is_a_sealed_store() {
        conformance::sealed_store::run(|| Box::new(sealed())).await;
    }
}
