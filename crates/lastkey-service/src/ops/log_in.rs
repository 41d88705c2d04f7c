//! Use case: a person's password and one-time code for a session.
//!
//! Room      `service`.
//! Holds     whatever is wrong, the caller learns that it is refused, after the same work, and
//!           the log learns the word. A one-time code is used up, durably, before anybody is let
//!           in by it.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::access::{DEFAULT_SESSION_SECS, MAX_SESSION_SECS, User};
use lastkey_core::ids::{Name, RequestId, SessionId};
use lastkey_core::ports::{Expected, Revision, StoreError, Write};
use lastkey_core::principal::Peer;
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::time::Timestamp;
use lastkey_secret::SecretVec;
use lastkey_trust::session::{self, AuthStrength, Session, Subject};

use crate::access::Opening;
use crate::audited::Visit;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::exchange_token::{ACTION, Refused, check_wishes};
use crate::people::{ADMINISTRATOR_ROLES, MAX_PASSWORD_LEN};
use crate::sealing::detached;

/// Who logs in, and with what.
#[derive(Debug)]
pub struct Request {
    /// His name.
    pub name: Name,
    /// His password.
    pub password: SecretVec,
    /// The one-time code that his authenticator shows.
    pub code: SecretVec,
    /// The administrator's role to take, one of his groups; none to act by his groups.
    pub role: Option<Name>,
    /// How long; [`DEFAULT_SESSION_SECS`] when it is left out.
    pub duration: Option<Duration>,
    /// A policy that only takes away, in Cedar.
    pub policy: Option<String>,
}

impl Engine {
    /// Opens a session for a person. Runs to its end even when the caller goes away: every
    /// attempt that is looked at leaves its record.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] whatever is wrong with name, password, code or role;
    /// [`Error::Throttled`] after too many attempts, for this name or in all;
    /// [`Error::Invalid`] for a length or policy that no session could have;
    /// [`Error::LimitExceeded`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn log_in(
        self: &Arc<Self>,
        id: RequestId,
        peer: &Peer,
        request: Request,
    ) -> Result<Opening, Error> {
        check_wishes(request.duration, request.policy.as_deref())?;
        let target = format!("user/{}", request.name);
        let visit = Visit::of(self, id, peer, ACTION, target).guessing();
        let engine = Arc::clone(self);
        detached(async move {
            let outcome = engine.try_log_in(request, visit.at()).await;
            visit.close_opening(&engine, outcome).await
        })
        .await?
    }

    async fn try_log_in(&self, request: Request, now: Timestamp) -> Result<Opening, Refused> {
        let Request { name, password, code, role, duration, policy } = request;
        self.attempts.take(&name, self.ports.clock.read().since_boot)?;
        if password.len() > MAX_PASSWORD_LEN {
            return Err(Refused::Token("password"));
        }
        let found = self.read_one::<User>(&RecordPath::user(&name)).await?;
        let kept = found.as_ref().and_then(|(user, _)| user.password.clone());
        let is_password = self.is_password(password, kept).await?;
        let (user, revision) = found.ok_or(Refused::Token("no_such_user"))?;
        let step = self.checked_step(&user, is_password, &code, now)?;
        check_role(&user, role.as_ref())?;
        let (groups, name) = (user.groups.clone(), user.name.clone());
        self.use_step(user, revision, step).await?;
        self.attempts.forget(&name);
        let groups = groups.iter().map(ToString::to_string).collect();
        let subject = Subject::User(session::User { name: name.to_string(), groups });
        let seconds = duration.map_or(DEFAULT_SESSION_SECS, |duration| duration.as_secs());
        let session = Session {
            // The id is drawn when it is sealed.
            id: SessionId([0; 16]),
            subject,
            role: role.map(|role| role.to_string()),
            issued_at: now,
            expires_at: Timestamp(now.0.saturating_add(seconds.min(MAX_SESSION_SECS))),
            via_provider: false,
            policy,
            sources: Vec::new(),
            certificate: None,
            strength: strength(now),
        };
        Ok(self.sessions.seal(session, &mut *self.ports.entropy.open())?)
    }

    /// The step of a good code of somebody who may come in.
    fn checked_step(
        &self,
        user: &User,
        is_password: bool,
        code: &SecretVec,
        now: Timestamp,
    ) -> Result<u64, Refused> {
        if user.password.is_none() {
            return Err(Refused::Token("not_enrolled"));
        }
        if !is_password {
            return Err(Refused::Token("password"));
        }
        let step = self.step_of(user, code, now)?.ok_or(Refused::Token("one_time_code"))?;
        if user.disabled { Err(Refused::Token("disabled")) } else { Ok(step) }
    }

    /// Uses a step up. Of two who show the same code at the same time one comes in.
    async fn use_step(&self, user: User, revision: Revision, step: u64) -> Result<(), Refused> {
        let path = RecordPath::user(&user.name);
        let record = Some(Record::User(User { last_step: step, ..user }));
        let write = Write { path, expected: Expected::At(revision), record };
        match self.store.commit(vec![write]).await {
            Err(StoreError::Conflict) => Err(Refused::Token("one_time_code_used")),
            outcome => Ok(outcome.map(drop)?),
        }
    }
}

/// A password and a one-time code, as RFC 8176 names them.
fn strength(now: Timestamp) -> AuthStrength {
    let methods = ["pwd", "otp", "mfa"].map(str::to_owned).to_vec();
    AuthStrength { methods, mfa_at: Some(now) }
}

fn check_role(user: &User, role: Option<&Name>) -> Result<(), Refused> {
    let Some(role) = role else { return Ok(()) };
    let is_administrator = ADMINISTRATOR_ROLES.contains(&role.as_str());
    if is_administrator && user.groups.contains(role) {
        Ok(())
    } else {
        Err(Refused::Token("role"))
    }
}
