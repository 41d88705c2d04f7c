//! Who may come in, and as what: clusters, providers, roles, policies, people, nodes, revocations.
//!
//! Room      `core`. Plain facts, as administrators write them down and the store keeps them.
//! Holds     no secret is in here in the clear: second factors and session secrets are wrapped,
//!           passwords and codes are hashed.

use std::collections::BTreeMap;

use crate::ids::Name;
use crate::time::{Elapsed, Timestamp};
use crate::version::WrappedKey;

/// Longest policy, in bytes.
pub const MAX_POLICY_LEN: usize = 32_768;

/// Longest JSON Web Key Set, in bytes.
pub const MAX_JWKS_LEN: usize = 65_536;

/// Shortest session that can be asked for, in seconds.
pub const MIN_SESSION_SECS: u64 = 60;

/// A session's length when nobody says otherwise, in seconds.
pub const DEFAULT_SESSION_SECS: u64 = 900;

/// Longest session of any role, in seconds: 12 hours.
pub const MAX_SESSION_SECS: u64 = 43_200;

/// A token's own lifetime above which it is refused unless a cluster says otherwise, in seconds:
/// a day, which is the longest that a kubelet keeps one before it asks for the next.
pub const DEFAULT_TOKEN_SECS: u64 = 86_400;

/// How long the certificate of a node is good, in seconds: a day.
pub const NODE_CERTIFICATE_SECS: u64 = 86_400;

/// How long a node may join with its token, in seconds of service time: an hour.
pub const NODE_JOIN_SECS: u64 = 3_600;

/// Where the keys come from that tokens are signed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeys {
    /// The key set, as JSON (RFC 7517), or the bundle of a trust domain: given by hand, or the last
    /// one that was fetched.
    pub jwks: String,
    /// Where it is fetched from again; `None` when it is given by hand.
    pub url: Option<String>,
    /// The authority that the server behind the URL is checked against, in PEM; `None` for the
    /// well-known ones.
    pub authority: Option<String>,
}

impl TokenKeys {
    /// The `url` of keys that the cluster's own API server says.
    pub const FROM_CLUSTER: &str = "cluster:";
}

/// A Kubernetes cluster whose ServiceAccount tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name here. A role chooses the cluster, never the token.
    pub name: Name,
    /// What `iss` may be; several during a change of issuer.
    pub issuers: Vec<String>,
    /// What `aud` must be, one of these and nothing beside it.
    pub audiences: Vec<String>,
    /// Its keys.
    pub keys: TokenKeys,
    /// Longest lifetime of a token that is taken, in seconds.
    pub max_token_secs: u64,
    /// When it was named first.
    pub created_at: Timestamp,
    /// The authorities of its kubelets, in PEM, if its nodes may join by their certificates.
    pub kubelet_authorities: Option<String>,
}

/// Another provider of identities: OpenID Connect, anything that signs JWTs, or a SPIFFE trust
/// domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name here.
    pub name: Name,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be, one of these; none, and no token is taken.
    pub audiences: Vec<String>,
    /// Its keys; of a trust domain its bundle.
    pub keys: TokenKeys,
    /// The claim that holds the subject's name.
    pub subject_claim: String,
    /// The claim that lists his groups.
    pub groups_claim: String,
    /// When it was named first.
    pub created_at: Timestamp,
    /// The SPIFFE trust domain that it speaks for: certificates of its workloads are taken.
    pub trust_domain: Option<String>,
}

/// Who may open sessions for a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleHolders {
    /// ServiceAccounts of one cluster.
    ServiceAccounts {
        /// The cluster.
        cluster: Name,
        /// Namespaces, by name; `*` for all.
        namespaces: Vec<String>,
        /// ServiceAccounts, by name; `*` for all.
        service_accounts: Vec<String>,
        /// Whether their tokens count that are bound to no pod, too.
        allow_without_pod: bool,
    },
    /// Subjects of a provider whose claims have these values; `*` stands for any run of
    /// characters.
    Claims {
        /// The provider.
        provider: Name,
        /// Claim and value.
        claims: BTreeMap<String, String>,
    },
    /// Workloads of the trust domain of a provider.
    Spiffe {
        /// The provider.
        provider: Name,
        /// Their SPIFFE ids; one that ends with `/*` stands for all below its path.
        ids: Vec<String>,
    },
}

