//! Output files that appear whole or not at all.
//!
//! Room      `client`. Written beside their destination under a temporary name, synced, then
//!           renamed; dropped before that, they are removed.
//! Holds     The destination holds either what it held before or the whole new content.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use lastkey_crypto::entropy::{Entropy, SystemEntropy};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

/// Whether an existing destination may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// An existing file is an error.
    Refuse,
    /// An existing file gives way in one step.
    Allow,
}

/// Why an output file did not come about.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The destination is there already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// A call of the file system failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// A file that is not there yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    temporary: PathBuf,
    destination: PathBuf,
    replace: Replace,
    is_kept: bool,
}

impl PendingFile {
    /// Opens a temporary file of mode 0600 in the folder of `destination`.
    ///
    /// # Errors
    /// [`FileError::Exists`] when `replace` refuses it; [`FileError::Io`].
    pub fn create(destination: &Path, replace: Replace) -> Result<Self, FileError> {
        let exists = fs::symlink_metadata(destination).is_ok();
        if exists && replace == Replace::Refuse {
            return Err(FileError::Exists { path: destination.to_owned() });
        }
        let temporary = temporary_beside(destination)
            .map_err(|cause| failed("name a temporary file for", destination, cause))?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|cause| failed("create", &temporary, cause))?;
        let destination = destination.to_owned();
        Ok(Self { file, temporary, destination, replace, is_kept: false })
    }

    /// A second handle to write with, for instance on another thread.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn handle(&self) -> Result<File, FileError> {
        self.file.try_clone().map_err(|cause| failed("open", &self.temporary, cause))
    }

    /// Makes the content durable and gives it its name.
    /// `mode` (the lower nine bits) replaces 0600.
    ///
    /// # Errors
    /// [`FileError::Exists`] when somebody else made the destination meanwhile;
    /// [`FileError::Io`]. The temporary file is gone in both cases.
    pub fn keep(mut self, mode: Option<u32>) -> Result<(), FileError> {
        if let Some(mode) = mode {
            self.file
                .set_permissions(Permissions::from_mode(mode & 0o777))
                .map_err(|cause| failed("set the mode of", &self.temporary, cause))?;
        }
        self.file.sync_all().map_err(|cause| failed("sync", &self.temporary, cause))?;
        self.rename()?;
        self.is_kept = true;
        File::open(folder_of(&self.destination))
            .and_then(|folder| folder.sync_all())
            .map_err(|cause| failed("sync the folder of", &self.destination, cause))
    }

    fn rename(&self) -> Result<(), FileError> {
        let outcome = match self.replace {
            Replace::Allow => fs::rename(&self.temporary, &self.destination),
            Replace::Refuse => rename_without_replacing(&self.temporary, &self.destination),
        };
        outcome.map_err(|cause| {
            if cause.kind() == io::ErrorKind::AlreadyExists {
                FileError::Exists { path: self.destination.clone() }
            } else {
                failed("rename to", &self.destination, cause)
            }
        })
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nobody is left to tell; at worst a temporary file stays.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// File systems without the flag get a hard link, which refuses an existing name as well.
fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        outcome => Ok(outcome?),
    }
}

fn temporary_beside(destination: &Path) -> io::Result<PathBuf> {
    let name = destination.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut random = [0; 8];
    SystemEntropy.fill(&mut random).map_err(io::Error::other)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}.tmp", u64::from_be_bytes(random)));
    Ok(folder_of(destination).join(temporary))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> FileError {
    FileError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::PermissionsExt};

    use super::{FileError, PendingFile, Replace};

    fn names_in(folder: &std::path::Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn file_appears_whole_when_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let pending = PendingFile::create(&path, Replace::Refuse).unwrap();
        pending.handle().unwrap().write_all(b"content").unwrap();
        assert!(!path.exists());
        pending.keep(None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn file_leaves_nothing_behind_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let pending = PendingFile::create(&folder.path().join("out"), Replace::Refuse).unwrap();
        pending.handle().unwrap().write_all(b"half").unwrap();
        drop(pending);
        assert_eq!(names_in(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn file_takes_the_mode_it_is_given_when_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        PendingFile::create(&path, Replace::Refuse).unwrap().keep(Some(0o100_640)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn file_refuses_an_existing_destination() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, b"before").unwrap();
        let refused = PendingFile::create(&path, Replace::Refuse).unwrap_err();
        assert!(matches!(refused, FileError::Exists { .. }));
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn file_refuses_a_destination_that_appeared_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let pending = PendingFile::create(&path, Replace::Refuse).unwrap();
        fs::write(&path, b"theirs").unwrap();
        assert!(matches!(pending.keep(None), Err(FileError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn file_replaces_an_existing_destination_when_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, b"before").unwrap();
        let pending = PendingFile::create(&path, Replace::Allow).unwrap();
        pending.handle().unwrap().write_all(b"after").unwrap();
        pending.keep(None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(names_in(folder.path()), ["out"]);
    }
}
