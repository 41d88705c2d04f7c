//! Where a header lies.
//!
//! Room      `luks`.

use std::io;

/// Bytes at offsets: a file, a block device, or a fake that crashes.
pub trait Medium {
    /// Length in bytes.
    ///
    /// # Errors
    /// When it cannot be told.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// As [`Medium::len`].
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// Also when there are fewer bytes.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// When not all of it was written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when everything written is durable.
    ///
    /// # Errors
    /// When it may not be.
    fn sync(&self) -> io::Result<()>;
}
