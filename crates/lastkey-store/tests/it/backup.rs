//! Backups through their port: a backup of version 1, the second reader, a full disk, and what a
//! restore refuses.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lastkey_core::audit::archive::LogSigners;
use lastkey_core::audit::note::{KeyKind, NoteSigner};
use lastkey_core::audit::{Event, Phase};
use lastkey_core::backup::{
    BackupError, BackupHead, BackupOrder, BackupPlace, Backups as _, Stop, Tombstone, Trial,
    Written,
};
use lastkey_core::ids::{RequestId, VersionNo};
use lastkey_core::ports::{Audit as _, AuditArchive as _, Expected, SealedStore as _};
use lastkey_core::principal::{Principal, Source};
use lastkey_core::time::{Elapsed, Timestamp};
use lastkey_secret::SecretArray;
use lastkey_store::SqliteSealedStore;
use lastkey_store::audit_log::{AuditLog, AuditOptions};
use lastkey_store::backup::{BackupFile, DataBackups, check, list_name, read_list, restore};
use lastkey_store::sqlite::{OpenError, finish_restore};
use lastkey_testkit::conformance::store::put;
use lastkey_testkit::entropy::SeededSource;
use lastkey_testkit::fixtures;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const KEY: [u8; 32] = [0x42; 32];
/// Epochs of the keyring of the bootstrap record in fixtures.
const EPOCH: u32 = 1;

fn key() -> SecretArray<32> {
    SecretArray::copy_of(&KEY)
}

fn name() -> String {
    format!("lastkey/{}", fixtures::bootstrap().instance.id)
}

fn signer() -> NoteSigner {
    NoteSigner::from_seed(&name(), KeyKind::Ed25519, &SecretArray::copy_of(&[1; 32])).unwrap()
}

fn signers() -> LogSigners {
    let seed = SecretArray::copy_of(&[2; 32]);
    let witness = format!("{}/witness", name());
    let witness = NoteSigner::from_seed(&witness, KeyKind::Cosignature, &seed).unwrap();
    LogSigners { log: signer(), witness }
}

/// A data directory with records, a log of 300, and a file.
struct World {
    folder: tempfile::TempDir,
    backups: DataBackups,
}

impl World {
    async fn of(records: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let source = Arc::new(SeededSource::new(1));
        let sealed = Arc::new(SqliteSealedStore::open_dir(&data, source.clone()).unwrap());
        sealed.initialise(&fixtures::bootstrap()).await.unwrap();
        let store = sealed.open(fixtures::record_keys(&[EPOCH])).unwrap();
        store.commit((1..=records).map(|n| put(n, Expected::Absent)).collect()).await.unwrap();
        fs::create_dir(data.join("tls")).unwrap();
        fs::write(data.join("tls/ca.pem"), "an authority").unwrap();
        let log = AuditLog::open(&data.join("audit"), AuditOptions::KEEP_ALL).unwrap();
        log.unsealed(signers()).await.unwrap();
        let who = Principal::named("p");
        for number in 0..300 {
            log.append(&event(&who, number)).unwrap();
        }
        log.append_durably(&event(&who, 300)).await.unwrap();
        let backups = DataBackups::of(sealed, Arc::new(log), &data, source);
        Self { folder, backups }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn back_up(&self, dir: &Path, stop: &Stop) -> Result<Written, BackupError> {
        fs::create_dir_all(dir).unwrap();
        self.back_up_to(Some(dir.display().to_string()), stop).await
    }

    async fn back_up_to(
        &self,
        directory: Option<String>,
        stop: &Stop,
    ) -> Result<Written, BackupError> {
        let frozen = self.backups.freeze(directory.as_deref()).await?;
        let head = BackupHead {
            id: RequestId([7; 16]),
            begun_at: Timestamp(1_795_000_000),
            begun: Elapsed(77),
            commit: frozen.commit(),
            bootstrap: frozen.bootstrap()?,
            wrapped: vec![([0x5a; 16], vec![0xa5; 80])],
        };
        let place = BackupPlace { directory, name: "one.backup".to_owned() };
        let order = BackupOrder { head, key: key(), signer: signer(), place, stop: stop.clone() };
        frozen.write(order).await
    }

    async fn prove(&self, dir: &Path, expected: Written) -> Result<(), BackupError> {
        let directory = Some(dir.display().to_string());
        let trial = Trial {
            place: BackupPlace { directory, name: "one.backup".to_owned() },
            key: key(),
            records: fixtures::record_keys(&[EPOCH]),
            log_key: signer().key().clone(),
            expected,
            stop: Stop::default(),
        };
        self.backups.prove(trial).await
    }
}

fn event(who: &Principal, number: u64) -> Event<'_> {
    Event {
        at: Timestamp(1_795_000_000 + number),
        request: RequestId([7; 16]),
        who,
        action: "kms:Encrypt",
        phase: Phase::Whole,
        key: None,
        version: None,
        context_hash: None,
        result: "ok",
        reason: "",
        source: Source::default(),
        target: None,
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/backup-v1.backup")
}

fn check_file(path: &Path) -> Result<u64, BackupError> {
    let mut backup = BackupFile::open(path)?;
    let keys = fixtures::record_keys(&[EPOCH]);
    let manifest = check(&mut backup, &key(), &keys, signer().key(), &Stop::default())?;
    Ok(manifest.records)
}

#[test]
fn golden_backup_opens_and_every_record_in_it() {
    assert_eq!(check_file(&golden()).unwrap(), 21);
}

/// Writes the golden backup anew, if `WRITE_GOLDEN` is set; only for a new version of the format.
#[tokio::test]
async fn golden_backup_is_written_when_it_is_asked_for() {
    if std::env::var_os("WRITE_GOLDEN").is_none() {
        return;
    }
    let world = World::of(20).await;
    world.back_up(&world.path("to"), &Stop::default()).await.unwrap();
    fs::copy(world.path("to/one.backup"), golden()).unwrap();
}

/// What the second reader says.
fn python(path: &Path) -> Option<Result<String, String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/open_backup.py");
    let needs = "import cryptography.hazmat.primitives.kdf.hkdf";
    let there = Command::new("python3").args(["-c", needs]).status();
    if !there.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no python3 with the package cryptography (scripts/setup installs it)");
        return None;
    }
    let hex: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    let public = signer().key().to_string();
    let mut reader = Command::new("python3");
    let said = reader.arg("-B").arg(script).arg(path).args([hex, public]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some(if said.status.success() { Ok(text(said.stdout)) } else { Err(text(said.stderr)) })
}

