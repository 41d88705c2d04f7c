//! The audit log by its public face: a log of version 1, the second reader, and a long one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use lastkey_core::audit::archive::LogSigners;
use lastkey_core::audit::note::{KeyKind, NoteKey, NoteSigner};
use lastkey_core::audit::{Event, Phase};
use lastkey_core::ids::{KeyId, RequestId, VersionNo};
use lastkey_core::ports::{Audit as _, AuditArchive as _};
use lastkey_core::principal::{Principal, Source};
use lastkey_core::time::Timestamp;
use lastkey_secret::SecretArray;
use lastkey_store::audit_log::verify::{LogDir, Verified, VerifyError, verify};
use lastkey_store::audit_log::{AuditLog, AuditOptions, Durability};

/// The key that signed the golden log.
const KEY: &str = "lastkey/golden+a8cb0fac+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";

fn signers() -> LogSigners {
    let by = |name, kind, seed| {
        NoteSigner::from_seed(name, kind, &SecretArray::copy_of(&[seed; 32])).unwrap()
    };
    LogSigners {
        log: by("lastkey/golden", KeyKind::Ed25519, 1),
        witness: by("lastkey/golden/witness", KeyKind::Cosignature, 2),
    }
}

pub(crate) fn event(who: &Principal, at: Timestamp) -> Event<'_> {
    Event {
        at,
        request: RequestId([7; 16]),
        who,
        action: "kms:Encrypt",
        phase: Phase::Whole,
        key: Some(KeyId::from_random([1; 16])),
        version: VersionNo::new(3),
        context_hash: Some([2; 32]),
        result: "ok",
        reason: "the administrator may do everything",
        source: Source::default(),
        target: None,
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/audit-v1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn check(dir: &Path) -> Result<Verified, VerifyError> {
    verify(&LogDir(dir.to_owned()), &[NoteKey::parse(KEY).unwrap()], |_| ())
}

#[test]
fn golden_log_is_whole() {
    let found = check(&golden()).unwrap();
    assert_eq!((found.checkpoint.size, found.first, found.unsigned), (259, 0, 2));
    assert_eq!(found.earlier, 1);
}

/// Writes the golden log anew, if `WRITE_GOLDEN` is set; only for a new version of the format.
#[tokio::test]
async fn golden_log_is_written_when_it_is_asked_for() {
    if std::env::var_os("WRITE_GOLDEN").is_none() {
        return;
    }
    let _ = fs::remove_dir_all(golden());
    let log = AuditLog::open(&golden(), AuditOptions::KEEP_ALL).unwrap();
    let who = |number: u64| Principal::named(&format!("p{number}"));
    log.unsealed(signers()).await.unwrap();
    log.append_durably(&event(&who(0), Timestamp(1_795_000_000))).await.unwrap();
    log.checkpoint().await.unwrap();
    for number in 1..259 {
        log.append_durably(&event(&who(number), Timestamp(1_795_000_000 + number))).await.unwrap();
    }
    log.sealed().await.unwrap();
    for number in 259..261 {
        log.append_durably(&event(&who(number), Timestamp(1_795_000_000 + number))).await.unwrap();
    }
    drop(log);
    let _ = fs::remove_file(golden().join("wal/spare"));
    // What is after the last group is zeros.
    let segment = golden().join("wal/00000000000000000000.wal");
    let bytes = fs::read(&segment).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    fs::write(&segment, &bytes[..used]).unwrap();
    println!("{}", signers().log.key());
}

/// What the second reader says, and whether it is content.
fn python(dir: &Path) -> Option<(bool, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/verify_audit.py");
    let keys = tempfile::NamedTempFile::new().unwrap();
    fs::write(keys.path(), format!("{KEY}\n")).unwrap();
    let needs = "import cryptography.hazmat.primitives.asymmetric.ed25519";
    let there = Command::new("python3").args(["-c", needs]).status();
    if !there.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no python3 with the package cryptography (scripts/setup installs it)");
        return None;
    }
    let said = Command::new("python3").arg(script).arg(dir).arg(keys.path()).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    Some((said.status.success(), text))
}

#[test]
fn the_second_reader_agrees_on_the_golden_log_and_on_what_is_wrong_with_others() {
    let Some((good, text)) = python(&golden()) else { return };
    assert!(good && text.contains("records 0 to 259 are whole, 2 not signed"), "{text}");
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let segment = "wal/00000000000000000000.wal";
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));
    let changes: [Change<'_>; 11] = [
        ("record", &|dir| flip(&dir.join("tile/entries/000"), 3_000)),
        ("length of a record", &|dir| flip(&dir.join("tile/entries/000"), 0)),
        ("record of a partial bundle", &|dir| flip(&dir.join("tile/entries/001.p/3"), 400)),
        ("hash", &|dir| flip(&dir.join("tile/0/000"), 64)),
        ("hash above", &|dir| flip(&dir.join("tile/1/000.p/1"), 31)),
        ("bundle gone", &|dir| fs::remove_file(dir.join("tile/entries/000")).unwrap()),
        ("bundle cut", &|dir| {
            let bytes = fs::read(dir.join("tile/entries/000")).unwrap();
            fs::write(dir.join("tile/entries/000"), &bytes[..10_000]).unwrap();
        }),
        ("bundles swapped", &|dir| {
            fs::copy(dir.join("tile/entries/001.p/3"), dir.join("tile/entries/000")).unwrap();
        }),
        ("group", &|dir| flip(&dir.join(segment), 5_000)),
        ("segment header", &|dir| flip(&dir.join(segment), 9)),
        ("hidden records", &|dir| fs::write(dir.join("minimum-index"), "256\n").unwrap()),
    ];
    for (what, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        copy(&golden(), dir.path());
        change(dir.path());
        let Err(VerifyError::Bad { first_bad, .. }) = check(dir.path()) else {
            panic!("{what} was not found");
        };
        let (good, text) = python(dir.path()).unwrap();
        let expected = format!("bad from record {first_bad}: ");
        assert!(!good && text.starts_with(&expected), "{what}: {expected} {text}");
    }
}

/// Builds a log and checks it, and says how long each takes.
#[tokio::test]
#[ignore = "heavy: 200,000 records, or RECORDS of them"]
async fn a_long_log_is_verified() {
    let records: u64 = std::env::var("RECORDS").map_or(200_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir_in(std::env::var("SCRATCH").unwrap_or("/tmp".into())).unwrap();
    let options = AuditOptions { durability: Durability::Batched, ..AuditOptions::default() };
    let log = AuditLog::open(dir.path(), options).unwrap();
    log.unsealed(signers()).await.unwrap();
    let (who, started) = (Principal::named("admin"), Instant::now());
    let now = Timestamp(1_795_000_000);
    let mut taken = 0;
    while taken < records {
        if log.append(&event(&who, now)).is_ok() {
            taken += 1;
        } else {
            // The log takes no more until it has written what it has.
            std::thread::yield_now();
        }
    }
    log.checkpoint().await.unwrap();
    println!("{records} records built in {:?}", started.elapsed());
    drop(log);
    let started = Instant::now();
    let found = check(dir.path()).unwrap();
    let rate = found.checkpoint.size as f64 / started.elapsed().as_secs_f64();
    println!("{} records verified in {:?}: {rate:.0}/s", found.checkpoint.size, started.elapsed());
    assert!(found.checkpoint.size >= records);
}
