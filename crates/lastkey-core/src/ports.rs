//! What use cases need from the world, as traits. Adapters implement them; tests fake them.
//!
//! Room      `core`: the side that calls owns the port. All ports are used as `dyn`.

use std::sync::Arc;

use async_trait::async_trait;
use lastkey_crypto::entropy::Entropy;
use lastkey_secret::SecretArray;

use crate::audit::Event;
use crate::audit::archive::{Found, LogHead, LogSigners, LogState, Search, Witnesses};
use crate::audit::merkle::Hash;
use crate::audit::receipt::Receipt;
use crate::audit::tile::TileName;
use crate::audit::witness::{AddCheckpoint, Refusal};
use crate::ids::InstanceId;
use crate::record::{PathRange, Record, RecordPath};
pub use crate::seal_device::{
    DeviceKind, DeviceSettings, NoDevices, SealDevice, SealDeviceError, SealDevices,
};
use crate::seal_record::Bootstrap;
use crate::time::{Reading, Timestamp};

/// Any lower failure, boxed once at the boundary.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How often a record was written; the first write makes it 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// Number of a commit, rising with each one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitSeq(pub u64);

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it lies.
    pub path: RecordPath,
    /// Its revision.
    pub revision: Revision,
    /// The record.
    pub record: Record,
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No record.
    Absent,
    /// A record of this revision.
    At(Revision),
}

/// One write of a batch: a new record, or `None` to delete the one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub path: RecordPath,
    /// What must be there.
    pub expected: Expected,
    /// What comes there.
    pub record: Option<Record>,
}

/// Why a store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote first; nothing of the batch was written. Read again and decide anew.
    #[error("a record was changed in the meantime")]
    Conflict,
    /// No space is left; nothing of the batch was written.
    #[error("no space is left in the data directory")]
    Full,
    /// A record does not open at its path, revision and epoch: changed, moved or replayed.
    #[error("record {0:?} is not what was written there")]
    Corrupt(RecordPath),
    /// A record has a format that this version does not know.
    #[error("record {0:?} was written by a newer version of Lastkey")]
    Newer(RecordPath),
    /// Anything else; what was being done is in the cause.
    #[error("the store failed")]
    Failed(#[source] Cause),
}

/// One change, as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A record was written or deleted.
    Record {
        /// The commit.
        commit: CommitSeq,
        /// Where.
        path: RecordPath,
        /// Its new revision; `None` when it was deleted.
        revision: Option<Revision>,
    },
    /// The watcher was too slow and missed changes: it must read again.
    Missed,
}

/// A running watch.
#[async_trait]
pub trait Watch: Send {
    /// The next change; `None` when the store has closed.
    async fn next(&mut self) -> Option<Change>;
}

/// A place in the order in which records came to a store. One that is changed keeps its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(pub u64);

/// How far a renewal of records got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// The last place that was looked at; `None` when there is none after the first.
    pub last: Option<Arrival>,
    /// Records of older epochs that were met, whether they could be renewed or were being
    /// changed.
    pub met: usize,
}

/// Records under the root key: get, scan, commit, watch. Durable when `commit` returns.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads one record.
    ///
    /// # Errors
    /// [`StoreError`]; a record that is not there is `Ok(None)`.
    async fn get(&self, path: &RecordPath) -> Result<Option<Stored>, StoreError>;

    /// Reads a range in the order of paths.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn scan(&self, range: &PathRange) -> Result<Vec<Stored>, StoreError>;

    /// Writes all of a batch or nothing of it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when an expectation does not hold, [`StoreError::Full`], others.
    async fn commit(&self, batch: Vec<Write>) -> Result<CommitSeq, StoreError>;

    /// The last commit that is durable; 0 before the first.
    fn last_commit(&self) -> CommitSeq;

    /// Watches the paths with a prefix, from now on.
    fn watch(&self, prefix: &str) -> Box<dyn Watch>;

    /// Takes the keys of a keyring that has grown: from now on records are written under its
    /// newest epoch.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the keys are no keyring; the old ones then stay.
    fn adopt(&self, keys: &RecordKeys) -> Result<(), StoreError>;

    /// How many records were put under the newest epoch since the store was opened with it.
    fn writes_of_epoch(&self) -> u64;

    /// Goes through some records, in the order in which they came, and puts those of older epochs
    /// under the newest one. Their content and revision stay, and watchers hear nothing. The first
    /// are looked at when no write that was sealed under an older epoch is under way any more.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn renew(&self, after: Option<Arrival>, limit: usize) -> Result<Renewed, StoreError>;

    /// Rewrites every journal of the store, so that nothing deleted before this call is left in
    /// it. Answers the last commit for which that holds.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn erase_residue(&self) -> Result<CommitSeq, StoreError>;
}

/// The secrets of the keyring, by epoch, while the server is unsealed.
pub struct RecordKeys {
    /// The installation that every record is bound to.
    pub instance: InstanceId,
    /// Epoch and record-encryption key, in rising order; the last one protects new records.
    pub by_epoch: Vec<(u32, SecretArray<32>)>,
}

/// A store while it is sealed: only what lies outside the root key can be read.
#[async_trait]
pub trait SealedStore: Send + Sync {
    /// Reads what lies outside the root key; `None` before `init`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn bootstrap(&self) -> Result<Option<Bootstrap>, StoreError>;