#[tokio::test]
async fn the_second_reader_opens_the_golden_backup_and_one_made_now() {
    let Some(said) = python(&golden()) else { return };
    let text = said.unwrap();
    assert!(text.contains("\"audit_records\": 301") && text.contains("audit/tile/entries/000"));
    assert!(text.contains("!bootstrap") && text.contains("tls/ca.pem"), "{text}");
    // More than one segment.
    let world = World::of(2_000).await;
    let made = world.back_up(&world.path("to"), &Stop::default()).await.unwrap();
    let said = python(&world.path("to/one.backup")).unwrap().unwrap();
    assert_eq!(said.matches("key/").count() as u64, made.records - 1);
    // It refuses what this reader refuses.
    let changed = world.path("changed");
    let mut bytes = fs::read(golden()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&changed, bytes).unwrap();
    assert!(python(&changed).unwrap().is_err() && check_file(&changed).is_err());
}

#[tokio::test]
async fn a_backup_is_proven_and_gives_the_same_store_and_log() {
    let world = World::of(50).await;
    let to = world.path("to");
    let written = world.back_up(&to, &Stop::default()).await.unwrap();
    world.prove(&to, written.clone()).await.unwrap();
    assert!(!world.path("data/trial-restore").exists());
    let mut backup = BackupFile::open(&to.join("one.backup")).unwrap();
    let (new, keys) = (world.path("new"), fixtures::record_keys(&[EPOCH]));
    let stop = Stop::default();
    restore(&mut backup, key(), fixtures::record_keys(&[EPOCH]), signer().key(), &new, &stop)
        .unwrap();
    let open = || SqliteSealedStore::open_dir(&new, Arc::new(SeededSource::new(2)));
    assert!(matches!(open().err(), Some(OpenError::HalfRestored(_))));
    finish_restore(&new).unwrap();
    let sealed = open().unwrap();
    assert_eq!(sealed.bootstrap().await.unwrap(), Some(fixtures::bootstrap()));
    let store = sealed.open(keys).unwrap();
    // It takes writes that expect what was there, and its log goes on.
    for number in 1..=50 {
        let path = put(number, Expected::Absent).path;
        assert!(store.get(&path).await.unwrap().is_some(), "{path:?}");
    }
    let log = AuditLog::open(&new.join("audit"), AuditOptions::KEEP_ALL).unwrap();
    log.unsealed(signers()).await.unwrap();
    log.append_durably(&event(&Principal::named("p"), 301)).await.unwrap();
    assert_eq!(log.state().durable, 302);
    let again =
        restore(&mut backup, key(), fixtures::record_keys(&[EPOCH]), signer().key(), &new, &stop);
    assert!(matches!(again, Err(BackupError::Refused(_))), "{again:?}");
}

