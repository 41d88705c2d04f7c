//! What every sealed store does that encrypts. Each check gets a store of its own, which must
//! be empty.
//!
//! Room      `testkit`.

use lastkey_core::ids::InstanceId;
use lastkey_core::ports::{Expected, RecordKeys, SealedStore, StoreError};
use lastkey_core::record::PathRange;
use lastkey_secret::SecretArray;

use super::store::put;
use crate::fixtures;

/// Runs all checks.
///
/// # Panics
/// When one does not hold.
pub async fn run(fresh: impl Fn() -> Box<dyn SealedStore>) {
    bootstrap_is_written_once(&*fresh()).await;
    bootstrap_is_no_record(&*fresh()).await;
    records_do_not_open_with_other_keys(&*fresh()).await;
    records_of_an_older_epoch_open_and_new_ones_take_the_newest(&*fresh()).await;
    keys_that_are_no_keyring_are_refused(&*fresh());
}

async fn bootstrap_is_written_once(sealed: &dyn SealedStore) {
    assert_eq!(sealed.bootstrap().await.expect("a read"), None);
    sealed.initialise(&fixtures::bootstrap()).await.expect("a write");
    assert_eq!(sealed.bootstrap().await.expect("a read"), Some(fixtures::bootstrap()));
    let again = sealed.initialise(&fixtures::bootstrap()).await;
    assert!(matches!(again, Err(StoreError::Conflict)), "{again:?}");
}

async fn bootstrap_is_no_record(sealed: &dyn SealedStore) {
    let store = sealed.open(fixtures::record_keys(&[1])).expect("keys");
    let mut watch = store.watch("");
    sealed.initialise(&fixtures::bootstrap()).await.expect("a write");
    store.commit(vec![put(1, Expected::Absent)]).await.expect("a commit");
    let all = PathRange { prefix: String::new(), after: None, limit: 1 };
    let found = store.scan(&all).await.expect("a scan");
    let path = put(1, Expected::Absent).path;
    assert_eq!(found.into_iter().map(|s| s.path).collect::<Vec<_>>(), vec![path]);
    drop(store);
    let change = watch.next().await;
    assert!(format!("{change:?}").contains("key/"), "{change:?}");
}

async fn corrupt_with(sealed: &dyn SealedStore, keys: RecordKeys) {
    let store = sealed.open(keys).expect("keys");
    let path = put(1, Expected::Absent).path;
    let got = store.get(&path).await;
    assert!(matches!(&got, Err(StoreError::Corrupt(p)) if *p == path), "{got:?}");
    let got = store.scan(&PathRange::keys(None, 10)).await;
    assert!(matches!(&got, Err(StoreError::Corrupt(p)) if *p == path), "{got:?}");
}

async fn records_do_not_open_with_other_keys(sealed: &dyn SealedStore) {
    let store = sealed.open(fixtures::record_keys(&[1])).expect("keys");
    store.commit(vec![put(1, Expected::Absent)]).await.expect("a commit");
    let other_key = vec![(1, SecretArray::copy_of(&[0xff; 32]))];
    corrupt_with(sealed, RecordKeys { by_epoch: other_key, ..fixtures::record_keys(&[]) }).await;
    corrupt_with(sealed, fixtures::record_keys(&[2])).await;
    let instance = InstanceId([0x22; 16]);
    corrupt_with(sealed, RecordKeys { instance, ..fixtures::record_keys(&[1]) }).await;
}

async fn records_of_an_older_epoch_open_and_new_ones_take_the_newest(sealed: &dyn SealedStore) {
    let old = sealed.open(fixtures::record_keys(&[1])).expect("keys");
    old.commit(vec![put(1, Expected::Absent)]).await.expect("a commit");
    let both = sealed.open(fixtures::record_keys(&[1, 2])).expect("keys");
    both.commit(vec![put(2, Expected::Absent)]).await.expect("a commit");
    assert_eq!(both.scan(&PathRange::keys(None, 10)).await.expect("a scan").len(), 2);
    corrupt_with(sealed, fixtures::record_keys(&[2])).await;
    let new = sealed.open(fixtures::record_keys(&[2])).expect("keys");
    assert!(new.get(&put(2, Expected::Absent).path).await.expect("a read").is_some());
}

fn keys_that_are_no_keyring_are_refused(sealed: &dyn SealedStore) {
    for epochs in [&[][..], &[2, 1], &[1, 1]] {
        let opened = sealed.open(fixtures::record_keys(epochs)).map(|_| ());
        assert!(matches!(opened, Err(StoreError::Failed(_))), "{epochs:?}");
    }
}
