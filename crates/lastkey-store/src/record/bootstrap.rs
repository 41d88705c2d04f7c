//! The bootstrap record as bytes: version and CBOR, in clear.
//!
//! Room      `store`. Its secrets are wrapped; what is in clear is authenticated by the MAC in it,
//!           which only who holds the root key can check.
//! Source    `docs/formats/record.md`, "Bootstrap record".

use lastkey_core::ids::InstanceId;
use lastkey_core::seal_device::{DeviceKind, MAX_WRAPPED_LEN};
use lastkey_core::seal_record::{
    Bootstrap, Instance, KeyringEntry, RootWrap, SealKind, SealRecord, ShareHolder,
};
use lastkey_core::time::Timestamp;
use minicbor::{Decode, Encode};

use super::{DecodeError, EncodeError, MAX_RECORD_LEN, v1};

/// Without key pairs of seals and without MAC.
const VERSION_1: u8 = 1;
/// No version 2 was ever released.
const VERSION_3: u8 = 3;

const PASSPHRASE: u8 = 1;
const KEYFILE: u8 = 2;
const SHAMIR: u8 = 3;
const DEVICE: u8 = 4;

/// Encodes the record: in version 1 when it is one of that version, else in version 3.
///
/// # Errors
/// [`EncodeError::TooLong`]; [`EncodeError::Mixed`] for a record that is half of each version.
pub fn encode(bootstrap: &Bootstrap) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    match bootstrap.authentication {
        None => v1::append(&mut bytes, VERSION_1, &BootstrapV1::of(bootstrap)?)?,
        Some(mac) => v1::append(&mut bytes, VERSION_3, &BootstrapV3::of(bootstrap, mac)?)?,
    }
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
        Some((&VERSION_1, cbor)) => v1::read::<BootstrapV1<'_>>(cbor)?.try_into(),
        Some((&VERSION_3, cbor)) => v1::read::<BootstrapV3<'_>>(cbor)?.try_into(),
        Some((0 | 2, _)) | None => Err(DecodeError::Malformed),
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

#[derive(Encode, Decode)]
struct BootstrapV3<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    instance: [u8; 16],
    #[n(1)]
    created_at: u64,
    #[b(2)]
    keyring: Vec<EntryV3<'a>>,
    #[n(3)]
    records_from: u32,
    #[b(4)]
    seals: Vec<SealV3<'a>>,
    #[cbor(n(5), with = "minicbor::bytes")]
    authentication: [u8; 32],
}

#[derive(Encode, Decode)]
struct EntryV3<'a> {
    #[n(0)]
    epoch: u32,
    #[cbor(b(1), with = "minicbor::bytes")]
    wrapped: &'a [u8],
    #[n(2)]
    created_at: u64,
}

#[derive(Encode, Decode)]
struct SealV3<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 16],
    #[n(1)]
    kind: u8,
    #[cbor(n(2), with = "minicbor::bytes")]
    public: [u8; 32],
    #[cbor(b(3), with = "minicbor::bytes")]
    wrapped_seed: &'a [u8],
    #[cbor(b(4), with = "minicbor::bytes")]
    sealed_root: &'a [u8],
    #[n(5)]
    created_at: u64,
    #[n(6)]
    passphrase: Option<PassphraseV1>,
    #[b(7)]
    shamir: Option<ShamirV3<'a>>,
    #[b(8)]
    device: Option<DeviceV3<'a>>,
    #[cbor(b(9), with = "minicbor::bytes")]
    wrapped_shared: &'a [u8],
}

#[derive(Encode, Decode)]
struct ShamirV3<'a> {
    #[n(0)]
    threshold: u8,
    #[b(1)]
    holders: Vec<HolderV3<'a>>,
}

#[derive(Encode, Decode)]
struct HolderV3<'a> {
    #[b(0)]
    recipient: &'a str,
    #[cbor(n(1), with = "minicbor::bytes")]
    check_value: [u8; 32],
}

#[derive(Encode, Decode)]
struct DeviceV3<'a> {
    #[b(0)]
    kind: &'a str,
    #[b(1)]
    settings: Vec<SettingV3<'a>>,
}

#[derive(Encode, Decode)]
struct SettingV3<'a> {
    #[b(0)]
    name: &'a str,
    #[b(1)]
    value: &'a str,
}

