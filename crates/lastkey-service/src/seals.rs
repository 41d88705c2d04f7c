//! Seals: what protects the root key, how each is made, and how it opens.
//!
//! Room      `service`.
//! Source    docs/formats/hierarchy.md, "Seals".
//! Holds     a seal owns a key pair, and what opens the seal protects its private half, never the
//!           root key. So a holder who is absent still receives a new root key, and no part of
//!           the seals is believed before the root key has authenticated it.

use lastkey_core::ids::InstanceId;
use lastkey_core::ports::{Cause, SealDevice, SealDeviceError, SealDevices};
use lastkey_core::seal_device::{DeviceSettings, MAX_WRAPPED_LEN};
use lastkey_core::seal_record::{Bootstrap, RootWrap, SealKind, SealRecord, ShareHolder};
use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::sha256;
use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::hpke::{self, HpkePrivateKey};
use lastkey_crypto::kdf::{self, Argon2Params};
use lastkey_crypto::share::{self, Share, SharePlace};
use lastkey_crypto::wrap::{OVERHEAD_LEN, WrapKey};
use lastkey_secret::{SecretArray, SecretVec};

use crate::custody::Custody;
use crate::error::Error;
use crate::root::{RootKey, draw_id, draw_secret};

/// Longest name of a share's holder, in bytes: an RSA public key of OpenSSH.
const MAX_RECIPIENT_LEN: usize = 2_048;

/// What a new seal protects its private half with.
#[derive(Debug)]
pub enum NewSeal {
    /// A passphrase, stretched by Argon2id.
    Passphrase {
        /// The passphrase.
        passphrase: SecretVec,
        /// The costs, recorded in the seal.
        costs: Argon2Params,
    },
    /// 32 random bytes in a file. For development only.
    Keyfile(SecretArray<32>),
}

/// A seal that has no root key yet.
#[derive(Clone, Debug)]
pub struct SealDraft {
    pub(crate) id: [u8; 16],
    pub(crate) kind: SealKind,
    pub(crate) public: [u8; 32],
    pub(crate) wrapped_private: Vec<u8>,
}

impl SealDraft {
    /// A seal of a passphrase or key file.
    ///
    /// # Errors
    /// A cause when no randomness or memory can be had.
    pub fn of(
        instance: InstanceId,
        seal: &NewSeal,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, Cause> {
        let id = draw_id(entropy)?;
        let (kind, kek) = match seal {
            NewSeal::Passphrase { passphrase, costs } => {
                let salt = draw_id(entropy)?;
                let kek = kdf::derive_from_passphrase(passphrase, &salt, *costs)?;
                let (memory_kib, passes, lanes) =
                    (costs.memory_kib(), costs.passes(), costs.lanes());
                (SealKind::Passphrase { memory_kib, passes, lanes, salt }, kek)
            }
            NewSeal::Keyfile(key) => (SealKind::Keyfile, kdf::derive(key, KEYFILE)?),
        };
        Self::under(instance, id, kind, &kek, entropy)
    }

    /// A seal of shares, for whoever makes them: one for each recipient, in this order. An empty
    /// recipient is a share that nobody encrypts.
    ///
    /// # Errors
    /// A cause when the threshold does not fit, or no randomness can be had.
    pub fn split(
        instance: InstanceId,
        threshold: u8,
        recipients: Vec<String>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Vec<Share>), Cause> {
        let id = draw_id(entropy)?;
        let secret = draw_secret(entropy)?;
        let shares = u8::try_from(recipients.len())?;
        let place = SharePlace { instance: instance.0, seal: id, threshold, shares };
        let shares = share::split(&secret, place, entropy)?;
        let holder = |(share, recipient): (&Share, String)| {
            share.check_value().map(|check_value| ShareHolder { recipient, check_value })
        };
        let holders = shares.iter().zip(recipients).map(holder).collect::<Result<_, _>>()?;
        let kind = SealKind::Shamir { threshold, holders };
        let draft = Self::under(instance, id, kind, &kdf::derive(&secret, SHARES)?, entropy)?;
        Ok((draft, shares))
    }

    /// A seal of shares as it comes from whoever made them.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn received(
        id: [u8; 16],
        threshold: u8,
        holders: Vec<ShareHolder>,
        public: [u8; 32],
        wrapped_private: Vec<u8>,
    ) -> Result<Self, Error> {
        let count = u8::try_from(holders.len()).unwrap_or(0);
        if threshold < 2 || threshold > count {
            return Err(Error::invalid(
                "threshold",
                "expected 2 to the number of shares, of which there are at most 255",
            ));
        }
        if holders.iter().any(|holder| holder.recipient.len() > MAX_RECIPIENT_LEN) {
            return Err(Error::invalid("holders", "a recipient has at most 2048 bytes"));
        }
        if wrapped_private.len() != 32 + OVERHEAD_LEN {
            return Err(Error::invalid("wrapped_private", "expected 72 bytes"));
        }
        Ok(Self { id, kind: SealKind::Shamir { threshold, holders }, public, wrapped_private })
    }

