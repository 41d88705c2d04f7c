//! Looking at the key service: what is the primary version, and may it still be used.
//!
//! Room      `node`. The only caller of the service besides a Decrypt whose local key is not in
//!           memory.
//! Holds     A version is promoted only after the service has protected a fresh local key under
//!           exactly that version and recovered it. A key id that was left is never told again.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lastkey_crypto::blob;
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_secret::SecretVec;
use tokio::time::{Instant, sleep};

use super::ciphertext::WrappedLocalKey;
use super::kept::KeptError;
use super::kept_file::Saved;
use super::key_id::key_id;
use super::local_key::LocalKey;
use super::provider::{Active, Provider, chain};
use crate::ports::{KeyError, KeyInUse};

/// Between two looks: with the 2.5 seconds that one may take, a disabled key is seen within ten.
const PERIOD: Duration = Duration::from_secs(5);
/// The same until the service was reached.
const FIRST_PERIOD: Duration = Duration::from_millis(250);
/// The same while it does not answer.
const AWAY_PERIOD: Duration = Duration::from_secs(1);
/// Between two proofs that the rights to use the key are still there.
const PROOF_PERIOD: Duration = Duration::from_secs(60);
/// A promotion that a rotation overtakes is begun again so often.
const PROMOTIONS: usize = 3;

/// Names the annotation that tells id and version of the key, as `UUID/NUMBER`.
pub const KEY_VERSION_ANNOTATION: &str = "key-version.lastkey.dev";

