//! What a place for bytes must offer, so that the encrypted store can stand on it.
//!
//! Room      `store`. Implemented by SQLite and memory; checked by one conformance suite.
//! Holds     compare-and-set is part of [`Backend::commit`]; no backend offers less.

use async_trait::async_trait;
use lastkey_core::ports::{Arrival, Cause, CommitSeq, Watch};
use lastkey_core::record::PathRange;

/// Longest path of a record, in bytes.
pub const MAX_PATH_LEN: usize = 512;

/// Longest value that a backend is asked to keep, in bytes: a whole record and what seals it.
pub const MAX_VALUE_LEN: usize = crate::record::MAX_RECORD_LEN + crate::sealing::OVERHEAD_LEN;

/// First byte of the paths that lie outside the root key. No [`RecordPath`] begins so, and it
/// sorts before all of them.
///
/// [`RecordPath`]: lastkey_core::record::RecordPath
pub const OUTSIDE: char = '!';

/// A value as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawStored {
    /// Where it lies.
    pub path: String,
    /// How often it was written, from 1.
    pub revision: u64,
    /// The bytes.
    pub value: Vec<u8>,
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawWrite {
    /// Where.
    pub path: String,
    /// The revision that must be there; `None` when nothing may be there.
    pub expected: Option<u64>,
    /// What comes there; `None` to delete what is there.
    pub value: Option<Vec<u8>>,
}

impl RawWrite {
    /// The revision that the value gets; `None` for a deletion or after the last number.
    #[must_use]
    pub fn next_revision(&self) -> Option<u64> {
        self.value.as_ref().and_then(|_| self.expected.unwrap_or(0).checked_add(1))
    }
}

/// One value that takes the place of another which means the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawExchange {
    /// Where.
    pub place: Arrival,
    /// What must be there, to the byte.
    pub before: Vec<u8>,
    /// What comes there.
    pub after: Vec<u8>,
}

/// Why a backend did not answer.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// An expectation does not hold; nothing of the batch was written.
    #[error("a value was changed in the meantime")]
    Conflict,
    /// No space is left; nothing of the batch was written, and the backend goes on.
    #[error("no space is left")]
    Full,
    /// Anything else. After a failed commit the batch is there whole or not at all.
    #[error("the backend failed")]
    Failed(#[source] Cause),
}

/// A place for bytes by path. Called by the encrypted store alone.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Reads one value; `None` when nothing is there.
    ///
    /// # Errors
    /// [`BackendError::Failed`].
    async fn get(&self, path: &str) -> Result<Option<RawStored>, BackendError>;

    /// Reads a range in the order of path bytes, at most `range.limit` values.
    ///
    /// # Errors
    /// [`BackendError::Failed`].
    async fn scan(&self, range: &PathRange) -> Result<Vec<RawStored>, BackendError>;

    /// Reads at most so many values in the order in which they came. Neighbours lie together, so a
    /// walk through all of them is the cheapest way to read and exchange them.
    ///
    /// # Errors
    /// [`BackendError::Failed`].
    async fn walk(
        &self,
        after: Option<Arrival>,
        limit: usize,
    ) -> Result<Vec<(Arrival, RawStored)>, BackendError>;

    /// Writes all of a batch or nothing of it; durable when it returns. Paths in a batch differ.
    ///
    /// A dropped future leaves the outcome unknown, not the batch in parts.
    ///
    /// # Errors
    /// [`BackendError`].
    async fn commit(&self, batch: Vec<RawWrite>) -> Result<CommitSeq, BackendError>;

    /// Exchanges values where the old ones are still there, and leaves the others alone. Revisions
    /// stay, and watchers hear nothing. Durable when it returns.
    ///
    /// # Errors
    /// [`BackendError::Full`], [`BackendError::Failed`]: nothing was exchanged.
    async fn exchange(&self, values: Vec<RawExchange>) -> Result<(), BackendError>;

    /// The last commit that is durable; 0 before the first.
    fn last_commit(&self) -> CommitSeq;

    /// Watches the paths with a prefix, from now on; those that begin with [`OUTSIDE`] are left
    /// out.
    fn watch(&self, prefix: &str) -> Box<dyn Watch>;

    /// Rids every file of values deleted or replaced before this call. Answers the last commit
    /// for which that holds. May take time and space in proportion to the whole store.
    ///
    /// # Errors
    /// [`BackendError`].
    async fn erase_residue(&self) -> Result<CommitSeq, BackendError>;
}
