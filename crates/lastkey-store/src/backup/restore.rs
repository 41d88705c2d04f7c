//! From a backup to a data directory, and to the knowledge that it can become one.
//!
//! Room      `store`.
//! Source    docs/formats/backup.md, "Restore".
//! Holds     a directory that a restore did not finish does not open. Nothing that was there is
//!           written over.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use lastkey_core::audit::archive::LogHead;
use lastkey_core::audit::merkle::Hash;
use lastkey_core::audit::note::NoteKey;
use lastkey_core::backup::{BackupError, Stop};
use lastkey_core::ports::RecordKeys;
use lastkey_secret::SecretArray;

use super::failure::{damaged, failed, io_error, of_store};
use super::file::BackupFile;
use super::format::Manifest;
use super::sink::Receive;
use crate::audit_log::verify::{self, LogDir, LogFiles, VerifyError};
use crate::audit_log::{AuditLog, AuditOptions, resume_copy};
use crate::backend::OUTSIDE;
use crate::opener::BOOTSTRAP;
use crate::record;
use crate::sealing::RecordSealer;
use crate::sqlite::Load;

/// Opens a whole backup and every record in it, and keeps nothing of it.
///
/// # Errors
/// [`BackupError`].
pub fn check(
    backup: &mut BackupFile,
    key: &SecretArray<32>,
    keys: &RecordKeys,
    log_key: &NoteKey,
    stop: &Stop,
) -> Result<Manifest, BackupError> {
    backup.check_signature(log_key)?;
    let mut checking = Checking::new(backup, keys)?;
    let manifest = backup.open_with(key, &mut checking, stop)?;
    checking.finish()?;
    Ok(manifest)
}

/// Opens every record that comes by.
struct Checking {
    name: String,
    sealer: RecordSealer,
    bootstrap: Vec<u8>,
    has_bootstrap: bool,
}

impl Checking {
    fn new(backup: &BackupFile, keys: &RecordKeys) -> Result<Self, BackupError> {
        let name = backup.name().to_owned();
        let sealer = RecordSealer::new(keys).map_err(failed("open", name.clone()))?;
        let bootstrap = record::bootstrap::encode(&backup.head().bootstrap);
        let bootstrap = bootstrap.map_err(|error| damaged(&name, error.to_string()))?;
        Ok(Self { name, sealer, bootstrap, has_bootstrap: false })
    }

    fn finish(&self) -> Result<(), BackupError> {
        let missing = || damaged(&self.name, "the seals are missing among its records");
        self.has_bootstrap.then_some(()).ok_or_else(missing)
    }
}

impl Receive for Checking {
    fn record(&mut self, path: &str, revision: u64, value: &[u8]) -> Result<(), BackupError> {
        if path == BOOTSTRAP {
            self.has_bootstrap = value == self.bootstrap;
            return self.finish();
        }
        if path.starts_with(OUTSIDE) {
            return Err(BackupError::Newer(self.name.clone()));
        }
        let bad = |what: &str| damaged(&self.name, format!("record {path} {what}"));
        let opened = self.sealer.open(path, revision, value).map_err(|_| bad("does not open"))?;
        opened.expose(record::decode).map_err(|error| match error {
            record::DecodeError::Malformed => bad("is malformed"),
            record::DecodeError::Newer => BackupError::Newer(self.name.clone()),
        })?;
        Ok(())
    }

    fn file(&mut self, _: &str, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }
}

/// Makes a data directory of a backup. The directory must be empty or not there, and opens after
/// [`finish_restore`](crate::sqlite::finish_restore) alone. The keys end with the stream that they
/// open.
///
/// # Errors
/// [`BackupError`]; what was written by then does not open and has to be thrown away.
pub fn restore(
    backup: &mut BackupFile,
    key: SecretArray<32>,
    keys: RecordKeys,
    log_key: &NoteKey,
    dir: &Path,
    stop: &Stop,
) -> Result<Manifest, BackupError> {
    fill(backup, key, keys, log_key, dir, stop, false)
}

/// The same on trial: nothing is written that its readers could use. The authority's key and
/// approvals are checked by the hash in the manifest alone.
pub(super) fn restore_on_trial(
    backup: &mut BackupFile,
    key: SecretArray<32>,
    keys: RecordKeys,
    log_key: &NoteKey,
    dir: &Path,
    stop: &Stop,
) -> Result<Manifest, BackupError> {
    fill(backup, key, keys, log_key, dir, stop, true)
}

fn fill(
    backup: &mut BackupFile,
    key: SecretArray<32>,
    keys: RecordKeys,
    log_key: &NoteKey,
    dir: &Path,
    stop: &Stop,
    is_trial: bool,
) -> Result<Manifest, BackupError> {
    backup.check_signature(log_key)?;
    let load = Load::begin(dir).map_err(|error| of_store(error, dir))?;
    let checking = Checking::new(backup, &keys)?;
    drop(keys);
    let (dir, made) = (dir.to_owned(), Vec::new());
    let mut restoring = Restoring { checking, dir, load, made, is_trial };
    let manifest = backup.open_with(&key, &mut restoring, stop)?;
    drop(key);
    let Restoring { checking, dir, load, made, .. } = restoring;
    checking.finish()?;
    drop(checking);
    sync_all(&dir, &made)?;
    if let Some(head) = &manifest.audit {
        go_on_with_log(&dir.join("audit"), head, log_key, stop)?;
    }
    load.finish(backup.head().commit).map_err(|error| of_store(error, &dir))?;
    Ok(manifest)
}

