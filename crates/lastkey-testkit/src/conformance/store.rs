//! What every store does. Each check gets a store of its own, which must be empty.
//!
//! Room      `testkit`.

use std::sync::Arc;

use lastkey_core::ports::{
    Change, CommitSeq, Expected, Revision, Store, StoreError, Stored, Write,
};
use lastkey_core::record::{PathRange, Record, RecordPath};

use crate::fixtures;

/// Runs all checks.
///
/// # Panics
/// When one does not hold.
pub async fn run(fresh: impl Fn() -> Arc<dyn Store>) {
    get_finds_what_commit_wrote(&*fresh()).await;
    every_kind_of_record_comes_back_as_it_was(&*fresh()).await;
    revision_starts_at_one_and_rises_with_each_write(&*fresh()).await;
    commit_conflicts_when_its_expectation_does_not_hold(&*fresh()).await;
    conflict_writes_nothing_of_its_batch(&*fresh()).await;
    deleted_record_is_gone_and_its_path_is_free(&*fresh()).await;
    deletion_of_nothing_only_checks(&*fresh()).await;
    batch_that_writes_a_path_twice_is_refused(&*fresh()).await;
    empty_batch_is_a_commit(&*fresh()).await;
    commits_are_numbered_in_rising_order(&*fresh()).await;
    scan_is_ordered_and_keeps_to_its_range(&*fresh()).await;
    scan_pages_meet_without_gap_or_overlap(&*fresh()).await;
    watch_tells_changes_of_its_prefix_in_order(&*fresh()).await;
    watch_ends_when_the_store_closes(fresh()).await;
    of_concurrent_writers_exactly_one_wins(fresh()).await;
    concurrent_writers_of_other_paths_all_win(fresh()).await;
    erase_residue_keeps_what_is_there(&*fresh()).await;
}

/// A write of a key record.
#[must_use]
pub fn put(number: u64, expected: Expected) -> Write {
    let record = Some(Record::Key(fixtures::key(number)));
    Write { path: path(number), expected, record }
}

fn path(number: u64) -> RecordPath {
    RecordPath::key(fixtures::key_id(number))
}

fn delete(number: u64, revision: u64) -> Write {
    Write { path: path(number), expected: Expected::At(Revision(revision)), record: None }
}

const fn at(revision: u64) -> Expected {
    Expected::At(Revision(revision))
}

async fn commit(store: &dyn Store, batch: Vec<Write>) -> CommitSeq {
    store.commit(batch).await.expect("a commit")
}

async fn get(store: &dyn Store, number: u64) -> Option<Stored> {
    store.get(&path(number)).await.expect("a read")
}

async fn revision(store: &dyn Store, number: u64) -> Option<u64> {
    get(store, number).await.map(|stored| stored.revision.0)
}

async fn conflicts(store: &dyn Store, batch: Vec<Write>) {
    let result = store.commit(batch).await;
    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
}

async fn get_finds_what_commit_wrote(store: &dyn Store) {
    assert_eq!(get(store, 1).await, None);
    commit(store, vec![put(1, Expected::Absent)]).await;
    let record = Record::Key(fixtures::key(1));
    let expected = Stored { path: path(1), revision: Revision(1), record };
    assert_eq!(get(store, 1).await, Some(expected));
    assert_eq!(get(store, 2).await, None);
}

async fn every_kind_of_record_comes_back_as_it_was(store: &dyn Store) {
    for (number, record) in (1..).zip(fixtures::every_record()) {
        let write = Write { record: Some(record.clone()), ..put(number, Expected::Absent) };
        commit(store, vec![write]).await;
        assert_eq!(get(store, number).await.map(|stored| stored.record), Some(record));
    }
}

async fn revision_starts_at_one_and_rises_with_each_write(store: &dyn Store) {
    commit(store, vec![put(1, Expected::Absent)]).await;
    assert_eq!(revision(store, 1).await, Some(1));
    for before in 1..4 {
        commit(store, vec![put(1, at(before))]).await;
        assert_eq!(revision(store, 1).await, Some(before + 1));
    }
}

