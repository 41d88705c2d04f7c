//! Sealed and unsealed: the gate through which every door reaches the engine.
//!
//! Room      `service`.
//! Holds     a server starts sealed, and while it is sealed there is no engine to call: nothing
//!           but status and unseal can be answered. The root key lives only during an unseal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lastkey_core::audit::archive::LogState;
use lastkey_core::audit::{Event, Phase};
use lastkey_core::backup::{Backups, NoBackups};
use lastkey_core::ids::{InstanceId, RequestId};
use lastkey_core::permit::{Resource, SealServer};
use lastkey_core::ports::{Expected, NoDevices, SealDevices, SealedStore, Store, Stored, Write};
use lastkey_core::principal::{Principal, Source};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::seal_record::{Bootstrap, SealKind, SealRecord};
use lastkey_core::secret_item::{DEFAULT_VALUE_LEN, MAX_VALUE_LEN};
use lastkey_core::time::Hold;
use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_secret::SecretVec;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::access::is_enrolled_administrator;
use crate::attempts::UnsealAttempts;
use crate::audit_head;
use crate::audited::Trail;
use crate::authenticate::{mint_token, token_record};
use crate::call::Call;
use crate::clock::ServiceClock;
use crate::engine::{Engine, Ports};
use crate::error::Error;
pub use crate::gathering::Gathered;
use crate::gathering::Gathering;
use crate::jobs;
use crate::ops::backups::{BackupStanding, Turn};
use crate::ops::seals::Health;
use crate::people::{first_administrator, offer_enrolment};
use crate::root::{MaterialKeys, draw_id, found};
use crate::seal_authority::check_root;
pub use crate::seals::NewSeal;
use crate::seals::{OpenSeal, open_any};

/// One seal, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealInfo {
    /// Its id.
    pub id: RequestId,
    /// What it is.
    pub kind: &'static str,
    /// Shares that have been brought, and how many open it; for a seal of shares.
    pub shares: Option<(usize, u8)>,
    /// What is known of it; `None` while the server is sealed.
    pub health: Option<Health>,
    /// Why its device did not open it at the last try.
    pub problem: Option<String>,
}

/// The state of the server, known to everybody.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether `init` was done.
    pub initialised: bool,
    /// Whether it is sealed.
    pub sealed: bool,
    /// The installation.
    pub instance: Option<InstanceId>,
    /// Its seals.
    pub seals: Vec<SealInfo>,
    /// Set while nothing expires because the wall clock jumped.
    pub clock_hold: Option<Hold>,
    /// Whether there is a backup; `None` while the server is sealed.
    pub backup: Option<BackupStanding>,
    /// Who knew a newer state of this installation, unless the rollback was accepted.
    pub rollback: Option<String>,
}

/// A successful unseal.
#[derive(Clone, Debug)]
pub struct Unsealed {
    /// Identity of the attempt, as the audit log has it.
    pub attempt: RequestId,
    /// The kind of seal that opened.
    pub seal_kind: &'static str,
}

/// A new installation.
#[derive(Debug)]
pub struct Initialised {
    /// The installation.
    pub instance: InstanceId,
    /// The administrator's token, shown once. Void as soon as an administrator is enrolled.
    pub admin_token: SecretVec,
    /// The code with which the first administrator enrols, shown once; good for
    /// [`ENROLMENT_SECS`](crate::people::ENROLMENT_SECS) of service time.
    pub enrolment_code: SecretVec,
}

/// A new way in, for whoever opens a seal.
#[derive(Debug)]
pub enum WayIn {
    /// Nobody is enrolled: a new administrator's token.
    Token(SecretVec),
    /// Administrators are enrolled: a code with which one more enrols.
    EnrolmentCode(SecretVec),
}

