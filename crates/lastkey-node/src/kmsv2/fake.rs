//! A key service in memory, for tests of the provider.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use lastkey_crypto::blob::{self, BlobKey};
use lastkey_crypto::context::EncryptionContext;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::material::{MaterialSpec, generate};
use lastkey_secret::SecretVec;

use crate::ports::{Context, KeyError, KeyInUse, KeyOps};

const KEY: [u8; 16] = [0xAB; 16];

/// What the fake does with the next calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Serves,
    Away,
    Disabled,
    /// In an older state than was known: recovers, and does nothing else.
    RolledBack,
}

#[derive(Debug)]
struct Version {
    made_at: String,
    key: BlobKey,
}

#[derive(Debug, Default)]
struct Inner {
    mood: Mood,
    versions: BTreeMap<u32, Version>,
    primary: u32,
    activation: u32,
    calls: usize,
    unwraps: usize,
    /// Rotations that happen just before the next calls of `wrap`.
    overtaking: usize,
}

/// The service: one key.
#[derive(Debug, Default)]
pub(super) struct FakeKeys(Mutex<Inner>);

impl FakeKeys {
    pub(super) fn new() -> Self {
        let fake = Self::default();
        fake.rotate();
        fake
    }

    pub(super) fn rotate(&self) {
        self.0.lock().unwrap().rotate();
    }

    /// Forgets the newest version and makes another of the same number, as a restored store that
    /// is rotated again.
    pub(super) fn restore_and_rotate(&self) {
        let mut inner = self.0.lock().unwrap();
        let newest = inner.primary;
        inner.versions.remove(&newest);
        inner.primary -= 1;
        inner.activation -= 1;
        inner.rotate();
        inner.versions.get_mut(&newest).unwrap().made_at.push('b');
    }

    pub(super) fn make_primary(&self, version: u32) {
        let mut inner = self.0.lock().unwrap();
        (inner.primary, inner.activation) = (version, inner.activation + 1);
    }

    /// Puts back what was there before the last rotation.
    pub(super) fn roll_back(&self) {
        let mut inner = self.0.lock().unwrap();
        (inner.primary, inner.activation) = (inner.primary - 1, inner.activation - 1);
    }

    /// Loses the newest version, as a restored store.
    pub(super) fn lose_newest(&self) {
        self.roll_back();
        let mut inner = self.0.lock().unwrap();
        let lost = inner.primary + 1;
        inner.versions.remove(&lost);
    }

    pub(super) fn mood(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    pub(super) fn overtake(&self, rotations: usize) {
        self.0.lock().unwrap().overtaking = rotations;
    }

    pub(super) fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    pub(super) fn unwraps(&self) -> usize {
        self.0.lock().unwrap().unwraps
    }
}

impl Inner {
    fn rotate(&mut self) {
        let number = self.versions.keys().max().map_or(1, |newest| newest + 1);
        let material = generate(MaterialSpec::Aes256, &mut SystemEntropy).unwrap();
        let key = BlobKey::new(MaterialSpec::Aes256, &material).unwrap();
        self.versions.insert(number, Version { made_at: format!("at {number}"), key });
        (self.primary, self.activation) = (number, self.activation + 1);
    }

    fn serve(&mut self) -> Result<&mut Self, KeyError> {
        self.calls += 1;
        match self.mood {
            Mood::Serves => Ok(self),
            Mood::Away => Err(KeyError::Away("nobody there".into())),
            Mood::Disabled => Err(KeyError::Refused {
                code: "KeyState".to_owned(),
                message: "the key is Disabled".to_owned(),
            }),
            Mood::RolledBack => Err(KeyError::RolledBack { message: "it is older".to_owned() }),
        }
    }
}

fn hash_of(context: &Context) -> [u8; 32] {
    EncryptionContext::from_pairs(context.iter().map(|(name, value)| (*name, value)))
        .unwrap()
        .hash()
}

#[async_trait]
impl KeyOps for FakeKeys {
    async fn key_in_use(&self, _: &str) -> Result<KeyInUse, KeyError> {
        let mut inner = self.0.lock().unwrap();
        let inner = inner.serve()?;
        Ok(KeyInUse { id: KEY, version: inner.primary, activation: inner.activation })
    }

    async fn version_made_at(&self, _: &str, version: u32) -> Result<String, KeyError> {
        Ok(self.0.lock().unwrap().serve()?.versions[&version].made_at.clone())
    }

    async fn wrap(
        &self,
        _: &str,
        local: &SecretVec,
        context: &Context,
    ) -> Result<Vec<u8>, KeyError> {
        let mut inner = self.0.lock().unwrap();
        let inner = inner.serve()?;
        if inner.overtaking > 0 {
            inner.overtaking -= 1;
            inner.rotate();
        }
        let (number, version) = (inner.primary, &inner.versions[&inner.primary]);
        let hash = hash_of(context);
        let sealed = local.expose(|bytes| {
            blob::seal(&version.key, &KEY, number, &hash, bytes, &mut SystemEntropy)
        });
        Ok(sealed.unwrap())
    }

    async fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError> {
        let mut inner = self.0.lock().unwrap();
        if inner.mood != Mood::RolledBack {
            inner.serve()?;
        }
        inner.unwraps += 1;
        let header = blob::peek(wrapped).map_err(|_| KeyError::Undecryptable)?;
        let version = inner.versions.get(&header.version).ok_or(KeyError::Undecryptable)?;
        blob::open(&version.key, wrapped, &hash_of(context)).map_err(|_| KeyError::Undecryptable)
    }
}
