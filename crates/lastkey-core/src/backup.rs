//! Backups: what is remembered of each, and what makes and proves them.
//!
//! Room      `core`.
//! Source    docs/formats/backup.md.
//! Holds     a backup counts only after it was restored aside and compared; before that it is
//!           none. What is destroyed counts as erased only when no backup can hold it any more.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use lastkey_secret::SecretArray;

use crate::audit::archive::LogHead;
use crate::audit::note::{NoteKey, NoteSigner};
use crate::ids::{InstanceId, KeyId, RequestId, VersionNo};
use crate::ports::{Cause, CommitSeq, RecordKeys};
use crate::seal_record::Bootstrap;
use crate::time::{Elapsed, Timestamp};

/// Identity of a backup, random.
pub type BackupId = RequestId;

/// For what the seals wrap the key of a backup.
pub const BACKUP_PURPOSE: &str = "backup";

/// Where a backup lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupPlace {
    /// A directory of the server's machine, or a folder of a bucket
    /// ([`crate::backup_folder::BUCKET_SCHEME`]); `None` for where its configuration says.
    pub directory: Option<String>,
    /// Name of the file or object.
    pub name: String,
}

/// A backup that the server has made, or has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRecord {
    /// Its identity.
    pub id: BackupId,
    /// Where it lies.
    pub place: BackupPlace,
    /// When it was begun, by the wall clock. It holds what was stored a moment later.
    pub begun_at: Timestamp,
    /// The same in service time.
    pub begun: Elapsed,
    /// What was written, once all of it was.
    pub written: Option<Written>,
    /// When it was restored aside and found equal.
    pub proven_at: Option<Timestamp>,
    /// Why it is none.
    pub problem: Option<String>,
}

impl BackupRecord {
    /// The word in answers. `is_running` while the server works at it: whoever hears of the end
    /// may begin the next one at once.
    #[must_use]
    pub const fn state(&self, is_running: bool) -> BackupState {
        match (is_running, &self.written, &self.problem, self.proven_at) {
            (true, None, ..) => BackupState::Begun,
            (true, Some(_), ..) => BackupState::Written,
            (false, _, Some(_), _) => BackupState::Failed,
            (false, _, None, Some(_)) => BackupState::Proven,
            (false, _, None, None) => BackupState::Interrupted,
        }
    }

    /// Whether it may hold what was destroyed before a moment, for which the erasure is noted at
    /// `due`. In doubt it does: `now` before its beginning means that the wall clock went back.
    #[must_use]
    pub fn may_hold(&self, due: Elapsed, now: Timestamp) -> bool {
        self.begun <= due || self.begun_at > now
    }
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackupState {
    /// It is being written.
    Begun,
    /// It is written, and being restored aside.
    Written,
    /// It was restored aside and found equal.
    Proven,
    /// It is none.
    Failed,
    /// The server stopped or was sealed before it was proven. It is none.
    Interrupted,
}

impl BackupState {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "writing",
            Self::Written => "proving",
            Self::Proven => "proven",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What is in a backup that was written whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the whole file.
    pub len: u64,
    /// SHA-256 of the bytes that its signature covers.
    pub sha256: [u8; 32],
    /// Records.
    pub records: u64,
    /// SHA-256 over all records in the order of their paths, as the format has it.
    pub records_sha256: [u8; 32],
    /// Where the audit log in it stands.
    pub audit: Option<LogHead>,
}

/// A key, or a version of one, that was destroyed. Kept also outside of backups, so that a
/// restore does not bring it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tombstone {
    /// The key.
    pub key: KeyId,
    /// The version; `None` for the whole key.
    pub version: Option<VersionNo>,
    /// When, by the wall clock.
    pub destroyed_at: Timestamp,
}

/// What stands before everything that is encrypted: who can open the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupHead {
    /// Identity of the backup.
    pub id: BackupId,
    /// When it was begun, by the wall clock.
    pub begun_at: Timestamp,
    /// The same in service time.
    pub begun: Elapsed,
    /// Number of the last commit in it.
    pub commit: CommitSeq,
    /// The seals and the keyring as they are in it.
    pub bootstrap: Bootstrap,
    /// The key of the backup, wrapped for each of these seals.
    pub wrapped: Vec<([u8; 16], Vec<u8>)>,
}

