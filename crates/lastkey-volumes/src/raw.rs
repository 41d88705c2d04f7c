//! Whole devices as back end: disks, partitions, NVMe namespaces of a list, one for each volume.
//!
//! Room      `volumes`.
//! Holds     A device on which anything lies is not taken. Two volumes never have the same one. What a
//!           device is called says nothing: it is a volume's as long as it bears the volume's mark.

use std::collections::BTreeSet;
use std::fs::{self, File, FileType};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lastkey_luks::{DATA_OFFSET, Medium as _};

use crate::back_end::{BackEnd, Fill};
use crate::disk::Disk;
use crate::mark;

/// Devices of a list.
#[derive(Debug)]
pub struct Raw {
    list: PathBuf,
    /// Where links to taken devices lie, two folders deep.
    state: PathBuf,
    /// What may stand in the list.
    is_device: fn(&FileType) -> bool,
    /// One at a time chooses.
    choosing: Mutex<()>,
}

impl Raw {
    /// A list with the path of a device in each line, and the folder of all records.
    pub fn new(list: PathBuf, state: PathBuf) -> Self {
        Self::of(list, state, FileType::is_block_device)
    }

    pub(crate) fn of(list: PathBuf, state: PathBuf, is_device: fn(&FileType) -> bool) -> Self {
        Self { list, state, is_device, choosing: Mutex::new(()) }
    }

    /// The devices of the list that are there, as they are named in it. It is read each time: devices
    /// come and go.
    ///
    /// # Errors
    /// When the list cannot be read, or names something else than a device.
    pub fn devices(&self) -> io::Result<Vec<PathBuf>> {
        let named = |error: io::Error, name: &Path| {
            io::Error::new(error.kind(), format!("{}: {error}", name.display()))
        };
        let text = fs::read_to_string(&self.list).map_err(|error| named(error, &self.list))?;
        let lines = text.lines().map(str::trim);
        let mut devices = Vec::new();
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let path = Path::new(line);
            match fs::metadata(path) {
                // One that is missing keeps nobody from the others.
                Err(error) if path.is_absolute() && error.kind() == io::ErrorKind::NotFound => {
                    tracing::warn!(device = line, "this device of the list is not there");
                }
                Err(error) => return Err(named(error, path)),
                Ok(found) if path.is_absolute() && (self.is_device)(&found.file_type()) => {
                    devices.push(path.to_owned());
                }
                Ok(_) => {
                    let wrong = io::Error::other("it is no block device by its whole path");
                    return Err(named(wrong, path));
                }
            }
        }
        Ok(devices)
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

    /// Takes an empty device, and puts a link to it at a path.
    fn choose(&self, at: &Path, id: &str, len: u64) -> io::Result<Disk> {
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let wide = self.free()?.into_iter().filter(|(device_len, _)| *device_len >= len);
        let mut empty = wide.map(|(_, device)| device).filter(|device| is_empty(device));
        let chosen = empty.next().ok_or_else(|| {
            io::Error::new(io::ErrorKind::StorageFull, "no device of the list is empty and free")
        })?;
        // Before the mark, so that a mark that nobody asks for any more is found and wiped.
        symlink(&chosen, at)?;
        let disk = Disk::open(&chosen)?;
        mark::put(&disk, id)?;
        Ok(disk)
    }

    /// The one device that bears the mark of a volume, whatever it is called.
    fn search(&self, at: &Path, id: &str) -> io::Result<PathBuf> {
        let (mut bearers, mut unread) = (Vec::new(), None);
        for device in self.devices()? {
            match mark::is_on(&device, id) {
                Ok(true) => bearers.push(device),
                Ok(false) => {}
                Err(error) => unread = Some((device, error)),
            }
        }
        let refuse = |message: String| Err(io::Error::new(io::ErrorKind::NotFound, message));
        match (bearers.as_slice(), unread) {
            ([one], _) => Ok(one.clone()),
            ([], None) => refuse(format!(
                "no device of the list bears the mark of {id}: nothing was read or written. Attach its \
                 device, or put it into {} again; if it is gone for good, stop the driver and remove \
                 the folder of {}",
                self.list.display(),
                at.display()
            )),
            ([], Some((device, error))) => Err(io::Error::new(
                error.kind(),
                format!("{} may be {id} and cannot be read: {error}", device.display()),
            )),
            ([one, two, ..], _) => refuse(format!(
                "{} and {} bear the mark of {id}: one is a copy of the other. Take it out of the list",
                one.display(),
                two.display()
            )),
        }
    }
}

impl BackEnd for Raw {
    fn make(&self, at: &Path, id: &str, len: u64, fill: Fill<'_>) -> io::Result<()> {
        match fill {
            Fill::Nothing => self.choose(at, id, len).map(drop),
            Fill::Copy(from) => copy_around_mark(from, &self.choose(at, id, len)?, len),
            Fill::Reference(_) => {
                let message = "devices are copied byte by byte";
                Err(io::Error::new(io::ErrorKind::Unsupported, message))
            }
        }
    }

    fn find(&self, at: &Path, id: &str) -> io::Result<()> {
        let linked = mark::is_on(at, id);
        if matches!(linked, Ok(true)) {
            return Ok(());
        }
        let device = self.search(at, id).map_err(|error| match linked {
            // It may be this one: nobody knows.
            Err(unread) if unread.kind() != io::ErrorKind::NotFound => unread,
            Ok(_) | Err(_) => error,
        })?;
        tracing::info!(volume = id, device = %device.display(), "its device has another name now");
        let fresh = at.with_extension("new");
        drop(fs::remove_file(&fresh));
        symlink(device, &fresh)?;
        fs::rename(fresh, at)
    }

    fn grow(&self, at: &Path, len: u64) -> io::Result<()> {
        if Disk::open(at)?.len()? >= len {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "a device does not grow"))
    }

    /// The device is empty again, also after a copy that was cut short. One that does not bear the
    /// mark keeps what is on it.
    fn remove(&self, at: &Path, id: &str) -> io::Result<()> {
        if at.symlink_metadata().is_err() {
            return Ok(());
        }
        match self.find(at, id) {
            Ok(()) => {
                let disk = Disk::open(at)?;
                disk.blank()?;
                mark::clear(&disk)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::remove_file(at)
    }

    fn room(&self) -> io::Result<u64> {
        Ok(self.free()?.last().map_or(0, |(len, _)| *len))
    }

    fn has_inline(&self) -> bool {
        false
    }
}

/// The first `len` bytes of a volume without its mark. It may be shorter, or lie on a longer device.
fn copy_around_mark(from: &Path, to: &Disk, len: u64) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, to.file());
    for (begin, end) in [(0, mark::PLACE), (DATA_OFFSET, len)] {
        from.seek(SeekFrom::Start(begin))?;
        to.seek(SeekFrom::Start(begin))?;
        io::copy(&mut (&from).take(end.saturating_sub(begin)), &mut to)?;
    }
    to.sync_all()
}

/// Whether there is nothing where signatures lie, and nobody uses it. What cannot be read is not
/// empty.
fn is_empty(device: &Path) -> bool {
    match Disk::open_alone(device).and_then(|disk| disk.is_blank()) {
        Ok(true) => true,
        Ok(false) => {
            let device = device.display();
            tracing::warn!(%device, "something lies on this device: it is not taken");
            false
        }
        Err(error) => {
            let device = device.display();
            tracing::warn!(%device, %error, "this device is in use or cannot be read: it is not taken");
            false
        }
    }
}
