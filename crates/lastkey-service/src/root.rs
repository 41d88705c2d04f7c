//! The key hierarchy: root key, keyring, and the keys that are derived from the keyring.
//!
//! Room      `service`.
//! Source    docs/formats/hierarchy.md.
//! Holds     the root key wraps the keyring and nothing else, so it can be rotated without
//!           touching a record; every use of a secret has a label of its own.

use lastkey_core::audit::archive::LogSigners;
use lastkey_core::audit::note::{KeyKind, NoteSigner};
use lastkey_core::ids::{InstanceId, KeyId, Name, VersionNo};
use lastkey_core::ports::{Cause, EntropySource, RecordKeys};
use lastkey_core::seal_record::{Bootstrap, Instance, KeyringEntry, SealKind, SealRecord};
use lastkey_core::time::Timestamp;
use lastkey_core::version::WrappedKey;
use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_crypto::kdf::{self, Argon2Params};
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::wrap::WrapKey;
use lastkey_secret::{SecretArray, SecretVec};

/// The key on top; held only while a server unseals.
pub(crate) struct RootKey(SecretArray<32>);

/// What a new seal protects the root key with.
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

/// What was presented does not open this seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this does not open the seal")]
pub(crate) struct DoesNotOpen;

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
    /// Wraps the root key by a new seal.
    pub(crate) fn seal(
        &self,
        instance: InstanceId,
        seal: &NewSeal,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Result<SealRecord, Cause> {
        let id = draw_id(entropy)?;
        let (kind, kek) = match seal {
            NewSeal::Passphrase { passphrase, costs } => {
                let salt = draw_id(entropy)?;
                let kek = kdf::derive_from_passphrase(passphrase, &salt, *costs)?;
                let (memory_kib, passes, lanes) =
                    (costs.memory_kib(), costs.passes(), costs.lanes());
                (SealKind::Passphrase { memory_kib, passes, lanes, salt }, kek)
            }
            NewSeal::Keyfile(key) => (SealKind::Keyfile, kdf::derive(key, b"lastkey/keyfile/v1")?),
        };
        let aad = seal_aad(instance, &id, &kind);
        let wrapped_root = WrapKey::new(&kek)
            .and_then(|kek| self.0.expose(|root| kek.wrap(&aad, root, entropy)))?;
        Ok(SealRecord { id, kind, wrapped_root, created_at: now })
    }

    /// Recovers the root key from a seal.
    ///
    /// # Errors
    /// [`DoesNotOpen`] for whatever reason.
    pub(crate) fn unseal(
        instance: InstanceId,
        seal: &SealRecord,
        presented: &SecretVec,
    ) -> Result<Self, DoesNotOpen> {
        let kek = match seal.kind {
            SealKind::Passphrase { memory_kib, passes, lanes, salt } => {
                let costs =
                    Argon2Params::parse(memory_kib, passes, lanes).map_err(|_| DoesNotOpen)?;
                kdf::derive_from_passphrase(presented, &salt, costs).map_err(|_| DoesNotOpen)?
            }
            SealKind::Keyfile => {
                let key = presented.to_array::<32>().ok_or(DoesNotOpen)?;
                kdf::derive(&key, b"lastkey/keyfile/v1").map_err(|_| DoesNotOpen)?
            }
        };
        let aad = seal_aad(instance, &seal.id, &seal.kind);
        let root = WrapKey::new(&kek)
            .map_err(|_| DoesNotOpen)?
            .unwrap(&aad, &seal.wrapped_root)
            .map_err(|_| DoesNotOpen)?;
        root.to_array().map(Self).ok_or(DoesNotOpen)
    }

    /// Wraps one keyring secret.
    fn wrap_entry(
        &self,
        instance: InstanceId,
        epoch: u32,
        secret: &SecretArray<32>,
        entropy: &mut dyn Entropy,
    ) -> Result<KeyringEntry, Cause> {
        let (key, aad) = (self.keyring_key()?, keyring_aad(instance, epoch));
        let wrapped = secret.expose(|secret| key.wrap(&aad, secret, entropy))?;
        Ok(KeyringEntry { epoch, wrapped })
    }

    /// Opens the keyring.
    ///
    /// # Errors
    /// A cause when an entry does not open or there is none.
    pub(crate) fn open_keyring(&self, bootstrap: &Bootstrap) -> Result<KeyringKeys, Cause> {
        let instance = bootstrap.instance.id;
        let mut secrets = Vec::with_capacity(bootstrap.keyring.len());
        for entry in &bootstrap.keyring {
            let aad = keyring_aad(instance, entry.epoch);
            let secret = self.keyring_key()?.unwrap(&aad, &entry.wrapped)?;
            let secret = secret.to_array().ok_or("a keyring entry has a wrong length")?;
            secrets.push((entry.epoch, secret));
        }
        KeyringKeys::derive(instance, &secrets)
    }

    fn keyring_key(&self) -> Result<WrapKey, Cause> {
        Ok(WrapKey::new(&kdf::derive(&self.0, b"lastkey/keyring/v1")?)?)
    }
}