async fn commit_conflicts_when_its_expectation_does_not_hold(store: &dyn Store) {
    conflicts(store, vec![put(1, at(1))]).await;
    conflicts(store, vec![delete(1, 1)]).await;
    commit(store, vec![put(1, Expected::Absent)]).await;
    conflicts(store, vec![put(1, Expected::Absent)]).await;
    conflicts(store, vec![put(1, at(2))]).await;
    conflicts(store, vec![put(1, at(0))]).await;
    conflicts(store, vec![delete(1, 2)]).await;
    assert_eq!(revision(store, 1).await, Some(1));
}

async fn conflict_writes_nothing_of_its_batch(store: &dyn Store) {
    commit(store, vec![put(1, Expected::Absent), put(2, Expected::Absent)]).await;
    let batch = vec![put(3, Expected::Absent), put(1, at(1)), delete(2, 1), put(4, at(9))];
    conflicts(store, batch).await;
    assert_eq!(revision(store, 1).await, Some(1));
    assert_eq!(revision(store, 2).await, Some(1));
    assert_eq!((revision(store, 3).await, revision(store, 4).await), (None, None));
}

async fn deleted_record_is_gone_and_its_path_is_free(store: &dyn Store) {
    commit(store, vec![put(1, Expected::Absent)]).await;
    commit(store, vec![put(1, at(1))]).await;
    commit(store, vec![delete(1, 2)]).await;
    assert_eq!(get(store, 1).await, None);
    assert_eq!(scan(store, &PathRange::keys(None, 10)).await, Vec::<RecordPath>::new());
    commit(store, vec![put(1, Expected::Absent)]).await;
    assert_eq!(revision(store, 1).await, Some(1));
}

async fn deletion_of_nothing_only_checks(store: &dyn Store) {
    let check = || Write { path: path(1), expected: Expected::Absent, record: None };
    commit(store, vec![check(), put(2, Expected::Absent)]).await;
    assert_eq!((revision(store, 1).await, revision(store, 2).await), (None, Some(1)));
    commit(store, vec![put(1, Expected::Absent)]).await;
    conflicts(store, vec![check(), put(2, at(1))]).await;
    assert_eq!((revision(store, 1).await, revision(store, 2).await), (Some(1), Some(1)));
}

async fn batch_that_writes_a_path_twice_is_refused(store: &dyn Store) {
    let result = store.commit(vec![put(1, Expected::Absent), put(1, at(1))]).await;
    assert!(matches!(result, Err(StoreError::Failed(_))), "{result:?}");
    assert_eq!(get(store, 1).await, None);
}

async fn empty_batch_is_a_commit(store: &dyn Store) {
    let first = commit(store, Vec::new()).await;
    assert!(commit(store, Vec::new()).await > first);
}

async fn commits_are_numbered_in_rising_order(store: &dyn Store) {
    let first = commit(store, vec![put(1, Expected::Absent)]).await;
    conflicts(store, vec![put(1, Expected::Absent)]).await;
    let second = commit(store, vec![put(2, Expected::Absent)]).await;
    let third = commit(store, vec![delete(1, 1)]).await;
    assert!(first < second && second < third);
    assert_eq!(store.last_commit(), third);
}

async fn scan(store: &dyn Store, range: &PathRange) -> Vec<RecordPath> {
    let stored = store.scan(range).await.expect("a scan");
    stored.into_iter().map(|stored| stored.path).collect()
}

/// 40 keys, and around them records whose paths differ in kind only.
async fn fill(store: &dyn Store) -> Vec<RecordPath> {
    let mut batch: Vec<_> = (1..=40).rev().map(|n| put(n, Expected::Absent)).collect();
    for number in [1, 2] {
        let version = fixtures::key_version(number, 1);
        let path = RecordPath::version(version.key, version.number);
        let record = Some(Record::Version(version));
        batch.push(Write { path, expected: Expected::Absent, record });
    }
    commit(store, batch).await;
    let mut keys: Vec<_> = (1..=40).map(path).collect();
    keys.sort();
    keys
}

