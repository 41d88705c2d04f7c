//! Use case: the certificate of a workload, on the connection, for a session of ours.
//!
//! Room      `service`. What a certificate says is judged in `trust`; here it meets the role.
//! Source    X.509-SVID of the SPIFFE project; `docs/identity.md`, "Workloads with a SPIFFE id".
//! Holds     the role says which trust domain's authorities are asked, never the certificate. A
//!           session is good only on connections with that certificate, and no longer than it.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::access::RoleHolders;
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::principal::Peer;
use lastkey_trust::session::{AuthStrength, Session, Subject};

use crate::access::{Opening, ProviderTrust};
use crate::audited::Visit;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::exchange_token::{ACTION, Refused, admit_id, check_wishes, gone, session};

/// What is asked for with a certificate.
#[derive(Debug)]
pub struct Request {
    /// The role to open a session for.
    pub role: Name,
    /// How long; what the role allows and the certificate lasts at most.
    pub duration: Option<Duration>,
    /// A policy that only takes away, in Cedar.
    pub policy: Option<String>,
}

impl Engine {
    /// Opens a session for the workload whose certificate is on the connection.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] whatever is wrong with certificate or role; [`Error::Invalid`]
    /// for a length or policy that no session could have; [`Error::LimitExceeded`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn present_certificate(
        self: &Arc<Self>,
        id: RequestId,
        peer: &Peer,
        request: Request,
    ) -> Result<Opening, Error> {
        check_wishes(request.duration, request.policy.as_deref())?;
        let visit = Visit::of(self, id, peer, ACTION, format!("role/{}", request.role));
        let outcome = self.try_present(peer, request, &visit);
        visit.close_opening(self, outcome).await
    }

    fn try_present(
        &self,
        peer: &Peer,
        request: Request,
        visit: &Visit,
    ) -> Result<Opening, Refused> {
        let shown = peer.certificate.as_ref().ok_or(Refused::Token("no_certificate"))?;
        let access = self.access.get();
        let role = access.roles.get(&request.role).ok_or(Refused::Token("no_such_role"))?;
        let RoleHolders::Spiffe { provider, ids } = &role.holders else {
            return Err(Refused::Token("not_for_certificates"));
        };
        let known = access.providers.get(provider).ok_or_else(|| Error::Internal(gone()))?;
        let ProviderTrust { domain, .. } = known;
        let domain = domain.as_ref().ok_or_else(|| Error::Internal(gone()))?;
        let workload = domain.verify(&shown.chain, visit.at())?;
        visit.recognise(format!("provider/{provider}"), workload.id.as_str().to_owned());
        admit_id(&workload.id, ids)?;
        let subject = Subject::Spiffe { id: workload.id.as_str().to_owned() };
        let usual = session(role, subject, (request.duration, request.policy), visit.at());
        let session = Session {
            expires_at: usual.expires_at.min(workload.expires_at),
            certificate: Some(workload.fingerprint),
            strength: AuthStrength { methods: vec![POSSESSION.to_owned()], mfa_at: None },
            ..usual
        };
        Ok(self.sessions.seal(session, &mut *self.ports.entropy.open())?)
    }
}

/// Proof that one has a key (RFC 8176).
const POSSESSION: &str = "pop";
