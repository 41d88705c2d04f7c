//! Mounts, and how full they are.
//!
//! Room      `kernel`.
//! Source    mount(2), proc_pid_mountinfo(5), statvfs(3).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{
    MountFlags, UnmountFlags, mount as mount_at, mount_bind, mount_remount, unmount as unmount_at,
};

use crate::DeviceNumber;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub at: PathBuf,
    /// The device of the file system.
    pub device: DeviceNumber,
    /// What of the file system: `/` for all of it.
    pub root: PathBuf,
    /// What was mounted, as it was named.
    pub source: PathBuf,
    /// Whether it can be written to.
    pub read_only: bool,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// In bytes.
    pub total: u64,
    /// For others than root, in bytes.
    pub available: u64,
    /// In bytes.
    pub used: u64,
    /// How many files there can be.
    pub files: u64,
    /// How many more.
    pub free_files: u64,
}

/// All mounts that this process sees, the oldest first.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn list() -> io::Result<Vec<Mount>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mount that is to be seen at a path, if there is one.
///
/// # Errors
/// As [`list`].
pub fn at(path: &Path) -> io::Result<Option<Mount>> {
    Ok(list()?.into_iter().rev().find(|mount| mount.at == path))
}

/// Options of mount(8) that the kernel takes as bits.
const FLAGS: [(&str, MountFlags); 8] = [
    ("ro", MountFlags::RDONLY),
    ("noexec", MountFlags::NOEXEC),
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME),
    ("strictatime", MountFlags::STRICTATIME),
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
];
/// What is so anyhow.
const USUAL: [&str; 6] = ["defaults", "rw", "nosuid", "nodev", "async", ""];

/// Mounts a file system with options of mount(8). `nosuid` and `nodev` always: a pod's volume is
/// no place for either.
///
/// # Errors
/// When the kernel refuses, or an option is no text.
pub fn mount(device: &Path, at: &Path, kind: &str, options: &[String]) -> io::Result<()> {
    let (flags, rest) = sort(options);
    let rest = CString::new(rest).map_err(io::Error::other)?;
    Ok(mount_at(device, at, kind, flags, Some(rest.as_c_str()))?)
}

/// Bits, and the text that the file system reads.
fn sort(options: &[String]) -> (MountFlags, String) {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mut rest = Vec::new();
    for option in options.iter().flat_map(|options| options.split(',')) {
        match FLAGS.iter().find(|(name, _)| *name == option) {
            Some((_, flag)) => flags |= *flag,
            None if USUAL.contains(&option) => {}
            None => rest.push(option),
        }
    }
    (flags, rest.join(","))
}

/// What a mount forbids, and what a second one of it has to forbid by name.
const KEPT: [(StatVfsMountFlags, MountFlags); 6] = [
    (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
    (StatVfsMountFlags::NODEV, MountFlags::NODEV),
    (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
    (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
    (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
];

/// The flags of a view for reading of a mount that has these. To make it read-only is to give all of
/// them anew.
fn for_reading(source: StatVfsMountFlags) -> MountFlags {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let kept = KEPT.iter().filter(|(told, _)| source.contains(*told));
    kept.fold(flags, |flags, (_, flag)| flags | *flag)
}

/// Shows what is at one path at another one as well, with what its mount forbids.
///
/// # Errors
/// When the kernel refuses.
pub fn bind(from: &Path, to: &Path, read_only: bool) -> io::Result<()> {
    let source = statvfs(from)?.f_flag;
    mount_bind(from, to)?;
    if !read_only {
        return Ok(());
    }
    let narrowed = mount_remount(to, for_reading(source), c"");
    if narrowed.is_err() {
        // Never a place that was to be read alone and can be written to.
        unmount_at(to, UnmountFlags::empty())?;
    }
    Ok(narrowed?)
}

/// Takes away every mount at a path; none is no error.
///
/// # Errors
/// When one is in use.
pub fn unmount(path: &Path) -> io::Result<()> {
    while at(path)?.is_some() {
        unmount_at(path, UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// How full the file system at a path is.
///
/// # Errors
/// When it does not tell.
pub fn fill(path: &Path) -> io::Result<Fill> {
    let told = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    Ok(Fill {
        total: bytes(told.f_blocks),
        available: bytes(told.f_bavail),
        used: bytes(told.f_blocks.saturating_sub(told.f_bfree)),
        files: told.f_files,
        free_files: told.f_ffree,
    })
}

/// `36 35 98:0 /root /at options - kind source options`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let numbers = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = numbers.split_once(':')?;
    let (root, place, options) = (fields.next()?, fields.next()?, fields.next()?);
    let mut behind = fields.skip_while(|field| *field != b"-").skip(2);
    Some(Mount {
        at: unescape(place),
        device: DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? },
        root: unescape(root),
        source: unescape(behind.next()?),
        read_only: options.split(|byte| *byte == b',').any(|option| option == b"ro"),
    })
}

/// Space, tab, line feed and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match value.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::fs::StatVfsMountFlags;
    use rustix::mount::MountFlags;

    use super::{fill, for_reading, list, parse, sort, unescape};
    use crate::DeviceNumber;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = b"36 35 254:3 / /var/lib/a\\040b rw,nosuid,nodev shared:1 master:2 - ext4 \
                     /dev/dm-3 rw";
        let mount = parse(line).unwrap();
        assert_eq!(mount.at, Path::new("/var/lib/a b"));
        assert_eq!(mount.device, DeviceNumber { major: 254, minor: 3 });
        assert_eq!((mount.root.as_path(), mount.read_only), (Path::new("/"), false));
        assert_eq!(mount.source, Path::new("/dev/dm-3"));
        let line = b"37 36 0:5 /dm-3 /target ro,nosuid - devtmpfs udev rw";
        let mount = parse(line).unwrap();
        assert_eq!((mount.root.as_path(), mount.read_only), (Path::new("/dm-3"), true));
        assert!(parse(b"").is_none() && parse(b"36 35 x / / rw - a b").is_none());
    }

    #[test]
    fn escapes_are_undone_and_others_stay() {
        assert_eq!(unescape(b"a\\134b\\011c"), Path::new("a\\b\tc"));
        assert_eq!(unescape(b"a\\"), Path::new("a\\"));
        assert_eq!(unescape(b"a\\999"), Path::new("a\\999"));
    }

    #[test]
    fn options_are_bits_or_text_and_none_brings_devices_back() {
        let options = ["ro,noatime", "data=ordered", "rw", "dev"].map(str::to_owned);
        let (flags, rest) = sort(&options);
        assert!(flags.contains(MountFlags::RDONLY | MountFlags::NOATIME));
        assert!(flags.contains(MountFlags::NODEV | MountFlags::NOSUID));
        assert_eq!(rest, "data=ordered,dev", "which the file system refuses");
    }

    #[test]
    fn view_for_reading_forbids_what_its_source_forbids() {
        let flags = for_reading(StatVfsMountFlags::NOEXEC | StatVfsMountFlags::NOATIME);
        assert!(flags.contains(MountFlags::NOEXEC | MountFlags::NOATIME));
        assert!(flags.contains(MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV));
        assert!(!for_reading(StatVfsMountFlags::empty()).contains(MountFlags::NOEXEC));
    }

    #[test]
    fn root_is_mounted_and_has_a_size() {
        assert!(list().unwrap().iter().any(|mount| mount.at == Path::new("/")));
        assert!(fill(Path::new("/")).unwrap().total > 0);
    }
}
