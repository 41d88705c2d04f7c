//! The trail of one operation: what the audit log is told, and when.
//!
//! Room      `service`.
//! Holds     an operation whose only effect is its answer leaves one record, durable before the
//!           answer; one that changes state leaves its intent, durable, before the change. When
//!           the log cannot be written the operation is refused. Who has no session fills no
//!           log: what he is refused or told is counted above a limit, and the sum is recorded.
//!           Who shows nothing genuine hides nothing of those who do.

use core::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use lastkey_core::audit::{AUDIT_LOG, AUDIT_SUMS, Event, Phase};
use lastkey_core::ids::{KeyId, RequestId, VersionNo};
use lastkey_core::permit::{Action, Why};
use lastkey_core::principal::{Peer, Principal, Source};
use lastkey_core::time::Timestamp;
use lastkey_crypto::context::EncryptionContext;

use crate::access::{Agent, Opening};
use crate::attempts::{Bearer, Counted};
use crate::authenticate::source_of;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::keyring::LoadedKey;
use crate::ops::exchange_token::Refused;
use crate::root::draw_id;

/// What is known of a running operation.
pub(crate) struct Trail<'a> {
    call: &'a Call,
    at: Timestamp,
    action: &'static str,
    changes_state: bool,
    intended: AtomicBool,
    /// The key, once it is known.
    pub(crate) key: Option<KeyId>,
    /// The version, once it is known.
    pub(crate) version: Option<VersionNo>,
    /// Hash of the encryption context.
    pub(crate) context_hash: Option<[u8; 32]>,
    /// Why it is allowed or refused, for those who may read the log.
    pub(crate) reason: Why,
    /// The encryption context, for policy.
    pub(crate) context: Option<&'a EncryptionContext>,
    /// The key as policy was told of it, without material.
    pub(crate) known: Option<Arc<LoadedKey>>,
    /// What is acted on, when it is no key.
    pub(crate) target: Option<String>,
}

impl<'a> Trail<'a> {
    /// The trail of an operation that begins.
    pub(crate) fn of<A: Action>(engine: &Engine, call: &'a Call) -> Self {
        Self {
            call,
            at: engine.clock.wall(),
            action: A::NAME,
            changes_state: A::CHANGES_STATE,
            intended: AtomicBool::new(false),
            key: None,
            version: None,
            context_hash: None,
            reason: Why::Fixed(""),
            context: None,
            known: None,
            target: None,
        }
    }

    /// The same, with an encryption context that policy may ask about.
    pub(crate) const fn with_context(mut self, context: &'a EncryptionContext) -> Self {
        self.context = Some(context);
        self
    }

    /// The call that this is the trail of.
    pub(crate) const fn call(&self) -> &'a Call {
        self.call
    }

    /// When it began, by the wall clock.
    pub(crate) const fn at(&self) -> Timestamp {
        self.at
    }

    /// Makes the intent durable, once, before the first effect.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the log cannot be written.
    pub(crate) async fn intend(&self, engine: &Engine) -> Result<(), Error> {
        if self.intended.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let event = self.event(Phase::Intent, "pending");
        engine.ports.audit.append_durably(&event).await.map_err(Error::Unavailable)
    }

    /// Records how the operation ended, and hands its outcome on.
    ///
    /// # Errors
    /// That of the operation; [`Error::Unavailable`] when the log cannot be written.
    pub(crate) async fn close<T>(
        self,
        engine: &Engine,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        let phase = if self.changes_state { Phase::Outcome } else { Phase::Whole };
        let result = outcome.as_ref().map_or_else(Error::code, |_| "ok");
        let event = self.event(phase, result);
        let recorded = match phase {
            Phase::Whole => engine.ports.audit.append_answer(&event).await,
            Phase::Intent | Phase::Outcome => engine.ports.audit.append(&event),
        };
        recorded.map_err(Error::Unavailable)?;
        outcome
    }

    fn event(&self, phase: Phase, result: &'static str) -> Event<'_> {
        Event {
            at: self.at,
            request: self.call.caller.request,
            who: &self.call.caller.principal,
            action: self.action,
            phase,
            key: self.key,
            version: self.version,
            context_hash: self.context_hash,
            result,
            reason: self.reason.as_str(),
            source: self.call.caller.source,
            target: self.target.as_deref(),
        }
    }
}

