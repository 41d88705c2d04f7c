//! From sealed to unsealed: by what somebody presents, by shares, by devices.
//!
//! Room      `service`.
//! Holds     one attempt at a time, and guesses only so often; every guess leaves its record, and
//!           an unseal without one is undone. The engine starts only under seals that the root key
//!           has authenticated, and by a device only when nobody has sealed the server.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lastkey_core::audit::archive::LogSigners;
use lastkey_core::ids::RequestId;
use lastkey_core::ports::{AuditArchive, SealDeviceError, Store};
use lastkey_core::seal_record::{Bootstrap, SealKind, SealRecord};
use lastkey_core::time::Reading;
use lastkey_secret::SecretVec;
use tokio::sync::oneshot;

use crate::attempts::UnsealAttempts;
use crate::custody::Custody;
use crate::engine::{Engine, Keys};
use crate::error::Error;
use crate::gathering::Gathered;
use crate::ops::leases::run_leases;
use crate::ops::secrets::run_rotations;
use crate::root::{KeyringKeys, RootKey};
use crate::seal_authority::{CHANGED, is_of_version_1};
use crate::sealing::{
    Gate, RETIREMENT, Running, SealState, Unsealed, audit_operator, detached, not_initialised,
};
use crate::seals::{OpenSeal, Opener, open_any, open_by_device, upgrade};
use crate::{audit_head, jobs, renewal, rollback};

impl Gate {
    /// Unseals with whatever seal opens to what is presented. Runs to its end even when the
    /// caller goes away: every attempt leaves its record.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when no seal opens, [`Error::Throttled`] after too many
    /// attempts, [`Error::Invalid`] before `init`, [`Error::Conflict`] when the seals changed
    /// meanwhile, [`Error::Unavailable`], [`Error::Internal`].
    pub async fn unseal(
        self: &Arc<Self>,
        request: RequestId,
        presented: SecretVec,
    ) -> Result<Unsealed, Error> {
        let gate = Arc::clone(self);
        detached(async move { gate.attempt_unseal(request, presented).await }).await?
    }

    async fn attempt_unseal(
        &self,
        request: RequestId,
        presented: SecretVec,
    ) -> Result<Unsealed, Error> {
        let mut attempts = self.attempts.lock().await;
        if let Err(error) = attempts.guesses.take(self.ports.clock.read().since_boot) {
            return self.refuse(&mut attempts, request, error).await;
        }
        let before = self.sealed_by_operator();
        let outcome = match self.open_presented(presented).await {
            Ok((open, bootstrap)) => {
                attempts.guesses.refill();
                self.enter(&open, &bootstrap).await.map(|()| open.kind())
            }
            Err(error) => Err(error),
        };
        let seal_kind = self.record(request, None, before, outcome).await?;
        self.gathering.forget();
        Ok(Unsealed { attempt: request, seal_kind })
    }

    /// Records how an attempt ended. An unseal that cannot be recorded is undone: the server is
    /// sealed again by whom it was before.
    async fn record<T>(
        &self,
        request: RequestId,
        target: Option<&str>,
        before: Option<bool>,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        let result = outcome.as_ref().map_or_else(Error::code, |_| "ok");
        let recorded = audit_operator(&self.ports, request, "sys:Unseal", result, target).await;
        if let (Err(_), Some(by_operator)) = (&recorded, before) {
            self.let_go(by_operator).await;
            self.end_log().await;
        }
        recorded.and(outcome)
    }

    /// Answers an attempt that was not looked at. Anybody can make these as fast as he likes, so
    /// only so many are recorded.
    async fn refuse<T>(
        &self,
        attempts: &mut UnsealAttempts,
        request: RequestId,
        error: Error,
    ) -> Result<T, Error> {
        if attempts.refusals.take(self.ports.clock.read().since_boot).is_err() {
            return Err(error);
        }
        self.record(request, None, None, Err(error)).await
    }

    /// Takes a share of a seal of shares. Enough of them unseal; while the server is unsealed,
    /// they prove that the seal opens. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a share that does not belong here, [`Error::SealRefused`] for one
    /// that is here already; else as [`Gate::unseal`].
    pub async fn unseal_by_share(
        self: &Arc<Self>,
        request: RequestId,
        share: SecretVec,
    ) -> Result<(Gathered, Option<Unsealed>), Error> {
        let gate = Arc::clone(self);
        detached(async move { gate.attempt_share(request, share).await }).await?
    }

    async fn attempt_share(
        &self,
        request: RequestId,
        share: SecretVec,
    ) -> Result<(Gathered, Option<Unsealed>), Error> {
        let mut attempts = self.attempts.lock().await;
        let now = self.ports.clock.read();
        let bootstrap = self.store.bootstrap().await?.ok_or_else(not_initialised)?;
        let brought = match self.gathering.add(&bootstrap, &share, now.since_boot) {
            Ok(brought) => brought,
            Err(error) => return self.refuse(&mut attempts, request, error).await,
        };
        let (gathered, number) = brought;
        let before = self.sealed_by_operator();
        let outcome = self.take_share(&bootstrap, &gathered, number, now).await;
        let target = format!("seal/{}/share/{number}", RequestId(gathered.seal));
        let opened = self.record(request, Some(&target), before, outcome).await?;
        if opened.is_some() {
            self.gathering.forget();
        }
        Ok((gathered, opened.map(|seal_kind| Unsealed { attempt: request, seal_kind })))
    }