/// Founds an installation: root key, keyring, first seal, administrator's token.
///
/// # Errors
/// [`Error::AlreadyExists`] when there is one; [`Error::Unavailable`], [`Error::Internal`].
pub async fn initialise(
    store: &dyn SealedStore,
    ports: &Ports,
    seal: &NewSeal,
) -> Result<Initialised, Error> {
    if store.bootstrap().await?.is_some() {
        return Err(Error::AlreadyExists);
    }
    let now = ports.clock.read().wall;
    let (bootstrap, keys) = found(seal, now, &*ports.entropy).map_err(Error::Internal)?;
    store.initialise(&bootstrap).await?;
    // An installation whose founding ends here has no token; `replace_admin_token` gives it one.
    let records = store.open(keys.records)?;
    let mut entropy = ports.entropy.open();
    let admin_token = mint_token("lastkey_admin", &mut *entropy)
        .map_err(|error| Error::Internal(error.into()))?;
    let admin = Principal::named(Principal::ADMIN);
    let (path, record) = token_record(&admin_token, admin, now);
    let (first, enrolment_code) =
        offer_first(&*records, ports, &keys.materials, &mut *entropy).await?;
    let token = Write { path, expected: Expected::Absent, record: Some(record) };
    records.commit(vec![token, first]).await?;
    if let Some(archive) = ports.audit.archive() {
        // The log begins with its own founding, and with a key to check it by.
        let request = draw_id(&mut *entropy).map_err(|error| Error::Internal(error.into()))?;
        audit_operator(ports, RequestId(request), "sys:Initialise", "ok", None).await?;
        archive.unsealed(keys.log).await.map_err(Error::Unavailable)?;
        audit_head::remember(archive, &*records).await?;
        archive.sealed().await.map_err(Error::Unavailable)?;
    }
    Ok(Initialised { instance: bootstrap.instance.id, admin_token, enrolment_code })
}

/// A new code for the first administrator, and the record that knows it.
async fn offer_first(
    records: &dyn Store,
    ports: &Ports,
    materials: &MaterialKeys,
    entropy: &mut dyn Entropy,
) -> Result<(Write, SecretVec), Error> {
    // The time that the code is good begins now, and not when the server runs first.
    let clock = ServiceClock::resume(Arc::clone(&ports.clock), records).await?;
    let first = first_administrator(clock.wall()).map_err(Error::Internal)?;
    let path = RecordPath::user(&first.name);
    let stored = records.get(&path).await?;
    let expected = stored.map_or(Expected::Absent, |stored| Expected::At(stored.revision));
    let offered = offer_enrolment(first, &clock.observe(), materials, entropy);
    let (first, code) = offered.map_err(Error::Internal)?;
    Ok((Write { path, expected, record: Some(Record::User(first)) }, code))
}

/// Mints a new administrator's token and makes every earlier token void; once administrators are
/// enrolled there is no token, and it is a code with which one more enrols. Needs what opens a
/// seal; the server must not be running.
///
/// # Errors
/// [`Error::Unauthenticated`] when no seal opens; [`Error::SealRefused`] when the root key does
/// not know the seals; [`Error::Invalid`] before `init`; [`Error::Unavailable`],
/// [`Error::Internal`].
pub async fn replace_admin_token(
    store: &dyn SealedStore,
    ports: &Ports,
    presented: &SecretVec,
) -> Result<WayIn, Error> {
    let bootstrap = store.bootstrap().await?.ok_or_else(not_initialised)?;
    let open = open_any(&bootstrap, presented).ok_or(Error::Unauthenticated)?;
    replace_admin_token_by(store, ports, &open).await
}

/// The same by a seal that was opened otherwise.
///
/// # Errors
/// As [`replace_admin_token`], but for [`Error::Unauthenticated`].
pub async fn replace_admin_token_by(
    store: &dyn SealedStore,
    ports: &Ports,
    open: &OpenSeal,
) -> Result<WayIn, Error> {
    let bootstrap = store.bootstrap().await?.ok_or_else(not_initialised)?;
    check_root(open.root(), &bootstrap)?;
    let keys = open.root().open_keyring(&bootstrap).map_err(Error::Internal)?;
    let records = store.open(keys.records)?;
    let mut batch = remove_tokens(&*records).await?;
    let internal = |error: EntropyError| Error::Internal(error.into());
    let mut entropy = ports.entropy.open();
    let request = RequestId(draw_id(&mut *entropy).map_err(internal)?);
    let way_in = if is_anybody_enrolled(&*records).await? {
        let (first, code) = offer_first(&*records, ports, &keys.materials, &mut *entropy).await?;
        batch.push(first);
        WayIn::EnrolmentCode(code)
    } else {
        let token = mint_token("lastkey_admin", &mut *entropy).map_err(internal)?;
        let (admin, now) = (Principal::named(Principal::ADMIN), ports.clock.read().wall);
        let (path, record) = token_record(&token, admin, now);
        batch.push(Write { path, expected: Expected::Absent, record: Some(record) });
        WayIn::Token(token)
    };
    audit_operator(ports, request, "sys:ReplaceAdminToken", "ok", None).await?;
    records.commit(batch).await?;
    Ok(way_in)
}