/// The trail of somebody who is not known yet, or known by something else than a credential of
/// his request.
pub(crate) struct Visit {
    who: Principal,
    at: Timestamp,
    request: RequestId,
    address: Option<IpAddr>,
    agent: Option<Agent>,
    action: &'static str,
    target: String,
    intended: AtomicBool,
    bearer: OnceLock<Bearer>,
    is_known: bool,
    is_guess: bool,
    is_for_all: bool,
}

impl Visit {
    /// The trail of a visit that begins.
    pub(crate) fn of(
        engine: &Engine,
        request: RequestId,
        peer: &Peer,
        action: &'static str,
        target: String,
    ) -> Self {
        let (address, agent) = (peer.address, engine.agent(peer));
        let (at, intended) = (engine.clock.wall(), AtomicBool::new(false));
        let who = Principal::named(Self::ANONYMOUS);
        Self {
            who,
            at,
            request,
            address,
            agent,
            action,
            target,
            intended,
            bearer: OnceLock::new(),
            is_known: false,
            is_guess: false,
            is_for_all: false,
        }
    }

    /// The same by somebody who is known.
    pub(crate) fn by(self, who: Principal) -> Self {
        Self { who, is_known: true, ..self }
    }

    /// The same of something that may be a guess. Only so many are looked at, and each of those
    /// leaves its record.
    pub(crate) fn guessing(self) -> Self {
        Self { is_guess: true, ..self }
    }

    /// The same of something that anybody is told.
    pub(crate) fn for_all(self) -> Self {
        Self { is_for_all: true, ..self }
    }

    /// When it began, by the wall clock.
    pub(crate) const fn at(&self) -> Timestamp {
        self.at
    }

    /// What the visitor shows is genuine, whatever comes of it: one vouches for it who is trusted,
    /// and it belongs to somebody. What strangers do hides nothing of this visit.
    pub(crate) fn recognise(&self, voucher: String, name: String) {
        self.bearer.get_or_init(|| Bearer { voucher, name });
    }

    /// The same of something whose owner could not be read: all of those for one target are one.
    pub(crate) fn recognise_unread(&self, voucher: String) {
        self.recognise(voucher, self.target.clone());
    }

    /// Whether an end leaves no record of its own and is counted: who has no session could fill the
    /// log with refusals, and with what anybody is told.
    fn is_only_counted<T>(&self, engine: &Engine, outcome: &Result<T, Error>) -> bool {
        let is_refused = outcome.is_err();
        let is_throttled = matches!(outcome, Err(Error::Throttled { .. }));
        let is_bounded = self.is_guess && !is_throttled;
        let is_intended = self.intended.load(Ordering::Relaxed);
        let is_recorded = self.is_known || is_bounded || is_intended;
        let may_be_counted = !is_recorded && (is_refused || self.is_for_all);
        if !may_be_counted {
            return false;
        }
        let (now, visitors) = (engine.ports.clock.read().since_boot, &engine.visitors);
        !self.bearer.get().map_or_else(
            || visitors.admit_stranger(self.action, self.address, now),
            |bearer| visitors.admit_bearer(self.action, bearer, now),
        )
    }

    /// Records whether a session was opened, and hands it on only then.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] whatever is wrong with what was shown;
    /// [`Error::Unavailable`] when the log cannot be written; else that of the outcome.
    pub(crate) async fn close_opening(
        &self,
        engine: &Engine,
        outcome: Result<Opening, Refused>,
    ) -> Result<Opening, Error> {
        let (outcome, reason) = told(outcome);
        if self.is_only_counted(engine, &outcome) {
            return outcome;
        }
        let who = outcome.as_ref().map_or(&self.who, |opening| &opening.principal);
        let reason = outcome.as_ref().map_or(reason, |opening| opening.note);
        let result = outcome.as_ref().map_or_else(Error::code, |_| "ok");
        self.record(engine, who, Phase::Whole, (result, reason)).await?;
        outcome
    }

