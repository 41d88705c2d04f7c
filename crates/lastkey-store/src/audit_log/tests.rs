//! The log as its users see it: durable, in order, provable, and closed to those who change it.

use std::fs::{self, File};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use lastkey_core::audit::Phase;
use lastkey_core::audit::archive::{Filter, LogSigners, Search};
use lastkey_core::audit::note::{KeyKind, NoteKey, NoteSigner};
use lastkey_core::ids::{KeyId, RequestId, VersionNo};
use lastkey_core::principal::{Principal, Source};
use lastkey_core::time::Timestamp;
use lastkey_secret::SecretArray;

use super::*;

pub(super) fn event(who: &Principal) -> Event<'_> {
    Event {
        at: builder::now(),
        request: RequestId([7; 16]),
        who,
        action: "kms:Encrypt",
        phase: Phase::Whole,
        key: Some(KeyId::from_random([1; 16])),
        version: VersionNo::new(3),
        context_hash: None,
        result: "ok",
        reason: "",
        source: Source::default(),
        target: None,
    }
}

pub(super) fn signers() -> LogSigners {
    let by = |kind, seed| {
        NoteSigner::from_seed("log.example", kind, &SecretArray::copy_of(&[seed; 32])).unwrap()
    };
    LogSigners { log: by(KeyKind::Ed25519, 1), witness: by(KeyKind::Cosignature, 2) }
}

pub(super) fn known() -> Vec<NoteKey> {
    vec![signers().log.key().clone()]
}

pub(super) fn open(dir: &Path) -> AuditLog {
    AuditLog::open(dir, AuditOptions::default()).unwrap()
}

fn all() -> Search {
    Search { from: None, limit: 1_000, newest_first: false, filter: Filter::default() }
}

async fn names(log: &AuditLog) -> Vec<String> {
    let found = log.search(all()).await.unwrap();
    found.entries.iter().map(|entry| entry.record.text("who").unwrap().to_owned()).collect()
}

/// Appends records by `p0`, `p1`, ...
pub(super) async fn fill(log: &AuditLog, from: usize, count: usize) {
    for number in from..from + count - 1 {
        log.append(&event(&Principal::named(&format!("p{number}")))).unwrap();
    }
    let last = format!("p{}", from + count - 1);
    log.append_durably(&event(&Principal::named(&last))).await.unwrap();
}

#[tokio::test]
async fn what_is_recorded_is_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0, 600).await;
    let expected: Vec<_> = (0..600).map(|number| format!("p{number}")).collect();
    assert_eq!(names(&log).await, expected);
    drop(log);
    let log = open(dir.path());
    assert_eq!(names(&log).await, expected);
    fill(&log, 600, 10).await;
    assert_eq!(log.search(all()).await.unwrap().end, 610);
}

#[tokio::test]
async fn a_start_writes_what_a_crash_has_left_half_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0, 600).await;
    drop(log);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let (whole, half) = (dir.path().join("tile/entries/000"), dir.path().join("tile/entries/001"));
    let written = fs::read(&half).unwrap();
    for (path, len) in [(&whole, None), (&half, Some(100))] {
        let file = File::options().write(true).open(path).unwrap();
        len.map_or(Ok(()), |len| file.set_len(len)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    drop(open(dir.path()));
    assert_eq!(fs::read(&half).unwrap(), written);
    assert_eq!(fs::metadata(&whole).unwrap().modified().unwrap(), long_ago);
}

/// The first records of a log came faster than its first segment had room for them: a longer one took
/// its place and its name, and the log took that for tampering.
#[tokio::test]
async fn first_group_that_is_longer_than_its_segment_is_not_taken_for_tampering() {
    let reason = "r".repeat(4_000);
    for _ in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let who = Principal::named("p");
        for _ in 0..400 {
            log.append(&Event { reason: &reason, ..event(&who) }).unwrap();
        }
        fill(&log, 400, 10).await;
        assert_eq!(log.search(all()).await.unwrap().end, 410);
    }
}

/// An event that is taken also while others are refused.
fn essential(who: &Principal) -> Event<'_> {
    Event { action: "sys:Unseal", ..event(who) }
}

/// Puts something in the way of the first bundle, and waits until the log has met it.
async fn meet_a_bundle_that_cannot_be_written(log: &AuditLog) -> PathBuf {
    let bundle = log.dir().join("tile/entries/000");
    fs::create_dir_all(&bundle).unwrap();
    for _ in 0..300 {
        log.append(&essential(&Principal::named("p"))).unwrap();
    }
    while log.state().refusing.is_none() {
        tokio::task::yield_now().await;
    }
    bundle
}