impl BackupHead {
    /// Whether this is of a later state of the same installation than another one, by the count of
    /// commits or by the clock.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.instance() == other.instance()
            && (self.commit > other.commit || self.begun_at > other.begun_at)
    }

    /// The installation.
    #[must_use]
    pub const fn instance(&self) -> InstanceId {
        self.bootstrap.instance.id
    }

    /// The key of the backup, wrapped for one seal.
    #[must_use]
    pub fn wrapped_for(&self, seal: &[u8; 16]) -> Option<&[u8]> {
        let found = self.wrapped.iter().find(|(id, _)| id == seal);
        found.map(|(_, wrapped)| wrapped.as_slice())
    }
}

/// Tells work on another thread to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Tells it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was told.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A backup that is wanted.
pub struct BackupOrder {
    /// What stands before everything that is encrypted.
    pub head: BackupHead,
    /// The key of the backup.
    pub key: SecretArray<32>,
    /// Signs it: the key of the audit log.
    pub signer: NoteSigner,
    /// Where it goes.
    pub place: BackupPlace,
    /// When to give up.
    pub stop: Stop,
}

impl fmt::Debug for BackupOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupOrder({})", self.head.id)
    }
}

/// What a trial restore needs.
pub struct Trial {
    /// Where the backup lies.
    pub place: BackupPlace,
    /// The key of the backup.
    pub key: SecretArray<32>,
    /// Opens the records in it.
    pub records: RecordKeys,
    /// The key that signed it: that of the audit log.
    pub log_key: NoteKey,
    /// What was written.
    pub expected: Written,
    /// When to give up.
    pub stop: Stop,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trial({})", self.place.name)
    }
}

/// Why there is no backup, or none to be read. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No space is left.
    #[error("no space is left in {0}; free some or choose another place, then try again")]
    Full(String),
    /// The bytes are no backup.
    #[error("{0} is no backup of Lastkey")]
    NotABackup(String),
    /// A newer version made it.
    #[error("{0} was made by a newer version of Lastkey; use that version")]
    Newer(String),
    /// It is not what was written.
    #[error("{name} is not what was written: {what}; use another backup")]
    Damaged {
        /// Name of the file or object.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// What was presented does not open it.
    #[error("{0} does not open to this key")]
    WrongKey(String),
    /// The place does not allow it. Says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// Nobody goes to this place: the configuration does not name it, or it may not be one. Says
    /// why and what to do.
    #[error("{0}")]
    NotConfigured(String),
    /// The work was told to end.
    #[error("the server was sealed or stopped meanwhile")]
    Stopped,
    /// The operating system, the store or the network refused something.
    #[error("cannot {doing} {what}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// To what.
        what: String,
        /// Why not.
        #[source]
        cause: Cause,
    },
}

/// What is stored at one moment, held still.
#[async_trait]
pub trait Frozen: Send {
    /// What lay outside the root key at that moment.
    ///
    /// # Errors
    /// [`BackupError`].
    fn bootstrap(&self) -> Result<Bootstrap, BackupError>;

    /// The last commit of that moment.
    fn commit(&self) -> CommitSeq;

    /// Writes it all. The backup appears under its name when it is whole and durable.
    ///
    /// # Errors
    /// [`BackupError`]; nothing is there then under that name.
    async fn write(self: Box<Self>, order: BackupOrder) -> Result<Written, BackupError>;
}

/// Makes backups, proves them, and takes them away again.
#[async_trait]
pub trait Backups: Send + Sync {
    /// Whether backups may lie in a directory of the server's machine or in a bucket; `None` for
    /// where the configuration says. Asks no bucket.
    ///
    /// # Errors
    /// [`BackupError::Refused`].
    async fn check(&self, directory: Option<&str>) -> Result<(), BackupError>;

    /// Holds still what is stored now, for a backup in a directory of the server's machine or in
    /// a bucket; `None` for where the configuration says. The server goes on meanwhile.
    ///
    /// # Errors
    /// [`BackupError`].
    async fn freeze(&self, directory: Option<&str>) -> Result<Box<dyn Frozen>, BackupError>;

