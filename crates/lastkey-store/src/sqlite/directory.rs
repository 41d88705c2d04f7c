//! The data directory: who has it, what wrote it, who may read it.
//!
//! Room      `store`.
//! Source    `docs/formats/record.md`, "Data directory".
//! Holds     `format` is written last, so a directory that has it was made whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The database; SQLite puts `-wal` and `-shm` beside it.
pub(super) const DATABASE: &str = "records.db";

/// Lies in a directory that a backup is being restored to.
pub(super) const RESTORING: &str = "restoring";

const LOCK: &str = "lock";
const FORMAT: &str = "format";
const FORMAT_LABEL: &str = "lastkey data format ";
const FORMAT_NUMBER: u32 = 1;
/// The format file is one short line; more than this is something else.
const MAX_FORMAT_LEN: usize = 64;

/// Why a data directory does not open. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another Lastkey process; stop that one first", .0.display())]
    InUse(PathBuf),
    /// A newer version wrote it.
    #[error(
        "{} was written by a newer version of Lastkey; start that version, \
         or restore a backup made by this one", .0.display()
    )]
    Newer(PathBuf),
    /// Files are missing, are not Lastkey's, or cannot be read.
    #[error("{} is not a whole Lastkey data directory; restore it from a backup", .0.display())]
    Damaged(PathBuf),
    /// A restore into it was cut short.
    #[error(
        "the restore into {} was cut short; empty the directory and restore again", .0.display()
    )]
    HalfRestored(PathBuf),
    /// Something lies where a backup is to be restored to.
    #[error(
        "{} is not empty, and nothing in it was touched; name a new directory", .0.display()
    )]
    NotEmpty(PathBuf),
    /// The operating system refused something.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database refused something.
    #[error("cannot open the database {}", .path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
}

/// A directory that is this process's, until this is dropped.
///
/// The lock belongs to the open file, which a child of this process shares for the moment between
/// its `fork` and its `exec`: closing our descriptor alone would leave it locked until then. So the
/// lock is given back in words.
#[derive(Debug)]
pub(super) struct Claim(File);

impl Drop for Claim {
    fn drop(&mut self) {
        // When this fails, closing the file gives the lock back all the same, if later.
        let _ = self.0.unlock();
    }
}

/// Makes the directory if need be and takes it for this process.
pub(super) fn claim(dir: &Path) -> Result<Claim, OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
    warn_if_shared(dir)?;
    let path = dir.join(LOCK);
    let lock = private().write(true).create(true).truncate(false).open(&path);
    let lock = lock.map_err(io_error("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(Claim(lock)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

/// Whether the store has yet to be made: nothing of it is there, or only the beginnings of a
/// store whose making was interrupted.
pub(super) fn is_new(dir: &Path) -> Result<bool, OpenError> {
    let path = dir.join(FORMAT);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    match parse_format(&text) {
        Some(FORMAT_NUMBER) if dir.join(DATABASE).is_file() => Ok(false),
        Some(newer) if newer > FORMAT_NUMBER => Err(OpenError::Newer(dir.to_owned())),
        Some(_) | None => Err(OpenError::Damaged(dir.to_owned())),
    }
}

/// Makes an empty file that only its owner can read, unless it is there.
///
/// SQLite gives its journals the mode of the database.
pub(super) fn create_private(path: &Path) -> Result<(), OpenError> {
    let file = private().write(true).create(true).truncate(false).open(path);
    file.map(|_| ()).map_err(io_error("create", path))
}

/// Marks the directory as whole, durably.
pub(super) fn finish_new(dir: &Path) -> Result<(), OpenError> {
    let (unfinished, path) = (dir.join("format.new"), dir.join(FORMAT));
    let write = || {
        let mut file = private().write(true).create(true).truncate(true).open(&unfinished)?;
        writeln!(file, "{FORMAT_LABEL}{FORMAT_NUMBER}")?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(io_error("write", &path))
}

/// Whether a restore into a directory has not come to its end.
pub(super) fn is_restoring(dir: &Path) -> bool {
    dir.join(RESTORING).exists()
}

/// Makes the names in a directory durable.
pub(super) fn sync(dir: &Path) -> Result<(), OpenError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> Result<(), OpenError> {
    fs::remove_file(path).map_err(io_error("remove", path))
}

fn parse_format(text: &[u8]) -> Option<u32> {
    let text = text.get(..text.len().min(MAX_FORMAT_LEN))?;
    let line = core::str::from_utf8(text).ok()?.lines().next()?;
    line.strip_prefix(FORMAT_LABEL)?.parse().ok()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// A directory that was there keeps its mode: volumes of a cluster come with one of their own.
/// The files in it are private all the same.
fn warn_if_shared(dir: &Path) -> Result<(), OpenError> {
    let metadata = fs::metadata(dir).map_err(io_error("read", dir))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let mode = format!("{mode:o}");
        tracing::warn!(dir = %dir.display(), mode, "data directory is open to others than its owner");
    }
    Ok(())
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child process between `fork` and `exec` holds the open file that the lock is on.
    #[test]
    fn dropped_claim_frees_the_directory_though_a_child_still_shares_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path()).unwrap();
        let _shared = first.0.try_clone().unwrap();
        assert!(matches!(claim(dir.path()), Err(OpenError::InUse(_))));
        drop(first);
        assert!(claim(dir.path()).is_ok());
    }

    #[test]
    fn format_line_is_read_and_anything_else_is_not() {
        assert_eq!(parse_format(b"lastkey data format 1\n"), Some(1));
        assert_eq!(parse_format(b"lastkey data format 27\nmore"), Some(27));
        for bad in ["", "lastkey data format", "lastkey data format x", "other 1", "\u{fffd}"] {
            assert_eq!(parse_format(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_format(&[0xff; 100]), None);
    }
}
