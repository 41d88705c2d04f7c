//! Damaged files give errors, never a panic and never a wrong record.

use std::fs;
use std::path::Path;

use lastkey_core::ports::{Expected, Store, StoreError};
use lastkey_core::record::PathRange;
use lastkey_store::Backend as _;
use lastkey_store::sqlite::SqliteStore;
use lastkey_testkit::conformance::store::put;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use crate::{open, raw};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn filled(dir: &Path, records: u64) {
    let (_sealed, store) = open(dir).unwrap();
    let batch = (1..=records).map(|n| put(n, Expected::Absent)).collect();
    block_on(store.commit(batch)).unwrap();
}

#[tokio::test]
async fn value_with_a_bit_changed_on_disk_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let write = put(1, Expected::Absent);
    let path = write.path.clone();
    let (sealed, store) = open(dir.path()).unwrap();
    store.commit(vec![write]).await.unwrap();
    drop((sealed, store));
    let value = {
        let backend = SqliteStore::open(dir.path()).unwrap();
        backend.get(path.as_str()).await.unwrap().unwrap().value
    };
    let database = dir.path().join("records.db");
    let mut bytes = fs::read(&database).unwrap();
    let place = bytes.windows(value.len()).position(|window| window == value).unwrap();
    for within in [1, 10, 40, value.len() - 1] {
        bytes[place + within] ^= 0x10;
        fs::write(&database, &bytes).unwrap();
        let (_sealed, store) = open(dir.path()).unwrap();
        let read = store.get(&path).await;
        assert!(matches!(&read, Err(StoreError::Corrupt(p)) if *p == path), "{within}: {read:?}");
        bytes[place + within] ^= 0x10;
    }
}

/// Reads everything that can be read; errors are welcome, panics are not.
fn read_all(store: &dyn Store, records: u64) {
    let _ = block_on(store.scan(&PathRange::keys(None, usize::MAX)));
    for n in 1..=records {
        let write = put(n, Expected::Absent);
        if let Ok(Some(stored)) = block_on(store.get(&write.path)) {
            assert_eq!(Some(stored.record), write.record);
        }
    }
    let _ = block_on(store.commit(vec![put(records + 1, Expected::Absent)]));
    let _ = block_on(store.erase_residue());
}

#[test]
fn damaged_pages_give_errors_and_never_a_wrong_record() {
    const RECORDS: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), RECORDS);
    let database = dir.path().join("records.db");
    let whole = fs::read(&database).unwrap();
    let places = prop::collection::vec((0..whole.len(), any::<u8>(), 1..64_usize), 1..4);
    let config = Config {
        cases: 48,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..Config::default()
    };
    let result = proptest::test_runner::TestRunner::new(config).run(&places, |places| {
        let mut bytes = whole.clone();
        for (place, byte, len) in places {
            bytes.iter_mut().skip(place).take(len).for_each(|b| *b ^= byte);
        }
        let _ = fs::remove_file(dir.path().join("records.db-wal"));
        fs::write(&database, &bytes).unwrap();
        if let Ok((_sealed, store)) = open(dir.path()) {
            read_all(&*store, RECORDS);
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn database_that_is_cut_or_no_database_does_not_open_as_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60);
    let database = dir.path().join("records.db");
    let whole = fs::read(&database).unwrap();
    for bytes in [&[0xa5; 8_192][..], &whole[..0], &whole[..100]] {
        fs::write(&database, bytes).unwrap();
        assert!(open(dir.path()).is_err(), "{} bytes", bytes.len());
    }
    fs::write(&database, &whole[..whole.len() / 2]).unwrap();
    if let Ok((_sealed, store)) = open(dir.path()) {
        let read = block_on(store.scan(&PathRange::keys(None, usize::MAX)));
        assert!(matches!(read, Err(StoreError::Failed(_))), "{read:?}");
    }
}

#[tokio::test]
async fn value_longer_than_any_record_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(1, Expected::Absent).path;
    let backend = SqliteStore::open(dir.path()).unwrap();
    let value = vec![1; 300_000];
    backend.commit(vec![raw(path.as_str(), None, Some(&value))]).await.unwrap();
    drop(backend);
    let (_sealed, store) = open(dir.path()).unwrap();
    assert!(matches!(store.get(&path).await, Err(StoreError::Corrupt(_))));
}