/// The writes that remove every token.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Internal`].
pub(crate) async fn remove_tokens(records: &dyn Store) -> Result<Vec<Write>, Error> {
    let tokens = records.scan(&PathRange::tokens()).await?;
    let removal = |stored: Stored| {
        let expected = Expected::At(stored.revision);
        Write { path: stored.path, expected, record: None }
    };
    Ok(tokens.into_iter().map(removal).collect())
}

async fn is_anybody_enrolled(records: &dyn Store) -> Result<bool, Error> {
    let people = records.scan(&PathRange::kind("user", None, usize::MAX)).await?;
    let is_one =
        |record: &Record| matches!(record, Record::User(user) if is_enrolled_administrator(user));
    Ok(people.iter().any(|stored| is_one(&stored.record)))
}

pub(crate) fn not_initialised() -> Error {
    Error::invalid("server", "it is not initialised; run `lastkey init`")
}

/// Records what somebody did who showed what opens a seal, or tried to.
pub(crate) async fn audit_operator(
    ports: &Ports,
    request: RequestId,
    action: &'static str,
    result: &'static str,
    target: Option<&str>,
) -> Result<(), Error> {
    let event = Event {
        at: ports.clock.read().wall,
        request,
        who: &Principal::named("anonymous"),
        action,
        phase: Phase::Whole,
        key: None,
        version: None,
        context_hash: None,
        result,
        reason: "",
        source: Source::default(),
        target,
    };
    ports.audit.append_durably(&event).await.map_err(Error::Unavailable)
}

/// An engine and the jobs that run beside it.
pub(crate) struct Running {
    pub(crate) engine: Arc<Engine>,
    pub(crate) jobs: JoinHandle<()>,
    pub(crate) stop_jobs: oneshot::Sender<()>,
}

/// Whether there is an engine.
pub(crate) enum SealState {
    /// There is none.
    Sealed {
        /// Whether somebody sealed it, so that no device may undo that.
        by_operator: bool,
    },
    /// There is one.
    Unsealed(Running),
}

/// The service, sealed or not.
pub struct Gate {
    pub(crate) store: Arc<dyn SealedStore>,
    pub(crate) ports: Ports,
    pub(crate) open_keys: usize,
    pub(crate) secret_len: usize,
    pub(crate) state: Mutex<SealState>,
    pub(crate) accepts_audit_loss: bool,
    /// Ends when the last engine that was let go is gone, with every change it was making.
    pub(crate) retired: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
    /// Held during an attempt to unseal: one at a time, and only so often.
    pub(crate) attempts: tokio::sync::Mutex<UnsealAttempts>,
    /// Shares that wait for others.
    pub(crate) gathering: Gathering,
    pub(crate) devices: Arc<dyn SealDevices>,
    /// What devices said at the last try.
    pub(crate) problems: Mutex<BTreeMap<[u8; 16], String>>,
    pub(crate) backups: Arc<dyn Backups>,
    /// The backup that is being made.
    pub(crate) turn: Turn,
    /// Held while a list of what was destroyed is read, joined and written.
    pub(crate) lists: tokio::sync::Mutex<()>,
    pub(crate) accepts_rollback: bool,
    /// Who knew a newer state.
    pub(crate) rollback: Mutex<Option<String>>,
}

