//! The machine, by the kernel and the programs that make file systems.
//!
//! Room      `volumes`.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use lastkey_kernel::loop_device::Orphan;
use lastkey_kernel::mapper::{CryptTable, Mapping};
use lastkey_kernel::mounts::{Fill, Mount};
use lastkey_kernel::{DeviceNumber, loop_device, mapper, mounts};
use lastkey_luks::VolumeKey;
use rustix::fs::{major, minor};

use crate::ports::Machine;
use crate::program::{Ending, LONG, run};
use crate::record::Fs;

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linux;

impl Machine for Linux {
    fn attach(&self, file: &Path) -> io::Result<PathBuf> {
        device(file)?.map_or_else(|| loop_device::attach(file), Ok)
    }

    fn detach(&self, file: &Path) -> io::Result<()> {
        match device(file) {
            Ok(None) => loop_device::detach(file),
            Ok(Some(_)) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn grow(&self, file: &Path) -> io::Result<()> {
        if device(file)?.is_some() {
            return Ok(());
        }
        loop_device::find(file)?.map_or(Ok(()), |device| loop_device::grow(&device))
    }

    fn release(&self, device: &Path) -> io::Result<()> {
        loop_device::release(device)
    }

    fn orphans(&self) -> io::Result<Vec<Orphan>> {
        loop_device::orphans()
    }

    fn number(&self, device: &Path) -> io::Result<DeviceNumber> {
        number_of(device)
    }

    fn is_solid_state(&self, device: DeviceNumber) -> bool {
        let told = std::fs::read_to_string(format!("/sys/dev/block/{device}/queue/rotational"));
        told.is_ok_and(|told| told.trim() == "0")
    }

    fn mappings(&self) -> io::Result<Vec<String>> {
        mapper::names()
    }

    fn mapping(&self, name: &str) -> io::Result<Option<Mapping>> {
        mapper::status(name)
    }

    fn open(
        &self,
        name: &str,
        uuid: &str,
        table: &CryptTable,
        key: &VolumeKey,
    ) -> io::Result<Mapping> {
        key.expose(|key| mapper::open(name, uuid, table, key))
    }

    fn reload(&self, name: &str, table: &CryptTable, key: &VolumeKey) -> io::Result<()> {
        key.expose(|key| mapper::reload(name, table, key))
    }

    fn close(&self, name: &str, deferred: bool) -> io::Result<()> {
        mapper::close(name, deferred)
    }

    fn freeze(&self, name: &str) -> io::Result<()> {
        mapper::freeze(name)
    }

    fn thaw(&self, name: &str, key: &VolumeKey) -> io::Result<()> {
        key.expose(|key| mapper::thaw(name, key))
    }

    fn pause(&self, name: &str) -> io::Result<()> {
        mapper::suspend(name)
    }

    fn go_on(&self, name: &str) -> io::Result<()> {
        mapper::resume(name)
    }

    fn make_fs(&self, fs: Fs, device: &Path) -> io::Result<()> {
        // Without questions: the token says that nothing can be there. And without discards, which
        // would give back the bytes that were taken from the disk for this volume.
        match fs {
            Fs::Ext4 => {
                let options = ["-q", "-F", "-E", "nodiscard"];
                run(Command::new("mkfs.ext4").args(options).arg(device), LONG, Ending::Killed)?
            }
            Fs::Xfs => run(
                Command::new("mkfs.xfs").args(["-q", "-f", "-K"]).arg(device),
                LONG,
                Ending::Killed,
            )?,
        };
        File::options().write(true).open(device)?.sync_all()
    }

    fn grow_fs(&self, fs: Fs, device: &Path, at: &Path) -> io::Result<()> {
        match fs {
            Fs::Ext4 => run(Command::new("resize2fs").arg(device), LONG, Ending::Killed),
            Fs::Xfs => run(Command::new("xfs_growfs").arg(at), LONG, Ending::Killed),
        }
        .map(drop)
    }

    fn mount(&self, device: &Path, at: &Path, fs: Fs, options: &[String]) -> io::Result<()> {
        mounts::mount(device, at, fs.as_str(), options)
    }

    fn bind(&self, from: &Path, to: &Path, read_only: bool) -> io::Result<()> {
        mounts::bind(from, to, read_only)
    }

    fn unmount(&self, at: &Path) -> io::Result<()> {
        mounts::unmount(at)
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        mounts::list()
    }

    fn fill(&self, at: &Path) -> io::Result<Fill> {
        mounts::fill(at)
    }
}

/// The number of a block device.
pub(crate) fn number_of(device: &Path) -> io::Result<DeviceNumber> {
    let number = std::fs::metadata(device)?.rdev();
    Ok(DeviceNumber { major: major(number), minor: minor(number) })
}

/// The device that a path leads to; none for a file.
fn device(path: &Path) -> io::Result<Option<PathBuf>> {
    let path = path.canonicalize()?;
    let is_device = std::fs::metadata(&path)?.file_type().is_block_device();
    Ok(is_device.then_some(path))
}
