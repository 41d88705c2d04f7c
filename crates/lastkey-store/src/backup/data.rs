//! Backups of a data directory, in directories of the same machine and in buckets.
//!
//! Room      `store`. Implements the `Backups` port of `core`; buckets are behind `Buckets`.
//! Holds     the records are held still before the log is, so that the log in a backup reaches at
//!           least as far as its records say. No backup lies in the data directory that it is of.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use lastkey_core::audit::note::{NoteKey, NoteSigner};
use lastkey_core::backup::{
    BackupError, BackupHead, BackupOrder, BackupPlace, Backups, Frozen, Stop, Tombstone, Trial,
    Written,
};
use lastkey_core::backup_folder::{BackupFolder, Buckets, NoBuckets, is_in_bucket};
use lastkey_core::ids::InstanceId;
use lastkey_core::ports::{CommitSeq, EntropySource, SealedStore as _};
use lastkey_core::seal_record::Bootstrap;
use lastkey_crypto::digest::Sha256;
use lastkey_secret::SecretArray;
use tokio::sync::Mutex;

use super::directory::Directory;
use super::failure::{damaged, failed, of_store};
use super::file::{BackupFile, Contents, write};
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
pub struct DataBackups {
    store: Arc<SqliteSealedStore>,
    audit: Arc<AuditLog>,
    places: Places,
    scratch: PathBuf,
    /// Held while something is restored into that.
    trying: Arc<Mutex<()>>,
    entropy: Arc<dyn EntropySource>,
}

impl DataBackups {
    /// Backups of a store and a log that lie in `data`.
    #[must_use]
    pub fn of(
        store: Arc<SqliteSealedStore>,
        audit: Arc<AuditLog>,
        data: &Path,
        entropy: Arc<dyn EntropySource>,
    ) -> Self {
        let scratch = data.join(SCRATCH);
        let places = Places { data: data.to_owned(), target: None, buckets: Arc::new(NoBuckets) };
        Self { store, audit, places, scratch, trying: Arc::default(), entropy }
    }

    /// The same with a place for what is not told to go elsewhere, and a directory for trial
    /// restores. What a trial that was cut short has left goes.
    #[must_use]
    pub fn with(self, target: Option<String>, scratch: Option<PathBuf>) -> Self {
        let scratch = scratch.map(|dir| dir.join(SCRATCH)).unwrap_or(self.scratch);
        if let Err(error) = clear(&scratch) {
            tracing::warn!(%error, "what a trial restore has left cannot be removed");
        }
        let places = Places { target, ..self.places };
        Self { places, scratch, ..self }
    }

    /// The same with buckets.
    #[must_use]
    pub fn with_buckets(self, buckets: Arc<dyn Buckets>) -> Self {
        let places = Places { buckets, ..self.places };
        Self { places, ..self }
    }
}

/// Where backups may lie. What is asked may not answer, a file system or a network: only within
/// [`blocking`].
#[derive(Clone)]
struct Places {
    data: PathBuf,
    /// Where backups go when nothing else is said.
    target: Option<String>,
    buckets: Arc<dyn Buckets>,
}

impl Places {
    /// The folder of a place. Whoever waits for a bucket is let go when `stop` is told.
    fn folder(
        &self,
        directory: Option<&str>,
        stop: &Stop,
    ) -> Result<Arc<dyn BackupFolder>, BackupError> {
        let place = directory.or(self.target.as_deref()).ok_or_else(|| {
            BackupError::NotConfigured(
                "the configuration names no place for backups: set backup.target, or name a \
                 directory by --to DIR"
                    .to_owned(),
            )
        })?;
        if is_in_bucket(place) {
            return self.buckets.open(place, stop);
        }
        let path = Path::new(place);
        self.check_directory(path)?;
        Ok(Arc::new(Directory::at(path)))
    }

    fn check_directory(&self, dir: &Path) -> Result<(), BackupError> {
        let refused = |why: String| Err(BackupError::NotConfigured(why));
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
        Ok(())
    }

    fn open(&self, place: &BackupPlace, stop: &Stop) -> Result<BackupFile, BackupError> {
        BackupFile::open_in(&*self.folder(place.directory.as_deref(), stop)?, &place.name)
    }
}

#[async_trait]
impl Backups for DataBackups {
    async fn check(&self, directory: Option<&str>) -> Result<(), BackupError> {
        let (places, directory) = (self.places.clone(), directory.map(str::to_owned));
        blocking(move || places.folder(directory.as_deref(), &Stop::default()).map(drop)).await
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
        // A trial that nobody waits for any more ends soon, but not at once.
        let alone = Arc::clone(&self.trying).lock_owned().await;
        let (places, scratch) = (self.places.clone(), self.scratch.clone());
        blocking(move || {
            let _alone = alone;
            let backup = places.open(&trial.place, &trial.stop)?;
            clear(&scratch)?;
            let proven = prove(backup, &scratch, trial);
            let cleared = clear(&scratch);
            proven.and(cleared)
        })
        .await
    }

    async fn head(&self, place: &BackupPlace) -> Result<BackupHead, BackupError> {
        let (places, place) = (self.places.clone(), place.clone());
        blocking(move || Ok(places.open(&place, &Stop::default())?.head().clone())).await
    }

    async fn try_key(&self, place: &BackupPlace, key: SecretArray<32>) -> Result<(), BackupError> {
        let (places, place) = (self.places.clone(), place.clone());
        blocking(move || places.open(&place, &Stop::default())?.check_key(&key)).await
    }