    /// Notes who brought his share, and unseals by all of them when there are enough; the kind of
    /// the seal then.
    async fn take_share(
        &self,
        bootstrap: &Bootstrap,
        gathered: &Gathered,
        number: u8,
        now: Reading,
    ) -> Result<Option<&'static str>, Error> {
        let seal = gathered.seal;
        if let Ok(engine) = self.engine() {
            let book = &engine.seal_book;
            book.change(&*engine.store, |book| book.share_shown(seal, number, now.wall)).await?;
        }
        if gathered.have < gathered.need {
            return Ok(None);
        }
        let open = self.gathering.open(bootstrap, &seal, now.since_boot);
        let open = open.map_err(|_| Error::Unauthenticated)?;
        self.enter(&open, bootstrap).await?;
        Ok(Some(open.kind()))
    }

    /// Tries the seals of devices. Does nothing while the server is unsealed, or when somebody has
    /// sealed it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no device opened a seal and one of them may later;
    /// [`Error::SealRefused`] when none will without a person, or there is none.
    pub async fn unseal_by_devices(
        self: &Arc<Self>,
        request: RequestId,
    ) -> Result<Option<Unsealed>, Error> {
        let gate = Arc::clone(self);
        detached(async move { gate.attempt_devices(request).await }).await?
    }

    async fn attempt_devices(&self, request: RequestId) -> Result<Option<Unsealed>, Error> {
        let bootstrap = self.store.bootstrap().await?.ok_or_else(not_initialised)?;
        let mut refused =
            Error::SealRefused("no seal of this installation is one of a device".into());
        for seal in bootstrap.seals.iter().filter(|seal| is_of_a_device(seal)) {
            if !self.awaits_devices() {
                return Ok(None);
            }
            match open_by_device(bootstrap.instance.id, seal, &*self.devices).await {
                Ok(open) => {
                    self.device_problem(seal.id, None);
                    return self.enter_by_device(request, &open, &bootstrap).await;
                }
                Err(error) => {
                    self.device_problem(seal.id, Some(&error));
                    if !matches!(refused, Error::Unavailable(_)) || error.may_pass() {
                        refused = error.into();
                    }
                }
            }
        }
        Err(refused)
    }

    async fn enter_by_device(
        &self,
        request: RequestId,
        open: &OpenSeal,
        bootstrap: &Bootstrap,
    ) -> Result<Option<Unsealed>, Error> {
        let _attempts = self.attempts.lock().await;
        // INVARIANT: whoever seals has an engine to seal, and nobody else starts one meanwhile.
        if !self.awaits_devices() {
            return Ok(None);
        }
        let entered = self.enter(open, bootstrap).await;
        let target = format!("seal/{}", RequestId(open.id()));
        self.record(request, Some(&target), Some(false), entered).await?;
        self.gathering.forget();
        Ok(Some(Unsealed { attempt: request, seal_kind: open.kind() }))
    }

    /// Notes what the device of a seal said at the last try.
    pub(crate) fn device_problem(&self, seal: [u8; 16], error: Option<&SealDeviceError>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) => {
                let id = RequestId(seal);
                tracing::warn!(seal = %id, error = chain(error), "a device does not open its seal");
                problems.insert(seal, error.to_string())
            }
            None => problems.remove(&seal),
        };
    }

    async fn open_presented(&self, presented: SecretVec) -> Result<(OpenSeal, Bootstrap), Error> {
        let before = self.store.bootstrap().await?.ok_or_else(not_initialised)?;
        let (opening, source) = (before.clone(), Arc::clone(&self.ports.entropy));
        let opened = tokio::task::spawn_blocking(move || {
            let open = open_any(&opening, &presented)?;
            let upgraded = is_of_version_1(&opening).then(|| {
                let mut entropy = source.open();
                upgrade(&opening, &Opener::Bytes(&presented), open.root(), &mut *entropy)
            });
            Some((open, upgraded))
        });
        let opened = opened.await.map_err(|error| Error::Internal(error.into()))?;
        let (open, upgraded) = opened.ok_or(Error::Unauthenticated)?;
        let after = match upgraded {
            None => return Ok((open, before)),
            Some(after) => after.map_err(Error::Internal)?,
        };
        self.store.replace_bootstrap(&before, &after).await?;
        tracing::info!("the bootstrap record is one of version 3 now");
        Ok((open, after))
    }

    /// Starts the engine, unless it runs, and remembers that the seal opened.
    async fn enter(&self, open: &OpenSeal, bootstrap: &Bootstrap) -> Result<(), Error> {
        if !Custody::is_root_of(open.root(), bootstrap) {
            return Err(Error::SealRefused(CHANGED.into()));
        }
        if self.engine().is_err() {
            let started = self.start_engine(open.root(), bootstrap).await;
            if let (Err(_), Some(archive)) = (&started, self.ports.audit.archive()) {
                archive.forget_keys();
            }
            started?;
        }
        let engine = self.engine()?;
        let now = engine.clock.wall();
        let book = engine.seal_book.change(&*engine.store, |book| book.opened(open.id(), now));
        if let Err(error) = book.await {
            tracing::warn!(%error, "that a seal opened could not be written");
        }
        Ok(())
    }

    async fn start_engine(&self, root: &RootKey, bootstrap: &Bootstrap) -> Result<(), Error> {
        self.wait_for_retired().await?;
        // The engine before may have changed the seals or the keyring until just now.
        if self.store.bootstrap().await?.as_ref() != Some(bootstrap) {
            return Err(Error::Conflict);
        }
        let custody = Custody::of(root, bootstrap).map_err(Error::Internal)?;
        let instance = bootstrap.instance.id;
        let keys = KeyringKeys::derive(instance, custody.secrets()).map_err(Error::Internal)?;
        let records = self.store.open(keys.records)?;
        if let Some(archive) = self.ports.audit.archive() {
            let opened = self.open_log(archive, keys.log, &*records);
            let opened = tokio::time::timeout(LOG_PATIENCE, opened).await;
            opened
                .map_err(|_| Error::Unavailable("the audit log is held up by its disk".into()))??;
        }
        let (gone, retired) = oneshot::channel();
        let ports = self.ports.clone();
        let sealed_store = Arc::clone(&self.store);
        let keys = Keys { instance, materials: keys.materials, custody, sealed_store };
        let lens = (self.open_keys, self.secret_len);
        let engine = Engine::start(ports, records, keys, lens, gone).await?;
        let engine = Arc::new(engine);
        let (stop_jobs, stopped) = oneshot::channel();
        let (stop_renewal, renewal_stopped) = oneshot::channel();
        let renewing = renewal::run(Arc::clone(&engine), renewal_stopped);
        let (stop_rotations, rotations_stopped) = oneshot::channel();
        let rotating = run_rotations(Arc::clone(&engine), rotations_stopped);
        let (stop_leases, leases_stopped) = oneshot::channel();
        let tending = run_leases(Arc::clone(&engine), leases_stopped);
        let working = jobs::run(Arc::clone(&engine), stopped);
        let jobs = tokio::spawn(async move {
            let (renewing, rotating) = (tokio::spawn(renewing), tokio::spawn(rotating));
            let tending = tokio::spawn(tending);
            working.await;
            // They may have ended by themselves; then nobody listens.
            let _ = stop_renewal.send(());
            let _ = stop_rotations.send(());
            let _ = stop_leases.send(());
            let _ = renewing.await;
            let _ = rotating.await;
            let _ = tending.await;
        });
        *self.retired.lock().await = Some(retired);
        *self.state() = SealState::Unsealed(Running { engine, jobs, stop_jobs });
        Ok(())
    }

    /// Lets the audit log sign, if it is the one that it was.
    async fn open_log(
        &self,
        archive: &dyn AuditArchive,
        signers: LogSigners,
        records: &dyn Store,
    ) -> Result<(), Error> {
        let is_lost = match audit_head::check(archive, records).await {
            Err(Error::Invalid { .. }) if self.accepts_audit_loss => true,
            checked => checked.map(|()| false)?,
        };
        archive.unsealed(signers).await.map_err(Error::Internal)?;
        if is_lost {
            let mut request = [0; 16];
            let drawn = self.ports.entropy.open().fill(&mut request);
            drawn.map_err(|error| Error::Internal(error.into()))?;
            let request = RequestId(request);
            audit_operator(&self.ports, request, "sys:AcceptAuditLoss", "ok", None).await?;
            // Whoever remembers the log that is lost needs the word as well.
            rollback::raise(records, self.ports.clock.read().wall).await?;
        }
        if self.accepts_rollback {
            rollback::accept(&self.ports, records).await?;
        }
        audit_head::remember(archive, records).await
    }

    /// Waits until the engine before is gone: a change that it is still making would not reach
    /// the keyring of the next one.
    async fn wait_for_retired(&self) -> Result<(), Error> {
        let mut retired = self.retired.lock().await;
        if let Some(gone) = retired.as_mut() {
            // The sender is only ever dropped, so the answer is always that it is gone.
            let waited = tokio::time::timeout(RETIREMENT, gone).await;
            drop(waited.map_err(|_| Error::Unavailable("calls from before are running".into()))?);
            *retired = None;
        }
        Ok(())
    }
}

/// How long the audit log may take to prove what it is and to sign that.
const LOG_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const fn is_of_a_device(seal: &SealRecord) -> bool {
    matches!(seal.kind, SealKind::Device { .. })
}

/// An error and its causes, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let links = std::iter::successors(Some(error), |error| error.source());
    links.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
