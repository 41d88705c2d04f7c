//! A device or a file, as the room `luks` sees it.
//!
//! Room      `volumes`.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use lastkey_luks::{DATA_OFFSET, Medium};
use rustix::fs::OFlags;

use crate::mark;

const CHUNK_LEN: usize = 1 << 20;
/// What is looked at of the data's beginning and end, in bytes.
const PROBE_LEN: u64 = 1 << 20;

/// An open device or file.
#[derive(Debug)]
pub struct Disk(File);

impl Disk {
    /// Opens it for reading and writing.
    ///
    /// # Errors
    /// When that is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(path).map(Self)
    }

    /// Opens a device that nobody has mounted, or made a part of something else.
    ///
    /// # Errors
    /// When somebody has, or it is refused.
    pub(crate) fn open_alone(path: &Path) -> io::Result<Self> {
        let alone = OFlags::EXCL.bits().cast_signed();
        OpenOptions::new().read(true).write(true).custom_flags(alone).open(path).map(Self)
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// Whether there are only zeros in these bytes.
    ///
    /// # Errors
    /// When they cannot be read: then nobody knows.
    pub(crate) fn is_zero(&self, offset: u64, len: usize) -> io::Result<bool> {
        let mut bytes = vec![0; len.min(CHUNK_LEN)];
        self.read_at(&mut bytes, offset)?;
        Ok(bytes == vec![0; bytes.len()])
    }

    /// Whether there is nothing before the data, and at its beginning and end.
    ///
    /// # Errors
    /// When it cannot be read: then nobody knows.
    pub(crate) fn is_blank(&self) -> io::Result<bool> {
        let end = DATA_OFFSET.min(self.len()?);
        let mut at = 0;
        while at < end {
            let part = usize::try_from(end - at).unwrap_or(CHUNK_LEN).min(CHUNK_LEN);
            if !self.is_zero(at, part)? {
                return Ok(false);
            }
            at = at.saturating_add(u64::try_from(part).map_err(io::Error::other)?);
        }
        self.is_blank_behind_header()
    }

    /// The same without the header, of which a format that was cut short may have left something.
    pub(crate) fn is_blank_behind_header(&self) -> io::Result<bool> {
        let len = self.len()?;
        let probe = PROBE_LEN.min(len.saturating_sub(DATA_OFFSET));
        let probe_len = usize::try_from(probe).unwrap_or(0);
        let end = len.saturating_sub(probe);
        Ok(self.is_zero(DATA_OFFSET, probe_len)? && self.is_zero(end, probe_len)?)
    }

    /// Makes it so, durably. The mark stays: until it goes as well, all can be done again.
    ///
    /// # Errors
    /// When that is refused.
    pub(crate) fn blank(&self) -> io::Result<()> {
        self.zero(0, mark::PLACE)?;
        self.zero(DATA_OFFSET, PROBE_LEN)?;
        self.zero(self.len()?.saturating_sub(PROBE_LEN).max(DATA_OFFSET), PROBE_LEN)?;
        self.sync()
    }

    /// Overwrites bytes with zeros, durably, as far as there are any.
    ///
    /// # Errors
    /// When that is refused.
    pub(crate) fn wipe(&self, offset: u64, len: u64) -> io::Result<()> {
        self.zero(offset, len)?;
        self.sync()
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; CHUNK_LEN];
        let end = offset.saturating_add(len).min(self.len()?);
        let mut at = offset;
        while at < end {
            let part = usize::try_from(end - at).unwrap_or(CHUNK_LEN).min(CHUNK_LEN);
            self.0.write_all_at(zeros.get(..part).unwrap_or_default(), at)?;
            at = at.saturating_add(u64::try_from(part).map_err(io::Error::other)?);
        }
        Ok(())
    }
}

impl Medium for Disk {
    fn len(&self) -> io::Result<u64> {
        // Devices have no length among their metadata, but an end.
        (&self.0).seek(SeekFrom::End(0))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}