/// A role: who may take it, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: Name,
    /// Who may open sessions for it.
    pub holders: RoleHolders,
    /// What it may do, in Cedar; every policy in it is about this role.
    pub policy: String,
    /// How often the policy was written; the first time makes it 1.
    pub policy_version: u32,
    /// Longest session, in seconds.
    pub max_session_secs: u64,
    /// Whether its sessions are good only when a node agent on the pod's own node presents them.
    pub by_node_agent: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A policy of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: Name,
    /// Its text, in Cedar.
    pub text: String,
    /// How often it was written; the first time makes it 1.
    pub version: u32,
    /// When it was written.
    pub changed_at: Timestamp,
    /// By whom.
    pub changed_by: String,
}

/// A password, stretched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHash {
    /// Memory in KiB, passes, lanes (Argon2id, RFC 9106).
    pub costs: (u32, u32, u32),
    /// Drawn for this password.
    pub salt: [u8; 16],
    /// The outcome.
    pub hash: [u8; 32],
}

/// A one-time code with which a person sets password and second factor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// SHA-256 of the code.
    pub code_hash: [u8; 32],
    /// When it is void, in service time.
    pub expires: Elapsed,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// His name.
    pub name: Name,
    /// His groups; the groups of administrators are among them.
    pub groups: Vec<Name>,
    /// His password, once he has enrolled.
    pub password: Option<PasswordHash>,
    /// The seed of his second factor (RFC 6238), once he has enrolled.
    pub second_factor: Option<WrappedKey>,
    /// The last time step that was used, which is never taken again.
    pub last_step: u64,
    /// How he may enrol.
    pub enrolment: Option<Enrolment>,
    /// Whether he is kept out.
    pub disabled: bool,
    /// When he was made known.
    pub created_at: Timestamp,
}

/// A machine that agents run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name: that of the Kubernetes node.
    pub name: Name,
    /// The cluster that it is a node of.
    pub cluster: Option<Name>,
    /// A one-time token with which it joins.
    pub join: Option<Enrolment>,
    /// The certificate that it was sent last; but for the one before, every other is void.
    pub certificate: Option<NodeCertificate>,
    /// When it was made known.
    pub created_at: Timestamp,
    /// The certificate before, until the node shows the last one: an answer may be lost.
    pub previous: Option<NodeCertificate>,
    /// The key of its TPM, with which it joins whenever it has to.
    pub tpm: Option<TpmKey>,
}

impl Node {
    /// The good one of its certificates that has this SHA-256.
    #[must_use]
    pub fn certificate_of(&self, fingerprint: &[u8; 32]) -> Option<&NodeCertificate> {
        let mut held = [&self.certificate, &self.previous].into_iter().flatten();
        held.find(|held| held.fingerprint == *fingerprint)
    }
}

/// The attestation key of a node's TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmKey {
    /// SHA-256 of its public area: its name, without the algorithm in front.
    pub name: [u8; 32],
    /// Since when it counts, by the wall clock; a revocation until then does not end it.
    pub since: Timestamp,
}

/// The certificate of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// SHA-256 of it.
    pub fingerprint: [u8; 32],
    /// When it was signed, by the wall clock.
    pub issued_at: Timestamp,
    /// When it ends, by the wall clock.
    pub expires_at: Timestamp,
}

/// What signs the certificates of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAuthority {
    /// Its private key.
    pub private_key: WrappedKey,
    /// Its own certificate, in DER.
    pub certificate: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The certificate of the authority before it, which signs no more.
    pub previous: Option<Vec<u8>>,
}

