//! Where backups lie together: a directory, or a folder of a bucket.
//!
//! Room      `core`.
//! Holds     a file has its name when it is whole and durable, never before. All calls block, and
//!           are made where nothing else waits.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::backup::{BackupError, Stop};

/// How the places begin that are folders of buckets: `s3://BUCKET/PREFIX`.
pub const BUCKET_SCHEME: &str = "s3://";

/// Whether a place is a folder of a bucket, and no directory.
#[must_use]
pub fn is_in_bucket(place: &str) -> bool {
    place.starts_with(BUCKET_SCHEME)
}

/// Files of one place. Names are those of backups and of what lies beside them: no separators.
pub trait BackupFolder: Send + Sync {
    /// The place as people write it.
    fn place(&self) -> &str;

    /// The names that are there.
    ///
    /// # Errors
    /// [`BackupError`].
    fn names(&self) -> Result<Vec<String>, BackupError>;

    /// Opens a file to read it from several places.
    ///
    /// # Errors
    /// [`BackupError`], also when it is not there.
    fn open(&self, name: &str) -> Result<Box<dyn StoredFile>, BackupError>;

    /// Begins a file that is not there yet.
    ///
    /// # Errors
    /// [`BackupError`]; [`BackupError::Refused`] when it is there already.
    fn begin(&self, name: &str) -> Result<Box<dyn NewFile>, BackupError>;

    /// Reads a small file; `None` when it is not there.
    ///
    /// # Errors
    /// [`BackupError`].
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BackupError>;

    /// Puts a small file in the place of one, durably, at once.
    ///
    /// # Errors
    /// [`BackupError`].
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), BackupError>;

    /// Takes away a file, whole or half made; answers whether any of it was there.
    ///
    /// # Errors
    /// [`BackupError`].
    fn remove(&self, name: &str) -> Result<bool, BackupError>;
}

/// A file that is there.
pub trait StoredFile: fmt::Debug + Send {
    /// Its length, in bytes.
    fn len(&self) -> u64;

    /// Whether it is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads it from an offset on.
    ///
    /// # Errors
    /// Of the place; a [`BackupError`] may be inside.
    fn read_from(&self, start: u64) -> io::Result<Box<dyn Read + Send>>;
}

/// A file that is being written. Dropped before [`NewFile::finish`] it leaves nothing.
pub trait NewFile: Write + Send {
    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// [`BackupError`]; nothing is there then under that name.
    fn finish(self: Box<Self>) -> Result<(), BackupError>;
}

/// Reaches folders of buckets.
pub trait Buckets: Send + Sync {
    /// The folder of a place that begins with [`BUCKET_SCHEME`]. Calls nobody yet. Whoever waits
    /// for it is let go soon after `stop` is told.
    ///
    /// # Errors
    /// [`BackupError::Refused`] when the place is malformed or cannot be reached as it is
    /// configured; [`BackupError::NotConfigured`] when it is not known how it is reached.
    fn open(&self, place: &str, stop: &Stop) -> Result<Arc<dyn BackupFolder>, BackupError>;
}

/// No buckets: each is refused.
#[derive(Clone, Copy, Debug)]
pub struct NoBuckets;

impl Buckets for NoBuckets {
    fn open(&self, place: &str, _: &Stop) -> Result<Arc<dyn BackupFolder>, BackupError> {
        Err(BackupError::NotConfigured(format!("{place}: nothing here reaches buckets")))
    }
}
