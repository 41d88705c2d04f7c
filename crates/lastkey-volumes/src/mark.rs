//! The mark of a whole device: whose it is, whatever the kernel calls it by now.
//!
//! Room      `volumes`.
//! Source    docs/formats/luks2-token.md, "Mark of a whole device".
//! Holds     It is compared byte by byte and never parsed. It is not copied with what lies around it,
//!           and is the first thing that is written to a device and the last that is wiped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use lastkey_luks::{DATA_OFFSET, Medium as _, RESERVED_LEN};

use crate::disk::Disk;

/// Where it lies: between the key slots and the data.
pub(crate) const PLACE: u64 = DATA_OFFSET - RESERVED_LEN;
const LEN: usize = 4_096;

/// Whether a device bears the mark of a volume or snapshot. One that is too short for a volume
/// bears none.
///
/// # Errors
/// When it cannot be read: then nobody knows.
pub(crate) fn is_on(device: &Path, id: &str) -> io::Result<bool> {
    let mut found = [0; LEN];
    match File::open(device)?.read_exact_at(&mut found, PLACE) {
        Ok(()) => Ok(found == of(id)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes it, durably.
///
/// # Errors
/// When that is refused.
pub(crate) fn put(disk: &Disk, id: &str) -> io::Result<()> {
    disk.write_at(&of(id), PLACE)?;
    disk.sync()
}

/// Wipes it, durably.
///
/// # Errors
/// When that is refused.
pub(crate) fn clear(disk: &Disk) -> io::Result<()> {
    disk.wipe(PLACE, RESERVED_LEN)
}

fn of(id: &str) -> [u8; LEN] {
    let mut mark = [0; LEN];
    let text = format!("lastkey-device 1\n{id}\n");
    mark.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    mark
}

#[cfg(test)]
mod tests {
    use lastkey_luks::Medium as _;

    use super::{clear, is_on, put};
    use crate::disk::Disk;

    #[test]
    fn mark_is_of_one_and_lies_where_the_format_says() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(17 << 20).unwrap();
        let disk = Disk::open(file.path()).unwrap();
        assert!(!is_on(file.path(), "lkv-1").unwrap());
        put(&disk, "lkv-1").unwrap();
        assert!(is_on(file.path(), "lkv-1").unwrap());
        for other in ["lkv-", "lkv-11", "lkv-2", ""] {
            assert!(!is_on(file.path(), other).unwrap(), "{other}");
        }
        let mut found = [1; 4_096];
        disk.read_at(&mut found, 16_773_120).unwrap();
        let (text, rest) = found.split_at(23);
        assert_eq!(text, b"lastkey-device 1\nlkv-1\n");
        assert!(rest.iter().all(|byte| *byte == 0));
        clear(&disk).unwrap();
        assert!(disk.is_blank().unwrap());
    }

    #[test]
    fn device_that_holds_no_volume_bears_no_mark_and_one_that_is_gone_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        assert!(!is_on(file.path(), "lkv-1").unwrap());
        assert!(is_on(&file.path().with_extension("gone"), "lkv-1").is_err());
    }
}
