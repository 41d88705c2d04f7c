//! A store of records in memory, without any bytes.
//!
//! Room      `testkit`. Runs the same conformance suite as the stores of the product.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lastkey_core::ports::{
    Arrival, Change, CommitSeq, Expected, RecordKeys, Renewed, Revision, SealedStore, Store,
    StoreError, Stored, Watch, Write,
};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::seal_record::Bootstrap;
use tokio::sync::mpsc;

use super::calls::{Call, Calls};

/// How the next commit goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store dies before it writes: nothing is there, and the caller hears of a failure.
    Before,
    /// The store dies after it wrote: all is there, and the caller hears of a failure.
    After,
    /// The disk is full.
    Full,
    /// Somebody else was faster.
    Conflict,
    /// The store dies before it writes, and answers no question until it comes back.
    Away,
}

/// The cause of a failure that a test asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultInjected;

impl core::fmt::Display for FaultInjected {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the store was told to fail")
    }
}

impl std::error::Error for FaultInjected {}

/// Records in a map. A clone is the same store.
#[derive(Clone, Debug, Default)]
pub struct FakeStore {
    state: Arc<Mutex<State>>,
    calls: Calls,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<RecordPath, (Revision, Record)>,
    last: CommitSeq,
    faults: VecDeque<Option<Fault>>,
    away: bool,
    aimed: Vec<(RecordPath, Fault)>,
    watchers: Vec<(String, mpsc::UnboundedSender<Change>)>,
}

impl FakeStore {
    /// An empty store that also adds to a list of calls.
    #[must_use]
    pub fn with_calls(calls: Calls) -> Self {
        Self { calls, ..Self::default() }
    }

    /// Lets one commit go wrong; several faults happen in turn.
    pub fn fail_next(&self, fault: Fault) {
        self.fail_later(0, fault);
    }

    /// The same after some commits that go well.
    pub fn fail_later(&self, well: usize, fault: Fault) {
        let faults = core::iter::repeat_n(None, well).chain([Some(fault)]);
        self.state().faults.extend(faults);
    }

    /// Lets a store answer again that went away.
    pub fn come_back(&self) {
        self.state().away = false;
    }

    /// Lets the next commit that writes this path go wrong, whatever is committed before it.
    pub fn fail_at(&self, path: RecordPath, fault: Fault) {
        self.state().aimed.push((path, fault));
    }

    /// Whether a commit is still to go wrong.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        let state = self.state();
        !state.aimed.is_empty() || !state.faults.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_fault(&mut self, batch: &[Write]) -> Option<Fault> {
        let is_met = |path: &RecordPath| batch.iter().any(|write| write.path == *path);
        match self.aimed.iter().position(|(path, _)| is_met(path)) {
            Some(at) => Some(self.aimed.remove(at).1),
            None => self.faults.pop_front().flatten(),
        }
    }

    fn commit(&mut self, batch: &[Write]) -> Result<CommitSeq, StoreError> {
        let mut paths = BTreeSet::new();
        if !batch.iter().all(|write| paths.insert(&write.path)) {
            return Err(StoreError::Failed("a batch writes one path twice".into()));
        }
        if !batch.iter().all(|write| self.expectation_holds(write)) {
            return Err(StoreError::Conflict);
        }
        self.last = CommitSeq(self.last.0.saturating_add(1));
        for write in batch {
            self.apply(write);
        }
        Ok(self.last)
    }

    fn expectation_holds(&self, write: &Write) -> bool {
        match (write.expected, self.records.get(&write.path)) {
            (Expected::Absent, found) => found.is_none(),
            (Expected::At(expected), found) => found.is_some_and(|(at, _)| *at == expected),
        }
    }

    fn apply(&mut self, write: &Write) {
        let revision = match (write.expected, &write.record) {
            (Expected::Absent, None) => return,
            (Expected::At(_), None) => {
                self.records.remove(&write.path);
                None
            }
            (Expected::Absent, Some(record)) => Some((Revision(1), record)),
            (Expected::At(Revision(n)), Some(record)) => {
                Some((Revision(n.wrapping_add(1)), record))
            }
        };
        if let Some((revision, record)) = revision {
            self.records.insert(write.path.clone(), (revision, record.clone()));
        }
        self.tell(&write.path, revision.map(|(revision, _)| revision));
    }

    fn tell(&mut self, path: &RecordPath, revision: Option<Revision>) {
        let commit = self.last;
        self.watchers.retain(|(prefix, watcher)| {
            let change = Change::Record { commit, path: path.clone(), revision };
            !path.as_str().starts_with(prefix) || watcher.send(change).is_ok()
        });
    }

    fn stored(&self, path: &RecordPath) -> Option<Stored> {
        let (revision, record) = self.records.get(path)?;
        Some(Stored { path: path.clone(), revision: *revision, record: record.clone() })
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn get(&self, path: &RecordPath) -> Result<Option<Stored>, StoreError> {
        self.calls.push(Call::Get(path.clone()));
        let state = self.state();
        if state.away {
            Err(StoreError::Failed(FaultInjected.into()))
        } else {
            Ok(state.stored(path))
        }
    }

    async fn scan(&self, range: &PathRange) -> Result<Vec<Stored>, StoreError> {
        self.calls.push(Call::Scan(range.prefix.clone()));
        let state = self.state();
        if state.away {
            return Err(StoreError::Failed(FaultInjected.into()));
        }
        let inside = state.records.keys().filter(|path| range.contains(path));
        Ok(inside.take(range.limit).filter_map(|path| state.stored(path)).collect())
    }

    async fn commit(&self, batch: Vec<Write>) -> Result<CommitSeq, StoreError> {
        self.calls.push(Call::Commit(batch.iter().map(|write| write.path.clone()).collect()));
        let mut state = self.state();
        match state.take_fault(&batch) {
            None => state.commit(&batch),
            Some(Fault::Before) => Err(StoreError::Failed(FaultInjected.into())),
            Some(Fault::After) => {
                state.commit(&batch)?;
                Err(StoreError::Failed(FaultInjected.into()))
            }
            Some(Fault::Full) => Err(StoreError::Full),
            Some(Fault::Conflict) => Err(StoreError::Conflict),
            Some(Fault::Away) => {
                state.away = true;
                Err(StoreError::Failed(FaultInjected.into()))
            }
        }
    }

    fn last_commit(&self) -> CommitSeq {
        self.state().last
    }

    fn watch(&self, prefix: &str) -> Box<dyn Watch> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().watchers.push((prefix.to_owned(), sender));
        Box::new(FakeWatch(receiver))
    }

