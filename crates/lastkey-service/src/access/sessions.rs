//! Sessions: sealed under the secrets of epochs, opened without the store, revoked by a set.
//!
//! Room      `service`. What a session is and how it is sealed is the business of `trust`.
//! Holds     a login writes nothing. An epoch's secret outlives the last session that was sealed
//!           under it, and no longer.

use std::sync::{Arc, PoisonError, RwLock};

use lastkey_core::access::{MAX_SESSION_SECS, Revocation, RevokedWhat, SessionEpoch};
use lastkey_core::ids::{Name, SessionId};
use lastkey_core::ports::{Expected, Store, StoreError, Write};
use lastkey_core::principal::{
    Bound, Identity, Kind, Limit, Peer, Principal, SPIFFE, Session, SignedHead, Workload,
};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::Entropy;
use lastkey_secret::SecretVec;
use lastkey_trust::refusal::Refusal;
use lastkey_trust::revocation::Revocations;
use lastkey_trust::session::{
    self, Caveat, EpochKeys, EpochRing, KeptBearers, NotAccepted, Opened, Presentation, SealError,
    Subject, Triple,
};
use lastkey_trust::sigv4::{self, KeptKeys};

use crate::access::{Agent, TpmKeys};
use crate::engine::Engine;
use crate::error::Error;
use crate::root::{MaterialKeys, SecretPlace, draw_secret};

/// How long new sessions are sealed under one epoch, in seconds: a day.
const EPOCH_SECS: u64 = 86_400;

/// How long an epoch's secret is kept after its first session, in seconds.
const EPOCH_KEPT_SECS: u64 = EPOCH_SECS + MAX_SESSION_SECS + 3_600;

/// The service in the scope of a signature.
const SIGNED_SERVICE: &str = "lastkey";

/// What opens and seals sessions.
#[derive(Debug, Default)]
pub(crate) struct SessionKeys {
    ring: RwLock<EpochRing>,
    signing: KeptKeys,
    opened: KeptBearers<Principal>,
    revocations: RwLock<Revocations>,
}

/// A new session, in both of its forms.
pub struct Opening {
    /// The bearer token.
    pub bearer: SecretVec,
    /// The triple.
    pub triple: Triple,
    /// Who the holder is.
    pub principal: Principal,
    /// What was found out of him beside what he showed, for the audit log.
    pub(crate) note: &'static str,
}

