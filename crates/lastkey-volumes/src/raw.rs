//! Whole devices as back end: disks, partitions, NVMe namespaces of a list, one for each volume.
//!
//! Room      `volumes`.
//! Holds     A device on which anything lies is not taken. Two volumes never have the same one. What a
//!           device is called says nothing: it is a volume's as long as it bears the volume's mark.

use std::collections::BTreeSet;
use std::fs::{self, File, FileType};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lastkey_kernel::DeviceNumber;
use lastkey_luks::{DATA_OFFSET, Header, Medium as _};

use crate::back_end::{BackEnd, Fill};
use crate::disk::Disk;
use crate::linux::number_of;
use crate::mark::{self, Found};

/// Devices of a list.
#[derive(Debug)]
pub struct Raw {
    list: PathBuf,
    /// Where links to taken devices lie, two folders deep.
    state: PathBuf,
    /// What may stand in the list.
    is_device: fn(&FileType) -> bool,
    /// One at a time chooses. Devices of which it was said why they are not taken.
    choosing: Mutex<BTreeSet<PathBuf>>,
}

impl Raw {
    /// A list with the path of a device in each line, and the folder of all records.
    pub fn new(list: PathBuf, state: PathBuf) -> Self {
        Self::of(list, state, FileType::is_block_device)
    }

    pub(crate) fn of(list: PathBuf, state: PathBuf, is_device: fn(&FileType) -> bool) -> Self {
        Self { list, state, is_device, choosing: Mutex::default() }
    }

    /// The devices of the list that are there, each once, as they are named in it. It is read each
    /// time: devices come and go.
    ///
    /// # Errors
    /// When the list cannot be read, or names something else than a device.
    pub fn devices(&self) -> io::Result<Vec<PathBuf>> {
        Ok(self.listed()?.0)
    }