    fn adopt(&self, _keys: &RecordKeys) -> Result<(), StoreError> {
        Ok(())
    }

    fn writes_of_epoch(&self) -> u64 {
        0
    }

    async fn renew(&self, _after: Option<Arrival>, _: usize) -> Result<Renewed, StoreError> {
        Ok(Renewed::default())
    }

    async fn erase_residue(&self) -> Result<CommitSeq, StoreError> {
        self.calls.push(Call::EraseResidue);
        Ok(self.state().last)
    }
}

struct FakeWatch(mpsc::UnboundedReceiver<Change>);

#[async_trait]
impl Watch for FakeWatch {
    async fn next(&mut self) -> Option<Change> {
        self.0.recv().await
    }
}

/// A [`FakeStore`] while it is sealed. Takes any keys, because it encrypts nothing.
#[derive(Debug, Default)]
pub struct FakeSealedStore {
    store: FakeStore,
    bootstrap: Mutex<Option<Bootstrap>>,
    reads: AtomicUsize,
    faults: Mutex<VecDeque<Option<Fault>>>,
}

impl FakeSealedStore {
    /// A sealed store whose records are these.
    #[must_use]
    pub fn over(store: FakeStore) -> Self {
        Self { store, ..Self::default() }
    }

    /// Lets a commit of records go wrong, after some that go well.
    pub fn fail_later(&self, well: usize, fault: Fault) {
        self.store.fail_later(well, fault);
    }

    /// Lets one replacement of the bootstrap record go wrong.
    pub fn fail_next_replacement(&self, fault: Fault) {
        self.fail_replacement_later(0, fault);
    }

    /// The same after some replacements that go well.
    pub fn fail_replacement_later(&self, well: usize, fault: Fault) {
        let faults = core::iter::repeat_n(None, well).chain([Some(fault)]);
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    /// Whether a replacement is still to go wrong.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        !self.faults.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Puts any bootstrap record there, as somebody who writes to the disk could.
    pub fn overwrite_bootstrap(&self, change: impl FnOnce(&mut Bootstrap)) {
        if let Some(bootstrap) = self.kept().as_mut() {
            change(bootstrap);
        }
    }

    /// How often the bootstrap record was read.
    pub fn bootstrap_reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// The records.
    #[must_use]
    pub const fn records(&self) -> &FakeStore {
        &self.store
    }

    fn kept(&self) -> MutexGuard<'_, Option<Bootstrap>> {
        self.bootstrap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SealedStore for FakeSealedStore {
    async fn bootstrap(&self) -> Result<Option<Bootstrap>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(self.kept().clone())
    }

    async fn initialise(&self, bootstrap: &Bootstrap) -> Result<(), StoreError> {
        let mut kept = self.kept();
        if kept.is_some() {
            return Err(StoreError::Conflict);
        }
        *kept = Some(bootstrap.clone());
        Ok(())
    }

    async fn replace_bootstrap(
        &self,
        before: &Bootstrap,
        after: &Bootstrap,
    ) -> Result<(), StoreError> {
        let fault =
            self.faults.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten();
        let mut kept = self.kept();
        if kept.as_ref() != Some(before) {
            return Err(StoreError::Conflict);
        }
        match fault {
            None => *kept = Some(after.clone()),
            Some(Fault::Before | Fault::Away) => {
                return Err(StoreError::Failed(FaultInjected.into()));
            }
            Some(Fault::After) => {
                *kept = Some(after.clone());
                return Err(StoreError::Failed(FaultInjected.into()));
            }
            Some(Fault::Full) => return Err(StoreError::Full),
            Some(Fault::Conflict) => return Err(StoreError::Conflict),
        }
        Ok(())
    }

    fn open(&self, _keys: RecordKeys) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(self.store.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{conformance, fixtures};

    #[tokio::test]
    async fn fake_store_is_a_store() {
        conformance::store::run(|| Arc::new(FakeStore::default())).await;
    }

    #[tokio::test]
    async fn faults_happen_in_turn_and_tell_whether_the_batch_was_written() {
        let store = FakeStore::default();
        let path = RecordPath::key(fixtures::key_id(1));
        let record = Some(Record::Key(fixtures::key(1)));
        let write = || {
            vec![Write { path: path.clone(), expected: Expected::Absent, record: record.clone() }]
        };
        store.fail_next(Fault::Before);
        store.fail_next(Fault::After);
        assert!(matches!(store.commit(write()).await, Err(StoreError::Failed(_))));
        assert_eq!(store.get(&path).await.unwrap(), None);
        assert!(matches!(store.commit(write()).await, Err(StoreError::Failed(_))));
        assert!(store.get(&path).await.unwrap().is_some());
    }
}