    /// Makes the intent durable, before the first effect.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the log cannot be written.
    pub(crate) async fn intend(&self, engine: &Engine) -> Result<(), Error> {
        self.intended.store(true, Ordering::Relaxed);
        self.record(engine, &self.who, Phase::Intent, ("pending", "")).await
    }

    /// Records how the visit ended, and hands its outcome on.
    ///
    /// # Errors
    /// As [`Visit::close_opening`].
    pub(crate) async fn close<T>(
        &self,
        engine: &Engine,
        outcome: Result<T, Refused>,
    ) -> Result<T, Error> {
        let (outcome, reason) = told(outcome);
        if self.is_only_counted(engine, &outcome) {
            return outcome;
        }
        let is_intended = self.intended.load(Ordering::Relaxed);
        let phase = if is_intended { Phase::Outcome } else { Phase::Whole };
        let result = outcome.as_ref().map_or_else(Error::code, |_| "ok");
        self.record(engine, &self.who, phase, (result, reason)).await?;
        outcome
    }

    /// Who it is until that is known.
    const ANONYMOUS: &'static str = "anonymous";

    async fn record(
        &self,
        engine: &Engine,
        who: &Principal,
        phase: Phase,
        (result, reason): (&'static str, &str),
    ) -> Result<(), Error> {
        let event = Event {
            at: self.at,
            request: self.request,
            who,
            action: self.action,
            phase,
            key: None,
            version: None,
            context_hash: None,
            result,
            reason,
            source: source_of(self.address, self.agent.as_ref(), who),
            target: Some(&self.target),
        };
        let recorded = match phase {
            Phase::Whole => engine.ports.audit.append_answer(&event).await,
            Phase::Intent => engine.ports.audit.append_durably(&event).await,
            Phase::Outcome => engine.ports.audit.append(&event),
        };
        recorded.map_err(Error::Unavailable)
    }
}

impl Engine {
    /// Records how many attempts were counted instead of recorded, if there are any.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the log cannot be written; they stay counted.
    pub(crate) async fn record_counted_attempts(&self) -> Result<(), Error> {
        let counted = self.visitors.counted();
        if counted.is_empty() {
            return Ok(());
        }
        let request = draw_id(&mut *self.ports.entropy.open()).unwrap_or_default();
        let event = Event {
            at: self.clock.wall(),
            request: RequestId(request),
            who: &Principal::named(AUDIT_LOG),
            action: AUDIT_SUMS,
            phase: Phase::Whole,
            key: None,
            version: None,
            context_hash: None,
            result: "ok",
            reason: &sum_of(&counted),
            source: Source::default(),
            target: None,
        };
        self.ports.audit.append_durably(&event).await.map_err(Error::Unavailable)?;
        // Not before: who is stopped while he waits for the log loses nothing.
        self.visitors.take_off(&counted);
        Ok(())
    }
}

/// How many attempts were counted, and what they were.
fn sum_of(counted: &Counted) -> String {
    let all = counted.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let of_action = |((action, is_genuine), count): (&(&str, bool), &u64)| {
        let by = if *is_genuine { " by bearers of something genuine" } else { "" };
        format!("{count} {action}{by}")
    };
    let of_actions: Vec<_> = counted.iter().map(of_action).collect();
    let of_actions = of_actions.join(", ");
    format!("{all} attempts to come in have no record of their own: {of_actions}")
}

/// What the caller is told, and the word for the log.
fn told<T>(outcome: Result<T, Refused>) -> (Result<T, Error>, &'static str) {
    match outcome {
        Ok(done) => (Ok(done), ""),
        Err(Refused::Token(word)) => (Err(Error::Unauthenticated), word),
        Err(Refused::Other(error)) => (Err(error), ""),
    }
}