#[tokio::test(start_paused = true)]
async fn sealing_ends_and_takes_the_keys_back_while_tiles_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.unsealed(signers()).await.unwrap();
    let bundle = meet_a_bundle_that_cannot_be_written(&log).await;
    assert!(log.sealed().await.is_err());
    assert!(log.published.signers().is_none());
    // Keys that somebody brings and gives up on are not taken later.
    let given_up = tokio::time::timeout(Duration::from_secs(1), log.unsealed(signers())).await;
    assert!(given_up.is_err());
    fs::remove_dir(bundle).unwrap();
    assert!(log.checkpoint().await.is_err());
    assert!(log.published.signers().is_none());
    log.unsealed(signers()).await.unwrap();
    log.checkpoint().await.unwrap();
    drop(log);
    assert!(check(dir.path()).unwrap().checkpoint.size >= 300);
}

#[tokio::test]
async fn log_that_is_closed_while_tiles_cannot_be_written_is_whole_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.unsealed(signers()).await.unwrap();
    let bundle = meet_a_bundle_that_cannot_be_written(&log).await;
    // Groups that come after the one that was given up.
    for number in [301, 302, 303] {
        log.append(&essential(&Principal::named("p"))).unwrap();
        while log.state().durable < number {
            tokio::task::yield_now().await;
        }
    }
    drop(log);
    fs::remove_dir(bundle).unwrap();
    let log = open(dir.path());
    log.unsealed(signers()).await.unwrap();
    log.checkpoint().await.unwrap();
    drop(log);
    assert!(check(dir.path()).unwrap().checkpoint.size >= 303);
}

/// A handle by which nothing can be synced.
pub(super) fn unsyncable(dir: &Path) -> File {
    let (flags, mode) = (rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
    File::from(rustix::fs::open(dir, flags, mode).unwrap())
}

/// A disk that has refused a tile says so once. The next time it was asked the log took its word,
/// and removed the segment with the only copy of acknowledged records.
#[tokio::test]
async fn segments_stay_after_the_disk_has_refused_tiles_until_these_are_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0, 512).await;
    drop(log);
    let wal = dir.path().join("wal");
    wal::Segment::create(&wal, FIRST_SEGMENT_LEN, 512).unwrap();
    let left = || wal::segments(&wal).unwrap().into_iter().map(|s| s.0).collect::<Vec<_>>();
    let Parts { mut builder, .. } = Parts::of(dir.path(), AuditOptions::default()).unwrap();
    builder.dir = unsyncable(dir.path());
    assert!(builder.try_release(512).is_err());
    builder.dir = File::open(dir.path()).unwrap();
    assert!(builder.try_release(512).is_err());
    assert_eq!(left(), [0, 512]);
    drop(builder);

    let tile = dir.path().join("tile/entries/000");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    File::options().write(true).open(&tile).unwrap().set_modified(long_ago).unwrap();
    assert!(wal.join("unsynced").exists());
    let Parts { mut builder, .. } = Parts::of(dir.path(), AuditOptions::default()).unwrap();
    assert_ne!(fs::metadata(&tile).unwrap().modified().unwrap(), long_ago);
    assert!(!wal.join("unsynced").exists());
    builder.try_release(512).unwrap();
    assert_eq!(left(), [512]);
}

#[tokio::test]
async fn bundles_that_a_stop_has_left_below_the_least_index_go_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0, 1_100).await;
    drop(log);
    fs::write(dir.path().join("minimum-index"), "768\n").unwrap();
    let there = |number| dir.path().join(format!("tile/entries/{number:03}")).exists();
    drop(open(dir.path()));
    assert_eq!([0, 1, 2, 3].map(there), [false, false, false, true]);
}

#[test]
fn thread_that_ends_before_the_log_is_closed_stops_it() {
    let buffer = Arc::new(Buffer::new(0));
    let ended = thread("audit-test", &buffer, || panic!("on purpose")).unwrap();
    assert!(ended.join().is_err());
    let who = Principal::named("p");
    assert_eq!(buffer.push(&event(&who)), Err(AuditError::Stopped));
    // What must not be lost is taken, as ever.
    assert!(buffer.push(&essential(&who)).is_ok());
    let buffer = Arc::new(Buffer::new(0));
    buffer.close();
    thread("audit-test", &buffer, || ()).unwrap().join().unwrap();
    assert_eq!(buffer.troubles(), pending::Troubles::default());
}