impl Gate {
    /// A sealed service. `open_keys` is how many keys are kept ready in memory.
    #[must_use]
    pub fn new(store: Arc<dyn SealedStore>, ports: Ports, open_keys: usize) -> Self {
        let attempts = tokio::sync::Mutex::new(UnsealAttempts::none());
        let state = Mutex::new(SealState::Sealed { by_operator: false });
        let retired = tokio::sync::Mutex::new(None);
        let (gathering, problems) = (Gathering::default(), Mutex::default());
        let devices = Arc::new(NoDevices);
        let accepts_audit_loss = false;
        Self {
            store,
            ports,
            open_keys,
            secret_len: DEFAULT_VALUE_LEN,
            state,
            accepts_audit_loss,
            retired,
            attempts,
            gathering,
            devices,
            problems,
            backups: Arc::new(NoBackups),
            turn: Turn::default(),
            lists: tokio::sync::Mutex::default(),
            accepts_rollback: false,
            rollback: Mutex::default(),
        }
    }

    /// The same, with values of secrets of at most so many bytes.
    #[must_use]
    pub fn with_secret_len(self, secret_len: usize) -> Self {
        Self { secret_len: secret_len.min(MAX_VALUE_LEN), ..self }
    }

    /// The same; an audit log that is not the one that it was is taken as it is, and its loss is
    /// recorded.
    #[must_use]
    pub fn accepting_audit_loss(self, accepts_audit_loss: bool) -> Self {
        Self { accepts_audit_loss, ..self }
    }

    /// The same with devices that hold seals.
    #[must_use]
    pub fn with_devices(self, devices: Arc<dyn SealDevices>) -> Self {
        Self { devices, ..self }
    }

    /// The same with what makes backups.
    #[must_use]
    pub fn with_backups(self, backups: Arc<dyn Backups>) -> Self {
        Self { backups, ..self }
    }

    /// The same; that others knew a newer state of the installation is taken as meant. That is
    /// recorded when the server is unsealed, and whoever asks is told.
    #[must_use]
    pub fn accepting_rollback(self, accepts_rollback: bool) -> Self {
        Self { accepts_rollback, ..self }
    }

    async fn seal_infos(&self, bootstrap: &Bootstrap, engine: Option<&Engine>) -> Vec<SealInfo> {
        let now = self.ports.clock.read();
        let gathered = self.gathering.state(now.since_boot);
        let book = match engine {
            Some(engine) => Some(engine.seal_book.read().await),
            None => None,
        };
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let info = |seal: &SealRecord| SealInfo {
            id: RequestId(seal.id),
            kind: seal.kind.as_str(),
            shares: match seal.kind {
                SealKind::Shamir { threshold, .. } => {
                    let have = gathered.iter().find(|(id, _)| *id == seal.id);
                    Some((have.map_or(0, |(_, have)| *have), threshold))
                }
                SealKind::Passphrase { .. } | SealKind::Keyfile | SealKind::Device { .. } => None,
            },
            health: book.as_ref().map(|book| match problems.get(&seal.id) {
                Some(problem) => Health::Failed(problem.clone()),
                None => Health::known(book.proof(&seal.id), now.wall),
            }),
            problem: problems.get(&seal.id).cloned(),
        };
        bootstrap.seals.iter().map(info).collect()
    }

    /// The engine, if the server is unsealed.
    ///
    /// # Errors
    /// [`Error::Sealed`].
    pub fn engine(&self) -> Result<Arc<Engine>, Error> {
        match &*self.state() {
            SealState::Unsealed(running) => Ok(Arc::clone(&running.engine)),
            SealState::Sealed { .. } => Err(Error::Sealed),
        }
    }

    /// Whether a device may unseal: not what somebody sealed, until somebody unseals it.
    pub(crate) fn awaits_devices(&self) -> bool {
        matches!(*self.state(), SealState::Sealed { by_operator: false })
    }