    /// A seal of a device, which must be there.
    ///
    /// # Errors
    /// [`Error::SealRefused`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn on_device(
        instance: InstanceId,
        id: [u8; 16],
        device: &dyn SealDevice,
        settings: DeviceSettings,
        private: HpkePrivateKey,
    ) -> Result<Self, Error> {
        let kind = SealKind::Device { kind: device.kind(), settings };
        let public = private.public().map_err(|error| Error::Internal(error.into()))?;
        let aad = device_aad(instance, &id, &kind, &public);
        let wrapped_private = device.wrap(&aad, private.secret()).await?;
        if wrapped_private.len() > MAX_WRAPPED_LEN {
            return Err(Error::Internal("a device wrapped to more than 4096 bytes".into()));
        }
        Ok(Self { id, kind, public, wrapped_private })
    }

    /// What it shows of itself, for whoever sends it on.
    #[must_use]
    pub fn parts(&self) -> (&[u8; 16], &SealKind, &[u8; 32], &[u8]) {
        (&self.id, &self.kind, &self.public, &self.wrapped_private)
    }

    fn under(
        instance: InstanceId,
        id: [u8; 16],
        kind: SealKind,
        kek: &SecretArray<32>,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, Cause> {
        let private = HpkePrivateKey::generate(entropy)?;
        let public = private.public()?;
        let aad = private_aad(instance, &id, &kind, &public);
        let wrapped_private = WrapKey::new(kek)
            .and_then(|kek| private.secret().expose(|bytes| kek.wrap(&aad, bytes, entropy)))?;
        Ok(Self { id, kind, public, wrapped_private })
    }

    /// Whether this opens it, before it has a root key. Argon2id takes its time.
    ///
    /// # Errors
    /// [`DoesNotOpen`].
    pub(crate) fn check_opens(
        &self,
        instance: InstanceId,
        opener: &Opener<'_>,
    ) -> Result<(), DoesNotOpen> {
        let kek = seal_key(&self.kind, opener).ok_or(DoesNotOpen)?;
        let kek = WrapKey::new(&kek).map_err(|_| DoesNotOpen)?;
        let aad = private_aad(instance, &self.id, &self.kind, &self.public);
        let private = kek.unwrap(&aad, &self.wrapped_private).map_err(|_| DoesNotOpen)?;
        let private = HpkePrivateKey::of(private.to_array().ok_or(DoesNotOpen)?);
        let is_its_half = private.public().is_ok_and(|public| public == self.public);
        is_its_half.then_some(()).ok_or(DoesNotOpen)
    }

    /// The seal of this draft with a root key in it.
    pub(crate) fn receive(
        self,
        instance: InstanceId,
        root: &RootKey,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Result<SealRecord, Cause> {
        let Self { id, kind, public, wrapped_private } = self;
        let sealed_root = root.seal_for(instance, &id, &public, entropy)?;
        let root = RootWrap::Keyed { public, wrapped_private, sealed_root };
        Ok(SealRecord { id, kind, root, created_at: now })
    }
}

/// What was presented to open seals with.
#[derive(Debug)]
pub(crate) enum Opener<'a> {
    /// A passphrase or the content of a key file.
    Bytes(&'a SecretVec),
    /// What enough shares combined to.
    Shares(&'a SecretArray<32>),
}

/// What was presented does not open this seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this does not open the seal")]
pub struct DoesNotOpen;

/// A seal that was opened.
pub struct OpenSeal {
    id: [u8; 16],
    kind: &'static str,
    instance: InstanceId,
    /// `None` for a seal of version 1.
    private: Option<HpkePrivateKey>,
    root: RootKey,
}

impl OpenSeal {
    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Its kind, as a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    pub(crate) const fn root(&self) -> &RootKey {
        &self.root
    }

    /// Recovers a secret that was wrapped for all seals, from the part that is this one's.
    ///
    /// # Errors
    /// [`DoesNotOpen`], whatever is wrong.
    pub fn unwrap(
        &self,
        purpose: &str,
        aad: &[u8],
        wrapped: &[u8],
    ) -> Result<SecretArray<32>, DoesNotOpen> {
        let private = self.private.as_ref().ok_or(DoesNotOpen)?;
        let info = info(self.instance, &self.id, purpose);
        let secret = private.open(&info, aad, wrapped).map_err(|_| DoesNotOpen)?;
        secret.to_array().ok_or(DoesNotOpen)
    }
}

/// Tries a passphrase or the content of a key file on every seal. Argon2id takes its time.
#[must_use]
pub fn open_any(bootstrap: &Bootstrap, presented: &SecretVec) -> Option<OpenSeal> {
    let opener = Opener::Bytes(presented);
    bootstrap.seals.iter().find_map(|seal| open(bootstrap.instance.id, seal, &opener).ok())
}

/// Opens the seal that shares belong to.
///
/// # Errors
/// [`DoesNotOpen`] when they are too few, or not of a seal that there is.
pub fn open_by_shares<'a>(
    bootstrap: &Bootstrap,
    shares: impl IntoIterator<Item = &'a Share, IntoIter: Clone>,
) -> Result<OpenSeal, DoesNotOpen> {
    let shares = shares.into_iter();
    let place = *shares.clone().next().ok_or(DoesNotOpen)?.place();
    let instance = bootstrap.instance.id;
    let mine = |seal: &&SealRecord| seal.id == place.seal && instance.0 == place.instance;
    let seal = bootstrap.seals.iter().find(mine).ok_or(DoesNotOpen)?;
    let secret = share::combine(shares).map_err(|_| DoesNotOpen)?;
    open(instance, seal, &Opener::Shares(&secret))
}

/// Opens the seal of a device.
///
/// # Errors
/// Those of the device, and [`SealDeviceError::NotThisDevice`] when the seal is none of a device
/// or does not open.
pub async fn open_by_device(
    instance: InstanceId,
    seal: &SealRecord,
    devices: &dyn SealDevices,
) -> Result<OpenSeal, SealDeviceError> {
    let foreign = || SealDeviceError::NotThisDevice;
    let (SealKind::Device { kind, settings }, RootWrap::Keyed { public, wrapped_private, .. }) =
        (&seal.kind, &seal.root)
    else {
        return Err(foreign());
    };
    let device = devices.open(*kind, settings).await?;
    let aad = device_aad(instance, &seal.id, &seal.kind, public);
    let private = device.unwrap(&aad, wrapped_private).await?;
    open_private(instance, seal, private).map_err(|_| foreign())
}

/// Opens a seal that needs no device.
pub(crate) fn open(
    instance: InstanceId,
    seal: &SealRecord,
    opener: &Opener<'_>,
) -> Result<OpenSeal, DoesNotOpen> {
    let kek = seal_key(&seal.kind, opener).ok_or(DoesNotOpen)?;
    let kek = WrapKey::new(&kek).map_err(|_| DoesNotOpen)?;
    match &seal.root {
        RootWrap::Direct(wrapped) => {
            let aad = direct_aad(instance, &seal.id, &seal.kind).ok_or(DoesNotOpen)?;
            let root = kek.unwrap(&aad, wrapped).map_err(|_| DoesNotOpen)?;
            let root = root.to_array().map(RootKey::of).ok_or(DoesNotOpen)?;
            Ok(OpenSeal { id: seal.id, kind: seal.kind.as_str(), instance, private: None, root })
        }
        RootWrap::Keyed { public, wrapped_private, .. } => {
            let aad = private_aad(instance, &seal.id, &seal.kind, public);
            let private = kek.unwrap(&aad, wrapped_private).map_err(|_| DoesNotOpen)?;
            open_private(instance, seal, private.to_array().ok_or(DoesNotOpen)?)
        }
    }
}

fn open_private(
    instance: InstanceId,
    seal: &SealRecord,
    private: SecretArray<32>,
) -> Result<OpenSeal, DoesNotOpen> {
    let RootWrap::Keyed { sealed_root, .. } = &seal.root else { return Err(DoesNotOpen) };
    let private = HpkePrivateKey::of(private);
    let root = private.open(&info(instance, &seal.id, ROOT), &[], sealed_root);
    let root = root.map_err(|_| DoesNotOpen)?.to_array().map(RootKey::of).ok_or(DoesNotOpen)?;
    let kind = seal.kind.as_str();
    Ok(OpenSeal { id: seal.id, kind, instance, private: Some(private), root })
}

/// The key that what was presented gives for a seal.
fn seal_key(kind: &SealKind, opener: &Opener<'_>) -> Option<SecretArray<32>> {
    match (kind, opener) {
        (SealKind::Passphrase { memory_kib, passes, lanes, salt }, Opener::Bytes(passphrase)) => {
            let costs = Argon2Params::parse(*memory_kib, *passes, *lanes).ok()?;
            kdf::derive_from_passphrase(passphrase, salt, costs).ok()
        }
        (SealKind::Keyfile, Opener::Bytes(file)) => kdf::derive(&file.to_array()?, KEYFILE).ok(),
        (SealKind::Shamir { .. }, Opener::Shares(secret)) => kdf::derive(secret, SHARES).ok(),
        (
            SealKind::Passphrase { .. }
            | SealKind::Keyfile
            | SealKind::Shamir { .. }
            | SealKind::Device { .. },
            _,
        ) => None,
    }
}

/// Whether a bootstrap record is one of version 1, which what opens its seal authenticates. Of one
/// with key pairs somebody has taken the authentication away.
pub(crate) fn is_of_version_1(bootstrap: &Bootstrap) -> bool {
    let is_direct = |seal: &SealRecord| matches!(seal.root, RootWrap::Direct(_));
    bootstrap.authentication.is_none() && bootstrap.seals.iter().all(is_direct)
}

/// Whether the seals are those that the root key knows.
///
/// # Errors
/// [`Error::SealRefused`] when they are not.
pub(crate) fn check_root(root: &RootKey, bootstrap: &Bootstrap) -> Result<(), Error> {
    if is_of_version_1(bootstrap) || Custody::is_root_of(root, bootstrap) {
        return Ok(());
    }
    Err(Error::SealRefused(CHANGED.into()))
}

/// What the seals are when the root key does not know them.
pub(crate) const CHANGED: &str = "the seals were changed by somebody who does not hold the root key; restore the data directory, or unseal an older copy of it";

/// The same installation in version 2, for whoever just opened its only seal.
///
/// # Errors
/// A cause when there are several seals, or no randomness can be had.
pub(crate) fn upgrade(
    before: &Bootstrap,
    opener: &Opener<'_>,
    root: &RootKey,
    entropy: &mut dyn Entropy,
) -> Result<Bootstrap, Cause> {
    let [seal] = before.seals.as_slice() else {
        return Err("a bootstrap record of version 1 with several seals stays as it is".into());
    };
    let kek = seal_key(&seal.kind, opener).ok_or(DoesNotOpen)?;
    let instance = before.instance.id;
    let draft = SealDraft::under(instance, seal.id, seal.kind.clone(), &kek, entropy)?;
    let seals = vec![draft.receive(instance, root, seal.created_at, entropy)?];
    let after = Bootstrap { seals, ..before.clone() };
    let authentication = Some(SealAuthority::of(root)?.authenticate(&after)?);
    Ok(Bootstrap { authentication, ..after })
}

/// Wraps 32 bytes so that each seal can open them, whether its holder is here or not.
///
/// # Errors
/// A cause when no randomness can be had or a seal is one of version 1.
pub(crate) fn wrap_for_all(
    bootstrap: &Bootstrap,
    purpose: &str,
    aad: &[u8],
    secret: &SecretArray<32>,
    entropy: &mut dyn Entropy,
) -> Result<Vec<WrappedForSeal>, Cause> {
    let wrap = |seal: &SealRecord| {
        let RootWrap::Keyed { public, .. } = &seal.root else {
            return Err(Cause::from("a seal of version 1 has no public half"));
        };
        let info = info(bootstrap.instance.id, &seal.id, purpose);
        let wrapped = secret.expose(|bytes| hpke::seal(public, &info, aad, bytes, entropy))?;
        Ok(WrappedForSeal { seal: seal.id, wrapped })
    };
    bootstrap.seals.iter().map(wrap).collect()
}

/// A secret, wrapped for one seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedForSeal {
    /// The seal.
    pub seal: [u8; 16],
    /// The secret.
    pub wrapped: Vec<u8>,
}