    async fn remove(&self, place: &BackupPlace) -> Result<(), BackupError> {
        let seals = self.store.bootstrap().await;
        let seals = seals.map_err(|error| failed("read", "the seals")(error.into()))?;
        let list = seals.map(|seals| list_name(seals.instance.id));
        let list = list.ok_or_else(|| damaged(BOOTSTRAP, "it is gone"))?;
        let (places, place) = (self.places.clone(), place.clone());
        blocking(move || {
            let folder = places.folder(place.directory.as_deref(), &Stop::default())?;
            remove(&*folder, &place.name, &list)
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
            let folder = places.folder(directory.as_deref(), &Stop::default())?;
            let name = list_name(instance);
            let known = known_tombstones(&*folder, instance, signer.key())?;
            let list = write_list(instance, &union(known, tombstones), &signer);
            let list = list.map_err(failed("sign", name.as_str()))?;
            folder.replace(&name, list.as_bytes())
        })
        .await
    }
}

/// What the list that lies there tells. One that this installation has not signed is put aside.
fn known_tombstones(
    folder: &dyn BackupFolder,
    instance: InstanceId,
    key: &NoteKey,
) -> Result<Vec<Tombstone>, BackupError> {
    let name = list_name(instance);
    let Some(list) = folder.read(&name)? else { return Ok(Vec::new()) };
    match read_list(&String::from_utf8_lossy(&list), instance, key) {
        Ok(known) => Ok(known),
        Err(error) => {
            let place = folder.place();
            tracing::warn!(%error, place, "a list of what was destroyed is put aside");
            folder.replace(&format!("{name}.refused"), &list)?;
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
            let folder = places.folder(directory.as_deref(), &order.stop)?;
            let contents = Contents { snapshot: &snapshot, data: &places.data, log };
            write(&*folder, contents, &order, entropy.open().as_mut())
        })
        .await
    }
}

/// Restores into a scratch directory and compares, record by record. The comparing needs no keys,
/// and has none.
fn prove(mut backup: BackupFile, scratch: &Path, trial: Trial) -> Result<(), BackupError> {
    let Trial { key, records: keys, log_key, expected, stop, .. } = trial;
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
/// installation lies: a directory that is not mounted looks empty, and so does another bucket.
fn remove(folder: &dyn BackupFolder, name: &str, list: &str) -> Result<(), BackupError> {
    if folder.remove(name)? || folder.read(list)?.is_some() {
        return Ok(());
    }
    Err(BackupError::Refused(format!(
        "neither {name} nor {list} is in {}, so nothing tells that the backup is gone; mount the \
         directory, or see that it is the right bucket, then try again",
        folder.place()
    )))
}

/// The backups of a place, newest first by their names.
///
/// # Errors
/// [`BackupError`] when the place cannot be read.
pub fn newest_first(folder: &dyn BackupFolder) -> Result<Vec<String>, BackupError> {
    let is_backup = |name: &String| name.ends_with(SUFFIX) && !name.starts_with('.');
    let mut found: Vec<_> = folder.names()?.into_iter().filter(is_backup).collect();
    found.sort_unstable();
    found.reverse();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use lastkey_core::audit::note::KeyKind;
    use lastkey_testkit::entropy::SeededSource;
    use lastkey_testkit::fixtures;

    use super::*;
    use crate::audit_log::AuditOptions;

    fn trial(directory: &Path) -> Trial {
        let seed = SecretArray::copy_of(&[2; 32]);
        let (len, records, sha256) = (0, 0, [0; 32]);
        Trial {
            place: BackupPlace {
                directory: Some(directory.display().to_string()),
                name: "one.backup".to_owned(),
            },
            key: SecretArray::copy_of(&[1; 32]),
            records: fixtures::record_keys(&[1]),
            log_key: NoteSigner::from_seed("log", KeyKind::Ed25519, &seed).unwrap().key().clone(),
            expected: Written { len, sha256, records, records_sha256: sha256, audit: None },
            stop: Stop::default(),
        }
    }

    /// The server was sealed and unsealed during a trial restore, whose thread worked on; the next
    /// backup removed the folder under it, filled it too, and was called damaged.
    #[test]
    fn trial_that_nobody_waits_for_keeps_its_folder_until_it_has_ended() {
        // One thread works, on one thing after the other.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (data, to) = (folder.path().join("data"), folder.path().join("to"));
            let source = Arc::new(SeededSource::new(1));
            let store = Arc::new(SqliteSealedStore::open_dir(&data, source.clone()).unwrap());
            let log = AuditLog::open(&data.join("audit"), AuditOptions::KEEP_ALL).unwrap();
            let backups = DataBackups::of(store, Arc::new(log), &data, source);
            let (go_on, wait) = std::sync::mpsc::channel::<()>();
            let thread = tokio::task::spawn_blocking(move || wait.recv().unwrap());
            let mut proven = backups.prove(trial(&to));
            let mut context = Context::from_waker(Waker::noop());
            assert!(proven.as_mut().poll(&mut context).is_pending());
            drop(proven);
            assert!(backups.trying.try_lock().is_err());
            go_on.send(()).unwrap();
            thread.await.unwrap();
            // It has its turn when the other one has ended: here by its not being there.
            assert!(backups.prove(trial(&to)).await.is_err());
            assert!(backups.trying.try_lock().is_ok());
        });
    }
}
