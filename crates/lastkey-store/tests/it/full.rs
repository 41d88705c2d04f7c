//! A full disk: the batch is refused, what was acknowledged stays, and store and audit log go on.

use std::path::Path;
use std::time::{Duration, Instant};

use lastkey_core::audit::archive::{Filter, LogState, Search};
use lastkey_core::audit::{AUDIT_REFUSES, AUDIT_RESUMES, Event};
use lastkey_core::ports::{Audit as _, AuditArchive as _, Expected, Store, StoreError};
use lastkey_core::principal::Principal;
use lastkey_core::record::{PathRange, Record};
use lastkey_core::time::Timestamp;
use lastkey_store::audit_log::{AuditLog, AuditOptions};
use lastkey_testkit::conformance::store::put;
use lastkey_testkit::fixtures;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::audit_log::event;
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

/// Waits until the log, which looks at its disk once a second, says so.
async fn until(log: &AuditLog, what: &str, is_so: impl Fn(&LogState) -> bool) -> LogState {
    let begun = Instant::now();
    loop {
        let state = log.state();
        if is_so(&state) {
            return state;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}: {state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes all of a disk that is free but so many bytes.
fn leave(disk: &Disk, name: &str, bytes: u64) {
    let free = rustix::fs::statvfs(disk.path()).unwrap();
    let taken = free.f_bavail * free.f_frsize - bytes;
    let taken = vec![1; usize::try_from(taken).unwrap()];
    match std::fs::write(disk.path().join(name), taken) {
        // The log itself has taken some of it meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
        written => written.unwrap(),
    }
}

/// Of 48 MiB the alarm is at a twentieth, the refusal at a hundredth.
#[tokio::test]
async fn audit_log_alarms_before_it_refuses_and_keeps_room_for_what_is_essential() {
    let Some(disk) = Disk::of(c"size=48m,mode=0700") else {
        eprintln!("not run: this process may not mount a file system");
        return;
    };
    let dir = disk.path().join("audit");
    let log = AuditLog::open(&dir, AuditOptions::default()).unwrap();
    let who = Principal::named("a");
    let (usual, now) = (|| event(&who, Timestamp(1_800_000_000)), Timestamp(1_800_000_001));
    let unseal = Event { action: "sys:Unseal", ..event(&who, now) };
    log.append_durably(&usual()).await.unwrap();
    // Having looked at the disk, the log makes its ballast, which is no part of what is left then.
    let has_ballast = || std::fs::metadata(dir.join("wal/spare")).is_ok_and(|m| m.len() == 1 << 20);
    let looked = |state: &LogState| state.free_bytes.is_some() && has_ballast();
    let state = until(&log, "the disk was looked at", looked).await;
    assert!(!state.is_alarming && state.refusing.is_none(), "{state:?}");

    leave(&disk, "first", 1_500_000);
    let state = until(&log, "alarm", |state| state.is_alarming).await;
    assert_eq!(state.refusing, None);
    log.append_durably(&usual()).await.unwrap();

    leave(&disk, "second", 200_000);
    until(&log, "refusal", |state| state.refusing.is_some()).await;
    assert!(log.append_durably(&usual()).await.is_err() && log.append(&usual()).is_err());
    log.append_durably(&unseal).await.unwrap();
    // Room without any that the log may use: what is essential goes to the segment that is there.
    leave(&disk, "third", 0);
    log.append_durably(&unseal).await.unwrap();

    for name in ["first", "second", "third"] {
        std::fs::remove_file(disk.path().join(name)).unwrap();
    }
    let state = until(&log, "resumed", |state| state.refusing.is_none()).await;
    assert!(!state.is_alarming, "{state:?}");
    log.append_durably(&usual()).await.unwrap();
    let count = async |action: &str| {
        let filter = Filter { action: Some(action.to_owned()), ..Filter::default() };
        let search = Search { from: None, limit: 100, newest_first: false, filter };
        log.search(search).await.unwrap().entries.len()
    };
    for (action, records) in
        [("kms:Encrypt", 3), ("sys:Unseal", 2), (AUDIT_REFUSES, 1), (AUDIT_RESUMES, 1)]
    {
        assert_eq!(count(action).await, records, "{action}");
    }
}
