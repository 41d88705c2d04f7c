//! One provider: a key, its socket's answers, and what is known of the key service.
//!
//! Room      `node`. One for each `kms:` entry of an API server; knows no gRPC.
//! Holds     Status and Encrypt read one snapshot, which a promotion replaces whole. Neither makes
//!           a remote call. Nothing is answered under local keys beyond the bound of the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::oaep::OaepPublicKey;
use lastkey_secret::{SecretArray, SecretVec};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};

use super::announce::Announcer;
use super::ciphertext::{Bound, Ciphertext, SealError, WrappedLocalKey};
use super::kept::Kept;
use super::kept_file::{Owner, Saved};
use super::key_id::key_id_hash;
use super::local_key::{LocalKey, Ring};
use super::metrics::{Metrics, ProviderMetrics};
use super::refresh::annotations_of;
use crate::ports::{Happening, Herald, KeyError, KeyInUse, KeyOps, MachineSeal};

/// How long the service may be silent before Status says so: a failover or a restart of a server
/// should not make every API server unready.
const SILENCE: Duration = Duration::from_secs(15);
/// The API server gives up after 3 seconds.
const DEADLINE: Duration = Duration::from_millis(2_800);
/// Between two lines of the log that say the same.
const COMPLAINTS: Duration = Duration::from_secs(60);
/// Calls of the service at once, for local keys that are not in memory.
const UNWRAPS_AT_ONCE: usize = 8;

/// What to do about writes while the key service is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAway {
    /// Go on under the local key, up to the bound.
    #[default]
    Coast,
    /// Answer Status with an error, so that API servers stop writing.
    Stop,
}

/// What an operator says of a provider.
#[derive(Debug)]
pub struct ProviderConfig {
    /// Its name in metrics and logs.
    pub name: String,
    /// The key: id or alias.
    pub key: String,
    /// Bound to every local key, so that ciphertexts of clusters that share a key do not open
    /// in each other; empty for none.
    pub cluster: String,
    /// What to do while the service is away.
    pub when_away: WhenAway,
    /// How long local keys may be used without a word of the service.
    pub bound: Duration,
    /// A public key that every local key is also protected for.
    pub recovery: Option<OaepPublicKey>,
}

/// One provider.
#[derive(Debug)]
pub struct Provider {
    pub(super) config: ProviderConfig,
    pub(super) keys: Keys,
    pub(super) metrics: ProviderMetrics,
    pub(super) ring: Ring,
    pub(super) wake: Notify,
    state: RwLock<State>,
    unwraps: Semaphore,
    /// Where local keys outlive the process.
    pub(super) kept: Option<Kept>,
    announcer: Announcer,
}

/// The port, with a `Debug` that says nothing.
pub(super) struct Keys(pub(super) Arc<dyn KeyOps>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// What new seeds are protected under: replaced whole, never changed.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) key: KeyInUse,
    pub(super) key_id: String,
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
    pub(super) wrapped: WrappedLocalKey,
    pub(super) local: Arc<LocalKey>,
}

/// What the last look at the service has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Contact {
    /// Nothing yet.
    Starting,
    /// It answers.
    Good,
    /// It does not answer.
    Away,
    /// It answers no.
    Refused { code: String, message: String },
    /// It is in an older state than was known here; what it refused before that stays refused.
    RolledBack { message: String, is_refused: bool },
}

#[derive(Debug)]
struct State {
    active: Option<Arc<Active>>,
    contact: Contact,
    /// The last word of the service that was no refusal.
    heard: Option<Instant>,
    /// When it was last said that the service does not serve.
    complained: Option<Instant>,
    /// The key id that was last told.
    told: Option<String>,
    /// Key ids that were told and left.
    left: BTreeSet<String>,
}