/// Puts records and files where they belong.
struct Restoring {
    checking: Checking,
    dir: PathBuf,
    load: Load,
    /// Folders that were made.
    made: Vec<PathBuf>,
    is_trial: bool,
}

/// Makes the names in folders durable, and those of the folders themselves, up to a directory.
fn sync_all(dir: &Path, folders: &[PathBuf]) -> Result<(), BackupError> {
    let above = folders.iter().flat_map(|folder| folder.ancestors());
    let all: BTreeSet<_> = above.filter(|folder| folder.starts_with(dir)).collect();
    for folder in all {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(io_error("sync", folder))?;
    }
    Ok(())
}

impl Receive for Restoring {
    fn record(&mut self, path: &str, revision: u64, value: &[u8]) -> Result<(), BackupError> {
        self.checking.record(path, revision, value)?;
        let put = self.load.put(path, revision, value);
        put.map_err(|error| of_store(error, &self.dir))
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        if self.is_trial && !name.starts_with("audit/") {
            return Ok(());
        }
        let path = self.dir.join(name);
        let folder = path.parent().unwrap_or(&self.dir);
        if self.made.last().is_none_or(|last| last != folder) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(io_error("make", folder))?;
            self.made.push(folder.to_owned());
        }
        let mode = if name == "tls/ca.pem" { 0o644 } else { 0o600 };
        let mut options = OpenOptions::new();
        let file = options.mode(mode).write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        });
        written.map_err(io_error("write", &path))
    }
}

/// A log that is read until the work is told to end.
struct Stoppable<'a> {
    log: LogDir,
    stop: &'a Stop,
}

impl LogFiles for Stoppable<'_> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if self.stop.is_set() {
            return Err(io::Error::other(BackupError::Stopped));
        }
        self.log.read(name)
    }

    fn groups(&self) -> Result<Vec<(u64, Vec<Hash>)>, VerifyError> {
        self.log.groups()
    }
}

/// Checks the log of a backup and lets it go on.
fn go_on_with_log(
    dir: &Path,
    head: &LogHead,
    log_key: &NoteKey,
    stop: &Stop,
) -> Result<(), BackupError> {
    let name = dir.display().to_string();
    if head.size == 0 {
        return Ok(());
    }
    let files = Stoppable { log: LogDir(dir.to_owned()), stop };
    let verified = verify::verify(&files, std::slice::from_ref(log_key), |_| ());
    let verified = verified.map_err(|error| match error {
        VerifyError::Io(error) => io_error("read", dir)(error),
        VerifyError::Checkpoint(_) | VerifyError::Bad { .. } => damaged(&name, error.to_string()),
    })?;
    if (verified.checkpoint.size, verified.checkpoint.root) != (head.size, head.root) {
        return Err(damaged(&name, "the audit log is not the one of the manifest"));
    }
    resume_copy(dir).map_err(io_error("go on with", dir))?;
    let opened = AuditLog::open(dir, AuditOptions::KEEP_ALL);
    opened.map(drop).map_err(|error| damaged(&name, error.to_string()))
}

/// Removes a directory that a restore was tried in.
pub(super) fn clear(dir: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io_error("remove", dir)),
    }
}

#[cfg(test)]
mod tests {
    use lastkey_core::audit::note::{KeyKind, NoteSigner};
    use lastkey_testkit::fixtures;

    use super::*;

    fn log_key() -> NoteKey {
        let name = format!("lastkey/{}", fixtures::bootstrap().instance.id);
        let seed = SecretArray::copy_of(&[1; 32]);
        NoteSigner::from_seed(&name, KeyKind::Ed25519, &seed).unwrap().key().clone()
    }

    #[test]
    fn a_trial_writes_down_no_key_of_the_authority() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/backup-v1.backup");
        let folder = tempfile::tempdir().unwrap();
        for (name, is_trial) in [("trial", true), ("kept", false)] {
            let (dir, mut backup) = (folder.path().join(name), BackupFile::open(&golden).unwrap());
            let (key, keys) = (SecretArray::copy_of(&[0x42; 32]), fixtures::record_keys(&[1]));
            let stop = Stop::default();
            fill(&mut backup, key, keys, &log_key(), &dir, &stop, is_trial).unwrap();
            assert!(dir.join("audit/checkpoint").exists(), "{name}");
            assert_eq!(dir.join("tls").exists(), !is_trial, "{name}");
        }
    }

    #[test]
    fn the_log_is_not_read_on_after_the_word_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let (head, stop) = (LogHead { size: 1, root: [0; 32] }, Stop::default());
        let check = || go_on_with_log(folder.path(), &head, &log_key(), &stop);
        assert!(matches!(check(), Err(BackupError::Damaged { .. })));
        stop.set();
        assert!(matches!(check(), Err(BackupError::Stopped)));
    }
}
