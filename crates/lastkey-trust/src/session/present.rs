//! Presenting a session: what is known about the request besides the credential.
//!
//! Room      `trust`, inside.
//! Holds     A session is never looked at without asking the clock, the connection and the
//!           revocations.

use core::net::IpAddr;

use lastkey_core::time::Timestamp;

use super::{Narrowing, Session, Subject};
use crate::revocation::Revocations;

/// How far the clocks of two replicas may be apart, in seconds.
const CLOCK_SKEW: u64 = 60;

/// One request, as far as it decides whether a session is good.
#[derive(Clone, Copy, Debug)]
pub struct Presentation<'a> {
    /// The wall clock.
    pub now: Timestamp,
    /// Address of the peer; `None` on a local socket.
    pub source: Option<IpAddr>,
    /// SHA-256 of the client certificate that TLS verified.
    pub certificate: Option<&'a [u8; 32]>,
    /// The node whose agent made the connection, by its verified certificate.
    pub agent: Option<NodeAgent<'a>>,
    /// What was revoked.
    pub revocations: &'a Revocations,
}

/// The agent of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAgent<'a> {
    /// The cluster that its node belongs to, by the name here.
    pub cluster: &'a str,
    /// Its node.
    pub node: &'a str,
}

impl NodeAgent<'_> {
    /// Whether a pod of this cluster and node is one of its own. Two clusters may have nodes of
    /// the same name, so the name alone says nothing.
    #[must_use]
    pub fn serves(&self, cluster: &str, node: Option<&str>) -> bool {
        self.cluster == cluster && node == Some(self.node)
    }
}

/// A session that is good for this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The session; its end is the earlier one of its own and of the caveats.
    pub session: Session,
    /// What the caveats of a bearer leave; everything, for a triple.
    pub narrowing: Narrowing,
}

/// The credential is not good. One sentence for the caller, a word for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the presented credential is not valid")]
pub struct NotAccepted(pub(crate) &'static str);

impl NotAccepted {
    /// The word for the audit log: `malformed`, `unknown_epoch`, `not_authentic`,
    /// `not_yet_valid`, `expired`, `source`, `certificate`, `provider`,
    /// or a word of [`Revocations::is_revoked`] or of `sigv4::SignatureError::word`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.0
    }
}

impl Opened {
    /// What an authentic credential says.
    pub(super) fn of(mut session: Session, narrowing: Narrowing) -> Self {
        if let Some(until) = narrowing.until() {
            session.expires_at = session.expires_at.min(until);
        }
        Self { session, narrowing }
    }
}

/// Checks everything but authenticity.
pub(super) fn check(session: &Session, request: &Presentation<'_>) -> Result<(), NotAccepted> {
    if session.issued_at.0 > request.now.0.saturating_add(CLOCK_SKEW) {
        return Err(NotAccepted("not_yet_valid"));
    }
    if request.now >= session.expires_at {
        return Err(NotAccepted("expired"));
    }
    if !comes_from_its_source(session, request.source) {
        return Err(NotAccepted("source"));
    }
    if session.certificate.is_some() && session.certificate.as_ref() != request.certificate {
        return Err(NotAccepted("certificate"));
    }
    if session.via_provider && !comes_by_provider(&session.subject, request.agent) {
        return Err(NotAccepted("provider"));
    }
    request.revocations.is_revoked(session).map_or(Ok(()), |word| Err(NotAccepted(word)))
}

fn comes_from_its_source(session: &Session, source: Option<IpAddr>) -> bool {
    session.sources.is_empty()
        || source.is_some_and(|address| session.sources.iter().any(|net| net.contains(address)))
}

/// A pod's credential comes by the agent of the pod's own node, which is known for both.
fn comes_by_provider(subject: &Subject, agent: Option<NodeAgent<'_>>) -> bool {
    match subject {
        Subject::Workload(workload) => {
            agent.is_some_and(|agent| agent.serves(&workload.cluster, workload.node.as_deref()))
        }
        Subject::Federated(_)
        | Subject::User(_)
        | Subject::Node { .. }
        | Subject::Spiffe { .. } => false,
    }
}