#[tokio::test]
async fn every_receipt_holds_for_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0, 300).await;
    log.unsealed(signers()).await.unwrap();
    fill(&log, 300, 5).await;
    for index in [0, 255, 256, 299, 300, 304] {
        let (record, receipt) = log.receipt(index).await.unwrap().unwrap();
        let (checkpoint, _) = receipt.verify(&record, &known()).unwrap();
        assert!(checkpoint.size > index);
    }
    assert!(log.receipt(305).await.unwrap().is_none());
}

#[tokio::test]
async fn a_search_goes_both_ways_and_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0, 520).await;
    let page = |from, newest_first, limit| Search { from, limit, newest_first, ..all() };
    let found = log.search(page(None, false, 300)).await.unwrap();
    assert_eq!((found.entries.len(), found.next), (300, Some(300)));
    let found = log.search(page(found.next, false, 300)).await.unwrap();
    assert_eq!((found.entries[0].index, found.entries.len(), found.next), (300, 220, None));
    let found = log.search(page(None, true, 10)).await.unwrap();
    assert_eq!((found.entries[0].index, found.next), (519, Some(510)));
    let found = log.search(page(found.next, true, 1_000)).await.unwrap();
    assert_eq!((found.entries[0].index, found.entries.len(), found.next), (509, 510, None));
    let filter = Filter { who: Some("p7".into()), ..Filter::default() };
    let found = log.search(Search { filter, ..all() }).await.unwrap();
    assert_eq!(found.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [7]);
}

#[tokio::test]
async fn checkpoints_continue_each_other_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = None;
    for round in 0..4 {
        let log = open(dir.path());
        log.unsealed(signers()).await.unwrap();
        fill(&log, round, 200).await;
        let note = log.checkpoint().await.unwrap();
        let (now, _) = lastkey_core::audit::checkpoint::Checkpoint::open(&note, &known()).unwrap();
        if let Some((size, root)) = before {
            let proof = log.consistency(size, now.size).await.unwrap();
            let (old, new) = ((size, &root), (now.size, &now.root));
            assert!(lastkey_core::audit::merkle::verify_consistency(&proof, old, new));
        }
        before = Some((now.size, now.root));
        log.sealed().await.unwrap();
        assert!(log.unsealed(signers()).await.is_ok());
    }
    assert_eq!(before.unwrap().0, 800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_at_once_are_all_answered() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path()));
    let answered = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (log, answered) = (Arc::clone(&log), Arc::clone(&answered));
            tokio::spawn(async move {
                for _ in 0..50 {
                    log.append_answer(&event(&Principal::named("a"))).await.unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(answered.load(Ordering::Relaxed), 3_200);
    assert_eq!(log.search(all()).await.unwrap().end, 3_200);
}

#[tokio::test]
async fn segments_whose_records_are_in_bundles_go() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let long = "x".repeat(4_000);
    for number in 0..2_000 {
        log.append(&event(&Principal::named(&long))).unwrap();
        if number % 50 == 49 {
            log.append_durably(&event(&Principal::named(&long))).await.unwrap();
        }
    }
    drop(log);
    let left = wal::segments(&dir.path().join("wal")).unwrap();
    assert!(left[0].0 > 500 && left.len() <= 3, "{left:?}");
    let log = open(dir.path());
    assert_eq!(log.search(all()).await.unwrap().end, 2_040);
    assert_eq!(log.search(all()).await.unwrap().entries.len(), 1_000);
}

#[tokio::test]
async fn a_segment_that_is_removed_under_the_log_stops_it_but_not_an_unseal() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let who = Principal::named("a");
    log.append_durably(&event(&who)).await.unwrap();
    fs::remove_file(dir.path().join("wal").join(wal::segment_name(0))).unwrap();
    let refused = loop {
        if let Err(error) = log.append_durably(&event(&who)).await {
            break error.to_string();
        }
    };
    assert!(refused.contains("tampered"), "{refused}");
    assert!(log.append(&event(&who)).is_err());
    let unseal = Event { action: "sys:Unseal", ..event(&who) };
    assert!(log.append_durably(&unseal).await.is_ok());
    assert!(log.state().refusing.is_some());
}