/// Authenticates the seals; derived from the root key.
pub(crate) struct SealAuthority(SecretArray<32>);

impl SealAuthority {
    pub(crate) fn of(root: &RootKey) -> Result<Self, Cause> {
        root.derive(b"lastkey/seals/v1").map(Self)
    }

    /// The MAC of everything that is not wrapped under the root key.
    pub(crate) fn authenticate(&self, bootstrap: &Bootstrap) -> Result<[u8; 32], Cause> {
        let label = [b"lastkey/seals-mac/v1", &sha256(&authenticated(bootstrap))[..]].concat();
        Ok(kdf::derive(&self.0, &label)?.expose(|mac| *mac))
    }

    /// Whether a bootstrap record was written by who held the root key.
    pub(crate) fn has_written(&self, bootstrap: &Bootstrap) -> bool {
        let expected = self.authenticate(bootstrap);
        match (bootstrap.authentication, expected) {
            (Some(found), Ok(expected)) => lastkey_secret::ct_eq(&found, &expected),
            (Some(_) | None, _) => false,
        }
    }
}

const KEYFILE: &[u8] = b"lastkey/keyfile/v1";
const SHARES: &[u8] = b"lastkey/shares/v1";
const ROOT: &str = "root";

/// What a message for a seal is bound to.
fn info(instance: InstanceId, seal: &[u8; 16], purpose: &str) -> Vec<u8> {
    [b"lastkey/for-seal/v1", &instance.0[..], seal, purpose.as_bytes()].concat()
}

