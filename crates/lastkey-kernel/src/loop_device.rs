//! Files as block devices.
//!
//! Room      `kernel`.
//! Source    loop(4), linux/loop.h.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use crate::sys::{LOOP_CONFIG_LEN, LoopRequest, configure_loop, loop_request};

/// In bytes; what sectors of 4,096 bytes and direct I/O need.
const BLOCK_LEN: u32 = 4_096;
const DIRECT_IO: u32 = 16;
/// Others take free devices as well; who comes first has it.
const ATTEMPTS: u32 = 16;
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

/// The device of a file, if it has one.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn find(file: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir("/sys/block") {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else { continue };
        // A deleted file has " (deleted)" behind its name and so is another one.
        let backing = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
        if backing.is_ok_and(|backing| Path::new(backing.trim_end_matches('\n')) == file) {
            return Ok(Some(Path::new("/dev").join(name)));
        }
    }
    Ok(None)
}

/// Lets go of the device of a file, if it has one. Somebody who has it open keeps it until he
/// closes it.
///
/// # Errors
/// When the kernel refuses.
pub fn detach(file: &Path) -> io::Result<()> {
    let file = match file.canonicalize() {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(device) = find(&file)? else { return Ok(()) };
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
    use super::config;

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