#[tokio::test]
async fn a_log_cut_or_emptied_while_the_server_was_down_does_not_open() {
    type Damage = (&'static str, fn(&Path));
    let damage: [Damage; 5] = [
        ("segments gone", |dir| fs::remove_dir_all(dir.join("wal")).unwrap()),
        ("segment cut", |dir| {
            let path = dir.join("wal").join(wal::segment_name(0));
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(4_000).unwrap();
        }),
        ("tile gone", |dir| fs::remove_file(dir.join("tile/0/000")).unwrap()),
        ("checkpoint swapped", |dir| {
            let path = dir.join("checkpoint");
            let text = fs::read_to_string(&path).unwrap().replacen("\n3", "\n4", 1);
            fs::write(path, text).unwrap();
        }),
        ("bit flipped", |dir| {
            let path = dir.join("wal").join(wal::segment_name(0));
            let mut bytes = fs::read(&path).unwrap();
            bytes[2_000] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
    ];
    for (what, damage) in damage {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        log.unsealed(signers()).await.unwrap();
        for round in 0..3 {
            fill(&log, round * 100, 100).await;
        }
        drop(log);
        damage(dir.path());
        let opened = AuditLog::open(dir.path(), AuditOptions::default());
        let is_mended = what == "tile gone";
        assert_eq!(opened.is_ok(), is_mended, "{what}");
    }
}

/// A signed log of 300 records: one bundle that is full, one that is not.
pub(super) async fn signed_log(dir: &Path) {
    let log = open(dir);
    log.unsealed(signers()).await.unwrap();
    for round in 0..3 {
        fill(&log, round * 100, 100).await;
        log.checkpoint().await.unwrap();
    }
}

/// A signed log of 300 records of long ago, and some of now.
pub(super) async fn old_log(dir: &Path, of_now: usize) -> AuditLog {
    let (log, who) = (open(dir), Principal::named("old"));
    log.unsealed(signers()).await.unwrap();
    for _ in 0..300 {
        log.append(&Event { at: Timestamp(1_000), ..event(&who) }).unwrap();
    }
    fill(&log, 0, of_now).await;
    log.checkpoint().await.unwrap();
    log
}

fn check(dir: &Path) -> Result<verify::Verified, verify::VerifyError> {
    verify::verify(&verify::LogDir(dir.to_owned()), &known(), |_| ())
}

fn first_bad(dir: &Path) -> Option<u64> {
    match check(dir).unwrap_err() {
        verify::VerifyError::Bad { first_bad, .. } => Some(first_bad),
        verify::VerifyError::Io(_) | verify::VerifyError::Checkpoint(_) => None,
    }
}

#[tokio::test]
async fn a_whole_log_verifies_also_as_a_copy_without_segments() {
    let dir = tempfile::tempdir().unwrap();
    signed_log(dir.path()).await;
    let found = check(dir.path()).unwrap();
    assert_eq!((found.checkpoint.size, found.unsigned, found.first), (300, 0, 0));
    fs::remove_dir_all(dir.path().join("wal")).unwrap();
    assert_eq!(check(dir.path()).unwrap().checkpoint.size, 300);
    let other =
        NoteSigner::from_seed("log.example", KeyKind::Ed25519, &SecretArray::copy_of(&[9; 32]));
    let other = [other.unwrap().key().clone()];
    let judged = verify::verify(&verify::LogDir(dir.path().to_owned()), &other, |_| ());
    assert!(matches!(judged, Err(verify::VerifyError::Checkpoint(_))));
}

/// Every file of a log, and every bit of it that has a meaning of its own.
#[tokio::test]
async fn every_changed_byte_of_every_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    signed_log(dir.path()).await;
    let record_len = 2 + {
        let bundle = fs::read(dir.path().join("tile/entries/000")).unwrap();
        usize::from(u16::from_be_bytes([bundle[0], bundle[1]]))
    };
    for (name, step, expected) in [
        ("tile/entries/000", 997, None),
        ("tile/entries/001.p/44", 331, None),
        ("tile/0/000", 61, None),
        ("tile/0/001.p/44", 61, None),
        ("tile/1/000.p/1", 1, Some(0)),
        ("checkpoint", 1, None),
        ("checkpoints", 3, None),
    ] {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        let optional = name == "checkpoints";
        for at in (0..good.len()).step_by(step) {
            let mut changed = good.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            let found = check(dir.path());
            assert!(found.is_err(), "{name} at {at}");
            if let Some(expected) = expected {
                assert_eq!(first_bad(dir.path()), Some(expected), "{name} at {at}");
            }
        }
        for other in [&good[..good.len() - 1], &[], &[&good[..], &[0]].concat()[..]] {
            fs::write(&path, other).unwrap();
            let is_good = optional && other.is_empty();
            assert_eq!(check(dir.path()).is_ok(), is_good, "{name} of {} bytes", other.len());
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(check(dir.path()).is_ok(), optional, "{name} removed");
        fs::write(&path, &good).unwrap();
    }
    assert!(check(dir.path()).is_ok());

    // The index that is named is that of the record.
    let path = dir.path().join("tile/entries/000");
    let mut bundle = fs::read(&path).unwrap();
    let (mut at, mut start) = (0, 0);
    while at < 10 {
        start += 2 + usize::from(u16::from_be_bytes([bundle[start], bundle[start + 1]]));
        at += 1;
    }
    assert!(start > 9 * record_len);
    bundle[start + 5] ^= 1;
    fs::write(&path, bundle).unwrap();
    assert_eq!(first_bad(dir.path()), Some(10));
}

#[tokio::test]
async fn segments_and_the_least_index_are_checked_as_well() {
    let dir = tempfile::tempdir().unwrap();
    signed_log(dir.path()).await;
    let path = dir.path().join("wal").join(wal::segment_name(0));
    let good = fs::read(&path).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in (0..used).step_by(389).chain([0, 8, 12, 20, 39, 40, 47, 48, 56, 60, 64, 79, used - 1])
    {
        let mut changed = good.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        // The reserved field of a segment is part of its check as well.
        assert!(check(dir.path()).is_err(), "segment at {at}");
    }
    fs::write(&path, &good[..used - 1]).unwrap();
    assert!(check(dir.path()).is_err());
    fs::write(&path, &good).unwrap();
    assert!(check(dir.path()).is_ok());

    // Records that are hidden behind a number that no record tells of.
    fs::write(dir.path().join("minimum-index"), "256\n").unwrap();
    fs::remove_file(dir.path().join("tile/entries/000")).unwrap();
    assert_eq!(first_bad(dir.path()), Some(0));
}

#[tokio::test]
async fn a_log_that_is_rewritten_with_all_its_hashes_is_found_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    signed_log(dir.path()).await;
    let other = tempfile::tempdir().unwrap();
    signed_log(other.path()).await;
    // All of the other log but what is signed.
    fs::remove_dir_all(dir.path().join("tile")).unwrap();
    fs::rename(other.path().join("tile"), dir.path().join("tile")).unwrap();
    fs::remove_dir_all(dir.path().join("wal")).unwrap();
    assert_eq!(first_bad(dir.path()), Some(0));
}

#[tokio::test]
async fn old_records_go_with_a_record_that_says_so_and_proofs_stay() {
    let dir = tempfile::tempdir().unwrap();
    drop(old_log(dir.path(), 10).await);
    // The keeper looks when it is told the time, and removes after the record is signed.
    let log = open(dir.path());
    log.unsealed(signers()).await.unwrap();
    log.trust_time(builder::now());
    while log.state().first == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.state().first, 256);
    let found = log.search(all()).await.unwrap();
    assert_eq!(found.entries.first().unwrap().index, 256);
    let says = found.entries.iter().any(|e| e.record.text("action") == Some("audit:Prune"));
    assert!(says && log.receipt(5).await.unwrap().is_none());
    let (record, receipt) = log.receipt(300).await.unwrap().unwrap();
    assert!(receipt.verify(&record, &known()).is_ok());
    drop(log);
    assert_eq!(check(dir.path()).unwrap().first, 256);
    assert_eq!(open(dir.path()).state().first, 256);
}

/// A machine that started with its clock half a year ahead removed all that it had.
#[tokio::test]
async fn records_grow_old_by_a_trusted_clock_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(old_log(dir.path(), 1).await);
    let who = Principal::named("p");
    let a_day_later = Timestamp(1_000 + 86_400);
    for (trusted, goes) in [(None, false), (Some(a_day_later), false), (Some(builder::now()), true)]
    {
        let Parts { mut builder, .. } = Parts::of(dir.path(), AuditOptions::default()).unwrap();
        *builder.published.trusted.lock().unwrap() = trusted;
        builder.buffer.push(&event(&who)).unwrap();
        builder.tick();
        let said = builder.buffer.take(0, Duration::ZERO).framed;
        let said = String::from_utf8_lossy(&said).contains(lastkey_core::audit::AUDIT_PRUNES);
        assert_eq!(said, goes, "{trusted:?}");
    }
}