impl SessionKeys {
    /// Reads epochs and revocations.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn load(store: &dyn Store, materials: &MaterialKeys) -> Result<Self, Error> {
        let mut ring = EpochRing::default();
        for stored in store.scan(&PathRange::kind("session-epoch", None, usize::MAX)).await? {
            let Record::SessionEpoch(epoch) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            ring.insert(open_epoch(&epoch, materials)?);
        }
        let mut revocations = Revocations::default();
        for stored in store.scan(&PathRange::kind("revocation", None, usize::MAX)).await? {
            let Record::Revocation(revocation) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            if !is_possible(&revocation.what) {
                return Err(StoreError::Corrupt(stored.path).into());
            }
            revocations.insert(&revocation);
        }
        let (ring, revocations) = (RwLock::new(ring), RwLock::new(revocations));
        let (signing, opened) = (KeptKeys::default(), KeptBearers::default());
        Ok(Self { ring, signing, opened, revocations })
    }

    /// Opens a bearer token.
    ///
    /// # Errors
    /// [`NotAccepted`], whatever is wrong.
    pub(crate) fn open_bearer(
        &self,
        bearer: &SecretVec,
        from: Origin<'_>,
        now: Timestamp,
    ) -> Result<Principal, NotAccepted> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        ring.open_kept(&self.opened, bearer, &presentation(from, now, &revocations), principal)
    }

    /// Opens the session of a signed request.
    ///
    /// # Errors
    /// [`NotAccepted`], whatever is wrong.
    pub(crate) fn open_signed(
        &self,
        head: &SignedHead,
        from: Origin<'_>,
        now: Timestamp,
    ) -> Result<Principal, NotAccepted> {
        let headers: Vec<_> = head.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let request = sigv4::Request {
            method: &head.method,
            path: &head.path,
            query: &head.query,
            headers: &headers,
            body_sha256: &head.body_sha256,
        };
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        let presentation = presentation(from, now, &revocations);
        let service = SIGNED_SERVICE;
        sigv4::open_signed(&ring, &request, service, &presentation, &self.signing).map(principal)
    }

    /// Seals a session; its id is drawn here.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when such a session is revoked already,
    /// [`Error::LimitExceeded`] when too much is known of the caller; [`Error::Internal`].
    pub(crate) fn seal(
        &self,
        mut session: session::Session,
        entropy: &mut dyn Entropy,
    ) -> Result<Opening, Error> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let keys = ring.newest().ok_or_else(|| Error::Internal("there is no epoch".into()))?;
        session.id = keys.draw_id(entropy).map_err(|error| Error::Internal(error.into()))?;
        // A pod that is gone opens no new session, whatever its token says.
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        if revocations.is_revoked(&session).is_some() {
            return Err(Error::Unauthenticated);
        }
        drop(revocations);
        let bearer = keys.seal_bearer(&session, entropy)?;
        let triple = keys.seal_triple(&session, entropy)?;
        let principal = principal_of(session, Vec::new());
        Ok(Opening { bearer, triple, principal, note: "" })
    }

    /// The session whose bearer token this is, good or not.
    pub(crate) fn holder_of_bearer(&self, bearer: &SecretVec) -> Option<SessionId> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.holder_of_bearer(bearer).map(|session| session.id)
    }

    /// The session whose secret this is.
    pub(crate) fn holder_of_triple(&self, id: &str, secret: &SecretVec) -> Option<SessionId> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.holder_of_triple(id, secret)
    }

    /// Whether the certificate of a node that was signed at this time is revoked.
    pub(crate) fn is_node_revoked(&self, node: &Name, issued_at: Timestamp) -> bool {
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        revocations.is_node_revoked(node.as_str(), issued_at).is_some()
    }

    /// The first moment from which a certificate of a node is not revoked.
    pub(crate) fn node_good_from(&self, node: &Name) -> Timestamp {
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        let until = revocations.node_revoked_until(node.as_str());
        until.map_or_else(Timestamp::default, |until| Timestamp(until.0.saturating_add(1)))
    }

    /// A challenge for the TPM of a node.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(crate) fn challenge(&self, node: &Name, now: Timestamp) -> Result<Vec<u8>, Error> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let keys = ring.newest().ok_or_else(|| Error::Internal("there is no epoch".into()))?;
        Ok(keys.challenge(node, now))
    }

    /// Whether a challenge was made here for this node, and is not over.
    ///
    /// # Errors
    /// [`Refusal`], as [`EpochRing::check_challenge`].
    pub(crate) fn check_challenge(
        &self,
        node: &Name,
        challenge: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.check_challenge(node, challenge, now)
    }

    /// Lets a revocation count from now on.
    pub(crate) fn revoke(&self, revocation: &Revocation) {
        self.revocations.write().unwrap_or_else(PoisonError::into_inner).insert(revocation);
    }

    /// Takes up an epoch that has begun, and forgets the secrets of those before the oldest one
    /// that is kept.
    fn turn(&self, oldest: Option<u32>, begun: Option<EpochKeys>) {
        let oldest = oldest.or(begun.as_ref().map(EpochKeys::number));
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = begun {
            ring.insert(keys);
        }
        if let Some(oldest) = oldest {
            ring.forget_before(oldest);
        }
    }

    fn forget(&self, now: Timestamp, keys: &TpmKeys) {
        let mut revocations = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        revocations.prune(now, |what, issued_until| keys.need(what, issued_until));
    }
}

impl From<SealError> for Error {
    fn from(error: SealError) -> Self {
        match error {
            SealError::TooLong | SealError::PolicyTooLong => {
                Self::LimitExceeded("too much is to be carried by this session")
            }
            SealError::OtherEpoch | SealError::Lifetime | SealError::Failed => {
                Self::Internal(error.into())
            }
        }
    }
}

fn open_epoch(epoch: &SessionEpoch, materials: &MaterialKeys) -> Result<EpochKeys, Error> {
    let place = SecretPlace::SessionEpoch(epoch.number);
    let secret = materials.unwrap_secret(place, &epoch.secret).map_err(Error::Internal)?;
    let secret =
        secret.to_array::<32>().ok_or_else(|| Error::Internal("a secret is cut".into()))?;
    EpochKeys::derive(epoch.number, &secret).map_err(|error| Error::Internal(error.into()))
}

