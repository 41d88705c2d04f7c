//! The key hierarchy: root key, keyring, and the keys that are derived from the keyring.
//!
//! Room      `service`.
//! Source    docs/formats/hierarchy.md.
//! Holds     the root key wraps the keyring and nothing else, so it can be rotated without
//!           touching a record; every use of a secret has a label of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use lastkey_core::audit::archive::LogSigners;
use lastkey_core::audit::note::{KeyKind, NoteSigner};
use lastkey_core::ids::{InstanceId, KeyId, Name, VersionNo};
use lastkey_core::lease::LeaseId;
use lastkey_core::ports::{Cause, EntropySource, RecordKeys};
use lastkey_core::seal_record::{Bootstrap, Instance, KeyringEntry, RootWrap};
use lastkey_core::secret_item::SecretId;
use lastkey_core::time::Timestamp;
use lastkey_core::version::WrappedKey;
use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_crypto::hpke::{self, SharedKey};
use lastkey_crypto::kdf;
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::{SecretArray, SecretVec};

use crate::seal_authority::SealAuthority;
use crate::seals::{NewSeal, SealDraft, root_info};

/// What seals share with the server, by seal.
pub(crate) type SharedKeys = BTreeMap<[u8; 16], Arc<SecretArray<32>>>;

/// What a root key is wrapped to.
#[derive(Clone, Copy)]
pub(crate) struct SealHalves<'a> {
    pub(crate) public: &'a [u8; 32],
    pub(crate) wrapped_seed: &'a [u8],
    pub(crate) shared: &'a SecretArray<32>,
}

/// The key on top; held only while a server unseals, or its seals change.
pub(crate) struct RootKey(SecretArray<32>);

/// Draws 32 secret bytes.
pub(crate) fn draw_secret(entropy: &mut dyn Entropy) -> Result<SecretArray<32>, EntropyError> {
    SecretArray::try_fill(|bytes| entropy.fill(bytes))
}

/// Draws 16 bytes that need not stay secret: ids and salts.
pub(crate) fn draw_id(entropy: &mut dyn Entropy) -> Result<[u8; 16], EntropyError> {
    let mut id = [0; 16];
    entropy.fill(&mut id).map(|()| id)
}

impl RootKey {
    /// The root key of these bytes.
    pub(crate) const fn of(secret: SecretArray<32>) -> Self {
        Self(secret)
    }

    /// The root key for a seal: encrypted to its public half, and what the seal shares with the
    /// server wrapped under the root key.
    pub(crate) fn wrap_for(
        &self,
        instance: InstanceId,
        seal: &[u8; 16],
        halves: SealHalves<'_>,
        entropy: &mut dyn Entropy,
    ) -> Result<RootWrap, Cause> {
        let SealHalves { public, wrapped_seed, shared } = halves;
        let (psk, info) = (SharedKey { key: shared, id: seal }, root_info(instance, seal));
        let sealed_root =
            self.0.expose(|root| hpke::seal(public, psk, &info, &[], root, entropy))?;
        let (key, aad) = (self.sharing_key()?, sharing_aad(instance, seal));
        let wrapped_shared = shared.expose(|shared| key.wrap(&aad, shared, entropy))?;
        let (public, wrapped_seed) = (*public, wrapped_seed.to_vec());
        Ok(RootWrap::Keyed { public, wrapped_seed, wrapped_shared, sealed_root })
    }

    /// What each seal shares with the server.
    ///
    /// # Errors
    /// A cause when one does not open.
    pub(crate) fn open_shared(&self, bootstrap: &Bootstrap) -> Result<SharedKeys, Cause> {
        let key = self.sharing_key()?;
        let mut shared = SharedKeys::new();
        for seal in &bootstrap.seals {
            let RootWrap::Keyed { wrapped_shared, .. } = &seal.root else { continue };
            let opened =
                key.unwrap(&sharing_aad(bootstrap.instance.id, &seal.id), wrapped_shared)?;
            let opened = opened.to_array().ok_or("the shared key of a seal has a wrong length")?;
            shared.insert(seal.id, Arc::new(opened));
        }
        Ok(shared)
    }

