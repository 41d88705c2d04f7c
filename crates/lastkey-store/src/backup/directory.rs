//! Backups in a directory of this machine.
//!
//! Room      `store`. Implements `BackupFolder` of `core`.
//! Holds     a file that is being written has another name, which goes with a failure; a name that
//!           counts is never written over, but for the list, whose place is taken at once. Others
//!           may write to the directory: no link is followed, nothing but files is opened, and what
//!           is read whole has a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use lastkey_core::backup::BackupError;
use lastkey_core::backup_folder::{BackupFolder, NewFile, StoredFile};

use rustix::fs::OFlags;

use super::failure::io_error;

/// Bytes that are read or written at once.
const PIECE_LEN: usize = 1 << 20;

/// Longest file that is read whole, in bytes.
const MAX_WHOLE_LEN: u64 = 64 << 20;

/// A directory with backups.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    place: String,
}

impl Directory {
    /// A directory. It is never made: one that is not there may have to be mounted.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), place: path.display().to_string() }
    }

    /// The name that a file has while it is written.
    fn partial(&self, name: &str) -> PathBuf {
        self.path.join(format!(".{name}.partial"))
    }
}

/// Opens a file, and nothing that only stands in its place.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    Ok(file)
}

/// Reads a file whole.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(MAX_WHOLE_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_WHOLE_LEN {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long"));
    }
    Ok(bytes)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all())
}

fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Nothing, when a file was not there; any other error.
fn not_found(error: io::Error) -> io::Result<()> {
    if is_not_there(&error) { Ok(()) } else { Err(error) }
}

impl BackupFolder for Directory {
    fn place(&self) -> &str {
        &self.place
    }

    fn names(&self) -> Result<Vec<String>, BackupError> {
        let read = || io_error("read", &self.path);
        let entries = fs::read_dir(&self.path).map_err(read())?;
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(read())
        };
        entries.map(name).collect()
    }

    fn open(&self, name: &str) -> Result<Box<dyn StoredFile>, BackupError> {
        let path = self.path.join(name);
        let file = open_file(&path).map_err(io_error("open", &path))?;
        let len = file.metadata().map_err(io_error("read", &path))?.len();
        Ok(Box::new(OpenFile { file, len }))
    }

    fn begin(&self, name: &str) -> Result<Box<dyn NewFile>, BackupError> {
        if !self.path.is_dir() {
            return Err(BackupError::Refused(format!(
                "there is no directory {}; mount it, or make it, then try again",
                self.place
            )));
        }
        let (path, partial) = (self.path.join(name), self.partial(name));
        if path.symlink_metadata().is_ok() {
            return Err(BackupError::Refused(format!("{} is there already", path.display())));
        }
        let mut options = OpenOptions::new();
        let file = options.mode(0o600).write(true).create_new(true).open(&partial);
        let file = file.map_err(io_error("make", &partial))?;
        Ok(Box::new(PartialFile { file, partial, path, dir: self.path.clone(), is_named: false }))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BackupError> {
        let path = self.path.join(name);
        match read_whole(&path) {
            Err(error) if is_not_there(&error) => Ok(None),
            read => read.map(Some).map_err(io_error("read", &path)),
        }
    }

    /// What others have put in the way is taken away.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let (path, partial) = (self.path.join(name), self.partial(name));
        let replace = || {
            fs::remove_file(&partial).or_else(not_found)?;
            let mut options = OpenOptions::new();
            let mut file = options.mode(0o600).write(true).create_new(true).open(&partial)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            sync(&self.path)
        };
        replace().map_err(io_error("write", &path))
    }

    fn remove(&self, name: &str) -> Result<bool, BackupError> {
        let mut is_removed = false;
        for path in [self.path.join(name), self.partial(name)] {
            match fs::remove_file(&path) {
                Ok(()) => is_removed = true,
                Err(error) => not_found(error).map_err(io_error("remove", &path))?,
            }
        }
        if is_removed {
            sync(&self.path).map_err(io_error("sync", &self.path))?;
        }
        Ok(is_removed)
    }
}

/// A file that was found.
#[derive(Debug)]
struct OpenFile {
    file: File,
    len: u64,
}

impl StoredFile for OpenFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_from(&self, start: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(Box::new(BufReader::with_capacity(PIECE_LEN, file)))
    }
}

/// A file under the name that does not count.
struct PartialFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    dir: PathBuf,
    is_named: bool,
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for PartialFile {
    fn finish(mut self: Box<Self>) -> Result<(), BackupError> {
        self.file.sync_all().map_err(io_error("write", &self.partial))?;
        fs::rename(&self.partial, &self.path).map_err(io_error("name", &self.path))?;
        self.is_named = true;
        sync(&self.dir).map_err(io_error("sync", &self.dir))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_named {
            // What is half made is in the way of those who need the room.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_stands_in_the_place_of_a_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), b"whole").unwrap();
        symlink(path("file"), path("link")).unwrap();
        symlink("/dev/zero", path("endless")).unwrap();
        symlink(path("nowhere"), path("dangling")).unwrap();
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::create_dir(path("folder")).unwrap();
        let directory = Directory::at(folder.path());
        assert_eq!(directory.read("file").unwrap().as_deref(), Some(&b"whole"[..]));
        assert_eq!(directory.open("file").unwrap().len(), 5);
        assert!(directory.read("nothing").unwrap().is_none());
        for name in ["link", "endless", "dangling", "pipe", "folder"] {
            assert!(directory.read(name).is_err() && directory.open(name).is_err(), "{name}");
            assert!(directory.begin(name).is_err(), "{name}");
        }
        assert!(!path("nowhere").exists());
    }

    #[test]
    fn whole_file_has_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("long")).unwrap();
        file.set_len(MAX_WHOLE_LEN + 1).unwrap();
        assert!(Directory::at(folder.path()).read("long").is_err());
    }
}