/// Why the provider does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The request is wrong; the text says how.
    Invalid(String),
    /// Not a ciphertext that opens here, whatever the reason.
    Undecryptable,
    /// The service has not been reached since the start.
    Starting,
    /// The service is away, and it is said to stop then, or the bound is over.
    Away {
        /// How long the service has been silent.
        silent: Duration,
    },
    /// The service says no.
    Refused {
        /// The code of the refusal.
        code: String,
        /// What it said.
        message: String,
    },
    /// The service is in an older state than was known here; the text says what to do.
    RolledBack(String),
    /// A bug or no randomness.
    Internal,
}

/// How Status speaks of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Ok,
    /// It works without the service.
    Coasting {
        /// How long the service has been silent.
        silent: Duration,
        /// How long that may go on.
        left: Duration,
    },
}

/// A protected seed.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) ciphertext: Vec<u8>,
    pub(super) under: Arc<Active>,
}

impl Provider {
    /// A provider that has not looked at the service yet.
    #[must_use]
    pub fn new(config: ProviderConfig, keys: Arc<dyn KeyOps>, metrics: &Metrics) -> Self {
        let metrics = metrics.provider(&config.name);
        let state = State {
            active: None,
            contact: Contact::Starting,
            heard: None,
            complained: None,
            told: None,
            left: BTreeSet::new(),
        };
        let announcer = Announcer::new(&config.name, None);
        Self {
            config,
            keys: Keys(keys),
            metrics,
            ring: Ring::default(),
            wake: Notify::new(),
            state: RwLock::new(state),
            unwraps: Semaphore::new(UNWRAPS_AT_ONCE),
            kept: None,
            announcer,
        }
    }

    /// The same, with somebody who tells operators what happens to it.
    #[must_use]
    pub fn announced_by(self, herald: Arc<dyn Herald>) -> Self {
        let announcer = Announcer::new(&self.config.name, Some(herald));
        Self { announcer, ..self }
    }