#[tokio::test]
async fn another_file_in_the_place_of_a_backup_is_not_proven() {
    let world = World::of(5).await;
    let to = world.path("to");
    let written = world.back_up(&to, &Stop::default()).await.unwrap();
    let other = Written { records_sha256: [0; 32], ..written.clone() };
    assert!(matches!(world.prove(&to, other).await, Err(BackupError::Damaged { .. })));
    fs::copy(golden(), to.join("one.backup")).unwrap();
    assert!(matches!(world.prove(&to, written.clone()).await, Err(BackupError::Damaged { .. })));
    fs::remove_file(to.join("one.backup")).unwrap();
    assert!(matches!(world.prove(&to, written).await, Err(BackupError::Failed { .. })));
    assert!(!world.path("data/trial-restore").exists());
}

#[tokio::test]
async fn a_backup_that_is_told_to_stop_leaves_nothing() {
    let world = World::of(5).await;
    let (to, stop) = (world.path("to"), Stop::default());
    stop.set();
    assert!(matches!(world.back_up(&to, &stop).await, Err(BackupError::Stopped)));
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
}

#[tokio::test]
async fn a_link_that_waits_for_the_list_is_not_followed() {
    let world = World::of(1).await;
    let (to, store) = (world.path("to"), world.path("data/records.db"));
    let (instance, before) = (fixtures::bootstrap().instance.id, fs::read(&store).unwrap());
    fs::create_dir(&to).unwrap();
    let planted = to.join(format!(".{}.partial", list_name(instance)));
    std::os::unix::fs::symlink(&store, &planted).unwrap();
    let directory = to.display().to_string();
    let kept = world.backups.keep_tombstones(Some(&directory), instance, Vec::new(), signer());
    kept.await.unwrap();
    assert!(fs::read(&store).unwrap() == before, "the store was written over");
    assert!(fs::symlink_metadata(to.join(list_name(instance))).unwrap().is_file());
}

#[tokio::test]
async fn a_backup_is_gone_only_where_the_list_of_its_installation_lies() {
    let world = World::of(1).await;
    let (to, instance) = (world.path("to"), fixtures::bootstrap().instance.id);
    world.back_up(&to, &Stop::default()).await.unwrap();
    let directory = to.display().to_string();
    let keep = || world.backups.keep_tombstones(Some(&directory), instance, Vec::new(), signer());
    keep().await.unwrap();
    let place = BackupPlace { directory: Some(directory.clone()), name: "one.backup".to_owned() };
    // What lies below a mount while it is not there, and nothing at all.
    fs::rename(&to, world.path("away")).unwrap();
    let absent = world.backups.remove(&place).await;
    assert!(matches!(absent, Err(BackupError::Refused(_))), "{absent:?}");
    fs::create_dir(&to).unwrap();
    let bare = world.backups.remove(&place).await;
    assert!(matches!(bare, Err(BackupError::Refused(_))), "{bare:?}");
    fs::remove_dir(&to).unwrap();
    fs::rename(world.path("away"), &to).unwrap();
    world.backups.remove(&place).await.unwrap();
    assert!(!to.join("one.backup").exists());
    world.backups.remove(&place).await.unwrap();
}

#[tokio::test]
async fn directory_that_is_not_there_is_not_made() {
    let world = World::of(1).await;
    let to = world.path("to");
    let World { folder, backups } = world;
    let world = World { folder, backups: backups.with(Some(to.display().to_string()), None) };
    for place in [None, Some(to.display().to_string())] {
        let missing = world.back_up_to(place, &Stop::default()).await;
        assert!(matches!(missing, Err(BackupError::Refused(_))), "{missing:?}");
        assert!(!to.exists());
    }
    fs::create_dir(&to).unwrap();
    world.back_up_to(None, &Stop::default()).await.unwrap();
}

#[tokio::test]
async fn full_disk_ends_a_backup_and_a_trial_and_leaves_what_was_there() {
    let disk = tempfile::tempdir().unwrap();
    let mounted = mount("tmpfs", disk.path(), "tmpfs", MountFlags::empty(), c"size=256k,mode=0700");
    if mounted.is_err() {
        eprintln!("not run: this process may not mount a file system");
        return;
    }
    let world = World::of(3_000).await;
    fs::write(disk.path().join("older.backup"), "an older one").unwrap();
    let full = world.back_up(&disk.path().join("to"), &Stop::default()).await;
    let left = fs::read_dir(disk.path().join("to")).unwrap().count();
    let older = fs::read_to_string(disk.path().join("older.backup")).unwrap();
    let to = world.path("to");
    let written = world.back_up(&to, &Stop::default()).await.unwrap();
    let World { folder, backups } = world;
    let world = World { folder, backups: backups.with(None, Some(disk.path().to_owned())) };
    let no_trial = world.prove(&to, written).await;
    let rest = fs::read_dir(disk.path()).unwrap().count();
    unmount(disk.path(), UnmountFlags::DETACH).unwrap();
    assert!(matches!(full, Err(BackupError::Full(_))), "{full:?}");
    assert_eq!((left, older.as_str()), (0, "an older one"));
    assert!(matches!(no_trial, Err(BackupError::Full(_))), "{no_trial:?}");
    assert_eq!(rest, 2);
}

