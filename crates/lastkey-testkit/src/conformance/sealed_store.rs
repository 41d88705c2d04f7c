//! What every sealed store does that encrypts. Each check gets a store of its own, which must
//! be empty.
//!
//! Room      `testkit`.

use lastkey_core::ids::InstanceId;
use lastkey_core::ports::{Expected, RecordKeys, Revision, SealedStore, StoreError};
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
    bootstrap_is_replaced_by_who_knows_what_is_there(&*fresh()).await;
    bootstrap_is_no_record(&*fresh()).await;
    records_do_not_open_with_other_keys(&*fresh()).await;
    records_of_an_older_epoch_open_and_new_ones_take_the_newest(&*fresh()).await;
    records_are_renewed_where_they_lie(&*fresh()).await;
    keys_that_are_no_keyring_are_refused(&*fresh());
}

async fn bootstrap_is_written_once(sealed: &dyn SealedStore) {
    assert_eq!(sealed.bootstrap().await.expect("a read"), None);
    sealed.initialise(&fixtures::bootstrap()).await.expect("a write");
    assert_eq!(sealed.bootstrap().await.expect("a read"), Some(fixtures::bootstrap()));
    let again = sealed.initialise(&fixtures::bootstrap()).await;
    assert!(matches!(again, Err(StoreError::Conflict)), "{again:?}");
}

async fn bootstrap_is_replaced_by_who_knows_what_is_there(sealed: &dyn SealedStore) {
    let (old, new) = (fixtures::bootstrap_v1(), fixtures::bootstrap());
    let early = sealed.replace_bootstrap(&old, &new).await;
    assert!(matches!(early, Err(StoreError::Conflict)), "{early:?}");
    sealed.initialise(&old).await.expect("a write");
    sealed.replace_bootstrap(&old, &new).await.expect("a write");
    assert_eq!(sealed.bootstrap().await.expect("a read"), Some(new.clone()));
    let late = sealed.replace_bootstrap(&old, &new).await;
    assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
    assert_eq!(sealed.bootstrap().await.expect("a read"), Some(new));
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

async fn records_are_renewed_where_they_lie(sealed: &dyn SealedStore) {
    let store = sealed.open(fixtures::record_keys(&[1])).expect("keys");
    let paths: Vec<_> = (1..=5).map(|n| put(n, Expected::Absent)).collect();
    store.commit(paths).await.expect("a commit");
    store.commit(vec![put(3, Expected::At(Revision(1)))]).await.expect("a commit");
    assert_eq!(store.writes_of_epoch(), 6);
    let all = PathRange::keys(None, 10);
    let before = store.scan(&all).await.expect("a scan");
    store.adopt(&fixtures::record_keys(&[1, 2])).expect("keys");
    assert_eq!(store.writes_of_epoch(), 0);
    let mut watch = store.watch("");
    let first = store.renew(None, 2).await.expect("a renewal");
    assert!(first.met == 2 && first.last.is_some(), "{first:?}");
    let rest = store.renew(first.last, 10).await.expect("a renewal");
    assert!(rest.met == 3 && rest.last > first.last, "{rest:?}");
    let end = store.renew(rest.last, 10).await.expect("a renewal");
    assert_eq!((end.met, end.last), (0, None));
    assert_eq!(store.renew(None, 10).await.expect("a renewal").met, 0);
    assert_eq!(store.scan(&all).await.expect("a scan"), before);
    // They open under the new epoch alone, and nobody was told of a change.
    let new = sealed.open(fixtures::record_keys(&[2])).expect("keys");
    assert_eq!(new.scan(&all).await.expect("a scan"), before);
    store.commit(vec![put(6, Expected::Absent)]).await.expect("a commit");
    let change = watch.next().await;
    let path = put(6, Expected::Absent).path;
    assert!(format!("{change:?}").contains(path.as_str()), "{change:?}");
}

fn keys_that_are_no_keyring_are_refused(sealed: &dyn SealedStore) {
    for epochs in [&[][..], &[2, 1], &[1, 1]] {
        let opened = sealed.open(fixtures::record_keys(epochs)).map(|_| ());
        assert!(matches!(opened, Err(StoreError::Failed(_))), "{epochs:?}");
    }
}