/// What a seal binds the root key to: this installation, this seal, these costs.
fn seal_aad(instance: InstanceId, id: &[u8; 16], kind: &SealKind) -> Vec<u8> {
    let mut aad = b"lastkey/seal/v1".to_vec();
    aad.extend_from_slice(&instance.0);
    aad.extend_from_slice(id);
    match kind {
        SealKind::Passphrase { memory_kib, passes, lanes, salt } => {
            aad.push(1);
            for cost in [memory_kib, passes, lanes] {
                aad.extend_from_slice(&cost.to_be_bytes());
            }
            aad.extend_from_slice(salt);
        }
        SealKind::Keyfile => aad.push(2),
    }
    aad
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
    fn derive(instance: InstanceId, secrets: &[(u32, SecretArray<32>)]) -> Result<Self, Cause> {
        let mut by_epoch = Vec::with_capacity(secrets.len());
        let mut materials = Vec::with_capacity(secrets.len());
        for (epoch, secret) in secrets {
            by_epoch.push((*epoch, kdf::derive(secret, b"lastkey/record-key/v1")?));
            let material_key = kdf::derive(secret, b"lastkey/material-key/v1")?;
            materials.push((*epoch, WrapKey::new(&material_key)?));
        }
        if materials.is_empty() {
            return Err("the keyring is empty".into());
        }
        Ok(Self {
            log: log_signers(instance, secrets)?,
            records: RecordKeys { instance, by_epoch },
            materials: MaterialKeys { by_epoch: materials },
        })
    }
}

/// The keys of the audit log, from the oldest secret: they stay when the keyring grows.
fn log_signers(
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
    by_epoch: Vec<(u32, WrapKey)>,
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
        }
        aad
    }
}

impl MaterialKeys {
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
        let (epoch, key) = self.by_epoch.last().ok_or("the keyring is empty")?;
        let sealed = secret.expose(|bytes| key.wrap(aad, bytes, entropy))?;
        Ok(WrappedKey { epoch: *epoch, sealed })
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
        let (_, key) = self
            .by_epoch
            .iter()
            .find(|(epoch, _)| *epoch == wrapped.epoch)
            .ok_or("the keyring has no such epoch")?;
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
    let instance = InstanceId(draw_id(&mut *entropy)?);
    let root = RootKey(draw_secret(&mut *entropy)?);
    let secret = draw_secret(&mut *entropy)?;
    let entry = root.wrap_entry(instance, 1, &secret, &mut *entropy)?;
    let bootstrap = Bootstrap {
        instance: Instance { id: instance, created_at: now },
        keyring: vec![entry],
        seals: vec![root.seal(instance, seal, now, &mut *entropy)?],
    };
    let keys = root.open_keyring(&bootstrap)?;
    Ok((bootstrap, keys))
}