/// What the root key for a seal is bound to.
pub(crate) fn root_info(instance: InstanceId, seal: &[u8; 16]) -> Vec<u8> {
    info(instance, seal, ROOT)
}

/// What the private half is bound to: this installation, this seal, what opens it, its public
/// half.
fn private_aad(instance: InstanceId, id: &[u8; 16], kind: &SealKind, public: &[u8; 32]) -> Vec<u8> {
    let mut aad = [b"lastkey/seal-key/v1", &instance.0[..], id].concat();
    append_kind(&mut aad, kind);
    aad.extend_from_slice(public);
    aad
}

/// The same for a device, which may take few bytes only.
fn device_aad(instance: InstanceId, id: &[u8; 16], kind: &SealKind, public: &[u8; 32]) -> [u8; 32] {
    sha256(&private_aad(instance, id, kind, public))
}

/// What a seal of version 1 binds the root key to.
fn direct_aad(instance: InstanceId, id: &[u8; 16], kind: &SealKind) -> Option<Vec<u8>> {
    let mut aad = [b"lastkey/seal/v1", &instance.0[..], id].concat();
    match kind {
        SealKind::Passphrase { .. } | SealKind::Keyfile => append_kind(&mut aad, kind),
        SealKind::Shamir { .. } | SealKind::Device { .. } => return None,
    }
    Some(aad)
}

