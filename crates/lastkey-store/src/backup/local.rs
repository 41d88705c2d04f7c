//! Backups of a data directory, in directories of the same machine.
//!
//! Room      `store`. Implements the `Backups` port of `core`.
//! Holds     the records are held still before the log is, so that the log in a backup reaches at
//!           least as far as its records say. No backup lies in the data directory that it is of.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use lastkey_core::audit::note::{NoteKey, NoteSigner};
use lastkey_core::backup::{
    BackupError, BackupHead, BackupOrder, BackupPlace, Backups, Frozen, Stop, Tombstone, Trial,
    Written,
};
use lastkey_core::ids::InstanceId;
use lastkey_core::ports::{CommitSeq, EntropySource, SealedStore as _};
use lastkey_core::seal_record::Bootstrap;
use lastkey_crypto::digest::Sha256;
use lastkey_secret::SecretArray;

use super::failure::{damaged, failed, io_error, of_store};
use super::file::{BackupFile, Contents, partial, write};
use super::format::record_item;
use super::restore::{clear, restore_on_trial};
use super::tombstones::{list_name, read_list, union, write_list};
use crate::audit_log::{AuditLog, LogCopy};
use crate::opener::{BOOTSTRAP, SqliteSealedStore};
use crate::record;
use crate::sqlite::{Snapshot, SqliteStore, next_value};

/// How names of backups end.
pub const SUFFIX: &str = ".backup";

/// Folder in the data directory that backups are restored to on trial.
const SCRATCH: &str = "trial-restore";

/// Backups of one data directory.
pub struct LocalBackups {
    store: Arc<SqliteSealedStore>,
    audit: Arc<AuditLog>,
    places: Places,
    scratch: PathBuf,
    entropy: Arc<dyn EntropySource>,
}

impl LocalBackups {
    /// Backups of a store and a log that lie in `data`.
    #[must_use]
    pub fn of(
        store: Arc<SqliteSealedStore>,
        audit: Arc<AuditLog>,
        data: &Path,
        entropy: Arc<dyn EntropySource>,
    ) -> Self {
        let scratch = data.join(SCRATCH);
        let places = Places { data: data.to_owned(), target: None };
        Self { store, audit, places, scratch, entropy }
    }

    /// The same with a directory for what is not told to go elsewhere, and another one for trial
    /// restores. What a trial that was cut short has left goes.
    #[must_use]
    pub fn with(self, target: Option<PathBuf>, scratch: Option<PathBuf>) -> Self {
        let scratch = scratch.map(|dir| dir.join(SCRATCH)).unwrap_or(self.scratch);
        if let Err(error) = clear(&scratch) {
            tracing::warn!(%error, "what a trial restore has left cannot be removed");
        }
        let places = Places { target, ..self.places };
        Self { places, scratch, ..self }
    }
}

/// Where backups may lie. The file system that is asked may be one that does not answer: only
/// within [`blocking`].
#[derive(Clone)]
struct Places {
    data: PathBuf,
    /// Where backups go when nothing else is said.
    target: Option<PathBuf>,
}

impl Places {
    /// The directory of a place.
    fn directory(&self, directory: Option<&str>) -> Result<PathBuf, BackupError> {
        let refused = |why: String| Err(BackupError::Refused(why));
        let dir = match (directory, &self.target) {
            (Some(directory), _) => PathBuf::from(directory),
            (None, Some(target)) => target.clone(),
            (None, None) => {
                return refused(
                    "the configuration names no place for backups: set backup.target, or name a \
                     directory by --to DIR"
                        .to_owned(),
                );
            }
        };
        if !dir.is_absolute() {
            return refused(format!("{} is not an absolute path", dir.display()));
        }
        if dir.components().any(|part| part == Component::ParentDir) {
            return refused(format!("{} goes up by `..`; name it without", dir.display()));
        }
        // What is not there yet lies where its nearest folder lies.
        let real = dir.ancestors().find_map(|above| fs::canonicalize(above).ok());
        let data = fs::canonicalize(&self.data).unwrap_or_else(|_| self.data.clone());
        if real.is_some_and(|real| real.starts_with(&data)) {
            return refused(format!(
                "{} lies in the data directory, and would be lost with it",
                dir.display()
            ));
        }
        Ok(dir)
    }

    fn path(&self, place: &BackupPlace) -> Result<PathBuf, BackupError> {
        Ok(self.directory(place.directory.as_deref())?.join(&place.name))
    }
}

