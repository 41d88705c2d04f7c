//! The parts of a backup as bytes: the head in clear, the items of the stream, the manifest.
//!
//! Room      `store`.
//! Source    docs/formats/backup.md.
//! Holds     parsers of foreign bytes take no memory for claimed lengths and do not panic.

use lastkey_core::audit::archive::LogHead;
use lastkey_core::backup::{BackupError, BackupHead};
use lastkey_core::ids::RequestId;
use lastkey_core::ports::CommitSeq;
use lastkey_core::time::{Elapsed, Timestamp};
use lastkey_crypto::digest::sha256;
use lastkey_crypto::kdf::{self, KdfError};
use lastkey_secret::SecretArray;
use minicbor::{Decode, Encode};

use super::failure::damaged;
use crate::record::{EncodeError, bootstrap};

const MAGIC: &[u8; 8] = b"LKBAK\r\n\x1a";
const FORMAT: u8 = 1;
/// Magic, format, three zeros, length of what follows.
pub(super) const PREFIX_LEN: usize = 16;
/// Longest head, in bytes.
pub const MAX_HEAD_LEN: usize = 4 << 20;

/// A record of the store.
pub(super) const RECORD: u8 = 1;
/// A file of the data directory.
pub(super) const FILE: u8 = 2;
/// The manifest; nothing comes after it.
pub(super) const MANIFEST: u8 = 3;

/// Longest name of a file, in bytes.
pub(super) const MAX_NAME_LEN: usize = 256;
/// Longest file, in bytes: a bundle of the audit log and a little.
pub(super) const MAX_FILE_LEN: usize = 17 << 20;
/// Longest manifest, in bytes.
pub(super) const MAX_MANIFEST_LEN: usize = 4_096;

#[derive(Encode, Decode)]
struct HeadV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 16],
    #[n(1)]
    begun_at: u64,
    #[n(2)]
    begun: u64,
    #[n(3)]
    commit: u64,
    #[cbor(b(4), with = "minicbor::bytes")]
    bootstrap: &'a [u8],
    #[b(5)]
    wrapped: Vec<WrappedV1<'a>>,
}

#[derive(Encode, Decode)]
struct WrappedV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    seal: [u8; 16],
    #[cbor(b(1), with = "minicbor::bytes")]
    wrapped: &'a [u8],
}

/// The head as it stands at the beginning of a backup.
pub(super) fn encode_head(head: &BackupHead) -> Result<Vec<u8>, EncodeError> {
    let bootstrap = bootstrap::encode(&head.bootstrap)?;
    let wrapped = |(seal, wrapped): &'_ ([u8; 16], Vec<u8>)| (*seal, wrapped.clone());
    let wrapped: Vec<_> = head.wrapped.iter().map(wrapped).collect();
    let v1 = HeadV1 {
        id: head.id.0,
        begun_at: head.begun_at.0,
        begun: head.begun.0,
        commit: head.commit.0,
        bootstrap: &bootstrap,
        wrapped: wrapped.iter().map(|(seal, w)| WrappedV1 { seal: *seal, wrapped: w }).collect(),
    };
    let mut cbor = Vec::new();
    minicbor::encode(&v1, &mut cbor).map_err(|_| EncodeError::Failed)?;
    let len = u32::try_from(cbor.len()).ok().filter(|_| cbor.len() <= MAX_HEAD_LEN);
    let len = len.ok_or(EncodeError::TooLong)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[FORMAT, 0, 0, 0]);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&cbor);
    Ok(bytes)
}

/// Bytes of the head that begins so.
pub(super) fn head_len(prefix: &[u8; PREFIX_LEN], name: &str) -> Result<usize, BackupError> {
    let not_one = || BackupError::NotABackup(name.to_owned());
    let rest = prefix.strip_prefix(MAGIC).ok_or_else(not_one)?;
    let (format, rest) = rest.split_first_chunk::<4>().ok_or_else(not_one)?;
    if *format != [FORMAT, 0, 0, 0] {
        return Err(BackupError::Newer(name.to_owned()));
    }
    let len = rest.first_chunk::<4>().map(|len| u32::from_be_bytes(*len)).ok_or_else(not_one)?;
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_HEAD_LEN);
    len.map(|len| len + PREFIX_LEN).ok_or_else(|| damaged(name, "its head is too long"))
}

/// Reads a whole head.
///
/// # Errors
/// [`BackupError::NotABackup`], [`BackupError::Newer`], [`BackupError::Damaged`].
pub fn decode_head(bytes: &[u8], name: &str) -> Result<BackupHead, BackupError> {
    let not_one = || BackupError::NotABackup(name.to_owned());
    let prefix = bytes.first_chunk::<PREFIX_LEN>().ok_or_else(not_one)?;
    let bad = |what: &str| damaged(name, what);
    let cbor = bytes.get(PREFIX_LEN..).filter(|_| head_len(prefix, name).ok() == Some(bytes.len()));
    let cbor = cbor.ok_or_else(|| bad("its head is cut off"))?;
    let v1: HeadV1<'_> = minicbor::decode(cbor).map_err(|_| bad("its head is malformed"))?;
    let bootstrap = bootstrap::decode(v1.bootstrap).map_err(|error| match error {
        crate::record::DecodeError::Malformed => bad("the seals in its head are malformed"),
        crate::record::DecodeError::Newer => BackupError::Newer(name.to_owned()),
    })?;
    let head = BackupHead {
        id: RequestId(v1.id),
        begun_at: Timestamp(v1.begun_at),
        begun: Elapsed(v1.begun),
        commit: CommitSeq(v1.commit),
        bootstrap,
        wrapped: v1.wrapped.iter().map(|w| (w.seal, w.wrapped.to_vec())).collect(),
    };
    // There is one encoding of a head.
    if encode_head(&head).ok().as_deref() == Some(bytes) {
        Ok(head)
    } else {
        Err(bad("its head is malformed"))
    }
}

