//! Use case: a token of somebody else for a session of ours.
//!
//! Room      `service`. What a token says is judged in `trust`; here it meets the role.
//! Source    RFC 8693 for the idea; `docs/identity.md`.
//! Holds     the role says whose tokens are looked at, never the token. Whatever is wrong, the
//!           caller learns that it is refused and the log learns the word. Either there is a
//!           session or there is an error, never both.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::access::{
    DEFAULT_SESSION_SECS, MAX_SESSION_SECS, MIN_SESSION_SECS, Provider, Role, RoleHolders,
};
use lastkey_core::ids::{Name, RequestId, SessionId};
use lastkey_core::ports::{Cause, StoreError};
use lastkey_core::principal::Peer;
use lastkey_core::record::RecordPath;
use lastkey_core::time::Timestamp;
use lastkey_policy::PolicySet;
use lastkey_secret::SecretVec;
use lastkey_trust::refusal::Refusal;
use lastkey_trust::service_account::{ClusterTrust, ServiceAccountBinding};
use lastkey_trust::session::{AuthStrength, Federated, Session, Subject, Workload};
use lastkey_trust::svid::IdPattern;
use lastkey_trust::x509::SpiffeId;
use lastkey_trust::{oidc, service_account};

use crate::access::{Access, Opening, bound};
use crate::audited::Visit;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::fetch_keys::Whose;

/// What is exchanged.
#[derive(Debug)]
pub struct Request {
    /// The token.
    pub token: SecretVec,
    /// The role to open a session for.
    pub role: Name,
    /// How long; [`DEFAULT_SESSION_SECS`] or what the role allows when it is left out.
    pub duration: Option<Duration>,
    /// A policy that only takes away, in Cedar.
    pub policy: Option<String>,
    /// What an ID token has to carry.
    pub nonce: Option<SecretVec>,
}

/// Where people of a provider log in.
#[derive(Clone, Debug)]
pub struct LoginPlace {
    /// Its issuer.
    pub issuer: String,
    /// The client to log in as.
    pub client_id: String,
    /// The authority of its servers, in PEM.
    pub authority: Option<String>,
}

/// What the audit log calls it.
pub(crate) const ACTION: &str = "sts:OpenSession";

impl Engine {
    /// Opens a session for the holder of a token.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] whatever is wrong with token or role; [`Error::Invalid`] for a
    /// length or policy that no token could have; [`Error::LimitExceeded`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn exchange_token(
        self: &Arc<Self>,
        id: RequestId,
        peer: &Peer,
        request: Request,
    ) -> Result<Opening, Error> {
        check_wishes(request.duration, request.policy.as_deref())?;
        let visit = Visit::of(self, id, peer, ACTION, format!("role/{}", request.role));
        let outcome = self.try_exchange(&request, &visit).await;
        visit.close_opening(self, outcome).await
    }

    async fn try_exchange(
        self: &Arc<Self>,
        request: &Request,
        visit: &Visit,
    ) -> Result<Opening, Refused> {
        let now = visit.at();
        let judged = match self.access.get().judge(request, visit) {
            // The issuer may have new keys, which are worth a look now and then.
            Err(Refused::Token(word)) if word == Refusal::UnknownKey.word() => {
                self.refresh_keys_of(&request.role).await;
                self.access.get().judge(request, visit)?
            }
            judged => judged?,
        };
        let note = match &judged.subject {
            Subject::Workload(one) => {
                self.check_alive(one, &request.token, &judged.audiences, now).await?
            }
            Subject::Federated(_)
            | Subject::User(_)
            | Subject::Node { .. }
            | Subject::Spiffe { .. } => "",
        };
        let Judged { role, subject, strength, .. } = judged;
        let wishes = (request.duration, request.policy.clone());
        let session = Session { strength, ..session(&role, subject, wishes, now) };
        let opening = self.sessions.seal(session, &mut *self.ports.entropy.open())?;
        Ok(Opening { note, ..opening })
    }

    /// Where people of a provider log in. Whoever asks is not known yet.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when there is none; [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn login_place(
        &self,
        id: RequestId,
        peer: &Peer,
        provider: Name,
    ) -> Result<LoginPlace, Error> {
        let target = format!("provider/{provider}");
        let visit = Visit::of(self, id, peer, "sts:ReadProvider", target).for_all();
        let found = self.read_one::<Provider>(&RecordPath::provider(&provider)).await;
        let place = found.map_err(Refused::Other).and_then(|found| {
            // Where no token is taken, nobody logs in.
            let found = found.filter(|(provider, _)| !provider.audiences.is_empty());
            let (provider, _) = found.ok_or(Refused::Token("no_such_provider"))?;
            Ok(LoginPlace {
                issuer: provider.issuer,
                client_id: provider.audiences.into_iter().next().unwrap_or_default(),
                authority: provider.keys.authority,
            })
        });
        visit.close(self, place).await
    }

    async fn refresh_keys_of(self: &Arc<Self>, role: &Name) {
        let whose = match self.access.get().roles.get(role).map(|role| &role.holders) {
            Some(RoleHolders::ServiceAccounts { cluster, .. }) => Whose::Cluster(cluster.clone()),
            Some(RoleHolders::Claims { provider, .. } | RoleHolders::Spiffe { provider, .. }) => {
                Whose::Provider(provider.clone())
            }
            None => return,
        };
        self.refresh_keys(whose).await;
    }
}

