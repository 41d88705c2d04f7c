//! Seals: what protects the root key, how each is made, and how it opens.
//!
//! Room      `service`.
//! Source    docs/formats/hierarchy.md, "Seals".
//! Holds     a seal owns a key pair and a key that it shares with the server, both from one seed.
//!           What opens the seal protects the seed, never the root key. So a holder who is absent
//!           still receives a new root key, and from nobody but who has held one. No part of the
//!           seals is believed before the root key has authenticated it.

use std::sync::Arc;

use lastkey_core::ids::{InstanceId, RequestId};
use lastkey_core::ports::{Cause, SealDevice, SealDeviceError, SealDevices};
use lastkey_core::seal_device::{DeviceSettings, MAX_WRAPPED_LEN};
use lastkey_core::seal_record::{Bootstrap, RootWrap, SealKind, SealRecord, ShareHolder};
use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::sha256;
use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::hpke::{self, HpkePrivateKey, SharedKey};
use lastkey_crypto::kdf::{self, Argon2Params};
use lastkey_crypto::share::{self, Share, SharePlace};
use lastkey_crypto::wrap::{OVERHEAD_LEN, WrapKey};
use lastkey_secret::{SecretArray, SecretVec};

use crate::error::Error;
use crate::root::{RootKey, SealHalves, SharedKeys, draw_id, draw_secret};
use crate::seal_authority::{SealAuthority, append_kind};

/// Longest name of a share's holder, in bytes: an RSA public key of OpenSSH.
const MAX_RECIPIENT_LEN: usize = 2_048;

/// What a new seal protects its seed with.
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

/// 32 random bytes, from which everything that a seal owns is derived.
#[derive(Debug)]
pub(crate) struct SealSeed(SecretArray<32>);

impl SealSeed {
    pub(crate) fn draw(entropy: &mut dyn Entropy) -> Result<Self, Cause> {
        Ok(Self(draw_secret(entropy)?))
    }

    /// The private half of its key pair.
    fn private(&self) -> Result<HpkePrivateKey, Cause> {
        Ok(HpkePrivateKey::of(kdf::derive(&self.0, b"lastkey/seal-private/v1")?))
    }

    /// What it shares with the server. Who works the private half out of the public one does not
    /// have it.
    fn shared(&self) -> Result<SecretArray<32>, Cause> {
        Ok(kdf::derive(&self.0, b"lastkey/seal-shared/v1")?)
    }
}

