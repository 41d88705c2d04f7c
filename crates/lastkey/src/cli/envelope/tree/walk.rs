//! The files of a tree, in portions.
//!
//! Room      `lastkey`.
//! Holds     A folder is read to its end before its first file is touched: what a run makes
//!           never comes up in it. Links are not followed.

use std::{
    fs::{self, DirEntry},
    path::{Path, PathBuf},
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use lastkey_client::file::is_temporary_name;

use super::{super::glob::Glob, Run};
use crate::cli::failure::Failure;

/// Files handed over at a time.
const PORTION: usize = 32;
/// Portions that wait.
const WAITING: usize = 16;

/// Some files of one folder.
#[derive(Debug, Default)]
pub(super) struct Portion {
    /// Paths relative to the root.
    pub(super) files: Vec<PathBuf>,
    /// Whether the folder they go to was made just now, so that nothing is in it.
    pub(super) is_fresh: bool,
}

pub(super) fn channel() -> (SyncSender<Portion>, Receiver<Portion>) {
    sync_channel(WAITING)
}

/// Which files belong to a run.
pub(in crate::cli::envelope) struct Filter {
    pub(super) include: Vec<Glob>,
    pub(super) exclude: Vec<Glob>,
}

impl Filter {
    fn has_file(&self, path: &Path) -> bool {
        let is_included =
            self.include.is_empty() || self.include.iter().any(|glob| glob.is_match(path));
        is_included && self.has_folder(path)
    }

    fn has_folder(&self, path: &Path) -> bool {
        !self.exclude.iter().any(|glob| glob.is_match(path))
    }
}

/// Sends every file of a run to its workers.
pub(super) fn walk(run: &Run, sender: &SyncSender<Portion>) -> Result<(), Failure> {
    if !run.job.source.is_dir() {
        let _ = sender.send(Portion { files: vec![PathBuf::new()], is_fresh: false });
        return Ok(());
    }
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut portion = Portion { files: Vec::new(), is_fresh: make_folder(run, &folder)? };
        let entries = match read_folder(&run.job.source.join(&folder)) {
            Ok(entries) => entries,
            Err(failure) => {
                run.fail(&folder, failure);
                continue;
            }
        };
        for entry in entries {
            let path = folder.join(entry.file_name());
            match kind(run, &entry, &path) {
                Kind::Folder => folders.push(path),
                Kind::File => portion.files.push(path),
                Kind::Other => {
                    run.passed_over.fetch_add(1, Ordering::Relaxed);
                }
                Kind::NotOurs => {}
            }
            if portion.files.len() == PORTION && !send(run, sender, &mut portion) {
                return Ok(());
            }
        }
        if !send(run, sender, &mut portion) {
            return Ok(());
        }
    }
    Ok(())
}

/// Answers no when nobody works any more.
fn send(run: &Run, sender: &SyncSender<Portion>, portion: &mut Portion) -> bool {
    let (files, is_fresh) = (std::mem::take(&mut portion.files), portion.is_fresh);
    !run.should_stop() && sender.send(Portion { files, is_fresh }).is_ok()
}

enum Kind {
    Folder,
    File,
    Other,
    NotOurs,
}

fn kind(run: &Run, entry: &DirEntry, path: &Path) -> Kind {
    let Ok(kind) = entry.file_type() else { return Kind::Other };
    let filter = &run.job.filter;
    if kind.is_dir() {
        return if filter.has_folder(path) { Kind::Folder } else { Kind::NotOurs };
    }
    if kind.is_file() && is_temporary_name(&entry.file_name()) {
        remove_left_over(run, path);
        return Kind::NotOurs;
    }
    match (kind.is_file(), filter.has_file(path)) {
        (_, false) => Kind::NotOurs,
        (true, true) => Kind::File,
        (false, true) => Kind::Other,
    }
}

/// What a killed run may have left. In place the lock says that no other run needs it.
fn remove_left_over(run: &Run, path: &Path) {
    if run.job.target.is_none() {
        // When it cannot be removed, it stays for the next run.
        let _ = fs::remove_file(run.job.source.join(path));
    }
}

fn read_folder(folder: &Path) -> Result<Vec<DirEntry>, Failure> {
    let failed = |cause| Failure::io(format!("read the folder {}", folder.display()), cause);
    fs::read_dir(folder).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// Answers whether it was made just now.
fn make_folder(run: &Run, folder: &Path) -> Result<bool, Failure> {
    let Some(target) = &run.job.target else { return Ok(false) };
    let folder = target.join(folder);
    if fs::create_dir(&folder).is_ok() {
        return Ok(true);
    }
    fs::create_dir_all(&folder)
        .map_err(|cause| Failure::io(format!("make the folder {}", folder.display()), cause))?;
    Ok(false)
}

/// Number of files and their bytes, as far as they can be seen; for the time that is left.
pub(super) fn total(root: &Path, filter: &Filter) -> (u64, u64) {
    let (mut files, mut bytes) = (0, 0);
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in read_folder(&root.join(&folder)).unwrap_or_default() {
            let path = folder.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && filter.has_folder(&path) => folders.push(path),
                Ok(kind) if kind.is_file() && filter.has_file(&path) => {
                    files += 1;
                    bytes += entry.metadata().map_or(0, |about| about.len());
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    (files, bytes)
}
