//! The files of the log: how they are made, replaced and read.
//!
//! Room      `store`.
//! Holds     a file that is replaced is the old one or the new one, whole, whenever the machine
//!           stops.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file that only its owner reads.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes a directory and those above it.
///
/// # Errors
/// An I/O error that names it.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(named("create", path))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// An I/O error.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a file of the tree; its directory is made when it is not there. Not durable yet. Who reads
/// one that is there meanwhile finds what it held, where that is the same.
///
/// # Errors
/// An I/O error that names it.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let write = || {
        let mut file = private_file().write(true).create(true).truncate(false).open(path)?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)
    };
    let written = match write() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dir(path.parent().unwrap_or(path))?;
            write()
        }
        written => written,
    };
    written.map_err(named("write", path))
}

/// The same, unless the file is there as it should be: at a start, nearly all of them are, and to
/// write one again costs a hundred times what it costs to read it.
///
/// # Errors
/// An I/O error that names it.
pub(super) fn write_if_other(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match read_if_there(path, bytes.len() as u64) {
        Ok(Some(found)) if found == bytes => Ok(()),
        // Whatever else is there, or cannot be read, is replaced.
        Ok(_) | Err(_) => write_file(path, bytes),
    }
}

/// Replaces a file, durably.
///
/// # Errors
/// An I/O error that names it.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let replace = || {
        let mut file = private_file().write(true).create(true).truncate(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_dir(path.parent().unwrap_or(path))
    };
    replace().map_err(named("write", path))
}

/// Appends to a file, all or nothing. `len` is the length to which the file is cut back before,
/// where an earlier call could not do so.
///
/// # Errors
/// An I/O error that names it.
pub(super) fn append_whole(path: &Path, bytes: &[u8], len: &mut Option<u64>) -> io::Result<()> {
    let mut append = || {
        let mut file = private_file().append(true).create(true).open(path)?;
        let before = match *len {
            Some(before) => file.set_len(before).map(|()| before)?,
            None => file.metadata()?.len(),
        };
        *len = Some(before);
        if let Err(error) = file.write_all(bytes) {
            file.set_len(before)?;
            return Err(error);
        }
        *len = None;
        Ok(())
    };
    append().map_err(named("append to", path))
}

/// Reads a file that may be missing, up to a length.
///
/// # Errors
/// An I/O error that names it, also when it is longer.
pub(super) fn read_if_there(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long"));
        }
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named("read", path)(error)),
    }
}

/// An I/O error that says what was done to which file.
pub(super) fn named(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.to_owned();
    move |error| io::Error::new(error.kind(), format!("cannot {doing} {}: {error}", path.display()))
}

/// Where the parts of a log lie.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The directory of the log.
    pub(super) dir: PathBuf,
}

impl Layout {
    pub(super) fn wal(&self) -> PathBuf {
        self.dir.join("wal")
    }

    pub(super) fn spare(&self) -> PathBuf {
        self.wal().join("spare")
    }

    /// There while tiles may have been lost that the segments still hold.
    pub(super) fn unsynced(&self) -> PathBuf {
        self.wal().join("unsynced")
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    /// The newest checkpoint that witnesses have cosigned.
    pub(super) fn cosigned(&self) -> PathBuf {
        self.dir.join("cosigned")
    }

    /// Earlier checkpoints, thinned out.
    pub(super) fn checkpoints(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    pub(super) fn public_keys(&self) -> PathBuf {
        self.dir.join("public-keys")
    }

    pub(super) fn minimum(&self) -> PathBuf {
        self.dir.join("minimum-index")
    }

    pub(super) fn witnesses(&self) -> PathBuf {
        self.dir.join("witnesses")
    }

    pub(super) fn witnessed(&self, origin: &str) -> PathBuf {
        let hash = lastkey_crypto::digest::sha256(origin.as_bytes());
        let name: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.dir.join("witnessed").join(name)
    }

    pub(super) fn tile(&self, name: &lastkey_core::audit::tile::TileName) -> PathBuf {
        self.dir.join(name.to_string())
    }
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    use super::*;

    /// A part of a note stayed at the end of the list, and the next one was written after it.
    #[test]
    fn append_that_finds_no_room_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let size = c"size=8k,mode=0700";
        if mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), size).is_err() {
            eprintln!("SKIPPED: this process may not mount a file system");
            return;
        }
        let (path, mut len) = (dir.path().join("list"), None);
        append_whole(&path, &[1; 4_000], &mut len).unwrap();
        let refused = append_whole(&path, &[2; 8_000], &mut len).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), [1; 4_000]);
        // What could not be cut then is cut before the next one.
        File::options().append(true).open(&path).unwrap().write_all(&[2; 50]).unwrap();
        append_whole(&path, &[3; 10], &mut len).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [vec![1; 4_000], vec![3; 10]].concat());
        assert_eq!(len, None);
        unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    }
}
