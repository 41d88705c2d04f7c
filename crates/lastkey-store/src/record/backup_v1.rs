//! Version 1 of what is remembered of backups, of what was destroyed, and of the state itself.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1".

use lastkey_core::audit::archive::LogHead;
use lastkey_core::backup::{BackupPlace, BackupRecord, Tombstone, Written};
use lastkey_core::ids::{KeyId, RequestId};
use lastkey_core::time::{Elapsed, Timestamp};
use minicbor::{Decode, Encode};

use super::{DecodeError, v1};

#[derive(Encode, Decode)]
pub(super) struct BackupV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 16],
    #[b(1)]
    directory: Option<&'a str>,
    #[b(2)]
    name: &'a str,
    #[n(3)]
    begun_at: u64,
    #[n(4)]
    begun: u64,
    #[n(5)]
    written: Option<WrittenV1>,
    #[n(6)]
    proven_at: Option<u64>,
    #[b(7)]
    problem: Option<&'a str>,
}

#[derive(Encode, Decode)]
struct WrittenV1 {
    #[n(0)]
    len: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    sha256: [u8; 32],
    #[n(2)]
    records: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    records_sha256: [u8; 32],
    #[n(4)]
    audit: Option<HeadV1>,
}

#[derive(Encode, Decode)]
struct HeadV1 {
    #[n(0)]
    size: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    root: [u8; 32],
}

#[derive(Encode, Decode)]
pub(super) struct TombstoneV1 {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: [u8; 16],
    #[n(1)]
    version: Option<u32>,
    #[n(2)]
    destroyed_at: u64,
}

impl<'a> From<&'a BackupRecord> for BackupV1<'a> {
    fn from(backup: &'a BackupRecord) -> Self {
        Self {
            id: backup.id.0,
            directory: backup.place.directory.as_deref(),
            name: &backup.place.name,
            begun_at: backup.begun_at.0,
            begun: backup.begun.0,
            written: backup.written.as_ref().map(WrittenV1::from),
            proven_at: backup.proven_at.map(|at| at.0),
            problem: backup.problem.as_deref(),
        }
    }
}

impl From<BackupV1<'_>> for BackupRecord {
    fn from(backup: BackupV1<'_>) -> Self {
        let place = BackupPlace {
            directory: backup.directory.map(str::to_owned),
            name: backup.name.to_owned(),
        };
        Self {
            id: RequestId(backup.id),
            place,
            begun_at: Timestamp(backup.begun_at),
            begun: Elapsed(backup.begun),
            written: backup.written.map(Written::from),
            proven_at: backup.proven_at.map(Timestamp),
            problem: backup.problem.map(str::to_owned),
        }
    }
}

impl From<&Written> for WrittenV1 {
    fn from(written: &Written) -> Self {
        Self {
            len: written.len,
            sha256: written.sha256,
            records: written.records,
            records_sha256: written.records_sha256,
            audit: written.audit.as_ref().map(|a| HeadV1 { size: a.size, root: a.root }),
        }
    }
}

impl From<WrittenV1> for Written {
    fn from(written: WrittenV1) -> Self {
        Self {
            len: written.len,
            sha256: written.sha256,
            records: written.records,
            records_sha256: written.records_sha256,
            audit: written.audit.map(|a| LogHead { size: a.size, root: a.root }),
        }
    }
}

impl From<&Tombstone> for TombstoneV1 {
    fn from(tombstone: &Tombstone) -> Self {
        Self {
            key: *tombstone.key.as_bytes(),
            version: tombstone.version.map(lastkey_core::ids::VersionNo::number),
            destroyed_at: tombstone.destroyed_at.0,
        }
    }
}

impl TryFrom<TombstoneV1> for Tombstone {
    type Error = DecodeError;

    fn try_from(tombstone: TombstoneV1) -> Result<Self, DecodeError> {
        Ok(Self {
            key: KeyId::from_bytes(tombstone.key),
            version: tombstone.version.map(v1::version_no).transpose()?,
            destroyed_at: Timestamp(tombstone.destroyed_at),
        })
    }
}

#[derive(Encode, Decode)]
pub(super) struct AuditHeadV1 {
    #[n(0)]
    size: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    root: [u8; 32],
}

impl From<&LogHead> for AuditHeadV1 {
    fn from(head: &LogHead) -> Self {
        Self { size: head.size, root: head.root }
    }
}

impl From<AuditHeadV1> for LogHead {
    fn from(head: AuditHeadV1) -> Self {
        Self { size: head.size, root: head.root }
    }
}

#[derive(Encode, Decode)]
pub(super) struct RollbackV1 {
    #[n(0)]
    pub(super) number: u64,
}