    fn sharing_key(&self) -> Result<WrapKey, Cause> {
        Ok(WrapKey::new(&self.derive(b"lastkey/sharing/v1")?)?)
    }

    /// The key for one purpose.
    pub(crate) fn derive(&self, label: &[u8]) -> Result<SecretArray<32>, Cause> {
        Ok(kdf::derive(&self.0, label)?)
    }

    /// Wraps one keyring secret.
    pub(crate) fn wrap_entry(
        &self,
        instance: InstanceId,
        epoch: u32,
        secret: &SecretArray<32>,
        created_at: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Result<KeyringEntry, Cause> {
        let (key, aad) = (self.keyring_key()?, keyring_aad(instance, epoch));
        let wrapped = secret.expose(|secret| key.wrap(&aad, secret, entropy))?;
        Ok(KeyringEntry { epoch, wrapped, created_at })
    }

    /// The secrets of the keyring, by epoch.
    ///
    /// # Errors
    /// A cause when an entry does not open.
    pub(crate) fn open_secrets(
        &self,
        bootstrap: &Bootstrap,
    ) -> Result<Vec<(u32, SecretArray<32>)>, Cause> {
        let key = self.keyring_key()?;
        let mut secrets = Vec::with_capacity(bootstrap.keyring.len());
        for entry in &bootstrap.keyring {
            let aad = keyring_aad(bootstrap.instance.id, entry.epoch);
            let secret = key.unwrap(&aad, &entry.wrapped)?;
            let secret = secret.to_array().ok_or("a keyring entry has a wrong length")?;
            secrets.push((entry.epoch, secret));
        }
        Ok(secrets)
    }

    /// Opens the keyring.
    ///
    /// # Errors
    /// A cause when an entry does not open or there is none.
    pub(crate) fn open_keyring(&self, bootstrap: &Bootstrap) -> Result<KeyringKeys, Cause> {
        KeyringKeys::derive(bootstrap.instance.id, &self.open_secrets(bootstrap)?)
    }

    fn keyring_key(&self) -> Result<WrapKey, Cause> {
        Ok(WrapKey::new(&self.derive(b"lastkey/keyring/v1")?)?)
    }
}

fn sharing_aad(instance: InstanceId, seal: &[u8; 16]) -> Vec<u8> {
    [b"lastkey/sharing/v1", &instance.0[..], seal].concat()
}

fn keyring_aad(instance: InstanceId, epoch: u32) -> Vec<u8> {
    let mut aad = b"lastkey/keyring/v1".to_vec();
    aad.extend_from_slice(&instance.0);
    aad.extend_from_slice(&epoch.to_be_bytes());
    aad
}

/// The keys derived from an open keyring.
pub(crate) struct KeyringKeys {
    /// For the store.
    pub(crate) records: RecordKeys,
    /// For key material.
    pub(crate) materials: MaterialKeys,
    /// For the audit log.
    pub(crate) log: LogSigners,
}

impl KeyringKeys {
    /// Derives everything from the secrets of the keyring.
    ///
    /// # Errors
    /// A cause when there is none.
    pub(crate) fn derive(
        instance: InstanceId,
        secrets: &[(u32, SecretArray<32>)],
    ) -> Result<Self, Cause> {
        let mut by_epoch = Vec::with_capacity(secrets.len());
        let mut materials = Vec::with_capacity(secrets.len());
        for (epoch, secret) in secrets {
            by_epoch.push((*epoch, kdf::derive(secret, b"lastkey/record-key/v1")?));
            let material_key = kdf::derive(secret, b"lastkey/material-key/v1")?;
            materials.push((*epoch, Arc::new(WrapKey::new(&material_key)?)));
        }
        if materials.is_empty() {
            return Err("the keyring is empty".into());
        }
        Ok(Self {
            log: log_signers(instance, secrets)?,
            records: RecordKeys { instance, by_epoch },
            materials: MaterialKeys { by_epoch: RwLock::new(materials) },
        })
    }
}

/// The keys of the audit log, from the oldest secret: they stay when the keyring grows.
///
/// # Errors
/// A cause when there is none.
pub(crate) fn log_signers(
    instance: InstanceId,
    secrets: &[(u32, SecretArray<32>)],
) -> Result<LogSigners, Cause> {
    let (_, oldest) = secrets.first().ok_or("the keyring is empty")?;
    let signer = |name: String, kind, label: &[u8]| {
        NoteSigner::from_seed(&name, kind, &kdf::derive(oldest, label)?)
    };
    let log = format!("lastkey/{instance}");
    let witness = format!("{log}/witness");
    Ok(LogSigners {
        log: signer(log, KeyKind::Ed25519, b"lastkey/audit-log-key/v1")?,
        witness: signer(witness, KeyKind::Cosignature, b"lastkey/audit-witness-key/v1")?,
    })
}

/// Wraps key material for the store, by epoch of the keyring.
pub(crate) struct MaterialKeys {
    by_epoch: RwLock<Vec<(u32, Arc<WrapKey>)>>,
}

/// What wrapped material belongs to; it opens nowhere else.
#[derive(Clone, Copy)]
pub(crate) struct MaterialPlace {
    pub(crate) key: KeyId,
    /// `None` for the key pair of import parameters.
    pub(crate) version: Option<VersionNo>,
    pub(crate) spec: MaterialSpec,
}

impl MaterialPlace {
    fn aad(self) -> Vec<u8> {
        let mut aad = b"lastkey/material/v1".to_vec();
        aad.extend_from_slice(self.key.as_bytes());
        aad.extend_from_slice(&self.version.map_or(0, VersionNo::number).to_be_bytes());
        aad.extend_from_slice(self.spec.name().as_bytes());
        aad
    }
}

/// What a secret that is no key material belongs to; it opens nowhere else.
#[derive(Clone, Copy)]
pub(crate) enum SecretPlace<'a> {
    /// The secret of an epoch of sessions.
    SessionEpoch(u32),
    /// The seed of a person's second factor.
    SecondFactor(&'a Name),
    /// The private key of the authority of nodes.
    NodeAuthority,
    /// What calls of a program that rotates a secret are signed with.
    Webhook(SecretId),
    /// The password of the root account of a database.
    DatabaseRoot(&'a Name),
    /// The password of an account of a database that was made by a role.
    Lease(&'a Name, LeaseId),
}

impl SecretPlace<'_> {
    fn aad(self) -> Vec<u8> {
        let mut aad = b"lastkey/secret/v1".to_vec();
        match self {
            Self::SessionEpoch(number) => {
                aad.push(1);
                aad.extend_from_slice(&number.to_be_bytes());
            }
            Self::SecondFactor(name) => {
                aad.push(2);
                aad.extend_from_slice(name.as_str().as_bytes());
            }
            Self::NodeAuthority => aad.push(3),
            Self::Webhook(secret) => {
                aad.push(4);
                aad.extend_from_slice(&secret.0);
            }
            Self::DatabaseRoot(name) => {
                aad.push(5);
                aad.extend_from_slice(name.as_str().as_bytes());
            }
            Self::Lease(role, id) => {
                aad.push(6);
                aad.extend_from_slice(&id.0);
                aad.extend_from_slice(role.as_str().as_bytes());
            }
        }
        aad
    }
}

impl MaterialKeys {
    /// Takes the keys of a keyring that has grown.
    pub(crate) fn adopt(&self, grown: Self) {
        let grown = grown.by_epoch.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.by_epoch.write().unwrap_or_else(PoisonError::into_inner) = grown;
    }

    /// The key of an epoch, or the newest.
    fn key(&self, epoch: Option<u32>) -> Option<(u32, Arc<WrapKey>)> {
        let by_epoch = self.by_epoch.read().unwrap_or_else(PoisonError::into_inner);
        let mut newest_first = by_epoch.iter().rev();
        newest_first.find(|(found, _)| epoch.is_none_or(|epoch| epoch == *found)).cloned()
    }

    /// Wraps material under the newest epoch.
    ///
    /// # Errors
    /// A cause when no randomness can be had.
    pub(crate) fn wrap(
        &self,
        place: MaterialPlace,
        material: &SecretVec,
        entropy: &mut dyn Entropy,
    ) -> Result<WrappedKey, Cause> {
        self.wrap_at(&place.aad(), material, entropy)
    }

    /// Wraps another secret under the newest epoch.
    ///
    /// # Errors
    /// A cause when no randomness can be had.
    pub(crate) fn wrap_secret(
        &self,
        place: SecretPlace<'_>,
        secret: &SecretVec,
        entropy: &mut dyn Entropy,
    ) -> Result<WrappedKey, Cause> {
        self.wrap_at(&place.aad(), secret, entropy)
    }

    fn wrap_at(
        &self,
        aad: &[u8],
        secret: &SecretVec,
        entropy: &mut dyn Entropy,
    ) -> Result<WrappedKey, Cause> {
        let (epoch, key) = self.key(None).ok_or("the keyring is empty")?;
        let sealed = secret.expose(|bytes| key.wrap(aad, bytes, entropy))?;
        Ok(WrappedKey { epoch, sealed })
    }

    /// Unwraps material.
    ///
    /// # Errors
    /// A cause when it does not open at this place.
    pub(crate) fn unwrap(
        &self,
        place: MaterialPlace,
        wrapped: &WrappedKey,
    ) -> Result<SecretVec, Cause> {
        self.unwrap_at(&place.aad(), wrapped)
    }

    /// Unwraps another secret.
    ///
    /// # Errors
    /// A cause when it does not open at this place.
    pub(crate) fn unwrap_secret(
        &self,
        place: SecretPlace<'_>,
        wrapped: &WrappedKey,
    ) -> Result<SecretVec, Cause> {
        self.unwrap_at(&place.aad(), wrapped)
    }

    fn unwrap_at(&self, aad: &[u8], wrapped: &WrappedKey) -> Result<SecretVec, Cause> {
        let (_, key) = self.key(Some(wrapped.epoch)).ok_or("the keyring has no such epoch")?;
        Ok(key.unwrap(aad, &wrapped.sealed)?)
    }
}

/// Draws everything that a new installation has outside its records.
///
/// # Errors
/// A cause when no randomness can be had.
pub(crate) fn found(
    seal: &NewSeal,
    now: Timestamp,
    source: &dyn EntropySource,
) -> Result<(Bootstrap, KeyringKeys), Cause> {
    let mut entropy = source.open();
    let id = InstanceId(draw_id(&mut *entropy)?);
    let root = RootKey(draw_secret(&mut *entropy)?);
    let secret = draw_secret(&mut *entropy)?;
    let entry = root.wrap_entry(id, 1, &secret, now, &mut *entropy)?;
    let seal = SealDraft::of(id, seal, &mut *entropy)?;
    let bootstrap = Bootstrap {
        instance: Instance { id, created_at: now },
        keyring: vec![entry],
        records_from: 1,
        seals: vec![seal.receive(id, &root, now, &mut *entropy)?],
        authentication: None,
    };
    let authentication = Some(SealAuthority::of(&root)?.authenticate(&bootstrap)?);
    let keys = root.open_keyring(&bootstrap)?;
    Ok((Bootstrap { authentication, ..bootstrap }, keys))
}
