//! Open keys: loaded from the store, unwrapped, ready for use, and forgotten on every change.
//!
//! Room      `service`. The only owner of usable key material.
//! Holds     material is opened for a permit alone, whose key it is; what is known of a key before
//!           that holds none. A load that overlaps a change of the key is used once and never
//!           kept: see [`Keyring::keep`].
//!
//! With many keys open a use waits for memory, not for the processor. What every use asks of a key
//! and of its primary version therefore lies in one piece; what few ask is read from the store.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use lastkey_core::ids::{AliasName, KeyId, VersionNo};
use lastkey_core::key::{Key, KeyUsage, Tags};
use lastkey_core::permit::{Action, KeyFacts, Permit, Resource};
use lastkey_core::ports::{Revision, StoreError};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::state::{Phase, State};
use lastkey_core::version::KeyVersion;
use lastkey_crypto::blob::BlobKey;
use lastkey_crypto::mac::MacKey;
use lastkey_crypto::material::{MaterialError, MaterialSpec};
use lastkey_crypto::oaep::OaepKey;
use lastkey_crypto::sign::{SigningKey, VerifyingKey};
use lastkey_secret::SecretVec;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::audited::Trail;
use crate::engine::Engine;
use crate::error::Error;
use crate::root::{MaterialKeys, MaterialPlace};
use crate::usage::{UsageBook, UsageCell};

/// A key as it is kept in memory, with those of its versions that were used.
pub(crate) struct LoadedKey {
    /// The key.
    pub(crate) key: KnownKey,
    primary: OnceLock<OpenVersion>,
    others: RwLock<BTreeMap<VersionNo, Arc<OpenVersion>>>,
}

impl LoadedKey {
    fn new(key: Key) -> Self {
        Self { key: KnownKey::of(key), primary: OnceLock::new(), others: RwLock::default() }
    }

    /// A version that was opened before.
    fn opened(&self, number: VersionNo) -> Option<Opened<'_>> {
        if self.key.primary == Some(number) {
            return self.primary.get().map(Opened::Primary);
        }
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        others.get(&number).cloned().map(Opened::Other)
    }

    /// Keeps an open version, unless another task has opened it meanwhile.
    fn keep(&self, open: OpenVersion) -> Opened<'_> {
        if self.key.primary == Some(open.number) {
            return Opened::Primary(self.primary.get_or_init(|| open));
        }
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        let kept = others.entry(open.number).or_insert_with(|| Arc::new(open));
        Opened::Other(Arc::clone(kept))
    }
}

/// What uses, and policy before them, ask of a key.
#[derive(Debug)]
pub(crate) struct KnownKey {
    /// Its identity.
    pub(crate) id: KeyId,
    /// What its material is.
    pub(crate) spec: MaterialSpec,
    /// What it is for.
    pub(crate) usage: KeyUsage,
    /// The version that protects; `None` before the first one and after destruction.
    pub(crate) primary: Option<VersionNo>,
    phase: Phase,
    aliases: Box<[AliasName]>,
    tags: Tags,
}

impl KnownKey {
    fn of(key: Key) -> Self {
        let phase = key.phase();
        let Key { id, spec, usage, primary, aliases, tags, .. } = key;
        Self { id, spec, usage, primary, phase, aliases: aliases.into(), tags }
    }

    /// Where the key is in its life.
    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }

    /// What policy may know of it.
    pub(crate) const fn facts(&self) -> KeyFacts<'_> {
        KeyFacts { aliases: &self.aliases, tags: &self.tags }
    }
}

/// An open version, lent by the key that holds it.
pub(crate) enum Opened<'a> {
    /// The primary one, which lies in the key.
    Primary(&'a OpenVersion),
    /// Any other.
    Other(Arc<OpenVersion>),
}

