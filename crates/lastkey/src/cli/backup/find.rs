//! Which backup is meant: a file, or the newest of a directory.
//!
//! Room      `lastkey`.
//! Holds     the age of a backup is read in its head: neither a name nor a date of a file makes it
//!           newer.

use std::path::{Path, PathBuf};

use lastkey_store::backup::{BackupFile, newest_first};

use crate::cli::failure::Failure;

/// The backups that a path names: the file, or all of a directory.
pub(super) fn named(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let found = newest_first(path)?;
    if found.is_empty() {
        return Err(Failure::Input(format!("there is no backup in {}", path.display())));
    }
    Ok(found)
}

/// A backup, and what is known beside it.
pub(super) struct Chosen {
    pub(super) backup: BackupFile,
    /// The directory that it lies in.
    pub(super) dir: PathBuf,
    /// Why it may not be the newest state of its installation.
    pub(super) newer: Option<String>,
}

/// The backup that a path names, or the newest of a directory.
pub(super) fn choose(path: &Path) -> Result<Chosen, Failure> {
    let named_dir = path.is_dir().then(|| path.to_owned());
    let dir = named_dir.clone().or_else(|| path.parent().map(Path::to_owned)).unwrap_or_default();
    let dir = if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir };
    let mut problem = None;
    let mut all = Vec::new();
    for path in newest_first(&dir)? {
        match BackupFile::open(&path) {
            Ok(backup) => all.push(backup),
            Err(error) => problem = problem.or(Some(error.to_string())),
        }
    }
    all.sort_by_key(|backup| std::cmp::Reverse((backup.head().begun_at, backup.head().commit)));
    let backup = if named_dir.is_some() {
        check_one_installation(&all, &dir)?;
        let what = || format!("there is no backup in {}", dir.display());
        let missing = || Failure::Input(problem.clone().unwrap_or_else(what));
        (!all.is_empty()).then(|| all.remove(0)).ok_or_else(missing)?
    } else {
        problem = None;
        BackupFile::open(path)?
    };
    let newer = all.iter().find(|other| other.head().is_newer_than(backup.head()));
    let newer = newer.map(|other| format!("{} is newer", other.name())).or(problem);
    Ok(Chosen { backup, dir, newer })
}

fn check_one_installation(all: &[BackupFile], dir: &Path) -> Result<(), Failure> {
    let first = all.first().map(|backup| backup.head().instance());
    if all.iter().all(|backup| Some(backup.head().instance()) == first) {
        Ok(())
    } else {
        let dir = dir.display();
        let problem = format!("{dir} holds backups of several installations; name one file");
        Err(Failure::Usage(problem))
    }
}
