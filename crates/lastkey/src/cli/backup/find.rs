//! Which backup is meant: a file, or the newest of a directory or of a folder in a bucket.
//!
//! Room      `lastkey`.
//! Holds     the age of a backup is read in its head: neither a name nor a date of a file makes it
//!           newer.

use std::path::Path;
use std::sync::Arc;

use lastkey_core::backup::Stop;
use lastkey_core::backup_folder::{BackupFolder, is_in_bucket};
use lastkey_store::backup::{BackupFile, Directory, SUFFIX, newest_first};

use crate::buckets::buckets;
use crate::cli::failure::Failure;
use crate::cli::open_seal::OpenArgs;

/// Where somebody pointed: at a backup, or at the place that several lie in.
pub(super) struct Origin {
    pub(super) folder: Arc<dyn BackupFolder>,
    /// The one that is meant.
    name: Option<String>,
}

impl Origin {
    /// What a path, or `s3://BUCKET/FOLDER`, names.
    ///
    /// # Errors
    /// When a bucket is not named as one, or it is not known how it is reached.
    pub(super) fn of(named: &Path, open: &OpenArgs) -> Result<Self, Failure> {
        if let Some(place) = named.to_str().filter(|place| is_in_bucket(place)) {
            let (folder, name) = match place.rsplit_once('/') {
                Some((folder, name)) if name.ends_with(SUFFIX) => (folder, Some(name.to_owned())),
                Some(_) | None => (place, None),
            };
            let buckets = buckets(&open.server_config()?.backup.s3);
            return Ok(Self { folder: buckets.open(folder, &Stop::default())?, name });
        }
        if named.is_dir() {
            return Ok(Self { folder: Arc::new(Directory::at(named)), name: None });
        }
        let name = named.file_name().unwrap_or(named.as_os_str()).to_string_lossy().into_owned();
        let dir = named.parent().filter(|dir| !dir.as_os_str().is_empty());
        let folder = Arc::new(Directory::at(dir.unwrap_or(Path::new("."))));
        Ok(Self { folder, name: Some(name) })
    }

    /// The names of the backups that are meant: the one, or all.
    pub(super) fn names(&self) -> Result<Vec<String>, Failure> {
        if let Some(name) = &self.name {
            return Ok(vec![name.clone()]);
        }
        let found = newest_first(&*self.folder)?;
        if found.is_empty() {
            return Err(Failure::Input(self.none()));
        }
        Ok(found)
    }

    /// Opens one of them.
    pub(super) fn open(&self, name: &str) -> Result<BackupFile, Failure> {
        Ok(BackupFile::open_in(&*self.folder, name)?)
    }

    fn none(&self) -> String {
        format!("there is no backup in {}", self.folder.place())
    }

    /// The backup that is meant, or the newest of several.
    pub(super) fn choose(&self) -> Result<Chosen, Failure> {
        let mut problem = None;
        let mut all = Vec::new();
        for name in newest_first(&*self.folder)? {
            match BackupFile::open_in(&*self.folder, &name) {
                Ok(backup) => all.push(backup),
                Err(error) => problem = problem.or(Some(error.to_string())),
            }
        }
        all.sort_by_key(|backup| std::cmp::Reverse((backup.head().begun_at, backup.head().commit)));
        let backup = if let Some(name) = &self.name {
            problem = None;
            self.open(name)?
        } else {
            check_one_installation(&all, self.folder.place())?;
            let missing = || Failure::Input(problem.clone().unwrap_or_else(|| self.none()));
            (!all.is_empty()).then(|| all.remove(0)).ok_or_else(missing)?
        };
        let newer = all.iter().find(|other| other.head().is_newer_than(backup.head()));
        let newer = newer.map(|other| format!("{} is newer", other.name())).or(problem);
        Ok(Chosen { backup, newer })
    }
}

/// A backup, and what is known beside it.
pub(super) struct Chosen {
    pub(super) backup: BackupFile,
    /// Why it may not be the newest state of its installation.
    pub(super) newer: Option<String>,
}

fn check_one_installation(all: &[BackupFile], place: &str) -> Result<(), Failure> {
    let first = all.first().map(|backup| backup.head().instance());
    if all.iter().all(|backup| Some(backup.head().instance()) == first) {
        Ok(())
    } else {
        let problem = format!("{place} holds backups of several installations; name one file");
        Err(Failure::Usage(problem))
    }
}