/// A token and a role that go together.
struct Judged {
    role: Role,
    subject: Subject,
    strength: AuthStrength,
    /// What the token's audience may be.
    audiences: Vec<String>,
}

impl Access {
    fn judge(&self, request: &Request, visit: &Visit) -> Result<Judged, Refused> {
        let role = self.roles.get(&request.role).ok_or(Refused::Token("no_such_role"))?;
        let (subject, strength, audiences) = match &role.holders {
            RoleHolders::ServiceAccounts {
                cluster,
                namespaces,
                service_accounts,
                allow_without_pod,
            } => {
                let binding = ServiceAccountBinding {
                    cluster: cluster.as_str().to_owned(),
                    namespaces: namespaces.clone(),
                    service_accounts: service_accounts.clone(),
                    allow_without_pod: *allow_without_pod,
                };
                let trust = self.clusters.get(cluster);
                let trust = trust.ok_or_else(|| Error::Internal(gone()))?;
                let subject = workload(trust, &binding, &request.token, visit)?;
                (subject, AuthStrength::default(), trust.audiences.clone())
            }
            RoleHolders::Claims { provider, claims } => {
                let bounds = claims.iter().map(|(c, v)| (c.clone(), vec![bound(v)])).collect();
                let (subject, strength) = federated(self, provider, bounds, request, visit)?;
                (subject, strength, Vec::new())
            }
            RoleHolders::Spiffe { provider, ids } => {
                let identity = identity(self, provider, request, visit)?;
                let id = SpiffeId::parse(&identity.subject)?;
                admit_id(&id, ids)?;
                let subject = Subject::Spiffe { id: id.as_str().to_owned() };
                (subject, AuthStrength::default(), Vec::new())
            }
        };
        Ok(Judged { role: role.clone(), subject, strength, audiences })
    }
}

/// Why there is no session.
pub(crate) enum Refused {
    /// Token and role do not go together; a word for the log.
    Token(&'static str),
    /// Something else.
    Other(Error),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Token(refusal.word())
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Other(error.into())
    }
}

/// Whether a session may last so long and be narrowed like this.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn check_wishes(duration: Option<Duration>, policy: Option<&str>) -> Result<(), Error> {
    if let Some(duration) = duration
        && !(MIN_SESSION_SECS..=MAX_SESSION_SECS).contains(&duration.as_secs())
    {
        return Err(Error::invalid("duration_seconds", "expected 60 to 43200"));
    }
    match policy {
        Some(text) => PolicySet::check_session_policy(text)
            .map_err(|error| Error::invalid("policy", error.to_string())),
        None => Ok(()),
    }
}