    /// Restores a backup aside, opens every record in it and compares.
    ///
    /// # Errors
    /// [`BackupError`].
    async fn prove(&self, trial: Trial) -> Result<(), BackupError>;

    /// Reads what stands before everything that is encrypted.
    ///
    /// # Errors
    /// [`BackupError`].
    async fn head(&self, place: &BackupPlace) -> Result<BackupHead, BackupError>;

    /// Whether a key is the one of a backup.
    ///
    /// # Errors
    /// [`BackupError::WrongKey`]; others.
    async fn try_key(&self, place: &BackupPlace, key: SecretArray<32>) -> Result<(), BackupError>;

    /// Takes a backup away, if it is there.
    ///
    /// # Errors
    /// [`BackupError::Refused`] for a place that backups may not lie in; others.
    async fn remove(&self, place: &BackupPlace) -> Result<(), BackupError>;

    /// Keeps a signed list of what was destroyed beside the backups of a directory; `None` for
    /// where the configuration says. What the list there tells already stays in it.
    ///
    /// # Errors
    /// [`BackupError`].
    async fn keep_tombstones(
        &self,
        directory: Option<&str>,
        instance: InstanceId,
        tombstones: Vec<Tombstone>,
        signer: NoteSigner,
    ) -> Result<(), BackupError>;
}

/// No backups: every call is refused.
#[derive(Clone, Copy, Debug)]
pub struct NoBackups;

fn none<T>() -> Result<T, BackupError> {
    Err(BackupError::Refused("this server makes no backups".to_owned()))
}

#[async_trait]
impl Backups for NoBackups {
    async fn check(&self, _: Option<&str>) -> Result<(), BackupError> {
        none()
    }

    async fn freeze(&self, _: Option<&str>) -> Result<Box<dyn Frozen>, BackupError> {
        none()
    }

    async fn prove(&self, _: Trial) -> Result<(), BackupError> {
        none()
    }

    async fn head(&self, _: &BackupPlace) -> Result<BackupHead, BackupError> {
        none()
    }

    async fn try_key(&self, _: &BackupPlace, _: SecretArray<32>) -> Result<(), BackupError> {
        none()
    }

    async fn remove(&self, _: &BackupPlace) -> Result<(), BackupError> {
        none()
    }

    async fn keep_tombstones(
        &self,
        _: Option<&str>,
        _: InstanceId,
        _: Vec<Tombstone>,
        _: NoteSigner,
    ) -> Result<(), BackupError> {
        none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> BackupRecord {
        BackupRecord {
            id: RequestId([1; 16]),
            place: BackupPlace { directory: None, name: "a".to_owned() },
            begun_at: Timestamp(1_000),
            begun: Elapsed(600),
            written: None,
            proven_at: None,
            problem: None,
        }
    }

    #[test]
    fn only_what_was_restored_aside_is_proven() {
        let written =
            Written { len: 1, sha256: [0; 32], records: 1, records_sha256: [0; 32], audit: None };
        let written = BackupRecord { written: Some(written), ..record() };
        let proven = BackupRecord { proven_at: Some(Timestamp(1_001)), ..written.clone() };
        let failed = BackupRecord { problem: Some("full".to_owned()), ..written.clone() };
        for (record, running, state) in [
            (record(), true, "writing"),
            (record(), false, "interrupted"),
            (written.clone(), true, "proving"),
            (written, false, "interrupted"),
            (proven.clone(), true, "proving"),
            (proven, false, "proven"),
            (failed.clone(), true, "proving"),
            (failed, false, "failed"),
        ] {
            assert_eq!(record.state(running).as_str(), state);
        }
    }

    #[test]
    fn a_backup_may_hold_what_was_destroyed_after_it_and_in_doubt_anything() {
        let now = Timestamp(2_000);
        assert!(record().may_hold(Elapsed(601), now) && record().may_hold(Elapsed(600), now));
        assert!(!record().may_hold(Elapsed(599), now));
        // The wall clock went back: nothing is sure.
        assert!(record().may_hold(Elapsed(599), Timestamp(999)));
    }
}
