//! A device or a file, as the room `luks` sees it.
//!
//! Room      `volumes`.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use lastkey_luks::{DATA_OFFSET, Medium};

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

    /// Whether there are only zeros in these bytes.
    ///
    /// # Errors
    /// When they cannot be read: then nobody knows.
    pub(crate) fn is_zero(&self, offset: u64, len: usize) -> io::Result<bool> {
        let mut bytes = vec![0; len.min(CHUNK_LEN)];
        self.read_at(&mut bytes, offset)?;
        Ok(bytes.iter().all(|byte| *byte == 0))
    }

    /// Whether there is nothing where headers lie, and at beginning and end of the data.
    ///
    /// # Errors
    /// When it cannot be read: then nobody knows.
    pub(crate) fn is_blank(&self) -> io::Result<bool> {
        let len = CHUNK_LEN.min(usize::try_from(self.len()?).unwrap_or(CHUNK_LEN));
        Ok(self.is_zero(0, len)? && self.is_blank_behind_header()?)
    }

    /// The same without the header, of which a format that was cut short may have left something.
    pub(crate) fn is_blank_behind_header(&self) -> io::Result<bool> {
        let len = self.len()?;
        let probe = PROBE_LEN.min(len.saturating_sub(DATA_OFFSET));
        let probe_len = usize::try_from(probe).unwrap_or(0);
        let end = len.saturating_sub(probe);
        Ok(self.is_zero(DATA_OFFSET, probe_len)? && self.is_zero(end, probe_len)?)
    }

    /// Makes it so, durably.
    ///
    /// # Errors
    /// When that is refused.
    pub(crate) fn blank(&self) -> io::Result<()> {
        self.wipe(0, DATA_OFFSET.saturating_add(PROBE_LEN))?;
        self.wipe(self.len()?.saturating_sub(PROBE_LEN), PROBE_LEN)
    }

    /// Overwrites bytes with zeros, durably, as far as there are any.
    ///
    /// # Errors
    /// When that is refused.
    pub(crate) fn wipe(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; CHUNK_LEN];
        let end = offset.saturating_add(len).min(self.len()?);
        let mut at = offset;
        while at < end {
            let part = usize::try_from(end - at).unwrap_or(CHUNK_LEN).min(CHUNK_LEN);
            self.0.write_all_at(zeros.get(..part).unwrap_or_default(), at)?;
            at = at.saturating_add(u64::try_from(part).map_err(io::Error::other)?);
        }
        self.sync()
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
