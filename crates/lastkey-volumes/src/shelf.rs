//! Where volumes lie: a folder for each, with its record and its data.
//!
//! Room      `volumes`. What the data lies on is the back end's; a device for a file the machine's.
//! Holds     A folder appears under its name when it is whole and durable, and goes in one step. What
//!           is done to the data of an entry begins with [`Shelf::find`].

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::back_end::{BackEnd, Fill};
use crate::fault::{Fault, io_while};
use crate::record::{SnapshotRecord, VolumeRecord};

const RECORD: &str = "record.json";
pub(crate) const DATA: &str = "data";
/// What stat(2) counts in, whatever the file system has.
const BLOCK_LEN: u64 = 512;
/// Folders that are not whole yet, or not whole any more.
pub(crate) const HALF: &str = ".half-";

/// What has a folder.
pub(crate) trait Entry: Clone + Serialize + DeserializeOwned {
    /// Folder of all of its kind.
    const FOLDER: &'static str;

    fn id(&self) -> &str;
    fn name(&self) -> &str;
}

impl Entry for VolumeRecord {
    const FOLDER: &'static str = "volumes";

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Entry for SnapshotRecord {
    const FOLDER: &'static str = "snapshots";

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// All entries of a kind.
pub(crate) struct Shelf<T> {
    folder: PathBuf,
    back_end: Arc<dyn BackEnd>,
    entries: Mutex<BTreeMap<String, T>>,
}

impl<T: Entry> Shelf<T> {
    /// Opens the folder, or makes it; what was left half is removed.
    pub(crate) fn open(root: &Path, back_end: Arc<dyn BackEnd>) -> io::Result<Self> {
        let folder = root.join(T::FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut entries = BTreeMap::new();
        for found in fs::read_dir(&folder)? {
            let found = found?;
            if let Some(id) = found.file_name().to_string_lossy().strip_prefix(HALF) {
                // What cannot be removed now is not in the way of the others.
                if let Err(error) = discard(&*back_end, &found.path(), id) {
                    tracing::warn!(id, %error, "what was left half is not removed yet");
                }
                continue;
            }
            let path = found.path().join(RECORD);
            let record = fs::read(&path).and_then(|record| Ok(serde_json::from_slice(&record)?));
            // Without it, nobody would know whose the data beside it are.
            let entry: T = record.map_err(|error| {
                io::Error::new(error.kind(), format!("{} cannot be read: {error}", path.display()))
            })?;
            entries.insert(entry.id().to_owned(), entry);
        }
        Ok(Self { folder, back_end, entries: Mutex::new(entries) })
    }

    pub(crate) fn get(&self, id: &str) -> Option<T> {
        self.lock().get(id).cloned()
    }

    pub(crate) fn named(&self, name: &str) -> Option<T> {
        self.lock().values().find(|entry| entry.name() == name).cloned()
    }

    /// All, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<T> {
        self.lock().values().cloned().collect()
    }

    /// The file with the data of an entry, once it is sure that it is there.
    pub(crate) fn find(&self, id: &str) -> Result<PathBuf, Fault> {
        let data = self.data(id);
        self.back_end.find(&data, id).map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) {
                return Fault::precondition(error.to_string());
            }
            io_while(format!("find what {id} lies on"))(error)
        })?;
        Ok(data)
    }

    /// Where the data of an entry is, or a link to it.
    pub(crate) fn data(&self, id: &str) -> PathBuf {
        self.folder.join(id).join(DATA)
    }

    /// Adds an entry with `len` bytes of data, all of which are taken from the disk now. When that
    /// fails for a reference, whoever let somebody wait for it lets that one go on, and then calls
    /// [`Shelf::abandon`].
    pub(crate) fn add(&self, entry: &T, len: u64, fill: Fill<'_>) -> io::Result<()> {
        let half = self.folder.join(format!("{HALF}{}", entry.id()));
        if half.exists() {
            discard(&*self.back_end, &half, entry.id())?;
        }
        DirBuilder::new().mode(0o700).create(&half)?;
        let made = self.fill(&half, entry, len, fill).and_then(|()| {
            fs::rename(&half, self.folder.join(entry.id()))?;
            File::open(&self.folder)?.sync_all()
        });
        if made.is_err() && !matches!(fill, Fill::Reference(_)) {
            self.abandon(entry.id());
        }
        made?;
        self.lock().insert(entry.id().to_owned(), entry.clone());
        Ok(())
    }

    /// Removes what an [`Shelf::add`] that failed has left, as far as that goes: the next start does
    /// the rest.
    pub(crate) fn abandon(&self, id: &str) {
        let half = self.folder.join(format!("{HALF}{id}"));
        if half.exists()
            && let Err(error) = discard(&*self.back_end, &half, id)
        {
            tracing::warn!(id, %error, "what was left half is not removed yet");
        }
    }

    fn fill(&self, half: &Path, entry: &T, len: u64, fill: Fill<'_>) -> io::Result<()> {
        self.back_end.make(&half.join(DATA), entry.id(), len, fill)?;
        write_record(half, entry)
    }

    /// Writes the record of an entry anew.
    pub(crate) fn put(&self, entry: &T) -> io::Result<()> {
        write_record(&self.folder.join(entry.id()), entry)?;
        self.lock().insert(entry.id().to_owned(), entry.clone());
        Ok(())
    }

    /// Makes the data of an entry longer.
    pub(crate) fn grow(&self, id: &str, len: u64) -> io::Result<()> {
        self.back_end.grow(&self.data(id), len)
    }

    /// Takes an entry away with its data.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        let half = self.folder.join(format!("{HALF}{id}"));
        fs::rename(self.folder.join(id), &half)?;
        self.lock().remove(id);
        File::open(&self.folder)?.sync_all()?;
        discard(&*self.back_end, &half, id)
    }

    /// How many bytes the entries were promised that the disk does not hold for them: what pods gave
    /// back with `discard`, and all where files cannot be given their bytes ahead.
    pub(crate) fn owed(&self) -> io::Result<u64> {
        let ids: Vec<String> = self.lock().keys().cloned().collect();
        ids.iter().try_fold(0_u64, |owed, id| match fs::metadata(self.data(id)) {
            Ok(data) => {
                let held = data.blocks().saturating_mul(BLOCK_LEN);
                Ok(owed.saturating_add(data.len().saturating_sub(held)))
            }
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(owed),
            Err(error) => Err(error),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, T>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a folder that is no entry yet, or none any more, with its data.
fn discard(back_end: &dyn BackEnd, half: &Path, id: &str) -> io::Result<()> {
    back_end.remove(&half.join(DATA), id)?;
    fs::remove_dir_all(half)
}

fn write_record(folder: &Path, entry: &impl Serialize) -> io::Result<()> {
    let record = serde_json::to_vec_pretty(entry).map_err(io::Error::other)?;
    put_file(&folder.join(RECORD), &record)
}

/// Writes a file whole or not at all, and lasting.
pub(crate) fn put_file(at: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = at.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, at)?;
    at.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::Shelf;
    use crate::back_end::Files;
    use crate::record::VolumeRecord;

    #[test]
    fn record_that_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("volumes/lkv-1");
        fs::create_dir_all(&folder).unwrap();
        let record = folder.join("record.json");
        let error = || {
            let files = Arc::new(Files::new(root.path().to_owned()));
            Shelf::<VolumeRecord>::open(root.path(), files).err().unwrap().to_string()
        };
        assert!(error().contains(record.to_str().unwrap()), "{}", error());
        fs::write(&record, "{").unwrap();
        assert!(error().contains(record.to_str().unwrap()), "{}", error());
    }
}