#[async_trait]
impl Backups for LocalBackups {
    async fn check(&self, directory: Option<&str>) -> Result<(), BackupError> {
        let (places, directory) = (self.places.clone(), directory.map(str::to_owned));
        blocking(move || places.directory(directory.as_deref()).map(drop)).await
    }

    async fn freeze(&self, directory: Option<&str>) -> Result<Box<dyn Frozen>, BackupError> {
        let places = self.places.clone();
        let snapshot = self.store.snapshot().map_err(|error| of_store(error, &places.data))?;
        let log = self.audit.copy().await.map_err(failed("copy", "the audit log"))?;
        let directory = directory.map(str::to_owned);
        let entropy = Arc::clone(&self.entropy);
        Ok(Box::new(Still { snapshot, log, places, directory, entropy }))
    }

    async fn prove(&self, trial: Trial) -> Result<(), BackupError> {
        let (places, scratch) = (self.places.clone(), self.scratch.clone());
        blocking(move || {
            let path = places.path(&trial.place)?;
            clear(&scratch)?;
            let proven = prove(&path, &scratch, trial);
            let cleared = clear(&scratch);
            proven.and(cleared)
        })
        .await
    }

    async fn head(&self, place: &BackupPlace) -> Result<BackupHead, BackupError> {
        let (places, place) = (self.places.clone(), place.clone());
        blocking(move || Ok(BackupFile::open(&places.path(&place)?)?.head().clone())).await
    }

    async fn try_key(&self, place: &BackupPlace, key: SecretArray<32>) -> Result<(), BackupError> {
        let (places, place) = (self.places.clone(), place.clone());
        blocking(move || BackupFile::open(&places.path(&place)?)?.check_key(&key)).await
    }

    async fn remove(&self, place: &BackupPlace) -> Result<(), BackupError> {
        let seals = self.store.bootstrap().await;
        let seals = seals.map_err(|error| failed("read", "the seals")(error.into()))?;
        let list = seals.map(|seals| list_name(seals.instance.id));
        let list = list.ok_or_else(|| damaged(BOOTSTRAP, "it is gone"))?;
        let (places, place) = (self.places.clone(), place.clone());
        blocking(move || {
            let dir = places.directory(place.directory.as_deref())?;
            remove(&dir, &place.name, &list)
        })
        .await
    }

    async fn keep_tombstones(
        &self,
        directory: Option<&str>,
        instance: InstanceId,
        tombstones: Vec<Tombstone>,
        signer: NoteSigner,
    ) -> Result<(), BackupError> {
        let (places, directory) = (self.places.clone(), directory.map(str::to_owned));
        blocking(move || {
            let dir = places.directory(directory.as_deref())?;
            let name = list_name(instance);
            let known = known_tombstones(&dir.join(&name), instance, signer.key())?;
            let list = write_list(instance, &union(known, tombstones), &signer);
            let list = list.map_err(failed("sign", name.as_str()))?;
            replace(&dir, &name, list.as_bytes())
        })
        .await
    }
}

fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What the list that lies there tells. One that this installation has not signed is put aside.
fn known_tombstones(
    path: &Path,
    instance: InstanceId,
    key: &NoteKey,
) -> Result<Vec<Tombstone>, BackupError> {
    let list = match fs::read(path) {
        Err(error) if is_not_there(&error) => return Ok(Vec::new()),
        read => read.map_err(io_error("read", path))?,
    };
    match read_list(&String::from_utf8_lossy(&list), instance, key) {
        Ok(known) => Ok(known),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "a list of what was destroyed is put aside");
            let aside = path.with_extension("tombstones.refused");
            fs::rename(path, aside).map_err(io_error("put aside", path))?;
            Ok(Vec::new())
        }
    }
}

/// Runs something that reads and writes files.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| failed("finish", "the work")(error.into()))?
}

/// What is stored at one moment.
struct Still {
    snapshot: Snapshot,
    log: LogCopy,
    places: Places,
    directory: Option<String>,
    entropy: Arc<dyn EntropySource>,
}

#[async_trait]
impl Frozen for Still {
    fn bootstrap(&self) -> Result<Bootstrap, BackupError> {
        let read = self.snapshot.get(BOOTSTRAP);
        let bytes = read.map_err(|error| failed("read", "the seals")(error.into()))?;
        let bytes = bytes.ok_or_else(|| damaged(BOOTSTRAP, "it is gone"))?;
        let decoded = record::bootstrap::decode(&bytes);
        decoded.map_err(|error| damaged(BOOTSTRAP, error.to_string()))
    }