    /// The same, and whether one more is in the list and not there.
    fn listed(&self) -> io::Result<(Vec<PathBuf>, bool)> {
        let named = |error: io::Error, name: &Path| {
            io::Error::new(error.kind(), format!("{}: {error}", name.display()))
        };
        let text = fs::read_to_string(&self.list).map_err(|error| named(error, &self.list))?;
        let lines = text.lines().map(str::trim);
        let (mut devices, mut is_one_absent) = (Vec::new(), false);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let path = Path::new(line);
            match fs::metadata(path) {
                // One that is missing keeps nobody from the others.
                Err(error) if path.is_absolute() && error.kind() == io::ErrorKind::NotFound => {
                    tracing::warn!(device = line, "this device of the list is not there");
                    is_one_absent = true;
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
        Ok((distinct(devices)?, is_one_absent))
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
        // Before the mark, and durable, so that a mark that nobody asks for any more is found and
        // wiped.
        symlink(&chosen, at)?;
        for folder in at.ancestors().skip(1).take(2) {
            File::open(folder)?.sync_all()?;
        }
        let disk = Disk::open(&chosen)?;
        mark::put(&disk, id)?;
        Ok(disk)
    }

    /// The one device that bears the mark of a volume, whatever it is called: of those of the list,
    /// and the one that the link leads to.
    fn search(&self, at: &Path, id: &str) -> io::Result<PathBuf> {
        let mut devices = self.devices()?;
        match at.canonicalize() {
            Ok(linked) => devices.push(linked),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let devices = distinct(devices)?;
        let (mut bearers, mut unread) = (Vec::new(), None);
        for device in &devices {
            match mark::is_on(device, id) {
                Ok(true) => bearers.push(device),
                Ok(false) => {}
                Err(error) => unread = Some((device, error)),
            }
        }
        match (bearers.as_slice(), unread) {
            ([one], _) => Ok((*one).clone()),
            ([], None) => Err(self.none_bears(at, id, &devices)),
            ([], Some((device, error))) => Err(io::Error::new(
                error.kind(),
                format!("{} may be {id} and cannot be read: {error}", device.display()),
            )),
            ([one, two, ..], _) => {
                let message = format!(
                    "{} and {} bear the mark of {id}: one is a copy of the other. Detach the copy",
                    one.display(),
                    two.display()
                );
                Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
            }
        }
    }

    /// What to do when no device bears the mark of a volume.
    fn none_bears(&self, at: &Path, id: &str, devices: &[PathBuf]) -> io::Error {
        let unmarked =
            devices.iter().find_map(|device| Some((device, volume_without_mark(device)?)));
        let advice = match unmarked {
            Some((device, volume)) => format!(
                "{0} has a header of {volume} and no mark, as devices from before there were marks. \
                 When it is {id} itself and no copy of it, `lastkey volume restore-header {id} \
                 --device {0}` puts the mark there; for a snapshot or clone see \
                 docs/kubernetes/volumes.md, \"Devices without a mark\"",
                device.display()
            ),
            None => format!(
                "Attach its device, or put it into {} again; if it is gone for good, stop the driver \
                 and remove the folder of {}",
                self.list.display(),
                at.display()
            ),
        };
        let message = format!(
            "no device of the list bears the mark of {id}: nothing was read or written. {advice}"
        );
        io::Error::new(io::ErrorKind::NotFound, message)
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
        // All of the list each time: the link may lead to a copy that has the name of before.
        let device = self.search(at, id)?;
        let wanted = identity(&device)?;
        if identity(at).is_ok_and(|linked| linked == wanted) {
            return Ok(());
        }
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
            // The one that is absent may bear it: then it is wiped when it is back.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.listed()?.1 => {}
            Err(error) => return Err(error),
        }
        fs::remove_file(at)
    }

    fn room(&self) -> io::Result<u64> {
        Ok(self.free()?.last().map_or(0, |(len, _)| *len))
    }

    /// The length of the longest one that would be taken. Why others are not is said once of each:
    /// where this is nothing, no claim comes that would be refused.
    fn largest(&self) -> io::Result<u64> {
        let mut told = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        for (len, device) in self.free()?.into_iter().rev() {
            let is_taken = if told.contains(&device) {
                is_blank(&device).unwrap_or(false)
            } else {
                is_empty(&device)
            };
            if is_taken {
                told.remove(&device);
                return Ok(len);
            }
            told.insert(device);
        }
        Ok(0)
    }

    /// By its mark.
    fn is_below(&self, id: &str, device: DeviceNumber) -> io::Result<bool> {
        for listed in self.devices()? {
            if number_of(&listed)? == device {
                return mark::is_on(&listed, id);
            }
        }
        Ok(false)
    }

    fn has_inline(&self) -> bool {
        false
    }
}

/// What tells one device from another, whatever it is called.
fn identity(device: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(device)?;
    let is_block = found.file_type().is_block_device();
    Ok(if is_block { (found.rdev(), 0) } else { (found.dev(), found.ino()) })
}

/// Each device once, by the first of its names.
fn distinct(devices: Vec<PathBuf>) -> io::Result<Vec<PathBuf>> {
    let (mut seen, mut distinct) = (BTreeSet::new(), Vec::new());
    for device in devices {
        if seen.insert(identity(&device)?) {
            distinct.push(device);
        }
    }
    Ok(distinct)
}

/// The volume that the header of a device names, when that bears no mark.
fn volume_without_mark(device: &Path) -> Option<String> {
    let disk = Disk::open(device).ok()?;
    let Ok(Found::Nothing) = mark::find(&disk) else { return None };
    let header = Header::read(&disk).ok()??;
    header.tokens().ok()?.into_iter().next().map(|(_, token)| token.volume)
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
    match is_blank(device) {
        Ok(true) => true,
        Ok(false) => {
            let found = Disk::open(device).and_then(|disk| mark::find(&disk));
            let of = if let Ok(Found::Mark(id)) = found { id } else { "nobody known".to_owned() };
            let device = device.display();
            tracing::warn!(%device, of, "something lies on this device: it is not taken");
            false
        }
        Err(error) => {
            let device = device.display();
            tracing::warn!(%device, %error, "this device is in use or cannot be read: it is not taken");
            false
        }
    }
}

fn is_blank(device: &Path) -> io::Result<bool> {
    Disk::open_alone(device)?.is_blank()
}
