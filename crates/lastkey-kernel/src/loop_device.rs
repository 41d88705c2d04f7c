//! Files as block devices.
//!
//! Room      `kernel`.
//! Source    loop(4), linux/loop.h.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::DeviceNumber;
use crate::block::{block_devices, told};
use crate::sys::{
    LOOP_CONFIG_LEN, LOOP_INFO_LEN, LoopRequest, configure_loop, loop_request, loop_status,
};

/// In bytes; what sectors of 4,096 bytes and direct I/O need.
const BLOCK_LEN: u32 = 4_096;
const DIRECT_IO: u32 = 16;
/// Others take free devices as well; who comes first has it.
const ATTEMPTS: u32 = 16;
/// The path of the file, of a device that has one.
const BACKING_FILE: &str = "loop/backing_file";
const EBUSY: i32 = 16;
const ENXIO: i32 = 6;

/// The device of a file: the one that it has, or a new one. With direct I/O where the file system
/// can.
///
/// # Errors
/// When the file cannot be opened, or the kernel refuses.
pub fn attach(file: &Path) -> io::Result<PathBuf> {
    let file = file.canonicalize()?;
    if let Some(device) = find(&file)? {
        return Ok(device);
    }
    let backing = OpenOptions::new().read(true).write(true).open(&file)?;
    let config = config(&backing)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..ATTEMPTS {
        let number = loop_request(&control, LoopRequest::GetFree)?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        match configure_loop(&device, &config) {
            Ok(()) => return Ok(path),
            Err(error) if error.raw_os_error() == Some(EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no loop device stays free long enough"))
}

/// The device of a file, if it has one. By what the file is: paths are those of whoever attached it, in
/// a container that may be gone.
///
/// # Errors
/// When the kernel's list cannot be read, or the file is not there.
pub fn find(file: &Path) -> io::Result<Option<PathBuf>> {
    let file = fs::metadata(file)?;
    for name in block_devices("loop")? {
        if told(&name, BACKING_FILE).is_none() {
            continue;
        }
        let device = Path::new("/dev").join(name);
        match File::open(&device).and_then(|device| loop_status(&device)) {
            Ok(info) if is_whole(&info, &file) => return Ok(Some(device)),
            Ok(_) => {}
            // It was let go of meanwhile.
            Err(error) if error.raw_os_error() == Some(ENXIO) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether a device shows all of a file. `struct loop_info64`: device and number of the file, the
/// device's own, and from where to where it shows the file.
fn is_whole(info: &[u8; LOOP_INFO_LEN], file: &Metadata) -> bool {
    let (words, _) = info.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_ne_bytes(*word));
    let wanted = [Some(file.dev()), Some(file.ino()), None, Some(0), Some(0)];
    wanted.into_iter().all(|wanted| {
        let found = words.next();
        wanted.is_none() || wanted == found
    })
}

/// A device of a file that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The device.
    pub device: PathBuf,
    /// Its number.
    pub number: DeviceNumber,
    /// The path that the file had, as whoever attached it saw it.
    pub file: PathBuf,
}

/// All devices whose file was deleted.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn orphans() -> io::Result<Vec<Orphan>> {
    let names = block_devices("loop")?.into_iter();
    let orphans = names.filter_map(|name| {
        let file = PathBuf::from(told(&name, BACKING_FILE)?.strip_suffix(" (deleted)")?);
        let number = told(&name, "dev")?;
        let (major, minor) = number.split_once(':')?;
        let number = DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? };
        Some(Orphan { device: Path::new("/dev").join(name), number, file })
    });
    Ok(orphans.collect())
}

/// Lets go of the device of a file, if it has one. Somebody who has it open keeps it until he
/// closes it.
///
/// # Errors
/// When the kernel refuses.
pub fn detach(file: &Path) -> io::Result<()> {
    match find(file) {
        Ok(device) => device.map_or(Ok(()), |device| release(&device)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets go of a device. Somebody who has it open keeps it until he closes it.
///
/// # Errors
/// When the kernel refuses.
pub fn release(device: &Path) -> io::Result<()> {
    match loop_request(&File::open(device)?, LoopRequest::Clear) {
        Ok(_) => Ok(()),
        // Somebody else was faster.
        Err(error) if error.raw_os_error() == Some(ENXIO) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes the new length of a file over.
///
/// # Errors
/// When the kernel refuses.
pub fn grow(device: &Path) -> io::Result<()> {
    loop_request(&File::open(device)?, LoopRequest::SetCapacity).map(drop)
}

/// `struct loop_config`: the file, the length of a block, and the flags of `struct loop_info64`.
fn config(backing: &File) -> io::Result<[u8; LOOP_CONFIG_LEN]> {
    const FLAGS_AT: usize = 8 + 52;
    let mut config = [0; LOOP_CONFIG_LEN];
    let number = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let fields = [(0, number), (4, BLOCK_LEN), (FLAGS_AT, DIRECT_IO)];
    for (at, value) in fields {
        if let Some(field) = config.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::{config, is_whole};
    use crate::sys::LOOP_INFO_LEN;

    #[test]
    fn device_is_that_of_a_file_when_it_shows_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "").unwrap();
        fs::write(&other, "").unwrap();
        let file = fs::metadata(&path).unwrap();
        let mut info = [0; LOOP_INFO_LEN];
        info[..8].copy_from_slice(&file.dev().to_ne_bytes());
        info[8..16].copy_from_slice(&file.ino().to_ne_bytes());
        info[16..24].fill(7);
        assert!(is_whole(&info, &file));
        assert!(!is_whole(&info, &fs::metadata(&other).unwrap()));
        for part in [24, 32] {
            let mut info = info;
            info[part] = 1;
            assert!(!is_whole(&info, &file), "{part}");
        }
    }

    /// Offsets of linux/loop.h on every architecture: fd 0, block_size 4, info at 8; lo_flags is
    /// behind five u64 and three u32 of it.
    #[test]
    fn configuration_has_the_layout_of_the_kernel() {
        let file = tempfile::tempfile().unwrap();
        let config = config(&file).unwrap();
        assert_eq!(config.len(), 4 + 4 + 232 + 64);
        assert_eq!(config[4..8], 4_096_u32.to_ne_bytes());
        assert_eq!(config[8 + 5 * 8 + 3 * 4..][..4], 16_u32.to_ne_bytes());
        assert_eq!(config.iter().filter(|byte| **byte != 0).count(), 3);
    }
}
