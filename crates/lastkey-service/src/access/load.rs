//! Snapshots from records, as they are or as they would be.
//!
//! Room      `service`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use lastkey_core::access::{Cluster, Provider, Role, RoleHolders, User};
use lastkey_core::ids::{Name, SessionId};
use lastkey_core::permit::{
    Action, DecisionPoint, Facts, Question, Resource, ResourceKind, UpdatePolicy,
};
use lastkey_core::ports::{Expected, Store, StoreError};
use lastkey_core::principal::{Identity, Kind, Principal, Session};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::time::Timestamp;
use lastkey_policy::{Bootstrap, Document, DocumentKind, PolicySet, SECURITY_ADMINISTRATOR};
use lastkey_trust::authorities::Authorities;
use lastkey_trust::jwks::KeySet;
use lastkey_trust::oidc::{Bound, IssuerTrust};
use lastkey_trust::service_account::{ClusterTrust, LEEWAY};
use lastkey_trust::svid::{Bundle, IdPattern, TrustDomain};

use super::{Access, ProviderTrust};
use crate::engine::Engine;
use crate::error::Error;

/// What the name of a role's policy begins with; the name of the role follows.
pub(crate) const ROLE_DOCUMENT: &str = "role.";

/// The kinds of record that a snapshot is made of.
const KINDS: [&str; 6] = ["cluster", "node", "policy", "provider", "role", "user"];

/// What a snapshot is made of.
#[derive(Default)]
struct Parts {
    documents: Vec<Document>,
    clusters: HashMap<Name, ClusterTrust>,
    kubelets: HashMap<Name, Authorities>,
    providers: HashMap<Name, ProviderTrust>,
    roles: HashMap<Name, Role>,
    /// Nodes, and the clusters that they belong to.
    nodes: Vec<(Name, Name)>,
    /// People who are enrolled and not kept out.
    people: Vec<User>,
    /// Whether an administrator of policies was enrolled.
    is_enrolled: bool,
}

impl Access {
    /// Makes a snapshot of what is stored, with one record changed: a new one, or `None` for one
    /// that is removed.
    ///
    /// # Errors
    /// [`Error::Invalid`] when something in it is not well formed; [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub(crate) async fn load(
        store: &dyn Store,
        changed: Option<(&Self, &RecordPath, Option<Record>)>,
    ) -> Result<Self, Error> {
        let (before, expected) = match store.get(&RecordPath::access()).await? {
            None => (0, Expected::Absent),
            Some(stored) => {
                let Record::Access(changes) = stored.record else {
                    return Err(StoreError::Corrupt(stored.path).into());
                };
                (changes, Expected::At(stored.revision))
            }
        };
        let mut records = BTreeMap::new();
        for kind in KINDS {
            for stored in store.scan(&PathRange::kind(kind, None, usize::MAX)).await? {
                records.insert(stored.path, stored.record);
            }
        }
        let is_changed = changed.is_some();
        // Once an administrator was enrolled, the first hour is over for good.
        let was_enrolled = records
            .values()
            .any(|record| matches!(record, Record::User(user) if is_enrolled_administrator(user)));
        let changes = if is_changed { before.saturating_add(1) } else { before };
        let last = match changed {
            Some((last, path, Some(record))) => {
                records.insert(path.clone(), record);
                Some(last)
            }
            Some((last, path, None)) => {
                records.remove(path);
                Some(last)
            }
            None => None,
        };
        let mut parts = Parts::default();
        for record in records.into_values() {
            parts.take(record)?;
        }
        parts.check_references()?;
        parts.check_domains()?;
        let is_closed = was_enrolled || parts.is_enrolled;
        let bootstrap = if is_closed { Bootstrap::Closed } else { Bootstrap::Open };
        let Parts { documents, clusters, kubelets, providers, roles, people, .. } = parts;
        let policies = match last {
            Some(last) => last.policies.recompile(&documents, bootstrap),
            None => PolicySet::compile_stored(&documents, bootstrap),
        };
        let policies = policies.map_err(|error| Error::invalid("policy", error.to_string()))?;
        let this = Self { changes, expected, policies, clusters, kubelets, providers, roles };
        if is_changed && !this.leaves_an_administrator(bootstrap, &people) {
            let message = "nobody would be left who may change policies";
            return Err(Error::invalid("policy", message));
        }
        Ok(this)
    }

    /// Whether anybody may change policies: somebody who is enrolled, or before that the
    /// administrator of the first hour.
    fn leaves_an_administrator(&self, bootstrap: Bootstrap, people: &[User]) -> bool {
        let may = |who: &Principal| {
            let resource = Resource::Named(ResourceKind::Policy, "any".to_owned());
            let facts = Facts::default();
            let action = UpdatePolicy::NAME;
            self.decide(&Question { who, action, resource: &resource, facts: &facts }).allowed
        };
        match bootstrap {
            Bootstrap::Open => may(&Principal::named(Principal::ADMIN)),
            Bootstrap::Closed => people
                .iter()
                .filter(|user| user.groups.iter().any(is_security_administrator))
                .any(|user| may(&as_security_administrator(user))),
        }
    }
}

