//! Where the bytes of volumes lie: a port, and files as the first thing behind it.
//!
//! Room      `volumes`. The record of a volume is a folder of its own (`shelf.rs`); what is behind
//!           this port is at a path in there: a file, or a link to a device.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use lastkey_kernel::DeviceNumber;
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone, statvfs};
use rustix::io::Errno;

/// What new data begins with.
#[derive(Clone, Copy, Debug)]
pub enum Fill<'a> {
    /// Zeros: in the header, and at beginning and end of what is behind it.
    Nothing,
    /// A copy of this file or device, by reference where that can be.
    Copy(&'a Path),
    /// The same, or nothing: it is in use and may not be read for long.
    Reference(&'a Path),
}

/// Where data lies. Each call can be repeated after being cut short anywhere.
pub trait BackEnd: Send + Sync {
    /// Makes `len` bytes of data, all of which are taken now, and puts them, or a link to them, at a
    /// path where nothing is.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] without room; [`io::ErrorKind::Unsupported`] for a reference
    /// where there are only copies.
    fn make(&self, at: &Path, id: &str, len: u64, fill: Fill<'_>) -> io::Result<()>;

    /// Makes sure that what is at the path is what was made there for `id`, also after a restart, and
    /// finds it again where that can be. Before anything is read, written, wiped or ended in its name.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not to be found, [`io::ErrorKind::AlreadyExists`] when
    /// there are two; others when nobody knows.
    fn find(&self, at: &Path, id: &str) -> io::Result<()>;

    /// Makes data longer. As long already is no error.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`]; [`io::ErrorKind::Unsupported`] where data does not grow.
    fn grow(&self, at: &Path, len: u64) -> io::Result<()>;

    /// Takes data away that [`BackEnd::make`] made for `id`, or began to make.
    ///
    /// # Errors
    /// When that is refused. Nothing there is no error.
    fn remove(&self, at: &Path, id: &str) -> io::Result<()>;

    /// How many bytes new data can have at most.
    ///
    /// # Errors
    /// When nobody tells.
    fn room(&self) -> io::Result<u64>;

    /// The same after a look at what lies there: what would be taken for new data and not refused.
    ///
    /// # Errors
    /// When nobody tells.
    fn largest(&self) -> io::Result<u64> {
        self.room()
    }

    /// Whether a device is certainly what was made for `id`, by what is on it.
    ///
    /// # Errors
    /// When nobody knows.
    fn is_below(&self, _: &str, _: DeviceNumber) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether volumes that live as long as a pod may lie there.
    fn has_inline(&self) -> bool {
        true
    }
}

/// Files in the folders of their records.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// Files somewhere below a folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl BackEnd for Files {
    fn make(&self, at: &Path, _: &str, len: u64, fill: Fill<'_>) -> io::Result<()> {
        let data = File::options().write(true).create_new(true).open(at)?;
        match fill {
            Fill::Nothing => {}
            Fill::Copy(from) => copy(&File::open(from)?, &data)?,
            Fill::Reference(from) => ioctl_ficlone(&data, File::open(from)?)?,
        }
        allocate(&data, len)?;
        data.sync_all()
    }

    /// A path of a file system names one file for good.
    fn find(&self, _: &Path, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn grow(&self, at: &Path, len: u64) -> io::Result<()> {
        let data = File::options().write(true).open(at)?;
        allocate(&data, len)?;
        data.sync_all()
    }

    fn remove(&self, at: &Path, _: &str) -> io::Result<()> {
        match fs::remove_file(at) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn room(&self) -> io::Result<u64> {
        let told = statvfs(&self.folder)?;
        Ok(told.f_bavail.saturating_mul(told.f_frsize))
    }
}

/// By reference where the file system can, byte by byte elsewhere.
fn copy(mut from: &File, mut to: &File) -> io::Result<()> {
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
            io::copy(&mut from, &mut to).map(drop)
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes the bytes from the disk now, so that a full disk is no error of a pod later.
fn allocate(data: &File, len: u64) -> io::Result<()> {
    match fallocate(data, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        // This file system cannot.
        Err(Errno::OPNOTSUPP) if data.metadata()?.len() < len => data.set_len(len),
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