impl<'a> BootstrapV1<'a> {
    fn of(bootstrap: &'a Bootstrap) -> Result<Self, EncodeError> {
        let entry = |e: &'a KeyringEntry| EntryV1 { epoch: e.epoch, wrapped: &e.wrapped };
        Ok(Self {
            instance: bootstrap.instance.id.0,
            created_at: bootstrap.instance.created_at.0,
            keyring: bootstrap.keyring.iter().map(entry).collect(),
            seals: bootstrap.seals.iter().map(SealV1::of).collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<BootstrapV1<'_>> for Bootstrap {
    type Error = DecodeError;

    fn try_from(bootstrap: BootstrapV1<'_>) -> Result<Self, DecodeError> {
        let (id, created_at) = (InstanceId(bootstrap.instance), Timestamp(bootstrap.created_at));
        let entry = |e: &EntryV1<'_>| KeyringEntry {
            epoch: e.epoch,
            wrapped: e.wrapped.to_vec(),
            created_at,
        };
        let keyring: Vec<KeyringEntry> = bootstrap.keyring.iter().map(entry).collect();
        let seals = bootstrap.seals.into_iter().map(SealRecord::try_from);
        Ok(Self {
            instance: Instance { id, created_at },
            records_from: keyring.first().map_or(0, |entry| entry.epoch),
            keyring,
            seals: seals.collect::<Result<_, _>>()?,
            authentication: None,
        })
    }
}

impl<'a> SealV1<'a> {
    fn of(seal: &'a SealRecord) -> Result<Self, EncodeError> {
        let (kind, passphrase) = match &seal.kind {
            SealKind::Passphrase { memory_kib, passes, lanes, salt } => {
                (PASSPHRASE, Some(PassphraseV1::of(*memory_kib, *passes, *lanes, *salt)))
            }
            SealKind::Keyfile => (KEYFILE, None),
            SealKind::Shamir { .. } | SealKind::Device { .. } => return Err(EncodeError::Mixed),
        };
        let RootWrap::Direct(wrapped_root) = &seal.root else { return Err(EncodeError::Mixed) };
        Ok(Self { id: seal.id, kind, wrapped_root, created_at: seal.created_at.0, passphrase })
    }
}

impl TryFrom<SealV1<'_>> for SealRecord {
    type Error = DecodeError;

    fn try_from(seal: SealV1<'_>) -> Result<Self, DecodeError> {
        let kind = match (seal.kind, seal.passphrase) {
            (PASSPHRASE, Some(passphrase)) => passphrase.into(),
            (KEYFILE, None) => SealKind::Keyfile,
            (0..=KEYFILE, _) => return Err(DecodeError::Malformed),
            (_, _) => return Err(DecodeError::Newer),
        };
        let root = RootWrap::Direct(seal.wrapped_root.to_vec());
        Ok(Self { id: seal.id, kind, root, created_at: Timestamp(seal.created_at) })
    }
}

impl PassphraseV1 {
    const fn of(memory_kib: u32, passes: u32, lanes: u32, salt: [u8; 16]) -> Self {
        Self { memory_kib, passes, lanes, salt }
    }
}

impl From<PassphraseV1> for SealKind {
    fn from(passphrase: PassphraseV1) -> Self {
        let PassphraseV1 { memory_kib, passes, lanes, salt } = passphrase;
        Self::Passphrase { memory_kib, passes, lanes, salt }
    }
}

impl<'a> BootstrapV3<'a> {
    fn of(bootstrap: &'a Bootstrap, authentication: [u8; 32]) -> Result<Self, EncodeError> {
        let entry = |e: &'a KeyringEntry| EntryV3 {
            epoch: e.epoch,
            wrapped: &e.wrapped,
            created_at: e.created_at.0,
        };
        Ok(Self {
            instance: bootstrap.instance.id.0,
            created_at: bootstrap.instance.created_at.0,
            keyring: bootstrap.keyring.iter().map(entry).collect(),
            records_from: bootstrap.records_from,
            seals: bootstrap.seals.iter().map(SealV3::of).collect::<Result<_, _>>()?,
            authentication,
        })
    }
}

impl TryFrom<BootstrapV3<'_>> for Bootstrap {
    type Error = DecodeError;

    fn try_from(bootstrap: BootstrapV3<'_>) -> Result<Self, DecodeError> {
        let (id, created_at) = (InstanceId(bootstrap.instance), Timestamp(bootstrap.created_at));
        let entry = |e: EntryV3<'_>| KeyringEntry {
            epoch: e.epoch,
            wrapped: e.wrapped.to_vec(),
            created_at: Timestamp(e.created_at),
        };
        let seals = bootstrap.seals.into_iter().map(SealRecord::try_from);
        Ok(Self {
            instance: Instance { id, created_at },
            keyring: bootstrap.keyring.into_iter().map(entry).collect(),
            records_from: bootstrap.records_from,
            seals: seals.collect::<Result<_, _>>()?,
            authentication: Some(bootstrap.authentication),
        })
    }
}

