//! The bootstrap record as bytes: version and CBOR, in clear.
//!
//! Room      `store`. Its secrets are wrapped; what is in clear is not authenticated here, and
//!           a change of it shows when a seal or a record does not open.
//! Source    `docs/formats/record.md`, "Bootstrap record".

use lastkey_core::ids::InstanceId;
use lastkey_core::seal_record::{Bootstrap, Instance, KeyringEntry, SealKind, SealRecord};
use lastkey_core::time::Timestamp;
use minicbor::{Decode, Encode};

use super::{DecodeError, EncodeError, MAX_RECORD_LEN, v1};

const VERSION: u8 = 1;
const PASSPHRASE: u8 = 1;
const KEYFILE: u8 = 2;

/// Encodes the record in the newest version.
///
/// # Errors
/// [`EncodeError::TooLong`].
pub fn encode(bootstrap: &Bootstrap) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    v1::append(&mut bytes, VERSION, &BootstrapV1::from(bootstrap))?;
    if bytes.len() <= MAX_RECORD_LEN { Ok(bytes) } else { Err(EncodeError::TooLong) }
}

/// Decodes a record of any version.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Bootstrap, DecodeError> {
    if bytes.len() > MAX_RECORD_LEN {
        return Err(DecodeError::Malformed);
    }
    match bytes.split_first() {
        Some((&VERSION, cbor)) => v1::read::<BootstrapV1<'_>>(cbor)?.try_into(),
        Some((0, _)) | None => Err(DecodeError::Malformed),
        Some((_, _)) => Err(DecodeError::Newer),
    }
}

#[derive(Encode, Decode)]
struct BootstrapV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    instance: [u8; 16],
    #[n(1)]
    created_at: u64,
    #[b(2)]
    keyring: Vec<EntryV1<'a>>,
    #[b(3)]
    seals: Vec<SealV1<'a>>,
}

#[derive(Encode, Decode)]
struct EntryV1<'a> {
    #[n(0)]
    epoch: u32,
    #[cbor(b(1), with = "minicbor::bytes")]
    wrapped: &'a [u8],
}

#[derive(Encode, Decode)]
struct SealV1<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 16],
    #[n(1)]
    kind: u8,
    #[cbor(b(2), with = "minicbor::bytes")]
    wrapped_root: &'a [u8],
    #[n(3)]
    created_at: u64,
    #[n(4)]
    passphrase: Option<PassphraseV1>,
}

#[derive(Encode, Decode)]
struct PassphraseV1 {
    #[n(0)]
    memory_kib: u32,
    #[n(1)]
    passes: u32,
    #[n(2)]
    lanes: u32,
    #[cbor(n(3), with = "minicbor::bytes")]
    salt: [u8; 16],
}

impl<'a> From<&'a Bootstrap> for BootstrapV1<'a> {
    fn from(bootstrap: &'a Bootstrap) -> Self {
        let entry = |e: &'a KeyringEntry| EntryV1 { epoch: e.epoch, wrapped: &e.wrapped };
        Self {
            instance: bootstrap.instance.id.0,
            created_at: bootstrap.instance.created_at.0,
            keyring: bootstrap.keyring.iter().map(entry).collect(),
            seals: bootstrap.seals.iter().map(SealV1::from).collect(),
        }
    }
}

impl TryFrom<BootstrapV1<'_>> for Bootstrap {
    type Error = DecodeError;

    fn try_from(bootstrap: BootstrapV1<'_>) -> Result<Self, DecodeError> {
        let (id, created_at) = (InstanceId(bootstrap.instance), Timestamp(bootstrap.created_at));
        let entry = |e: &EntryV1<'_>| KeyringEntry { epoch: e.epoch, wrapped: e.wrapped.to_vec() };
        let seals = bootstrap.seals.into_iter().map(SealRecord::try_from);
        Ok(Self {
            instance: Instance { id, created_at },
            keyring: bootstrap.keyring.iter().map(entry).collect(),
            seals: seals.collect::<Result<_, _>>()?,
        })
    }
}

impl<'a> From<&'a SealRecord> for SealV1<'a> {
    fn from(seal: &'a SealRecord) -> Self {
        let (kind, passphrase) = match seal.kind {
            SealKind::Passphrase { memory_kib, passes, lanes, salt } => {
                (PASSPHRASE, Some(PassphraseV1 { memory_kib, passes, lanes, salt }))
            }
            SealKind::Keyfile => (KEYFILE, None),
        };
        let wrapped_root = &seal.wrapped_root;
        Self { id: seal.id, kind, wrapped_root, created_at: seal.created_at.0, passphrase }
    }
}

impl TryFrom<SealV1<'_>> for SealRecord {
    type Error = DecodeError;

    fn try_from(seal: SealV1<'_>) -> Result<Self, DecodeError> {
        let kind = match (seal.kind, seal.passphrase) {
            (PASSPHRASE, Some(PassphraseV1 { memory_kib, passes, lanes, salt })) => {
                SealKind::Passphrase { memory_kib, passes, lanes, salt }
            }
            (KEYFILE, None) => SealKind::Keyfile,
            (0..=KEYFILE, _) => return Err(DecodeError::Malformed),
            (_, _) => return Err(DecodeError::Newer),
        };
        let wrapped_root = seal.wrapped_root.to_vec();
        Ok(Self { id: seal.id, kind, wrapped_root, created_at: Timestamp(seal.created_at) })
    }
}