/// Looks at the key service until the end.
pub async fn refresh(provider: Arc<Provider>) {
    let mut proof_due = Instant::now();
    let mut keeping = Keeping::default();
    loop {
        // After an older state it is not known which versions there are.
        let prove = Instant::now() >= proof_due || provider.is_rolled_back();
        let looked = provider.look(prove).await;
        let pause = match &looked {
            Ok(()) => {
                if prove {
                    proof_due = Instant::now() + PROOF_PERIOD;
                }
                PERIOD
            }
            Err(KeyError::Away(_)) if provider.active().is_some() => AWAY_PERIOD,
            Err(KeyError::Away(_)) => FIRST_PERIOD,
            Err(
                KeyError::Refused { .. } | KeyError::RolledBack { .. } | KeyError::Undecryptable,
            ) => PERIOD,
        };
        match looked {
            Ok(()) => {
                provider.heard();
                keeping.after_an_answer(&provider, prove).await;
            }
            Err(error) => {
                provider.missed(&error);
                // What the service refuses is not taken from the disk.
                if provider.may_resume() {
                    keeping.without_an_answer(&provider).await;
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => (),
            // At most one look in this time, however many ask for one.
            () = async { provider.wake.notified().await; sleep(FIRST_PERIOD).await } => (),
        }
    }
}

/// When local keys go to the disk and come from there.
#[derive(Default)]
struct Keeping {
    adopted: bool,
    arrivals: usize,
    tried: Option<Instant>,
}

impl Keeping {
    /// Local keys of the life before come in first: the file is written anew.
    async fn after_an_answer(&mut self, provider: &Provider, proven: bool) {
        if provider.kept.is_none() {
            return;
        }
        if !std::mem::replace(&mut self.adopted, true)
            && let Some((saved, _)) = provider.load_kept().await
        {
            provider.adopt(saved.locals);
        }
        let arrivals = provider.ring.arrivals();
        if proven || arrivals != self.arrivals {
            self.arrivals = arrivals;
            provider.keep().await;
        }
    }

    /// The service does not answer at the start.
    async fn without_an_answer(&mut self, provider: &Provider) {
        if self.tried.is_some_and(|tried| tried.elapsed() < PERIOD) {
            return;
        }
        self.tried = Some(Instant::now());
        if let Some((saved, silent)) = provider.load_kept().await
            && provider.resume(saved, silent).is_some()
        {
            let seconds = silent.as_secs();
            tracing::warn!(provider = provider.name(), seconds, "goes on with kept local keys");
        }
    }
}

impl Provider {
    /// One look; with `prove` the rights are tried out as well.
    async fn look(&self, prove: bool) -> Result<(), KeyError> {
        let key = self.keys.0.key_in_use(&self.config.key).await?;
        let active = self.active().filter(|active| active.key == key);
        let Some(active) = active else { return self.follow(key).await };
        if !prove {
            return Ok(());
        }
        match self.fetch(&active.wrapped.by_service).await {
            // The same number and another version: an older store was restored.
            Err(KeyError::Undecryptable) => self.follow(key).await,
            other => other.map(drop),
        }
    }

    /// Makes the primary version the one that new seeds are protected under.
    async fn follow(&self, mut key: KeyInUse) -> Result<(), KeyError> {
        for _ in 0..PROMOTIONS {
            if let Some(active) = self.prepare(key).await? {
                self.promote(active);
                return Ok(());
            }
            key = self.keys.0.key_in_use(&self.config.key).await?;
        }
        Err(KeyError::Away("the key is rotated faster than it can be followed".into()))
    }

    /// Everything that a promotion needs; `None` when the key was rotated meanwhile.
    async fn prepare(&self, key: KeyInUse) -> Result<Option<Active>, KeyError> {
        let made_at = self.keys.0.version_made_at(&self.config.key, key.version).await?;
        let key_id = key_id(&key, &made_at, &self.config.cluster);
        if self.was_left(&key_id) {
            return Err(went_back());
        }
        let local = SecretVec::try_fill(32, |bytes| SystemEntropy.fill(bytes))
            .map_err(|error| KeyError::Away(error.into()))?;
        let context = self.context();
        let by_service = self.keys.0.wrap(&self.config.key, &local, &context).await?;
        let header = blob::peek(&by_service).map_err(|_| no_blob())?;
        if (header.key_id, header.version) != (key.id, key.version) {
            return Ok(None);
        }
        let asked = Instant::now();
        let again = self.keys.0.unwrap(&by_service, &context).await?;
        if !again.ct_eq(&local) {
            return Err(KeyError::Undecryptable);
        }
        let local_key = LocalKey::new(&local, asked).ok_or(KeyError::Undecryptable)?;
        let wrapped = WrappedLocalKey { by_service, for_recovery: self.for_recovery(&local)? };
        let annotations = annotations_of(&key);
        let local = Arc::new(local_key);
        Ok(Some(Active { key, key_id, annotations, wrapped, local }))
    }

    /// Writes local keys to disk, where they are kept.
    async fn keep(&self) {
        let Some(kept) = &self.kept else { return };
        let Some(saved) = self.saved(wall()) else { return };
        let outcome = kept.save(&saved).await;
        self.metrics.kept(outcome.is_ok());
        if let Err(error) = outcome {
            let error = chain(&error);
            tracing::warn!(provider = self.name(), error, "local keys are not kept on disk");
        }
    }

    /// What was kept, and how long ago the service answered then.
    async fn load_kept(&self) -> Option<(Saved, Duration)> {
        let (kept, now) = (self.kept.as_ref()?, wall());
        match kept.load(now, self.config.bound).await {
            Ok(saved) => {
                let silent = Duration::from_secs(now.saturating_sub(saved.heard_at));
                Some((saved, silent))
            }
            Err(KeptError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                if matches!(error, KeptError::TooOld) {
                    kept.remove();
                }
                let error = chain(&error);
                tracing::warn!(provider = self.name(), error, "no local keys from the disk");
                None
            }
        }
    }

    fn for_recovery(&self, local: &SecretVec) -> Result<Vec<u8>, KeyError> {
        let Some(recovery) = &self.config.recovery else { return Ok(Vec::new()) };
        local.expose(|bytes| recovery.encrypt(bytes)).map_err(|error| KeyError::Away(error.into()))
    }
}

/// Seconds since 1970, by the wall clock: what is kept has to outlive a boot.
fn wall() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What is noted beside every seed under a key.
pub(super) fn annotations_of(key: &KeyInUse) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([(KEY_VERSION_ANNOTATION.to_owned(), annotation(key))])
}

/// Key and version, readable: `UUID/VERSION`.
fn annotation(key: &KeyInUse) -> Vec<u8> {
    let id = u128::from_be_bytes(key.id);
    let part = |shift: u32, digits: u32| (id >> shift) & ((1_u128 << (4 * digits)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}/{}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12),
        key.version
    )
    .into_bytes()
}

fn went_back() -> KeyError {
    KeyError::Refused {
        code: "KeyWentBack".to_owned(),
        message: "the key is in a state that it had left, as after the restore of an older \
                  store; rotate it to go on"
            .to_owned(),
    }
}

fn no_blob() -> KeyError {
    KeyError::Refused {
        code: "KeyUsage".to_owned(),
        message: "the key is not symmetric, or not one for encryption".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotation_is_key_and_version_as_people_write_them() {
        let id = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes();
        let text = annotation(&KeyInUse { id, version: 7, activation: 9 });
        assert_eq!(text, b"01234567-89ab-cdef-0123-456789abcdef/7");
    }
}
