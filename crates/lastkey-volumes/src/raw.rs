//! Whole devices as back end: disks, partitions, NVMe namespaces of a list, one for each volume.
//!
//! Room      `volumes`.
//! Holds     A device on which anything lies is not taken. Two volumes never have the same one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lastkey_luks::Medium as _;

use crate::back_end::{BackEnd, Fill};
use crate::disk::Disk;

/// Devices of a list.
#[derive(Debug)]
pub struct Raw {
    list: PathBuf,
    /// Where links to taken devices lie, two folders deep.
    state: PathBuf,
    /// One at a time chooses.
    choosing: Mutex<()>,
}

impl Raw {
    /// A list with the path of a device in each line, and the folder of all records.
    pub fn new(list: PathBuf, state: PathBuf) -> Self {
        Self { list, state, choosing: Mutex::new(()) }
    }

    /// The devices of the list, as they are named there. It is read each time: devices come and go.
    ///
    /// # Errors
    /// When the list cannot be read, or names something else than a device.
    pub fn devices(&self) -> io::Result<Vec<PathBuf>> {
        let named = |error: io::Error, name: &Path| {
            io::Error::new(error.kind(), format!("{}: {error}", name.display()))
        };
        let text = fs::read_to_string(&self.list).map_err(|error| named(error, &self.list))?;
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let device = |line: &str| {
            let path = Path::new(line);
            let found = fs::metadata(path).map_err(|error| named(error, path))?;
            if path.is_absolute() && found.file_type().is_block_device() {
                Ok(path.to_owned())
            } else {
                Err(named(io::Error::other("it is no block device by its whole path"), path))
            }
        };
        lines.map(device).collect()
    }

    fn taken(&self) -> io::Result<BTreeSet<PathBuf>> {
        let mut taken = BTreeSet::new();
        for kind in fs::read_dir(&self.state)? {
            let kind = kind?.path();
            if !kind.is_dir() {
                continue;
            }
            for entry in fs::read_dir(kind)? {
                // By what it is: a device has several names.
                taken.extend(entry?.path().join("data").canonicalize());
            }
        }
        Ok(taken)
    }

    /// Devices that nobody has, with their lengths, the shortest first.
    fn free(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let taken = self.taken()?;
        let mut free = Vec::new();
        for device in self.devices()? {
            if !taken.contains(&device.canonicalize()?) {
                free.push((Disk::open(&device)?.len()?, device));
            }
        }
        free.sort();
        Ok(free)
    }
}

impl BackEnd for Raw {
    fn make(&self, at: &Path, _: &str, len: u64, fill: Fill<'_>) -> io::Result<()> {
        let from = match fill {
            Fill::Nothing => None,
            Fill::Copy(from) => Some(from),
            Fill::Reference(_) => {
                let message = "devices are copied byte by byte";
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
        };
        let chosen = {
            let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
            let wide = self.free()?.into_iter().filter(|(device_len, _)| *device_len >= len);
            let mut empty = wide.map(|(_, device)| device).filter(|device| is_empty(device));
            let chosen = empty.next().ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::StorageFull,
                    "no device of the list is empty and free",
                )
            })?;
            symlink(&chosen, at)?;
            chosen
        };
        let Some(from) = from else { return Ok(()) };
        let mut to = File::options().write(true).open(chosen)?;
        // A volume may be shorter than the device that it lies on.
        io::copy(&mut File::open(from)?.take(len), &mut to)?;
        to.sync_all()
    }

    fn grow(&self, at: &Path, len: u64) -> io::Result<()> {
        if Disk::open(at)?.len()? >= len {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "a device does not grow"))
    }

    fn remove(&self, at: &Path) -> io::Result<()> {
        // The device keeps what is on it: who deletes a volume has wiped it, and what was copied half
        // is looked at by a person.
        match fs::remove_file(at) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn room(&self) -> io::Result<u64> {
        Ok(self.free()?.last().map_or(0, |(len, _)| *len))
    }

    /// A link names a device as the list does, which may be another one after a restart.
    fn is_certain(&self) -> bool {
        false
    }
}

/// Whether there is nothing where signatures lie. What cannot be read is not empty.
fn is_empty(device: &Path) -> bool {
    match Disk::open(device).and_then(|disk| disk.is_blank()) {
        Ok(true) => true,
        Ok(false) => {
            let device = device.display();
            tracing::warn!(%device, "something lies on this device: it is not taken");
            false
        }
        Err(error) => {
            let device = device.display();
            tracing::warn!(%device, %error, "this device cannot be read: it is not taken");
            false
        }
    }
}