    /// Writes what lies outside the root key, once, at `init`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is there already.
    async fn initialise(&self, bootstrap: &Bootstrap) -> Result<(), StoreError>;

    /// Puts a bootstrap record in the place of another, in one write that is durable when this
    /// returns: afterwards there is one or the other, whole.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when what lies there is not `before`; others.
    async fn replace_bootstrap(
        &self,
        before: &Bootstrap,
        after: &Bootstrap,
    ) -> Result<(), StoreError>;

    /// Opens the records with the keys of the keyring.
    ///
    /// # Errors
    /// [`StoreError`].
    fn open(&self, keys: RecordKeys) -> Result<Arc<dyn Store>, StoreError>;
}

/// The audit log.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Adds an event; it becomes durable with the next group.
    ///
    /// # Errors
    /// When the log cannot be written: the operation must then be refused.
    fn append(&self, event: &Event<'_>) -> Result<(), Cause>;

    /// Adds an event and waits until it is durable.
    ///
    /// # Errors
    /// As for [`Audit::append`].
    async fn append_durably(&self, event: &Event<'_>) -> Result<(), Cause>;

    /// Adds the one record of an operation whose only effect is its answer, and waits until the
    /// answer may leave: until the record is durable, unless the log was told to be content with
    /// less.
    ///
    /// # Errors
    /// As for [`Audit::append`].
    async fn append_answer(&self, event: &Event<'_>) -> Result<(), Cause> {
        self.append_durably(event).await
    }

    /// What was recorded, where the log can be read and proven.
    fn archive(&self) -> Option<&dyn AuditArchive> {
        None
    }
}

/// A log that can be read, and that proves what it says.
#[async_trait]
pub trait AuditArchive: Send + Sync {
    /// Gives the log the keys that it signs with, when the server is unsealed. From now on it
    /// signs what it holds.
    ///
    /// # Errors
    /// When the log does not continue what was signed before: it was cut or rewritten.
    async fn unsealed(&self, signers: LogSigners) -> Result<(), Cause>;

    /// Takes the keys back, after a last checkpoint. Ends also while the log cannot be written.
    ///
    /// # Errors
    /// When that checkpoint cannot be written; the keys are gone nevertheless.
    async fn sealed(&self) -> Result<(), Cause>;

    /// Takes the keys back at once: nothing more is signed.
    fn forget_keys(&self);

    /// What time it is by a clock that was found right. Records grow too old by it alone: until it
    /// is told, and while the clock is on hold, none is removed.
    fn trust_time(&self, now: Timestamp);

    /// Where the log stands, as it is: signed or not.
    ///
    /// # Errors
    /// When the log has stopped.
    async fn head(&self) -> Result<LogHead, Cause>;

    /// Whose log it is and where it stands.
    fn state(&self) -> LogState;

    /// A signed checkpoint of everything that is durable now.
    ///
    /// # Errors
    /// When the log has no keys, or cannot be written.
    async fn checkpoint(&self) -> Result<String, Cause>;

    /// The newest checkpoint that is signed already; empty before there is one.
    fn signed_checkpoint(&self) -> String;

    /// Reads records from `from` on that match, in their order or newest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn search(&self, search: Search) -> Result<Found, Cause>;

    /// The record of this number, its receipt, and that of nothing else; `None` when there is no
    /// such record, or it was pruned.
    ///
    /// # Errors
    /// As [`AuditArchive::checkpoint`], and when the log cannot be read.
    async fn receipt(&self, index: u64) -> Result<Option<(Vec<u8>, Receipt)>, Cause>;

    /// The bytes of a tile; `None` when it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn tile(&self, name: TileName) -> Result<Option<Vec<u8>>, Cause>;

    /// Proof that the log of `new` records continues that of `old`.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, Cause>;

    /// Keeps a checkpoint with the signature lines of witnesses.
    ///
    /// # Errors
    /// When no known witness has signed, or it cannot be written.
    async fn add_cosignatures(&self, checkpoint: &str, lines: &str) -> Result<(), Cause>;

    /// Judges another log's checkpoint, remembers it durably, and cosigns it.
    ///
    /// # Errors
    /// A [`Refusal`], or a cause when the log has no keys or cannot be written.
    async fn cosign(&self, request: &AddCheckpoint) -> Result<Result<String, Refusal>, Cause>;

    /// Who witnesses this log, and which logs it witnesses.
    ///
    /// # Errors
    /// When the list cannot be read.
    async fn witnesses(&self) -> Result<Witnesses, Cause>;

    /// Writes that list anew, durably, if it still is what it was; false when somebody else has
    /// changed it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    async fn replace_witnesses(&self, before: &Witnesses, after: Witnesses) -> Result<bool, Cause>;
}

/// The machine's clocks.
pub trait Clock: Send + Sync {
    /// What they say now. Called often; must be cheap.
    fn read(&self) -> Reading;

    /// What the wall clock says now: every call asks it more than once.
    fn wall(&self) -> Timestamp {
        self.read().wall
    }
}

/// Where use cases draw randomness from.
pub trait EntropySource: Send + Sync {
    /// A generator for one operation. Free for a generator without state of its own.
    fn open(&self) -> Box<dyn Entropy + Send>;
}
