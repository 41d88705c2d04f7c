//! Who may come in, and as what, in memory: policies, roles, and whose tokens are taken.
//!
//! Room      `service`.
//! Holds     a snapshot never changes. A change is made into a new snapshot, judged, written, and
//!           only then put in the old one's place; every decision is made by one snapshot.

mod load;
mod nodes;
mod peers;
mod proofs;
mod sessions;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use lastkey_core::access::Role;
use lastkey_core::ids::Name;
use lastkey_core::permit::{Decision, DecisionPoint, Question, Resource};
use lastkey_core::ports::{Expected, Write};
use lastkey_core::principal::Limit;
use lastkey_core::record::{Record, RecordPath};
use lastkey_policy::PolicySet;
use lastkey_trust::authorities::Authorities;
use lastkey_trust::oidc::IssuerTrust;
use lastkey_trust::service_account::ClusterTrust;
use lastkey_trust::svid::TrustDomain;

pub(crate) use self::load::{
    ROLE_DOCUMENT, bound, cluster_trust, is_enrolled_administrator, kubelet_authorities,
    provider_trust,
};
pub use self::nodes::NodeTrust;
pub(crate) use self::nodes::{Agent, Nodes, TpmKeys, is_about, read_authority};
pub use self::peers::PeerTrust;
pub use self::sessions::Opening;
pub(crate) use self::sessions::{Origin, SessionKeys, check_revocation};
use crate::engine::Engine;

/// One state of who may come in and as what.
pub(crate) struct Access {
    /// How often it was changed.
    changes: u64,
    /// Where that is written.
    expected: Expected,
    /// What may be done.
    pub(crate) policies: PolicySet,
    /// Whose ServiceAccount tokens are taken.
    pub(crate) clusters: HashMap<Name, ClusterTrust>,
    /// By whose certificates nodes may join, for each cluster that lets them.
    pub(crate) kubelets: HashMap<Name, Authorities>,
    /// Whose other tokens are taken.
    pub(crate) providers: HashMap<Name, ProviderTrust>,
    /// What sessions can be opened for.
    pub(crate) roles: HashMap<Name, Role>,
}

/// What is trusted of a provider.
pub(crate) struct ProviderTrust {
    /// Its tokens, if it signs any.
    pub(crate) tokens: Option<IssuerTrust>,
    /// The certificates of its workloads, if it speaks for a trust domain.
    pub(crate) domain: Option<TrustDomain>,
}

impl ProviderTrust {
    /// The trust domain that it speaks for.
    fn domain(&self) -> Option<&str> {
        self.domain.as_ref().map(|domain| domain.name.as_str())
    }
}

impl Access {
    /// The certificates, in DER, of those whose certificates for clients are taken, the authority
    /// of nodes apart.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = &[u8]> {
        let domains = self.providers.values().filter_map(|provider| provider.domain.as_ref());
        let domains = domains.map(|domain| &domain.authorities);
        domains.chain(self.kubelets.values()).flat_map(Authorities::certificates)
    }

    /// The write that counts this state as the next one.
    pub(crate) fn count(&self) -> Write {
        let record = Some(Record::Access(self.changes));
        Write { path: RecordPath::access(), expected: self.expected, record }
    }
}

impl DecisionPoint for Access {
    fn decide(&self, question: &Question<'_>) -> Decision {
        let limits = question.who.session().map_or(&[][..], |session| &session.limits);
        if limits.iter().all(|limit| leaves(limit, question)) {
            self.policies.decide(question)
        } else {
            Decision { allowed: false, why: "the holder narrowed this session".into() }
        }
    }
}

/// Whether a limit leaves room for what is asked.
fn leaves(limit: &Limit, question: &Question<'_>) -> bool {
    match (limit, question.resource) {
        (Limit::Actions(actions), _) => actions.iter().any(|one| one == question.action),
        (Limit::Keys(keys), Resource::Key(key)) => keys.contains(&key.to_string()),
        (
            Limit::Keys(_),
            Resource::Instance
            | Resource::Named(_, _)
            | Resource::Secret(_)
            | Resource::SecretPath(_),
        ) => false,
    }
}

/// The snapshot that decides now.
pub(crate) struct Current(RwLock<Arc<Access>>);

impl Current {
    /// Begins with this one.
    pub(crate) fn new(access: Access) -> Self {
        Self(RwLock::new(Arc::new(access)))
    }

    /// The snapshot.
    pub(crate) fn get(&self) -> Arc<Access> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }
}

impl Engine {
    /// Lets a new snapshot decide, once it is written.
    pub(crate) fn install(&self, mut access: Access) {
        access.expected = match access.expected {
            Expected::Absent => Expected::At(lastkey_core::ports::Revision(1)),
            Expected::At(revision) => {
                Expected::At(lastkey_core::ports::Revision(revision.0.saturating_add(1)))
            }
        };
        self.access.set(access);
    }
}
