//! A full disk: the batch is refused, what was acknowledged stays, and the store goes on.

use std::path::Path;

use lastkey_core::ports::{Expected, Store, StoreError};
use lastkey_core::record::{PathRange, Record};
use lastkey_testkit::conformance::store::put;
use lastkey_testkit::fixtures;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{at, open};

/// A small file system of its own; `None` when this process may not mount one.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(size: &std::ffi::CStr) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), size).ok()?;
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// A key that takes most of a page.
fn big(number: u64, expected: Expected) -> lastkey_core::ports::Write {
    let mut key = fixtures::full_key(number);
    let text = "x".repeat(8_000);
    key.description = lastkey_core::key::Description::parse(&text).unwrap();
    lastkey_core::ports::Write { record: Some(Record::Key(key)), ..put(number, expected) }
}

async fn fill(store: &dyn Store) -> u64 {
    for number in 1..10_000 {
        match store.commit(vec![big(number, Expected::Absent)]).await {
            Ok(_) => {}
            Err(StoreError::Full) => return number - 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the disk has no end");
}

#[tokio::test]
async fn full_disk_refuses_writes_and_keeps_what_was_acknowledged() {
    let Some(disk) = Disk::of(c"size=4m,mode=0700") else {
        eprintln!("not run: this process may not mount a file system");
        return;
    };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 1_000_000]).unwrap();
    let dir = disk.path().join("data");
    let (sealed, store) = open(&dir).unwrap();
    let kept = fill(&*store).await;
    assert!(kept > 10, "{kept}");
    assert!(matches!(
        store.commit(vec![big(9_999, Expected::Absent)]).await,
        Err(StoreError::Full)
    ));
    let count = |store: &std::sync::Arc<dyn Store>| {
        let store = store.clone();
        async move { store.scan(&PathRange::keys(None, usize::MAX)).await.unwrap().len() as u64 }
    };
    assert_eq!(count(&store).await, kept);
    std::fs::remove_file(&ballast).unwrap();
    store.commit(vec![big(9_999, Expected::Absent), big(1, at(1))]).await.unwrap();
    assert_eq!(count(&store).await, kept + 1);
    drop((sealed, store));
    let (_sealed, store) = open(&dir).unwrap();
    assert_eq!(count(&store).await, kept + 1);
}