async fn scan_is_ordered_and_keeps_to_its_range(store: &dyn Store) {
    let keys = fill(store).await;
    assert_eq!(scan(store, &PathRange::keys(None, 1_000)).await, keys);
    assert_eq!(
        scan(store, &PathRange::keys(None, 7)).await,
        keys.iter().take(7).cloned().collect::<Vec<_>>()
    );
    assert_eq!(scan(store, &PathRange::keys(None, 0)).await, Vec::<RecordPath>::new());
    assert_eq!(scan(store, &PathRange::due(10)).await, Vec::<RecordPath>::new());
    let all = |after| PathRange { prefix: String::new(), after, limit: usize::MAX };
    assert_eq!(scan(store, &all(None)).await.len(), keys.len() + 2);
    let versions = scan(store, &all(keys.last().cloned())).await;
    assert_eq!(versions.len(), 2);
    let before = RecordPath::from_stored("a".to_owned());
    let range = PathRange { after: Some(before), ..PathRange::keys(None, 1_000) };
    assert_eq!(scan(store, &range).await, keys);
    let past = RecordPath::from_stored("z".to_owned());
    let range = PathRange { after: Some(past), ..PathRange::keys(None, 1_000) };
    assert_eq!(scan(store, &range).await, Vec::<RecordPath>::new());
}

async fn scan_pages_meet_without_gap_or_overlap(store: &dyn Store) {
    let keys = fill(store).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let range = PathRange { after, ..PathRange::keys(None, 7) };
        let page = scan(store, &range).await;
        after = page.last().cloned();
        seen.extend(page);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, keys);
}

async fn watch_tells_changes_of_its_prefix_in_order(store: &dyn Store) {
    commit(store, vec![put(9, Expected::Absent)]).await;
    let mut watch = store.watch("key/");
    let version = RecordPath::version(fixtures::key_id(1), fixtures::version_no(1));
    let elsewhere = Write { path: version, ..put(1, Expected::Absent) };
    let one = commit(store, vec![elsewhere, put(1, Expected::Absent)]).await;
    conflicts(store, vec![put(1, Expected::Absent)]).await;
    let two = commit(store, vec![put(1, at(1))]).await;
    let three = commit(store, vec![delete(1, 2)]).await;
    for (commit, revision) in [(one, Some(1)), (two, Some(2)), (three, None)] {
        let expected = Change::Record { commit, path: path(1), revision: revision.map(Revision) };
        assert_eq!(watch.next().await, Some(expected));
    }
}

async fn watch_ends_when_the_store_closes(store: Arc<dyn Store>) {
    let mut watch = store.watch("");
    commit(&*store, vec![put(1, Expected::Absent)]).await;
    drop(store);
    assert!(watch.next().await.is_some());
    assert_eq!(watch.next().await, None);
}

async fn of_concurrent_writers_exactly_one_wins(store: Arc<dyn Store>) {
    commit(&*store, vec![put(1, Expected::Absent)]).await;
    for before in 1..=10 {
        // Each writer also leaves a record of its own, to be found only if it won.
        let writer = |number: u64| {
            let store = Arc::clone(&store);
            let own = put(before * 100 + number, Expected::Absent);
            tokio::spawn(async move { store.commit(vec![own, put(1, at(before))]).await })
        };
        let tasks: Vec<_> = (0..8).map(writer).collect();
        let mut winners = Vec::new();
        for (number, task) in (0..).zip(tasks) {
            if task.await.expect("a writer").is_ok() {
                winners.push(before * 100 + number);
            }
        }
        assert_eq!(winners.len(), 1, "in round {before}");
        for number in before * 100..before * 100 + 8 {
            assert_eq!(get(&*store, number).await.is_some(), winners.contains(&number));
        }
        assert_eq!(revision(&*store, 1).await, Some(before + 1));
    }
}

async fn concurrent_writers_of_other_paths_all_win(store: Arc<dyn Store>) {
    let writer = |number: u64| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(vec![put(number, Expected::Absent)]).await })
    };
    let tasks: Vec<_> = (1..=64).map(writer).collect();
    let mut commits = Vec::new();
    for task in tasks {
        commits.push(task.await.expect("a writer").expect("a commit"));
    }
    commits.sort_unstable();
    commits.dedup();
    assert_eq!(commits.len(), 64);
    assert_eq!(scan(&*store, &PathRange::keys(None, 1_000)).await.len(), 64);
}

async fn erase_residue_keeps_what_is_there(store: &dyn Store) {
    commit(store, vec![put(1, Expected::Absent), put(2, Expected::Absent)]).await;
    let last = commit(store, vec![delete(1, 1)]).await;
    assert!(store.erase_residue().await.expect("an erasure") >= last);
    assert_eq!((revision(store, 1).await, revision(store, 2).await), (None, Some(1)));
    assert!(commit(store, vec![put(1, Expected::Absent)]).await > last);
}