fn is_security_administrator(group: &Name) -> bool {
    group.as_str() == SECURITY_ADMINISTRATOR
}

/// Whether this is an administrator of policies who has enrolled, kept out or not.
pub(crate) fn is_enrolled_administrator(user: &User) -> bool {
    user.password.is_some() && user.groups.iter().any(is_security_administrator)
}

/// A person in a session for that role.
fn as_security_administrator(user: &User) -> Principal {
    let far = Timestamp(u64::MAX);
    Principal::verified(Identity {
        name: format!("user:{}", user.name),
        kind: Kind::User,
        groups: user.groups.iter().map(ToString::to_string).collect(),
        session: Some(Session {
            id: SessionId([0; 16]),
            role: Some(SECURITY_ADMINISTRATOR.to_owned()),
            issued_at: Timestamp(0),
            expires_at: far,
            token_id: None,
            methods: vec!["pwd".to_owned(), "otp".to_owned()],
            second_factor_at: None,
            policy: None,
            limits: Vec::new(),
        }),
    })
}

impl Parts {
    fn take(&mut self, record: Record) -> Result<(), Error> {
        match record {
            Record::Cluster(cluster) => {
                let trust = cluster_trust(&cluster)?;
                if let Some(authorities) = kubelet_authorities(&cluster)? {
                    self.kubelets.insert(cluster.name.clone(), authorities);
                }
                self.clusters.insert(cluster.name, trust);
            }
            Record::Provider(provider) => {
                let trust = provider_trust(&provider)?;
                self.providers.insert(provider.name, trust);
            }
            Record::Role(role) => {
                self.documents.push(Document {
                    name: format!("{ROLE_DOCUMENT}{}", role.name),
                    kind: DocumentKind::Role(role.name.as_str().to_owned()),
                    text: role.policy.clone(),
                });
                self.roles.insert(role.name.clone(), role);
            }
            Record::Policy(policy) => self.documents.push(Document {
                name: policy.name.as_str().to_owned(),
                kind: DocumentKind::Installation,
                text: policy.text,
            }),
            Record::User(user) => self.take_user(user),
            Record::Node(node) => {
                self.nodes.extend(node.cluster.map(|cluster| (node.name, cluster)));
            }
            Record::Key(_)
            | Record::Version(_)
            | Record::Usage(_)
            | Record::Alias(_)
            | Record::Due(_)
            | Record::Import(_)
            | Record::Token(_)
            | Record::Clock(_)
            | Record::NodeAuthority(_)
            | Record::SealBook(_)
            | Record::Revocation(_)
            | Record::SessionEpoch(_)
            | Record::Secret(_)
            | Record::SecretVersion(_)
            | Record::SecretValue(_)
            | Record::SecretDue(_)
            | Record::SecretRotation(_)
            | Record::RotationDue(_)
            | Record::Database(_)
            | Record::DatabaseRole(_)
            | Record::Lease(_)
            | Record::Access(_)
            | Record::Holding(_)
            | Record::Inventory(_)
            | Record::AuditHead(_)
            | Record::Rollback(_)
            | Record::Backup(_)
            | Record::Tombstone(_) => {}
        }
        Ok(())
    }

    fn take_user(&mut self, user: User) {
        if user.password.is_some() {
            self.is_enrolled |= is_enrolled_administrator(&user);
            if !user.disabled {
                self.people.push(user);
            }
        }
    }

    /// A role is for a cluster or a provider that there is, and a node belongs to a cluster that
    /// there is: another cluster of the same name, later, does not come by the nodes of this one.
    fn check_references(&self) -> Result<(), Error> {
        for (node, cluster) in &self.nodes {
            if !self.clusters.contains_key(cluster) {
                let message =
                    format!("node {node} belongs to cluster {cluster}, which is not there");
                return Err(Error::invalid("cluster", message));
            }
        }
        for role in self.roles.values() {
            let (known, what, name) = match &role.holders {
                RoleHolders::ServiceAccounts { cluster, .. } => {
                    (self.clusters.contains_key(cluster), "cluster", cluster)
                }
                RoleHolders::Claims { provider, .. } | RoleHolders::Spiffe { provider, .. } => {
                    (self.providers.contains_key(provider), "provider", provider)
                }
            };
            if !known {
                let message =
                    format!("role {} is for {what} {name}, which is not there", role.name);
                return Err(Error::invalid(what, message));
            }
            if let RoleHolders::Spiffe { provider, ids } = &role.holders {
                self.check_ids(&role.name, provider, ids)?;
            }
        }
        Ok(())
    }

