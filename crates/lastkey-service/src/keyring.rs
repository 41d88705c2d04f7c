//! Open keys: loaded from the store, unwrapped, ready for use, and forgotten on every change.
//!
//! Room      `service`. The only owner of usable key material.
//! Holds     material is opened for a permit alone, whose key it is; what is known of a key before
//!           that holds none. A load that overlaps a
//!           change of the key is used once and never kept: see [`Keyring::keep`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use lastkey_core::ids::{AliasName, KeyId, VersionNo};
use lastkey_core::key::{Key, KeyUsage};
use lastkey_core::ports::{Revision, StoreError};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::state::State;
use lastkey_core::version::KeyVersion;
use lastkey_crypto::blob::BlobKey;
use lastkey_crypto::mac::MacKey;
use lastkey_crypto::material::MaterialError;
use lastkey_crypto::oaep::OaepKey;
use lastkey_crypto::sign::{SigningKey, VerifyingKey};
use lastkey_secret::SecretVec;
use quick_cache::sync::Cache;

use crate::engine::Engine;
use crate::error::Error;
use crate::root::{MaterialKeys, MaterialPlace};
use crate::usage::{UsageBook, UsageCell};

/// A key as it is kept in memory, with those of its versions that were used.
pub(crate) struct LoadedKey {
    /// The key.
    pub(crate) key: Key,
    open: RwLock<BTreeMap<VersionNo, Arc<OpenVersion>>>,
}

/// A version whose material is ready for use.
pub(crate) struct OpenVersion {
    /// Its number.
    pub(crate) number: VersionNo,
    /// Its state.
    pub(crate) state: State,
    /// Its material; `None` for a version that is destroyed or was never filled.
    pub(crate) material: Option<OpenMaterial>,
    /// Where its uses are counted.
    pub(crate) usage: Arc<UsageCell>,
}

/// Material in the form of its use.
pub(crate) enum OpenMaterial {
    /// Encrypts and decrypts self-describing blobs.
    Blob(BlobKey),
    /// Signs and verifies.
    Sign(Box<(SigningKey, VerifyingKey)>),
    /// Generates and verifies MACs.
    Mac(Box<MacKey>),
    /// Encrypts and decrypts RSA ciphertexts.
    Oaep(OaepKey),
}

impl OpenMaterial {
    fn open(key: &Key, material: &SecretVec, public: Option<&[u8]>) -> Result<Self, MaterialError> {
        match key.usage {
            KeyUsage::EncryptDecrypt if key.spec.symmetric_len().is_some() => {
                BlobKey::new(key.spec, material).map(Self::Blob)
            }
            KeyUsage::EncryptDecrypt => OaepKey::new(key.spec, material).map(Self::Oaep),
            KeyUsage::SignVerify => {
                let public = public.ok_or(MaterialError::Malformed)?;
                let signing = SigningKey::new(key.spec, material)?;
                Ok(Self::Sign(Box::new((signing, VerifyingKey::new(key.spec, public)?))))
            }
            KeyUsage::GenerateVerifyMac => {
                MacKey::new(key.spec, material).map(|key| Self::Mac(Box::new(key)))
            }
        }
    }
}

/// The cache of open keys.
pub(crate) struct Keyring {
    pub(crate) materials: MaterialKeys,
    pub(crate) usage: UsageBook,
    keys: Cache<KeyId, Arc<LoadedKey>>,
    aliases: Cache<AliasName, KeyId>,
    /// Raised by every change; guards every insertion.
    generation: Mutex<u64>,
}

impl Keyring {
    /// A keyring that keeps at most `capacity` keys open.
    pub(crate) fn new(materials: MaterialKeys, capacity: usize) -> Self {
        Self {
            materials,
            usage: UsageBook::default(),
            keys: Cache::new(capacity),
            aliases: Cache::new(capacity),
            generation: Mutex::new(0),
        }
    }