/// Set where a process runs this test alone.
const ALONE: &str = "LASTKEY_TEST_ALONE";

/// Figures for people; nothing is asserted of the time.
#[tokio::test]
#[ignore = "heavy: writes a million records"]
async fn a_million_records_are_backed_up_and_proven_in_constant_memory() {
    if env::var_os(ALONE).is_none() {
        // Its memory is measured, so nothing else may run in its process.
        let name = "backup::a_million_records_are_backed_up_and_proven_in_constant_memory";
        let mut alone = Command::new(env::current_exe().unwrap());
        alone.args(["--exact", name, "--ignored", "--nocapture"]).env(ALONE, "1");
        assert!(alone.status().unwrap().success());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let source = Arc::new(SeededSource::new(1));
    let sealed = Arc::new(SqliteSealedStore::open_dir(&data, source.clone()).unwrap());
    sealed.initialise(&fixtures::bootstrap()).await.unwrap();
    let store = sealed.open(fixtures::record_keys(&[EPOCH])).unwrap();
    for first in (0..1_000_000).step_by(20_000) {
        let batch = (first..first + 20_000).map(|n| put(n + 1, Expected::Absent));
        store.commit(batch.collect()).await.unwrap();
    }
    let log = AuditLog::open(&data.join("audit"), AuditOptions::KEEP_ALL).unwrap();
    log.unsealed(signers()).await.unwrap();
    log.append_durably(&event(&Principal::named("p"), 0)).await.unwrap();
    let backups = DataBackups::of(sealed, Arc::new(log), &data, source);
    let world = World { folder, backups };
    let to = world.path("to");
    // Resets the peak, see proc_pid_clear_refs(5).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_memory();
    let begun = std::time::Instant::now();
    let written = world.back_up(&to, &Stop::default()).await.unwrap();
    let made = begun.elapsed();
    world.prove(&to, written.clone()).await.unwrap();
    let grown = peak_memory().saturating_sub(before) >> 10;
    eprintln!(
        "{} records, {} MB: made in {made:?}, proven in {:?}, memory grew by {grown} MB",
        written.records,
        written.len >> 20,
        begun.elapsed() - made
    );
    assert_eq!(written.records, 1_000_001);
    assert!(grown < 64, "memory grew by {grown} MB");
}

/// The most memory that this process has had, in KiB.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn tombstone(key: u64, number: u32, destroyed_at: u64) -> Tombstone {
    let (key, version) = (fixtures::key_id(key), VersionNo::new(number));
    Tombstone { key, version, destroyed_at: Timestamp(destroyed_at) }
}

#[tokio::test]
async fn a_list_only_grows_and_what_nobody_signed_is_put_aside() {
    let world = World::of(1).await;
    let (to, instance) = (world.path("to"), fixtures::bootstrap().instance.id);
    fs::create_dir(&to).unwrap();
    let path = to.join(list_name(instance));
    let keep = async |tombstones| {
        let directory = Some(to.to_str().unwrap());
        world.backups.keep_tombstones(directory, instance, tombstones, signer()).await.unwrap();
        read_list(&fs::read_to_string(&path).unwrap(), instance, signer().key()).unwrap()
    };
    keep(vec![tombstone(1, 0, 7), tombstone(2, 3, 7)]).await;
    // A restored server knows less, and has given a number again.
    let all = vec![tombstone(1, 0, 7), tombstone(2, 3, 9)];
    assert_eq!(keep(vec![tombstone(2, 3, 9)]).await, all);
    fs::write(&path, "nobody has signed this").unwrap();
    assert_eq!(keep(Vec::new()).await, []);
    let aside = path.with_extension("tombstones.refused");
    assert_eq!(fs::read_to_string(aside).unwrap(), "nobody has signed this");
}

#[tokio::test]
async fn no_backup_goes_up_by_dots_and_none_is_gone_where_no_list_can_lie() {
    let world = World::of(1).await;
    let place = |directory: PathBuf| BackupPlace {
        directory: Some(directory.display().to_string()),
        name: "one.backup".to_owned(),
    };
    let up = place(world.path("nowhere/../data"));
    for refused in
        [world.backups.check(up.directory.as_deref()).await, world.backups.remove(&up).await]
    {
        assert!(matches!(&refused, Err(BackupError::NotConfigured(_))), "{refused:?}");
    }
    fs::write(world.path("file"), "").unwrap();
    let refused = world.backups.remove(&place(world.path("file"))).await;
    assert!(matches!(&refused, Err(BackupError::Refused(_))), "{refused:?}");
}