    /// The same, which keeps its local keys in a file, sealed to the machine.
    #[must_use]
    pub fn keeping(self, file: PathBuf, seal: Arc<dyn MachineSeal>) -> Self {
        let owner = Owner::new(&self.config.key, &self.config.cluster);
        Self { kept: Some(Kept::new(file, owner, seal)), ..self }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// How the provider is, and the key id; from memory alone.
    ///
    /// # Errors
    /// [`Denial::Starting`], [`Denial::Away`], [`Denial::Refused`], [`Denial::RolledBack`].
    pub fn health(&self) -> Result<(String, Health), Denial> {
        self.current().map(|(active, health)| (active.key_id.clone(), health))
    }

    /// The snapshot that Status and Encrypt answer from.
    pub(super) fn current(&self) -> Result<(Arc<Active>, Health), Denial> {
        let state = self.read();
        let silent = state.heard.map_or(Duration::MAX, |heard| heard.elapsed());
        let away = Denial::Away { silent };
        let active = state.active.as_ref().map(Arc::clone);
        match &state.contact {
            Contact::Starting => Err(Denial::Starting),
            Contact::Refused { code, message } => {
                Err(Denial::Refused { code: code.clone(), message: message.clone() })
            }
            // Under this local key: it may be wrapped under a version that the older state has not.
            Contact::RolledBack { message, .. } => Err(Denial::RolledBack(message.clone())),
            Contact::Good => active.map(|active| (active, Health::Ok)).ok_or(Denial::Starting),
            Contact::Away => {
                let left = self.config.bound.saturating_sub(silent);
                let Some(active) = active.filter(|_| !left.is_zero()) else { return Err(away) };
                if silent < SILENCE {
                    return Ok((active, Health::Ok));
                }
                match self.config.when_away {
                    WhenAway::Coast => Ok((active, Health::Coasting { silent, left })),
                    WhenAway::Stop => Err(away),
                }
            }
        }
    }

    /// Protects a seed under a snapshot that the caller was told, or the current one.
    pub(super) fn encrypt(
        &self,
        seed: &SecretVec,
        told: Option<Arc<Active>>,
    ) -> Result<Sealed, Denial> {
        let (current, _) = self.current()?;
        let under = told.unwrap_or(current);
        let bound = Bound { key_id: &under.key_id, annotations: &under.annotations };
        let sealed = seed
            .expose(|seed| under.wrapped.seal(&under.local.key, seed, bound, &mut SystemEntropy));
        let ciphertext = sealed.map_err(|error| match error {
            SealError::Length { .. } => Denial::Invalid(error.to_string()),
            SealError::Failed => Denial::Internal,
        })?;
        Ok(Sealed { ciphertext, under })
    }

    /// Recovers a seed; asks the service when its local key is not in memory.
    pub(super) async fn decrypt(
        &self,
        ciphertext: &[u8],
        bound: Bound<'_>,
    ) -> Result<SecretVec, Denial> {
        bound.check_lengths(ciphertext).map_err(Denial::Invalid)?;
        let parsed = Ciphertext::parse(ciphertext).map_err(|_| Denial::Undecryptable)?;
        let local = timeout(DEADLINE, self.local_key(parsed.by_service));
        let local = local.await.unwrap_or_else(|_| Err(self.away()))?;
        parsed.open(&local.key, bound).map_err(|_| Denial::Undecryptable)
    }

    async fn local_key(&self, by_service: &[u8]) -> Result<Arc<LocalKey>, Denial> {
        if let Contact::RolledBack { message, is_refused: true } = &self.read().contact {
            return Err(Denial::RolledBack(message.clone()));
        }
        let known = self.ring.find(by_service);
        if let Some(known) = known.filter(|known| self.needs_no_question(known)) {
            return Ok(known);
        }
        let _turn = self.unwraps.acquire().await.map_err(|_| Denial::Internal)?;
        // Somebody else may have fetched it meanwhile.
        let known = self.ring.find(by_service);
        if let Some(known) = known.as_ref().filter(|known| self.needs_no_question(known)) {
            return Ok(Arc::clone(known));
        }
        match self.fetch(by_service).await {
            Ok(local) => Ok(local),
            Err(KeyError::Away(_)) => {
                self.wake.notify_one();
                known.filter(|_| self.is_within_bound()).ok_or_else(|| self.away())
            }
            Err(KeyError::RolledBack { message }) => Err(Denial::RolledBack(message)),
            Err(KeyError::Refused { code, message }) => {
                self.wake.notify_one();
                self.refused(by_service, known, Denial::Refused { code, message }).await
            }
            Err(KeyError::Undecryptable) => {
                self.refused(by_service, known, Denial::Undecryptable).await
            }
        }
    }

    /// The service does not recover a local key. When it came into an older state since the last
    /// look, that says nothing of one that is known here: the older state may not have its version.
    async fn refused(
        &self,
        by_service: &[u8],
        known: Option<Arc<LocalKey>>,
        denial: Denial,
    ) -> Result<Arc<LocalKey>, Denial> {
        if let Some(known) = known
            && let Err(KeyError::RolledBack { message }) =
                self.keys.0.key_in_use(&self.config.key).await
        {
            self.wake.notify_one();
            let known = Some(known).filter(|_| self.is_within_bound());
            return known.ok_or(Denial::RolledBack(message));
        }
        self.ring.remove(by_service);
        Err(denial)
    }

    /// Whether a local key may be used as it is: it was confirmed lately, or nobody can be asked
    /// and the bound allows it. After a refusal never: an answer that was on its way may have
    /// come in since.
    fn needs_no_question(&self, local: &LocalKey) -> bool {
        let contact = self.read().contact.clone();
        match contact {
            Contact::Good => local.is_fresh(),
            // An older state may not know the key that this one is wrapped under.
            Contact::Away | Contact::RolledBack { .. } => self.is_within_bound(),
            Contact::Starting | Contact::Refused { .. } => false,
        }
    }

    /// Asks the service for a local key and keeps it.
    pub(super) async fn fetch(&self, by_service: &[u8]) -> Result<Arc<LocalKey>, KeyError> {
        let asked = Instant::now();
        let bytes = self.keys.0.unwrap(by_service, &self.context()).await?;
        let local = LocalKey::new(&bytes, asked).ok_or(KeyError::Undecryptable)?;
        let local = Arc::new(local);
        self.ring.insert(by_service, Arc::clone(&local));
        self.metrics.local_keys(self.ring.len());
        Ok(local)
    }

    /// Brings what depends on the time up to date, for a scrape.
    pub fn observe(&self) {
        let heard = self.read().heard;
        self.metrics.silent(heard.map(|heard| heard.elapsed()));
    }

    /// What every local key is bound to at the service.
    pub(super) fn context(&self) -> Vec<(&'static str, String)> {
        let mut context = vec![("use", "kubernetes-kms-v2".to_owned())];
        if !self.config.cluster.is_empty() {
            context.push(("cluster", self.config.cluster.clone()));
        }
        context
    }

    fn is_within_bound(&self) -> bool {
        let heard = self.read().heard;
        heard.is_some_and(|heard| heard.elapsed() < self.config.bound)
    }

    /// Whether the bound after the last word of the service is over; not before there was one.
    fn is_over(&self) -> bool {
        let heard = self.read().heard;
        heard.is_some_and(|heard| heard.elapsed() >= self.config.bound)
    }

    fn away(&self) -> Denial {
        self.read().heard.map_or(Denial::Starting, |heard| Denial::Away { silent: heard.elapsed() })
    }

    /// What new seeds are protected under, whatever the state of the service is.
    pub(super) fn active(&self) -> Option<Arc<Active>> {
        self.read().active.as_ref().map(Arc::clone)
    }

    /// Whether a key id was told once and another after it.
    pub(super) fn was_left(&self, key_id: &str) -> bool {
        self.read().left.contains(key_id)
    }

    /// From now on this is what Status tells and Encrypt uses.
    pub(super) fn promote(&self, active: Active) {
        self.ring.insert(&active.wrapped.by_service, Arc::clone(&active.local));
        self.metrics.local_keys(self.ring.len());
        self.metrics.promoted(&active.key_id, active.key.version);
        let (name, key_id, version) = (self.name(), &active.key_id, active.key.version);
        tracing::info!(provider = name, key_id, version, "promoted");
        self.announcer.tell(Happening::Promoted { version, key_id_hash: key_id_hash(key_id) });
        let mut state = self.write();
        if let Some(before) = state.told.replace(active.key_id.clone())
            && before != active.key_id
        {
            state.left.insert(before);
        }
        state.active = Some(Arc::new(active));
    }

    /// The service answered.
    pub(super) fn heard(&self) {
        let mut state = self.write();
        state.heard = Some(Instant::now());
        let before = std::mem::replace(&mut state.contact, Contact::Good);
        drop(state);
        self.metrics.contact(true, false);
        self.announcer.tell(Happening::Answers);
        if before != Contact::Good {
            tracing::info!(provider = self.name(), "the key service answers");
        }
    }

    /// The service did not answer, or answered no.
    pub(super) fn missed(&self, error: &KeyError) {
        let contact = match error {
            KeyError::Refused { code, message } => {
                Contact::Refused { code: code.clone(), message: message.clone() }
            }
            KeyError::Away(_) => Contact::Away,
            KeyError::RolledBack { message } => {
                Contact::RolledBack { message: message.clone(), is_refused: false }
            }
            KeyError::Undecryptable => Contact::Refused {
                code: "Undecryptable".to_owned(),
                message: "it does not know what it has protected".to_owned(),
            },
        };
        self.metrics.contact(false, contact != Contact::Away);
        let refused = matches!(contact, Contact::Refused { .. });
        let over = !refused && self.is_over();
        if refused || over {
            // What may not be used is not kept.
            self.ring.clear();
            self.metrics.local_keys(0);
            if let Some(kept) = &self.kept {
                kept.remove();
                self.metrics.kept(false);
            }
        }
        let mut state = self.write();
        if refused || over {
            state.active = None;
        }
        let contact = state.contact.followed_by(contact);
        let happening = happening(&contact, over, state.heard, self.config.bound);
        let changed = std::mem::replace(&mut state.contact, contact.clone()) != contact;
        let quiet = state.complained.is_some_and(|at| at.elapsed() < COMPLAINTS);
        if changed || !quiet {
            state.complained = Some(Instant::now());
            tracing::warn!(
                provider = self.name(),
                error = chain(error),
                "the key service does not serve"
            );
        }
        drop(state);
        if let Some(happening) = happening {
            self.announcer.tell(happening);
        }
    }

    /// Whether the service was last seen in an older state.
    pub(super) fn is_rolled_back(&self) -> bool {
        matches!(self.read().contact, Contact::RolledBack { .. })
    }

    /// Whether what was kept may be used: nothing was heard of the service since the start but that
    /// it is in an older state.
    pub(super) fn may_resume(&self) -> bool {
        let state = self.read();
        let is_left_open = matches!(
            state.contact,
            Contact::Starting | Contact::RolledBack { is_refused: false, .. }
        );
        is_left_open && state.heard.is_none()
    }

    /// Everything that a start without the service needs; none before the service was reached.
    pub(super) fn saved(&self, heard_at: u64) -> Option<Saved> {
        let active = self.active()?;
        let wrapped = active.wrapped.clone();
        let (key, key_id, locals) = (active.key, active.key_id.clone(), self.ring.copies());
        Some(Saved { heard_at, key, key_id, wrapped, locals })
    }

    /// Local keys of the life before, for seeds that nobody has asked for in this one.
    pub(super) fn adopt(&self, locals: Vec<([u8; 32], SecretArray<32>)>) {
        locals.into_iter().for_each(|(name, bytes)| self.ring.adopt(name, bytes));
        self.metrics.local_keys(self.ring.len());
    }

    /// Goes on with what was kept, as if the service had been silent since; after an older state,
    /// to read alone.
    pub(super) fn resume(&self, saved: Saved, silent: Duration) -> Option<()> {
        let heard = Instant::now().checked_sub(silent)?;
        self.adopt(saved.locals);
        let local = self.ring.find(&saved.wrapped.by_service)?;
        let (key, key_id, wrapped) = (saved.key, saved.key_id, saved.wrapped);
        let annotations = annotations_of(&key);
        self.promote(Active { key, key_id, annotations, wrapped, local });
        let mut state = self.write();
        state.heard = Some(heard);
        if state.contact == Contact::Starting {
            state.contact = Contact::Away;
        }
        Some(())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contact {
    /// What is known after another look that has shown no good.
    fn followed_by(&self, next: Self) -> Self {
        match (self, next) {
            // Silence takes no refusal back.
            (Self::Starting | Self::Refused { .. } | Self::RolledBack { .. }, Self::Away) => {
                self.clone()
            }
            // An older state may not know that the key was disabled.
            (
                Self::Refused { .. } | Self::RolledBack { is_refused: true, .. },
                Self::RolledBack { message, .. },
            ) => Self::RolledBack { message, is_refused: true },
            (_, next) => next,
        }
    }
}

/// What an operator is told of the state of the service; nothing of a silence that a restart of it
/// explains.
fn happening(
    contact: &Contact,
    over: bool,
    heard: Option<Instant>,
    bound: Duration,
) -> Option<Happening> {
    match contact {
        Contact::Starting | Contact::Good => None,
        Contact::Refused { code, message } => {
            Some(Happening::Refused { code: code.clone(), message: message.clone() })
        }
        Contact::RolledBack { message, .. } => {
            Some(Happening::RolledBack { message: message.clone() })
        }
        Contact::Away if over => Some(Happening::SilentTooLong),
        Contact::Away => {
            let silent = heard.is_some_and(|heard| heard.elapsed() >= SILENCE);
            silent.then_some(Happening::Silent { bound })
        }
    }
}

/// An error with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