    fn generation(&self) -> u64 {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was loaded, unless anything was changed since `generation` was read.
    // INVARIANT: insertion and `forget` exclude each other, so nothing stale outlives a change.
    fn keep(&self, generation: u64, insert: impl FnOnce(&Self)) {
        let current = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == generation {
            insert(self);
        }
    }

    /// Forgets a key, after it was changed and before the change is acknowledged.
    pub(crate) fn forget(&self, key: KeyId, aliases: &[AliasName]) {
        let mut current = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        *current = current.wrapping_add(1);
        self.keys.remove(&key);
        for alias in aliases {
            self.aliases.remove(alias);
        }
    }
}

impl Engine {
    /// The key that an alias names.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Internal`].
    pub(crate) async fn alias_target(&self, alias: &AliasName) -> Result<Option<KeyId>, Error> {
        match self.keyring.aliases.get(alias) {
            Some(id) => Ok(Some(id)),
            // Boxed, as all that is read from the store: the future of a hit stays small.
            None => Box::pin(self.read_alias(alias)).await,
        }
    }

    async fn read_alias(&self, alias: &AliasName) -> Result<Option<KeyId>, Error> {
        let generation = self.keyring.generation();
        let Some(stored) = self.store.get(&RecordPath::alias(alias)).await? else {
            return Ok(None);
        };
        let Record::Alias(id) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        self.keyring.keep(generation, |ring| ring.aliases.insert(alias.clone(), id));
        Ok(Some(id))
    }

    /// A key without its material: what policy may know, and what a permit then opens; `None` when
    /// there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Internal`].
    pub(crate) async fn known_key(&self, id: KeyId) -> Result<Option<Arc<LoadedKey>>, Error> {
        match self.keyring.keys.get(&id) {
            Some(loaded) => Ok(Some(loaded)),
            None => Box::pin(self.read_key(id)).await,
        }
    }

    async fn read_key(&self, id: KeyId) -> Result<Option<Arc<LoadedKey>>, Error> {
        let generation = self.keyring.generation();
        let Some(stored) = self.store.get(&RecordPath::key(id)).await? else {
            return Ok(None);
        };
        let Record::Key(key) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        let loaded = Arc::new(LoadedKey { key, open: RwLock::default() });
        self.keyring.keep(generation, |ring| ring.keys.insert(id, Arc::clone(&loaded)));
        Ok(Some(loaded))
    }

    /// One version of a loaded key, open; `None` when there is no such version.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Internal`].
    pub(crate) async fn open_version(
        &self,
        loaded: &LoadedKey,
        number: VersionNo,
    ) -> Result<Option<Arc<OpenVersion>>, Error> {
        let cached =
            loaded.open.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        match cached {
            Some(open) => Ok(Some(open)),
            None => Box::pin(self.read_open_version(loaded, number)).await,
        }
    }

    async fn read_open_version(
        &self,
        loaded: &LoadedKey,
        number: VersionNo,
    ) -> Result<Option<Arc<OpenVersion>>, Error> {
        let Some(version) = self.read_version(loaded.key.id, number).await? else {
            return Ok(None);
        };
        let open = Arc::new(self.open_material(&loaded.key, &version.0)?);
        let mut all = loaded.open.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(Arc::clone(all.entry(number).or_insert(open))))
    }

    /// One version as it is stored, with its revision.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Internal`].
    pub(crate) async fn read_version(
        &self,
        key: KeyId,
        number: VersionNo,
    ) -> Result<Option<(KeyVersion, Revision)>, Error> {
        let Some(stored) = self.store.get(&RecordPath::version(key, number)).await? else {
            return Ok(None);
        };
        let Record::Version(version) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        Ok(Some((version, stored.revision)))
    }

    fn open_material(&self, key: &Key, version: &KeyVersion) -> Result<OpenVersion, Error> {
        let place = MaterialPlace { key: key.id, version: Some(version.number), spec: key.spec };
        let material = match &version.material {
            None => None,
            Some(wrapped) => {
                let bytes =
                    self.keyring.materials.unwrap(place, wrapped).map_err(Error::Internal)?;
                let open = OpenMaterial::open(key, &bytes, version.public_key.as_deref());
                Some(open.map_err(|error| Error::Internal(error.into()))?)
            }
        };
        let usage = self.keyring.usage.cell(key.id, version.number);
        Ok(OpenVersion { number: version.number, state: version.state, material, usage })
    }
}