/// A seal that has no root key yet.
#[derive(Clone, Debug)]
pub struct SealDraft {
    pub(crate) id: [u8; 16],
    pub(crate) kind: SealKind,
    pub(crate) public: [u8; 32],
    pub(crate) wrapped_seed: Vec<u8>,
    pub(crate) shared: Arc<SecretArray<32>>,
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
        wrapped_seed: Vec<u8>,
        shared: SecretArray<32>,
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
        if wrapped_seed.len() != 32 + OVERHEAD_LEN {
            return Err(Error::invalid("wrapped_seed", "expected 72 bytes"));
        }
        let (kind, shared) = (SealKind::Shamir { threshold, holders }, Arc::new(shared));
        Ok(Self { id, kind, public, wrapped_seed, shared })
    }

    /// A seal of a device, which must be there.
    ///
    /// # Errors
    /// [`Error::SealRefused`], [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn on_device(
        instance: InstanceId,
        id: [u8; 16],
        device: &dyn SealDevice,
        settings: DeviceSettings,
        seed: SealSeed,
    ) -> Result<Self, Error> {
        let kind = SealKind::Device { kind: device.kind(), settings };
        let (public, shared) = halves(&seed).map_err(Error::Internal)?;
        let aad = device_aad(instance, &id, &kind, &public);
        let wrapped_seed = device.wrap(&aad, &seed.0).await?;
        if wrapped_seed.len() > MAX_WRAPPED_LEN {
            return Err(Error::Internal("a device wrapped to more than 4096 bytes".into()));
        }
        Ok(Self { id, kind, public, wrapped_seed, shared })
    }

    /// What it shows of itself, for whoever sends it on.
    #[must_use]
    pub fn parts(&self) -> (&[u8; 16], &SealKind, &[u8; 32], &[u8]) {
        (&self.id, &self.kind, &self.public, &self.wrapped_seed)
    }

    /// What the seal will share with the server.
    #[must_use]
    pub fn shared(&self) -> &SecretArray<32> {
        &self.shared
    }

    fn under(
        instance: InstanceId,
        id: [u8; 16],
        kind: SealKind,
        kek: &SecretArray<32>,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, Cause> {
        let seed = SealSeed::draw(entropy)?;
        let (public, shared) = halves(&seed)?;
        let aad = seed_aad(instance, &id, &kind, &public);
        let wrapped_seed = WrapKey::new(kek)
            .and_then(|kek| seed.0.expose(|bytes| kek.wrap(&aad, bytes, entropy)))?;
        Ok(Self { id, kind, public, wrapped_seed, shared })
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
        let aad = seed_aad(instance, &self.id, &self.kind, &self.public);
        let seed = kek.unwrap(&aad, &self.wrapped_seed).map_err(|_| DoesNotOpen)?;
        let seed = SealSeed(seed.to_array().ok_or(DoesNotOpen)?);
        let (public, shared) = halves(&seed).map_err(|_| DoesNotOpen)?;
        let is_its_own = public == self.public && shared.ct_eq(&self.shared);
        is_its_own.then_some(()).ok_or(DoesNotOpen)
    }

    /// The seal of this draft with a root key in it.
    pub(crate) fn receive(
        self,
        instance: InstanceId,
        root: &RootKey,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Result<SealRecord, Cause> {
        let Self { id, kind, public, wrapped_seed, shared } = self;
        let halves = SealHalves { public: &public, wrapped_seed: &wrapped_seed, shared: &shared };
        let root = root.wrap_for(instance, &id, halves, entropy)?;
        Ok(SealRecord { id, kind, root, created_at: now })
    }
}

/// What a server has of a seal: the public half, and what it shares.
fn halves(seed: &SealSeed) -> Result<([u8; 32], Arc<SecretArray<32>>), Cause> {
    Ok((seed.private()?.public()?, Arc::new(seed.shared()?)))
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
    seed: Option<SealSeed>,
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
        let seed = self.seed.as_ref().ok_or(DoesNotOpen)?;
        open_message(seed, &self.id, &info(self.instance, &self.id, purpose), aad, wrapped)
    }
}

fn open_message(
    seed: &SealSeed,
    id: &[u8; 16],
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<SecretArray<32>, DoesNotOpen> {
    let private = seed.private().map_err(|_| DoesNotOpen)?;
    let shared = seed.shared().map_err(|_| DoesNotOpen)?;
    let opened = private.open(SharedKey { key: &shared, id }, info, aad, sealed);
    opened.map_err(|_| DoesNotOpen)?.to_array().ok_or(DoesNotOpen)
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
    let (SealKind::Device { kind, settings }, RootWrap::Keyed { public, wrapped_seed, .. }) =
        (&seal.kind, &seal.root)
    else {
        return Err(foreign());
    };
    let device = devices.open(*kind, settings).await?;
    let aad = device_aad(instance, &seal.id, &seal.kind, public);
    let seed = SealSeed(device.unwrap(&aad, wrapped_seed).await?);
    open_by_seed(instance, seal, seed).map_err(|_| foreign())
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
            Ok(OpenSeal { id: seal.id, kind: seal.kind.as_str(), instance, seed: None, root })
        }
        RootWrap::Keyed { public, wrapped_seed, .. } => {
            let aad = seed_aad(instance, &seal.id, &seal.kind, public);
            let seed = kek.unwrap(&aad, wrapped_seed).map_err(|_| DoesNotOpen)?;
            open_by_seed(instance, seal, SealSeed(seed.to_array().ok_or(DoesNotOpen)?))
        }
    }
}

