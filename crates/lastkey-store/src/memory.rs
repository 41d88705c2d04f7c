//! A backend in memory: for tests, and for a server that keeps nothing.
//!
//! Room      `store`. Same conformance suite as SQLite.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lastkey_core::ports::{Arrival, CommitSeq, Watch};
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
    values: BTreeMap<String, Kept>,
    /// Paths in the order in which they came.
    arrived: BTreeMap<Arrival, String>,
    last: CommitSeq,
}

#[derive(Debug)]
struct Kept {
    place: Arrival,
    revision: u64,
    value: Vec<u8>,
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
        self.values.get(&write.path).map(|kept| kept.revision) == write.expected
    }

    fn apply(&mut self, batch: &[RawWrite]) -> Result<CommitSeq, BackendError> {
        if !batch.iter().all(|write| self.holds(write)) {
            return Err(BackendError::Conflict);
        }
        for write in batch {
            match (&write.value, write.next_revision()) {
                (Some(value), Some(revision)) => self.put(&write.path, revision, value.clone()),
                (_, _) => {
                    if let Some(gone) = self.values.remove(&write.path) {
                        self.arrived.remove(&gone.place);
                    }
                }
            }
        }
        self.last = CommitSeq(self.last.0.saturating_add(1));
        Ok(self.last)
    }

    fn put(&mut self, path: &str, revision: u64, value: Vec<u8>) {
        let place = match self.values.get(path) {
            Some(kept) => kept.place,
            None => {
                let newest = self.arrived.last_key_value().map_or(0, |(place, _)| place.0);
                let place = Arrival(newest.saturating_add(1));
                self.arrived.insert(place, path.to_owned());
                place
            }
        };
        self.values.insert(path.to_owned(), Kept { place, revision, value });
    }

    fn walk(&self, after: Option<Arrival>, limit: usize) -> Vec<(Arrival, RawStored)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let places = self.arrived.range((start, Bound::Unbounded)).take(limit);
        let found = places.filter_map(|(place, path)| {
            self.values.get(path).map(|kept| (*place, raw_stored(path, kept)))
        });
        found.collect()
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

fn raw_stored(path: &str, kept: &Kept) -> RawStored {
    RawStored { path: path.to_owned(), revision: kept.revision, value: kept.value.clone() }
}

#[async_trait]
impl Backend for MemoryStore {
    async fn get(&self, path: &str) -> Result<Option<RawStored>, BackendError> {
        Ok(self.state().values.get(path).map(|stored| raw_stored(path, stored)))
    }

    async fn scan(&self, range: &PathRange) -> Result<Vec<RawStored>, BackendError> {
        Ok(self.state().scan(range))
    }

    async fn walk(
        &self,
        after: Option<Arrival>,
        limit: usize,
    ) -> Result<Vec<(Arrival, RawStored)>, BackendError> {
        Ok(self.state().walk(after, limit))
    }

    async fn commit(&self, batch: Vec<RawWrite>) -> Result<CommitSeq, BackendError> {
        let mut state = self.state();
        let commit = state.apply(&batch)?;
        self.hub.publish(commit, &batch);
        Ok(commit)
    }

    async fn exchange(&self, values: Vec<RawExchange>) -> Result<(), BackendError> {
        let mut state = self.state();
        let State { values: kept, arrived, .. } = &mut *state;
        for RawExchange { place, before, after } in values {
            let found = arrived.get(&place).and_then(|path| kept.get_mut(path));
            if let Some(kept) = found.filter(|kept| kept.value == before) {
                kept.value = after;
            }
        }
        Ok(())
    }

    fn last_commit(&self) -> CommitSeq {
        self.state().last
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