/// Everything that the root key authenticates.
fn authenticated(bootstrap: &Bootstrap) -> Vec<u8> {
    let mut bytes = bootstrap.instance.id.0.to_vec();
    bytes.extend_from_slice(&bootstrap.instance.created_at.0.to_be_bytes());
    bytes.extend_from_slice(&bootstrap.records_from.to_be_bytes());
    append_count(&mut bytes, bootstrap.keyring.len());
    for entry in &bootstrap.keyring {
        bytes.extend_from_slice(&entry.epoch.to_be_bytes());
        bytes.extend_from_slice(&entry.created_at.0.to_be_bytes());
    }
    append_count(&mut bytes, bootstrap.seals.len());
    for seal in &bootstrap.seals {
        bytes.extend_from_slice(&seal.id);
        append_kind(&mut bytes, &seal.kind);
        bytes.extend_from_slice(&seal.created_at.0.to_be_bytes());
        if let RootWrap::Keyed { public, wrapped_private, .. } = &seal.root {
            bytes.extend_from_slice(public);
            append_bytes(&mut bytes, wrapped_private);
        }
    }
    bytes
}

/// What opens a seal, in a way that no other reads the same.
fn append_kind(bytes: &mut Vec<u8>, kind: &SealKind) {
    match kind {
        SealKind::Passphrase { memory_kib, passes, lanes, salt } => {
            bytes.push(1);
            for cost in [memory_kib, passes, lanes] {
                bytes.extend_from_slice(&cost.to_be_bytes());
            }
            bytes.extend_from_slice(salt);
        }
        SealKind::Keyfile => bytes.push(2),
        SealKind::Shamir { threshold, holders } => {
            bytes.extend_from_slice(&[3, *threshold]);
            append_count(bytes, holders.len());
            for holder in holders {
                append_bytes(bytes, holder.recipient.as_bytes());
                bytes.extend_from_slice(&holder.check_value);
            }
        }
        SealKind::Device { kind, settings } => {
            bytes.push(4);
            append_bytes(bytes, kind.as_str().as_bytes());
            append_count(bytes, settings.len());
            for (name, value) in settings {
                append_bytes(bytes, name.as_bytes());
                append_bytes(bytes, value.as_bytes());
            }
        }
    }
}

fn append_bytes(bytes: &mut Vec<u8>, part: &[u8]) {
    append_count(bytes, part.len());
    bytes.extend_from_slice(part);
}

fn append_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::entropy::SystemEntropy;

    use super::*;

    #[test]
    fn a_draft_opens_by_its_own_passphrase_and_private_half_only() {
        let (passphrase, instance) = (SecretVec::copy_of(b"a passphrase"), InstanceId([1; 16]));
        let costs = Argon2Params::parse(64, 1, 1).unwrap();
        let seal = NewSeal::Passphrase { passphrase: passphrase.expose(SecretVec::copy_of), costs };
        let draft = SealDraft::of(instance, &seal, &mut SystemEntropy).unwrap();
        assert!(draft.check_opens(instance, &Opener::Bytes(&passphrase)).is_ok());
        let other = SecretVec::copy_of(b"another one");
        assert!(draft.check_opens(instance, &Opener::Bytes(&other)).is_err());
        let spoilt = SealDraft { public: [9; 32], ..draft };
        assert!(spoilt.check_opens(instance, &Opener::Bytes(&passphrase)).is_err());
    }
}