/// Where a session is presented from.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The other end of the connection.
    pub(crate) peer: &'a Peer,
    /// The agent there, if its certificate is good now.
    pub(crate) agent: Option<&'a Agent>,
}

fn presentation<'a>(
    from: Origin<'a>,
    now: Timestamp,
    revocations: &'a Revocations,
) -> Presentation<'a> {
    Presentation {
        now,
        source: from.peer.address,
        certificate: from.peer.certificate.as_ref().map(|shown| &shown.fingerprint),
        agent: from.agent.map(Agent::as_trusted),
        revocations,
    }
}

fn principal(opened: Opened) -> Principal {
    let limits = opened.narrowing.caveats().iter().filter_map(|caveat| match caveat {
        Caveat::Actions(actions) => Some(Limit::Actions(actions.clone())),
        Caveat::Keys(keys) => Some(Limit::Keys(keys.clone())),
        // It is the end of the session already.
        Caveat::Until(_) => None,
    });
    let limits = limits.collect();
    principal_of(opened.session, limits)
}

fn principal_of(session: session::Session, limits: Vec<Limit>) -> Principal {
    let name = session.subject.to_string();
    let (kind, groups, token_id) = subject_parts(session.subject);
    let session = Session {
        id: session.id,
        role: session.role,
        issued_at: session.issued_at,
        expires_at: session.expires_at,
        token_id,
        methods: session.strength.methods,
        second_factor_at: session.strength.mfa_at,
        policy: session.policy.map(Arc::from),
        limits,
    };
    Principal::verified(Identity { name, kind, groups, session: Some(session) })
}

fn subject_parts(subject: Subject) -> (Kind, Vec<String>, Option<String>) {
    match subject {
        Subject::Workload(one) => {
            let token_id = one.token_id.clone();
            (Kind::Workload(workload(one)), Vec::new(), token_id)
        }
        Subject::Federated(one) => {
            let kind = Kind::Federated { provider: one.provider, subject: one.subject };
            (kind, one.groups, one.token_id)
        }
        Subject::User(one) => (Kind::User, one.groups, None),
        Subject::Node { .. } => (Kind::Node, Vec::new(), None),
        Subject::Spiffe { id } => {
            (Kind::Federated { provider: SPIFFE.to_owned(), subject: id }, Vec::new(), None)
        }
    }
}

fn workload(one: session::Workload) -> Workload {
    Workload {
        cluster: one.cluster,
        namespace: one.namespace,
        service_account: one.service_account.name,
        service_account_uid: one.service_account.uid,
        pod: one.pod.map(|pod| Bound { name: pod.name, uid: pod.uid }),
        node: one.node.map(|name| Bound { name, uid: String::new() }),
    }
}

/// Whether a value is one of its kind.
fn is_possible(what: &RevokedWhat) -> bool {
    match what {
        RevokedWhat::Session(id) => id.parse::<SessionId>().is_ok(),
        RevokedWhat::ServiceAccount(path) => path.splitn(3, '/').count() == 3,
        RevokedWhat::Pod(_)
        | RevokedWhat::Node(_)
        | RevokedWhat::Role(_)
        | RevokedWhat::Cluster(_)
        | RevokedWhat::User(_)
        | RevokedWhat::Everything => true,
    }
}

/// Whether a revocation is about something that can be.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn check_revocation(what: &RevokedWhat) -> Result<(), Error> {
    let expected = match what {
        RevokedWhat::Session(_) => "expected the id of a session, 32 hexadecimal digits",
        RevokedWhat::ServiceAccount(_) => "expected CLUSTER/NAMESPACE/NAME of at most 400 bytes",
        RevokedWhat::Everything => return Ok(()),
        RevokedWhat::Pod(_)
        | RevokedWhat::Node(_)
        | RevokedWhat::Role(_)
        | RevokedWhat::Cluster(_)
        | RevokedWhat::User(_) => "expected a name or UID of at most 253 bytes",
    };
    let most = if matches!(what, RevokedWhat::ServiceAccount(_)) { 400 } else { 253 };
    if !(1..=most).contains(&what.value().len()) || !is_possible(what) {
        return Err(Error::invalid("value", expected));
    }
    Ok(())
}