    /// Whether somebody has sealed it; `None` while it is unsealed.
    pub(crate) fn sealed_by_operator(&self) -> Option<bool> {
        match *self.state() {
            SealState::Unsealed(_) => None,
            SealState::Sealed { by_operator } => Some(by_operator),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, SealState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the audit log stands; `None` for one that cannot be read.
    #[must_use]
    pub fn audit_state(&self) -> Option<LogState> {
        self.ports.audit.archive().map(|archive| archive.state())
    }

    /// The state of the server.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Internal`].
    pub async fn status(&self) -> Result<Status, Error> {
        let bootstrap = self.store.bootstrap().await?;
        let engine = self.engine().ok();
        let seals = match &bootstrap {
            Some(bootstrap) => self.seal_infos(bootstrap, engine.as_deref()).await,
            None => Vec::new(),
        };
        let backup = match &engine {
            Some(engine) => Some(self.backup_standing(engine).await?),
            None => None,
        };
        let rollback = self.rollback.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Status {
            backup,
            rollback: rollback.filter(|_| !self.accepts_rollback),
            initialised: bootstrap.is_some(),
            sealed: engine.is_none(),
            instance: bootstrap.as_ref().map(|b| b.instance.id),
            seals,
            clock_hold: engine.and_then(|engine| engine.clock.observe().hold),
        })
    }

    /// Seals: the engine and every key it holds are dropped once running calls have ended.
    ///
    /// # Errors
    /// [`Error::Sealed`] when it is sealed already; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`].
    pub async fn seal(self: &Arc<Self>, call: &Call) -> Result<(), Error> {
        let (gate, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let engine = gate.engine()?;
            let mut trail = Trail::of::<SealServer>(&engine, &call);
            let outcome = gate.try_seal(&engine, &mut trail).await;
            let is_sealed = outcome.is_ok();
            let closed = trail.close(&engine, outcome).await;
            // Its keys go now, however long the audit log takes.
            drop(engine);
            if is_sealed {
                gate.let_log_go().await;
            }
            closed
        })
        .await?
    }

    async fn try_seal(&self, engine: &Engine, trail: &mut Trail<'_>) -> Result<(), Error> {
        engine.permit::<SealServer>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        trail.intend(engine).await?;
        self.gathering.forget();
        self.let_go(true).await;
        Ok(())
    }

    /// Stops the jobs, writes what they had pending, and lets go of the engine.
    pub async fn stop(&self) {
        if self.let_go(false).await {
            self.let_log_go().await;
        }
    }

    /// Lets go of the engine, and of all its keys with the last call that has it; whether there was
    /// one.
    pub(crate) async fn let_go(&self, by_operator: bool) -> bool {
        let before = {
            let mut state = self.state();
            let stays = matches!(*state, SealState::Sealed { by_operator: true });
            let sealed = SealState::Sealed { by_operator: by_operator || stays };
            std::mem::replace(&mut *state, sealed)
        };
        let SealState::Unsealed(Running { engine, mut jobs, stop_jobs }) = before else {
            return false;
        };
        engine.retiring.send_replace(true);
        // The jobs may have ended by themselves; then nobody listens.
        let _ = stop_jobs.send(());
        if tokio::time::timeout(RETIREMENT, &mut jobs).await.is_err() {
            jobs.abort();
        }
        if tokio::time::timeout(RETIREMENT, jobs::write_pending(&engine)).await.is_err() {
            tracing::warn!("what was counted since the last minute could not be written");
        }
        true
    }

    /// Has the audit log sign what it has, and give up its keys; unless somebody has unsealed since
    /// the engine was let go: then it signs for him.
    async fn let_log_go(&self) {
        let _attempts = self.attempts.lock().await;
        if self.engine().is_err() {
            self.end_log().await;
        }
    }

    /// Has the audit log sign what it has, and give up its keys. INVARIANT: nobody unseals meanwhile.
    pub(crate) async fn end_log(&self) {
        if let Some(archive) = self.ports.audit.archive()
            && let Err(error) = archive.sealed().await
        {
            tracing::warn!(error, "the audit log has no last checkpoint");
        }
    }
}

/// How long an engine that was let go may take to finish what it is doing.
pub(crate) const RETIREMENT: Duration = Duration::from_secs(10);

/// Runs an operation to its end even when its caller goes away in the middle.
///
/// # Errors
/// [`Error::Internal`] when it panicked.
pub(crate) async fn detached<T: Send + 'static>(
    operation: impl Future<Output = T> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(operation).await.map_err(|error| Error::Internal(error.into()))
}