fn open_by_seed(
    instance: InstanceId,
    seal: &SealRecord,
    seed: SealSeed,
) -> Result<OpenSeal, DoesNotOpen> {
    let RootWrap::Keyed { sealed_root, .. } = &seal.root else { return Err(DoesNotOpen) };
    let info = root_info(instance, &seal.id);
    let root = open_message(&seed, &seal.id, &info, &[], sealed_root).map(RootKey::of);
    if root.is_err() {
        // Whoever presented what is right sees no other answer than whoever did not.
        let id = RequestId(seal.id);
        tracing::error!(seal = %id, "a seal opens, but its root key does not: its record was changed");
    }
    let root = root?;
    let kind = seal.kind.as_str();
    Ok(OpenSeal { id: seal.id, kind, instance, seed: Some(seed), root })
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

/// The same installation in version 3, for whoever just opened its only seal.
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
    shared: &SharedKeys,
    purpose: &str,
    aad: &[u8],
    secret: &SecretArray<32>,
    entropy: &mut dyn Entropy,
) -> Result<Vec<WrappedForSeal>, Cause> {
    let wrap = |seal: &SealRecord| {
        let RootWrap::Keyed { public, .. } = &seal.root else {
            return Err(Cause::from("a seal of version 1 has no public half"));
        };
        let key = shared.get(&seal.id).ok_or(NOTHING_SHARED)?;
        let (psk, info) =
            (SharedKey { key, id: &seal.id }, info(bootstrap.instance.id, &seal.id, purpose));
        let wrapped = secret.expose(|bytes| hpke::seal(public, psk, &info, aad, bytes, entropy))?;
        Ok(WrappedForSeal { seal: seal.id, wrapped })
    };
    bootstrap.seals.iter().map(wrap).collect()
}

/// Never seen: the root key that authenticates a seal opens what it shares.
pub(crate) const NOTHING_SHARED: &str = "nothing is known of what a seal shares with the server";

/// A secret, wrapped for one seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedForSeal {
    /// The seal.
    pub seal: [u8; 16],
    /// The secret.
    pub wrapped: Vec<u8>,
}

const KEYFILE: &[u8] = b"lastkey/keyfile/v1";
const SHARES: &[u8] = b"lastkey/shares/v1";
const ROOT: &str = "root";

/// What a message for a seal is bound to.
fn info(instance: InstanceId, seal: &[u8; 16], purpose: &str) -> Vec<u8> {
    [b"lastkey/for-seal/v2", &instance.0[..], seal, purpose.as_bytes()].concat()
}

/// What the root key for a seal is bound to.
pub(crate) fn root_info(instance: InstanceId, seal: &[u8; 16]) -> Vec<u8> {
    info(instance, seal, ROOT)
}

/// What the seed is bound to: this installation, this seal, what opens it, its public half.
fn seed_aad(instance: InstanceId, id: &[u8; 16], kind: &SealKind, public: &[u8; 32]) -> Vec<u8> {
    let mut aad = [b"lastkey/seal-seed/v1", &instance.0[..], id].concat();
    append_kind(&mut aad, kind);
    aad.extend_from_slice(public);
    aad
}

/// The same for a device, which may take few bytes only.
fn device_aad(instance: InstanceId, id: &[u8; 16], kind: &SealKind, public: &[u8; 32]) -> [u8; 32] {
    sha256(&seed_aad(instance, id, kind, public))
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

#[cfg(test)]
mod tests {
    use lastkey_crypto::entropy::SystemEntropy;

    use super::*;

    #[test]
    fn a_draft_opens_by_its_own_passphrase_and_seed_only() {
        let (passphrase, instance) = (SecretVec::copy_of(b"a passphrase"), InstanceId([1; 16]));
        let costs = Argon2Params::parse(64, 1, 1).unwrap();
        let seal = NewSeal::Passphrase { passphrase: passphrase.expose(SecretVec::copy_of), costs };
        let draft = SealDraft::of(instance, &seal, &mut SystemEntropy).unwrap();
        assert!(draft.check_opens(instance, &Opener::Bytes(&passphrase)).is_ok());
        let other = SecretVec::copy_of(b"another one");
        assert!(draft.check_opens(instance, &Opener::Bytes(&other)).is_err());
        let shared = Arc::new(SecretArray::copy_of(&[9; 32]));
        for spoilt in
            [SealDraft { public: [9; 32], ..draft.clone() }, SealDraft { shared, ..draft }]
        {
            assert!(spoilt.check_opens(instance, &Opener::Bytes(&passphrase)).is_err());
        }
    }
}