impl NodeAuthority {
    /// When the last certificate has ended that the authority before this one signed.
    #[must_use]
    pub const fn overlap_ends(&self) -> Timestamp {
        Timestamp(self.created_at.0.saturating_add(NODE_CERTIFICATE_SECS))
    }

    /// Whether certificates of an authority before this one can be good.
    #[must_use]
    pub fn overlaps(&self, now: Timestamp) -> bool {
        self.previous.is_some() && now < self.overlap_ends()
    }
}

/// Age at which another authority of nodes takes the place of one, in seconds: a year.
pub const NODE_AUTHORITY_SECS: u64 = 365 * 86_400;

/// Which sessions end before their time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RevokedWhat {
    /// One session, by its id in hexadecimal.
    Session(String),
    /// Those of a pod, by UID.
    Pod(String),
    /// Those of a ServiceAccount, as `CLUSTER/NAMESPACE/NAME`.
    ServiceAccount(String),
    /// Those of pods on a node, and of the node itself.
    Node(String),
    /// Those of a role.
    Role(String),
    /// Those of a cluster.
    Cluster(String),
    /// Those of a person.
    User(String),
    /// All.
    Everything,
}

impl RevokedWhat {
    /// The kind, as a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::Pod(_) => "pod",
            Self::ServiceAccount(_) => "service-account",
            Self::Node(_) => "node",
            Self::Role(_) => "role",
            Self::Cluster(_) => "cluster",
            Self::User(_) => "user",
            Self::Everything => "everything",
        }
    }

    /// Which one; empty for everything.
    #[must_use]
    pub fn value(&self) -> &str {
        match self {
            Self::Session(value)
            | Self::Pod(value)
            | Self::ServiceAccount(value)
            | Self::Node(value)
            | Self::Role(value)
            | Self::Cluster(value)
            | Self::User(value) => value,
            Self::Everything => "",
        }
    }

    /// The one of this kind and value.
    #[must_use]
    pub fn of(kind: &str, value: &str) -> Option<Self> {
        let owned = value.to_owned();
        match kind {
            "session" => Some(Self::Session(owned)),
            "pod" => Some(Self::Pod(owned)),
            "service-account" => Some(Self::ServiceAccount(owned)),
            "node" => Some(Self::Node(owned)),
            "role" => Some(Self::Role(owned)),
            "cluster" => Some(Self::Cluster(owned)),
            "user" => Some(Self::User(owned)),
            "everything" if value.is_empty() => Some(Self::Everything),
            _ => None,
        }
    }
}

/// Sessions that were opened at or before a moment are void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Which.
    pub what: RevokedWhat,
    /// Opened at or before this moment of the wall clock.
    pub issued_until: Timestamp,
    /// When no such session can be left, so that this can be forgotten.
    pub needed_until: Timestamp,
}

impl Revocation {
    /// This one, and an earlier one about the same: the later dates count, because a clock that was
    /// set back brings nothing back that was over.
    #[must_use]
    pub fn joined_to(self, before: &Self) -> Self {
        Self {
            issued_until: self.issued_until.max(before.issued_until),
            needed_until: self.needed_until.max(before.needed_until),
            ..self
        }
    }
}

/// The secret that sessions of some time are sealed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEpoch {
    /// Its number, which every token carries.
    pub number: u32,
    /// The secret.
    pub secret: WrappedKey,
    /// When it was drawn, by the wall clock.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocation_comes_back_from_its_words() {
        let value = || "x".to_owned();
        for what in [
            RevokedWhat::Session(value()),
            RevokedWhat::Pod(value()),
            RevokedWhat::ServiceAccount(value()),
            RevokedWhat::Node(value()),
            RevokedWhat::Role(value()),
            RevokedWhat::Cluster(value()),
            RevokedWhat::User(value()),
            RevokedWhat::Everything,
        ] {
            assert_eq!(RevokedWhat::of(what.kind(), what.value()), Some(what));
        }
        assert_eq!(RevokedWhat::of("everything", "x"), None);
        assert_eq!(RevokedWhat::of("all", ""), None);
    }
}