impl<'a> SealV3<'a> {
    fn of(seal: &'a SealRecord) -> Result<Self, EncodeError> {
        let RootWrap::Keyed { public, wrapped_seed, wrapped_shared, sealed_root } = &seal.root
        else {
            return Err(EncodeError::Mixed);
        };
        let (kind, passphrase, shamir, device) = match &seal.kind {
            SealKind::Passphrase { memory_kib, passes, lanes, salt } => {
                let passphrase = PassphraseV1::of(*memory_kib, *passes, *lanes, *salt);
                (PASSPHRASE, Some(passphrase), None, None)
            }
            SealKind::Keyfile => (KEYFILE, None, None, None),
            SealKind::Shamir { threshold, holders } => {
                let holder = |holder: &'a ShareHolder| HolderV3 {
                    recipient: &holder.recipient,
                    check_value: holder.check_value,
                };
                let holders = holders.iter().map(holder).collect();
                (SHAMIR, None, Some(ShamirV3 { threshold: *threshold, holders }), None)
            }
            SealKind::Device { kind, settings } => {
                let settings = settings.iter().map(|(name, value)| SettingV3 { name, value });
                let settings = settings.collect();
                (DEVICE, None, None, Some(DeviceV3 { kind: kind.as_str(), settings }))
            }
        };
        let (id, public, created_at) = (seal.id, *public, seal.created_at.0);
        Ok(Self {
            id,
            kind,
            public,
            wrapped_seed,
            sealed_root,
            created_at,
            passphrase,
            shamir,
            device,
            wrapped_shared,
        })
    }
}

impl TryFrom<SealV3<'_>> for SealRecord {
    type Error = DecodeError;

    fn try_from(seal: SealV3<'_>) -> Result<Self, DecodeError> {
        let kind = match (seal.kind, seal.passphrase, seal.shamir, seal.device) {
            (PASSPHRASE, Some(passphrase), None, None) => passphrase.into(),
            (KEYFILE, None, None, None) => SealKind::Keyfile,
            (SHAMIR, None, Some(shamir), None) => shamir.try_into()?,
            (DEVICE, None, None, Some(device)) => device.try_into()?,
            (0..=DEVICE, ..) => return Err(DecodeError::Malformed),
            (..) => return Err(DecodeError::Newer),
        };
        if seal.wrapped_seed.len() > MAX_WRAPPED_LEN {
            return Err(DecodeError::Malformed);
        }
        let root = RootWrap::Keyed {
            public: seal.public,
            wrapped_seed: seal.wrapped_seed.to_vec(),
            wrapped_shared: seal.wrapped_shared.to_vec(),
            sealed_root: seal.sealed_root.to_vec(),
        };
        Ok(Self { id: seal.id, kind, root, created_at: Timestamp(seal.created_at) })
    }
}

impl TryFrom<ShamirV3<'_>> for SealKind {
    type Error = DecodeError;

    fn try_from(shamir: ShamirV3<'_>) -> Result<Self, DecodeError> {
        let (threshold, count) = (shamir.threshold, shamir.holders.len());
        if threshold < 2 || usize::from(threshold) > count || count > usize::from(u8::MAX) {
            return Err(DecodeError::Malformed);
        }
        let holder = |holder: &HolderV3<'_>| ShareHolder {
            recipient: holder.recipient.to_owned(),
            check_value: holder.check_value,
        };
        Ok(Self::Shamir { threshold, holders: shamir.holders.iter().map(holder).collect() })
    }
}

impl TryFrom<DeviceV3<'_>> for SealKind {
    type Error = DecodeError;

    fn try_from(device: DeviceV3<'_>) -> Result<Self, DecodeError> {
        let kind = DeviceKind::parse(device.kind).ok_or(DecodeError::Newer)?;
        // By rising name, each once: there is one encoding of a record.
        if !device.settings.is_sorted_by(|a, b| a.name < b.name) {
            return Err(DecodeError::Malformed);
        }
        let owned = |s: &SettingV3<'_>| (s.name.to_owned(), s.value.to_owned());
        Ok(Self::Device { kind, settings: device.settings.iter().map(owned).collect() })
    }
}
