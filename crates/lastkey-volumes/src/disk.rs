//! A device or a file, as the room `luks` sees it.
//!
//! Room      `volumes`.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use lastkey_luks::Medium;

const CHUNK_LEN: usize = 1 << 20;

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

    /// Overwrites the beginning with zeros, durably.
    ///
    /// # Errors
    /// When that is refused.
    pub(crate) fn wipe(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; CHUNK_LEN];
        let end = len.min(self.len()?);
        let mut at = 0;
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