    fn commit(&self) -> CommitSeq {
        self.snapshot.last_commit()
    }

    async fn write(self: Box<Self>, order: BackupOrder) -> Result<Written, BackupError> {
        blocking(move || {
            let Self { snapshot, log, places, directory, entropy } = *self;
            let dir = places.directory(directory.as_deref())?;
            let contents = Contents { snapshot: &snapshot, data: &places.data, log };
            write(&dir, contents, &order, entropy.open().as_mut())
        })
        .await
    }
}

/// Restores into a scratch directory and compares, record by record. The comparing needs no keys,
/// and has none.
fn prove(path: &Path, scratch: &Path, trial: Trial) -> Result<(), BackupError> {
    let Trial { key, records: keys, log_key, expected, stop, .. } = trial;
    let mut backup = BackupFile::open(path)?;
    let name = backup.name().to_owned();
    if *backup.sha256() != expected.sha256 || backup.len() != expected.len {
        return Err(damaged(&name, "another file has taken its place"));
    }
    restore_on_trial(&mut backup, key, keys, &log_key, scratch, &stop)?;
    let restored = SqliteStore::open_restored(scratch).map_err(|error| of_store(error, scratch))?;
    let snapshot = restored.snapshot().map_err(|error| of_store(error, scratch))?;
    let (records, records_sha256) = hash_records(&snapshot, &name, &stop)?;
    if (records, records_sha256) == (expected.records, expected.records_sha256) {
        Ok(())
    } else {
        Err(damaged(&name, "the store that it gives is not the one that it was made of"))
    }
}

fn hash_records(
    snapshot: &Snapshot,
    name: &str,
    stop: &Stop,
) -> Result<(u64, [u8; 32]), BackupError> {
    let read = |error: rusqlite::Error| failed("read", name)(error.into());
    let mut values = snapshot.values().map_err(read)?;
    let mut rows = values.query([]).map_err(read)?;
    let (mut count, mut hash) = (0_u64, Sha256::new());
    while let Some(stored) = next_value(&mut rows).map_err(read)? {
        if stop.is_set() {
            return Err(BackupError::Stopped);
        }
        let item = record_item(&stored.path, stored.revision, &stored.value);
        hash.update(&item.ok_or_else(|| damaged(name, "a record is too long"))?);
        count = count.saturating_add(1);
    }
    Ok((count, hash.finish()))
}

/// Removes a backup, whole or half made. One that is not there is gone only where the list of its
/// installation lies: a directory that is not mounted looks empty.
fn remove(dir: &Path, name: &str, list: &str) -> Result<(), BackupError> {
    let mut is_removed = false;
    for path in [dir.join(name), partial(dir, name)] {
        match fs::remove_file(&path) {
            Ok(()) => is_removed = true,
            Err(error) => not_found(error).map_err(io_error("remove", &path))?,
        }
    }
    if is_removed {
        let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
        return synced.map_err(io_error("sync", dir));
    }
    if dir.join(list).is_file() {
        return Ok(());
    }
    Err(BackupError::Refused(format!(
        "neither {name} nor {list} is in {}, so nothing tells that the backup is gone; mount the \
         directory, then try again",
        dir.display()
    )))
}

/// Nothing, when a file was not there; any other error.
fn not_found(error: io::Error) -> io::Result<()> {
    if is_not_there(&error) { Ok(()) } else { Err(error) }
}

/// Puts a file in the place of one, durably. Others may write to the directory: what they have put
/// in the way is taken away, and no link is followed.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
    let (path, new) = (dir.join(name), partial(dir, name));
    let replace = || {
        fs::remove_file(&new).or_else(not_found)?;
        let mut options = fs::OpenOptions::new();
        let mut file = options.mode(0o600).write(true).create_new(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        fs::File::open(dir)?.sync_all()
    };
    replace().map_err(io_error("write", &path))
}

/// The backups of a directory, newest first by their names.
///
/// # Errors
/// [`BackupError::Failed`] when the directory cannot be read.
pub fn newest_first(dir: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("read", dir))? {
        let entry = entry.map_err(io_error("read", dir))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(SUFFIX) && !name.starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    found.reverse();
    Ok(found)
}