    /// The ids of a role are of the trust domain of its provider, which is that of no other: its
    /// name says whose workload somebody is.
    fn check_ids(&self, role: &Name, provider: &Name, ids: &[String]) -> Result<(), Error> {
        let domain = |name| self.providers.get(name).and_then(ProviderTrust::domain);
        let ours = domain(provider);
        for id in ids {
            let pattern = IdPattern::parse(id).map_err(|_| {
                Error::invalid("spiffe_ids", format!("{id} is no SPIFFE id of a workload"))
            })?;
            if ours != Some(pattern.trust_domain()) {
                let message = format!("role {role}: {id} is not of a trust domain of {provider}");
                return Err(Error::invalid("spiffe_ids", message));
            }
        }
        Ok(())
    }

    fn check_domains(&self) -> Result<(), Error> {
        let mut known = HashMap::new();
        for (name, provider) in &self.providers {
            let Some(domain) = provider.domain() else { continue };
            if let Some(other) = known.insert(domain, name) {
                let message = format!("{other} and {name} both speak for {domain}");
                return Err(Error::invalid("trust_domain", message));
            }
        }
        Ok(())
    }
}

/// What a cluster's record means.
///
/// # Errors
/// [`Error::Invalid`] for a key set that is none.
pub(crate) fn cluster_trust(cluster: &Cluster) -> Result<ClusterTrust, Error> {
    Ok(ClusterTrust {
        cluster: cluster.name.as_str().to_owned(),
        issuers: cluster.issuers.clone(),
        audiences: cluster.audiences.clone(),
        keys: key_set(&cluster.keys.jwks)?,
        max_lifetime: Duration::from_secs(cluster.max_token_secs),
        leeway: LEEWAY,
        allow_other_audiences: false,
        // Whether they open a session is said by the role.
        allow_without_pod: true,
        allow_secret_bound: false,
    })
}

/// By whose certificates the nodes of a cluster may join.
///
/// # Errors
/// [`Error::Invalid`] for what is none.
pub(crate) fn kubelet_authorities(cluster: &Cluster) -> Result<Option<Authorities>, Error> {
    let pem = cluster.kubelet_authorities.as_deref();
    let authorities = pem.map(Authorities::from_pem).transpose();
    authorities.map_err(|error| Error::invalid("kubelet_ca", error.to_string()))
}

/// What a provider's record means, before the claims of a role.
///
/// # Errors
/// [`Error::Invalid`] for a key set or bundle that is none.
pub(crate) fn provider_trust(provider: &Provider) -> Result<ProviderTrust, Error> {
    let Some(name) = provider.trust_domain.clone() else {
        let tokens = Some(issuer_trust(provider, key_set(&provider.keys.jwks)?));
        return Ok(ProviderTrust { tokens, domain: None });
    };
    let Bundle { authorities, tokens } = Bundle::parse(&provider.keys.jwks)
        .map_err(|error| Error::invalid("jwks", error.to_string()))?;
    let domain = TrustDomain { name, authorities: authorities.unwrap_or_default() };
    let tokens = tokens.map(|keys| issuer_trust(provider, keys));
    Ok(ProviderTrust { tokens, domain: Some(domain) })
}

fn issuer_trust(provider: &Provider, keys: KeySet) -> IssuerTrust {
    let (name, issuer) = (provider.name.as_str().to_owned(), provider.issuer.clone());
    IssuerTrust {
        audiences: provider.audiences.clone(),
        subject_claim: provider.subject_claim.clone(),
        groups_claim: Some(provider.groups_claim.clone()),
        ..IssuerTrust::strict(name, issuer, String::new(), keys)
    }
}

/// What a role asks of a claim.
pub(crate) fn bound(value: &str) -> Bound {
    if value.contains('*') { Bound::Glob(value.to_owned()) } else { Bound::Exact(value.to_owned()) }
}

fn key_set(jwks: &str) -> Result<KeySet, Error> {
    KeySet::parse(jwks.as_bytes()).map_err(|error| Error::invalid("jwks", error.to_string()))
}

impl Engine {
    /// The snapshot as it would be with one record changed.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not well formed, or when nobody would be left who may change
    /// policies; [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn judge(
        &self,
        path: &RecordPath,
        record: Option<Record>,
    ) -> Result<Access, Error> {
        let last = self.access.get();
        Access::load(&*self.store, Some((&*last, path, record))).await
    }
}