fn workload(
    trust: &ClusterTrust,
    binding: &ServiceAccountBinding,
    token: &SecretVec,
    visit: &Visit,
) -> Result<Subject, Refused> {
    let verified = service_account::verify(token, trust, visit.at());
    let claims = recognised(visit, format!("cluster/{}", trust.cluster), verified, |claims| {
        format!("{}/{}", claims.namespace, claims.service_account.name)
    })?;
    binding.admit(&claims)?;
    Ok(Subject::Workload(Workload {
        cluster: claims.cluster,
        namespace: claims.namespace,
        service_account: claims.service_account,
        pod: claims.pod,
        node: claims.node.map(|node| node.name),
        token_id: claims.token_id,
    }))
}

fn federated(
    access: &Access,
    provider: &Name,
    bound_claims: std::collections::BTreeMap<String, Vec<oidc::Bound>>,
    request: &Request,
    visit: &Visit,
) -> Result<(Subject, AuthStrength), Refused> {
    let identity = identity(access, provider, request, visit)?;
    for (claim, bounds) in &bound_claims {
        let value = identity.claims.at_path(claim).ok_or(Refusal::ClaimMissing)?;
        if !bounds.iter().any(|bound| bound.admits(value)) {
            return Err(Refusal::ClaimMismatch.into());
        }
    }
    let strength = AuthStrength { methods: identity.methods, mfa_at: None };
    let subject = Subject::Federated(Federated {
        provider: identity.provider,
        subject: identity.subject,
        groups: identity.groups,
        token_id: identity.token_id,
    });
    Ok((subject, strength))
}

/// What a provider vouches for.
fn identity(
    access: &Access,
    provider: &Name,
    request: &Request,
    visit: &Visit,
) -> Result<oidc::Identity, Refused> {
    let trust = access.providers.get(provider).ok_or_else(|| Error::Internal(gone()))?;
    // A trust domain need not sign tokens.
    let trust = trust.tokens.as_ref().ok_or(Refused::Token("no_tokens"))?;
    let verified = oidc::verify(&request.token, trust, request.nonce.as_ref(), visit.at());
    let voucher = format!("provider/{provider}");
    Ok(recognised(visit, voucher, verified, |identity| identity.subject.clone())?)
}

/// What came of verifying a token. Once its signature was verified its bearer is no stranger,
/// whatever else is wrong with it.
fn recognised<T>(
    visit: &Visit,
    voucher: String,
    verified: Result<T, Refusal>,
    name: impl FnOnce(&T) -> String,
) -> Result<T, Refusal> {
    match &verified {
        Ok(token) => visit.recognise(voucher, name(token)),
        Err(refusal) if refusal.is_after_signature() => visit.recognise_unread(voucher),
        Err(_) => {}
    }
    verified
}

/// Whether an id is one of those that a role is for.
///
/// # Errors
/// [`Refusal::ClaimMismatch`].
pub(crate) fn admit_id(id: &SpiffeId, ids: &[String]) -> Result<(), Refusal> {
    let admits = |one: &String| IdPattern::parse(one).is_ok_and(|pattern| pattern.admits(id));
    if ids.iter().any(admits) { Ok(()) } else { Err(Refusal::ClaimMismatch) }
}

/// A snapshot whose roles are checked names none that is not there.
pub(crate) fn gone() -> Cause {
    "a role is for somebody who is not there".into()
}

/// A session of a role, as long and as narrow as is wished and the role allows.
pub(crate) fn session(
    role: &Role,
    subject: Subject,
    (duration, policy): (Option<Duration>, Option<String>),
    now: Timestamp,
) -> Session {
    let asked = duration.map_or(DEFAULT_SESSION_SECS, |duration| duration.as_secs());
    let seconds = asked.min(role.max_session_secs).min(MAX_SESSION_SECS);
    Session {
        // The id is drawn when it is sealed.
        id: SessionId([0; 16]),
        subject,
        role: Some(role.name.as_str().to_owned()),
        issued_at: now,
        expires_at: Timestamp(now.0.saturating_add(seconds)),
        via_provider: role.by_node_agent,
        policy,
        sources: Vec::new(),
        certificate: None,
        strength: AuthStrength::default(),
    }
}