impl Deref for Opened<'_> {
    type Target = OpenVersion;

    fn deref(&self) -> &OpenVersion {
        match self {
            Self::Primary(open) => open,
            Self::Other(open) => open,
        }
    }
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
    fn open(
        key: &KnownKey,
        material: &SecretVec,
        public: Option<&[u8]>,
    ) -> Result<Self, MaterialError> {
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
    keys: CacheOfIds<KeyId, Arc<LoadedKey>>,
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
            keys: cache_of_ids(capacity),
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

/// A cache by ids that are random.
pub(crate) type CacheOfIds<K, V> = Cache<K, V, UnitWeighter, ByRandomId>;

/// A cache that holds at most `capacity` of them.
pub(crate) fn cache_of_ids<K: Eq + Hash, V: Clone>(capacity: usize) -> CacheOfIds<K, V> {
    let lifecycle = DefaultLifecycle::default();
    Cache::with(capacity, capacity as u64, UnitWeighter, ByRandomId, lifecycle)
}

/// Hashes ids by eight of their bytes, which are random already.
///
/// Nobody can fill one bucket: an id is kept only when what it names exists, and ids of keys and
/// tokens are drawn by the service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ByRandomId;

impl BuildHasher for ByRandomId {
    type Hasher = LastBytes;

    fn build_hasher(&self) -> LastBytes {
        LastBytes(0)
    }
}

/// The last eight bytes that were written, spread over the word: four bits of a UUID are fixed.
#[derive(Debug)]
pub(crate) struct LastBytes(u64);

impl Hasher for LastBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    fn finish(&self) -> u64 {
        // The odd number nearest to 2^64 divided by the golden ratio.
        let spread = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        spread ^ (spread >> 32)
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
        let Some(key) = self.read_stored_key(id).await? else {
            return Ok(None);
        };
        let loaded = Arc::new(LoadedKey::new(key));
        self.keyring.keep(generation, |ring| ring.keys.insert(id, Arc::clone(&loaded)));
        Ok(Some(loaded))
    }

    /// The key that a permit is for, whole, as it is stored now.
    ///
    /// # Errors
    /// As [`Engine::load_key`].
    pub(crate) async fn stored_key<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        permit: &Permit<A>,
    ) -> Result<Key, Error> {
        let Resource::Key(id) = *permit.resource() else {
            return Err(Error::Denied);
        };
        self.read_stored_key(id).await?.ok_or_else(|| {
            trail.reason = "no such key".into();
            Error::Denied
        })
    }

    async fn read_stored_key(&self, id: KeyId) -> Result<Option<Key>, Error> {
        let Some(stored) = self.store.get(&RecordPath::key(id)).await? else {
            return Ok(None);
        };
        let Record::Key(key) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        Ok(Some(key))
    }

    /// One version of a loaded key, open; `None` when there is no such version.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Internal`].
    pub(crate) async fn open_version<'a>(
        &self,
        loaded: &'a LoadedKey,
        number: VersionNo,
    ) -> Result<Option<Opened<'a>>, Error> {
        match loaded.opened(number) {
            Some(open) => Ok(Some(open)),
            None => Box::pin(self.read_open_version(loaded, number)).await,
        }
    }

    async fn read_open_version<'a>(
        &self,
        loaded: &'a LoadedKey,
        number: VersionNo,
    ) -> Result<Option<Opened<'a>>, Error> {
        let Some(version) = self.read_version(loaded.key.id, number).await? else {
            return Ok(None);
        };
        Ok(Some(loaded.keep(self.open_material(&loaded.key, &version.0)?)))
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

    fn open_material(&self, key: &KnownKey, version: &KeyVersion) -> Result<OpenVersion, Error> {
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use lastkey_testkit::fixtures;

    use super::*;

    fn open(number: VersionNo) -> OpenVersion {
        OpenVersion { number, state: State::Active, material: None, usage: Arc::default() }
    }

    #[test]
    fn an_open_version_is_kept_once_and_the_primary_one_lies_in_the_key() {
        let (old, primary) = (VersionNo::FIRST, VersionNo::new(2).unwrap());
        let loaded = LoadedKey::new(Key { primary: Some(primary), ..fixtures::full_key(1) });
        for number in [old, primary] {
            assert!(loaded.opened(number).is_none());
            let (first, second) = (open(number), open(number));
            let usage = Arc::clone(&first.usage);
            loaded.keep(first);
            assert!(Arc::ptr_eq(&loaded.keep(second).usage, &usage), "{number}");
            let kept = loaded.opened(number).unwrap();
            assert!(kept.number == number && Arc::ptr_eq(&kept.usage, &usage), "{number}");
            assert_eq!(matches!(kept, Opened::Primary(_)), number == primary);
        }
        assert!(loaded.opened(VersionNo::new(3).unwrap()).is_none());
    }

    #[test]
    fn what_is_known_of_a_key_is_what_is_stored() {
        let key = fixtures::full_key(1);
        let loaded = LoadedKey::new(key.clone());
        let known = &loaded.key;
        assert_eq!((known.id, known.spec, known.usage), (key.id, key.spec, key.usage));
        assert_eq!((known.primary, known.phase()), (key.primary, key.phase()));
        assert_eq!((known.facts().aliases, known.facts().tags), (&*key.aliases, &key.tags));
    }

    #[test]
    fn hashes_of_key_ids_differ_in_the_bits_that_tables_use() {
        let hash = |n: u32| {
            let mut random = [0; 16];
            // Anything that is spread evenly: the middle of a product.
            let spread = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            random.copy_from_slice(&spread.rotate_left(64).to_be_bytes());
            ByRandomId.hash_one(KeyId::from_random(random))
        };
        let hashes: Vec<_> = (1..=4_096).map(hash).collect();
        let distinct =
            |part: fn(&u64) -> u64| hashes.iter().map(part).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|hash| *hash), 4_096);
        // Of 4,096 even draws out of 4,096 about 2,589 differ, out of 128 all.
        assert!(distinct(|hash| hash & 0xfff) > 2_400);
        assert!(distinct(|hash| hash >> 20 & 0xfff) > 2_400);
        assert_eq!(distinct(|hash| hash >> 57), 128);
    }
}