impl Engine {
    /// Begins a new epoch of sessions when it is time, and forgets what no session needs.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another server was faster; [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub(crate) async fn turn_sessions(&self) -> Result<(), Error> {
        let now = self.clock.wall();
        let epochs = self.store.scan(&PathRange::kind("session-epoch", None, usize::MAX)).await?;
        let (mut batch, mut newest, mut oldest) = (Vec::new(), None, None);
        let may_forget = self.clock.observe().hold.is_none();
        for stored in epochs {
            let Record::SessionEpoch(epoch) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            let is_over = now.seconds_since(epoch.created_at) > seconds(EPOCH_KEPT_SECS);
            if is_over && may_forget {
                let expected = Expected::At(stored.revision);
                batch.push(Write { path: stored.path, expected, record: None });
            } else {
                oldest = oldest.or(Some(epoch.number));
            }
            newest = Some((epoch.number, epoch.created_at));
        }
        let is_fresh = newest.is_some_and(|(_, at)| now.seconds_since(at) < seconds(EPOCH_SECS));
        let begun = if is_fresh {
            None
        } else {
            Some(self.begin_epoch(newest.map_or(0, |(number, _)| number), now, &mut batch)?)
        };
        let keys = self.nodes.tpm_keys();
        if may_forget {
            self.forget_revocations(now, &keys, &mut batch).await?;
        }
        if !batch.is_empty() {
            self.store.commit(batch).await?;
        }
        self.sessions.turn(oldest, begun);
        if may_forget {
            self.sessions.forget(now, &keys);
        }
        Ok(())
    }

    fn begin_epoch(
        &self,
        last: u32,
        now: Timestamp,
        batch: &mut Vec<Write>,
    ) -> Result<EpochKeys, Error> {
        let number = last.checked_add(1).ok_or(Error::LimitExceeded("epochs of sessions"))?;
        let mut entropy = self.ports.entropy.open();
        let secret = draw_secret(&mut *entropy).map_err(|error| Error::Internal(error.into()))?;
        let bytes = secret.expose(|bytes| SecretVec::copy_of(bytes));
        let place = SecretPlace::SessionEpoch(number);
        let wrapped = self.keyring.materials.wrap_secret(place, &bytes, &mut *entropy);
        let secret = wrapped.map_err(Error::Internal)?;
        let epoch = SessionEpoch { number, secret, created_at: now };
        let keys = open_epoch(&epoch, &self.keyring.materials)?;
        let path = RecordPath::session_epoch(number);
        let record = Some(Record::SessionEpoch(epoch));
        batch.push(Write { path, expected: Expected::Absent, record });
        Ok(keys)
    }

    async fn forget_revocations(
        &self,
        now: Timestamp,
        keys: &TpmKeys,
        batch: &mut Vec<Write>,
    ) -> Result<(), Error> {
        for stored in self.store.scan(&PathRange::kind("revocation", None, usize::MAX)).await? {
            let Record::Revocation(revocation) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            let is_needed = keys.need(&revocation.what, revocation.issued_until);
            if revocation.needed_until < now && !is_needed {
                let expected = Expected::At(stored.revision);
                batch.push(Write { path: stored.path, expected, record: None });
            }
        }
        Ok(())
    }
}

/// Seconds as a difference of moments; the constants here are small.
fn seconds(span: u64) -> i64 {
    i64::try_from(span).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretArray;

    use super::*;

    fn epoch(number: u32) -> Option<EpochKeys> {
        Some(EpochKeys::derive(number, &SecretArray::copy_of(&[7; 32])).unwrap())
    }

    #[test]
    fn secret_of_an_epoch_goes_with_its_record() {
        let (keys, node) = (SessionKeys::default(), Name::parse("node").unwrap());
        let now = Timestamp(1_800_000_000);
        keys.turn(None, epoch(1));
        let challenge = keys.challenge(&node, now).unwrap();
        let is_known = || keys.check_challenge(&node, &challenge, now).is_ok();
        keys.turn(Some(1), epoch(2));
        keys.turn(Some(1), None);
        assert!(is_known());
        keys.turn(Some(2), None);
        assert!(!is_known());
        // Where all were over, the one that begins is the oldest.
        let challenge = keys.challenge(&node, now).unwrap();
        keys.turn(None, epoch(3));
        assert!(keys.check_challenge(&node, &challenge, now).is_err());
        assert!(keys.challenge(&node, now).is_ok());
    }
}