/// The data key of the envelope: that of the backup, bound to its head.
pub(super) fn envelope_key(
    key: &SecretArray<32>,
    head: &[u8],
) -> Result<SecretArray<32>, KdfError> {
    kdf::derive(key, &[b"lastkey/backup/v1", &sha256(head)[..]].concat())
}

/// What a backup says of itself at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Records, the one outside the root key among them.
    pub records: u64,
    /// SHA-256 of all items that are records.
    pub records_sha256: [u8; 32],
    /// Files.
    pub files: u64,
    /// SHA-256 of all items that are files.
    pub files_sha256: [u8; 32],
    /// Records of it that tell of something destroyed.
    pub tombstones: u64,
    /// Where the audit log in it stands.
    pub audit: Option<LogHead>,
}

#[derive(Encode, Decode)]
struct ManifestV1 {
    #[n(0)]
    records: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    records_sha256: [u8; 32],
    #[n(2)]
    files: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    files_sha256: [u8; 32],
    #[n(4)]
    tombstones: u64,
    #[n(5)]
    audit: Option<AuditV1>,
}

#[derive(Encode, Decode)]
struct AuditV1 {
    #[n(0)]
    size: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    root: [u8; 32],
}

impl Manifest {
    pub(super) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let v1 = ManifestV1 {
            records: self.records,
            records_sha256: self.records_sha256,
            files: self.files,
            files_sha256: self.files_sha256,
            tombstones: self.tombstones,
            audit: self.audit.as_ref().map(|a| AuditV1 { size: a.size, root: a.root }),
        };
        minicbor::to_vec(&v1).map_err(|_| EncodeError::Failed)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let v1: ManifestV1 = minicbor::decode(bytes).ok()?;
        let manifest = Self {
            records: v1.records,
            records_sha256: v1.records_sha256,
            files: v1.files,
            files_sha256: v1.files_sha256,
            tombstones: v1.tombstones,
            audit: v1.audit.map(|a| LogHead { size: a.size, root: a.root }),
        };
        (manifest.encode().ok().as_deref() == Some(bytes)).then_some(manifest)
    }
}

/// The item of a record; `None` when a length does not fit.
pub(super) fn record_item(path: &str, revision: u64, value: &[u8]) -> Option<Vec<u8>> {
    let path_len = u16::try_from(path.len()).ok()?;
    let value_len = u32::try_from(value.len()).ok()?;
    let mut item = Vec::with_capacity(15 + path.len() + value.len());
    item.push(RECORD);
    item.extend_from_slice(&path_len.to_be_bytes());
    item.extend_from_slice(path.as_bytes());
    item.extend_from_slice(&revision.to_be_bytes());
    item.extend_from_slice(&value_len.to_be_bytes());
    item.extend_from_slice(value);
    Some(item)
}

/// The item of a file; `None` when its name or its bytes are too long.
pub(super) fn file_item(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let name_len = u16::try_from(name.len()).ok().filter(|_| name.len() <= MAX_NAME_LEN)?;
    let len = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_FILE_LEN)?;
    let mut item = Vec::with_capacity(7 + name.len() + bytes.len());
    item.push(FILE);
    item.extend_from_slice(&name_len.to_be_bytes());
    item.extend_from_slice(name.as_bytes());
    item.extend_from_slice(&len.to_be_bytes());
    item.extend_from_slice(bytes);
    Some(item)
}

/// The item of the manifest.
pub(super) fn manifest_item(manifest: &Manifest) -> Result<Vec<u8>, EncodeError> {
    let bytes = manifest.encode()?;
    let len = u32::try_from(bytes.len()).map_err(|_| EncodeError::TooLong)?;
    let mut item = vec![MANIFEST];
    item.extend_from_slice(&len.to_be_bytes());
    item.extend_from_slice(&bytes);
    Ok(item)
}

/// Whether a file of this name may lie in a data directory: below one of a few folders, and
/// nowhere else.
pub(super) fn is_file_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let is_known = FOLDERS.iter().any(|folder| name.starts_with(folder));
    is_known && name.len() <= MAX_NAME_LEN && name.split('/').all(is_part)
}

/// Folders of a data directory that a backup holds.
const FOLDERS: [&str; 3] = ["approvals/", "audit/", "tls/"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_in_their_folders() {
        for name in ["tls/ca.pem", "audit/tile/entries/x001/000.p/7", "approvals/a.cbor"] {
            assert!(is_file_name(name), "{name}");
        }
        for name in [
            "",
            "ca.pem",
            "records.db",
            "tls",
            "tls/",
            "tls/../format",
            "audit/./x",
            "audit//x",
            "/tls/ca.pem",
            "tls/.hidden",
            "tls/a\0",
            "other/x",
        ] {
            assert!(!is_file_name(name), "{name}");
        }
        assert!(!is_file_name(&format!("tls/{}", "x".repeat(300))));
    }

    #[test]
    fn a_manifest_has_one_encoding() {
        let manifest = Manifest {
            records: 7,
            records_sha256: [1; 32],
            files: 2,
            files_sha256: [2; 32],
            tombstones: 1,
            audit: Some(LogHead { size: 300, root: [3; 32] }),
        };
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes), Some(manifest));
        for len in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..len]), None, "{len}");
        }
        assert_eq!(Manifest::decode(&[&bytes[..], &[0]].concat()), None);
    }
}
