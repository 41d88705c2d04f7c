//! Who calls: what a caller presented, and who he is once that was verified.
//!
//! Room      `core`.
//! Holds     two principals are equal when policy and audit cannot tell them apart: same name,
//!           same role, same session.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use std::sync::Arc;

use lastkey_secret::SecretVec;

use crate::ids::{Name, RequestId, SessionId};
use crate::time::Timestamp;

/// Who calls, after authentication. Cheap to clone.
#[derive(Clone)]
pub struct Principal(Arc<Identity>);

/// Everything that was verified about a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name, as policies and the audit log write it; see [`Kind`].
    pub name: String,
    /// What he is.
    pub kind: Kind,
    /// Groups that a provider of identities vouches for.
    pub groups: Vec<String>,
    /// The session in which he calls; `None` for the server itself and the first administrator.
    pub session: Option<Session>,
}

/// What a principal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server itself, or the administrator of the first hour; told apart by name.
    System,
    /// A pod, or another holder of a ServiceAccount token: `k8s:CLUSTER/NAMESPACE/NAME`.
    Workload(Workload),
    /// A person known here: `user:NAME`.
    User,
    /// A machine that agents run on: `node:NAME`.
    Node,
    /// A subject of another provider of identities: `oidc:PROVIDER/SUBJECT`; a workload of a trust
    /// domain: its SPIFFE id, of the provider `spiffe`; a user of this machine on the unix socket:
    /// `unix:UID`, of the provider `unix`.
    Federated {
        /// The provider, by its name here.
        provider: String,
        /// The subject, as the provider calls it.
        subject: String,
    },
}

/// The provider that workloads of trust domains are subjects of, by their SPIFFE ids.
pub const SPIFFE: &str = "spiffe";

/// The facts of a ServiceAccount token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The cluster, by its name here.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The ServiceAccount.
    pub service_account: String,
    /// Its UID, which a new account of the same name does not have.
    pub service_account_uid: String,
    /// The pod that the token is bound to.
    pub pod: Option<Bound>,
    /// The node that the pod runs on.
    pub node: Option<Bound>,
}

/// A Kubernetes object that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The facts of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The role it was opened for; `None` for a person in his own name.
    pub role: Option<String>,
    /// When it was opened, by the wall clock.
    pub issued_at: Timestamp,
    /// When it ends, by the wall clock.
    pub expires_at: Timestamp,
    /// Id of the token that it was opened with (`jti`).
    pub token_id: Option<String>,
    /// How he showed who he is (RFC 8176), for example `pwd` and `otp`.
    pub methods: Vec<String>,
    /// When he last showed a second factor.
    pub second_factor_at: Option<Timestamp>,
    /// A policy that can only take away, in Cedar.
    pub policy: Option<Arc<str>>,
    /// What its holder narrowed it to; all of these must allow.
    pub limits: Vec<Limit>,
}

/// One thing that the holder of a session narrowed it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Only these actions.
    Actions(Vec<String>),
    /// Only these keys, by id; nothing that is about no key.
    Keys(Vec<String>),
}

impl Principal {
    /// The server itself: rotation, deletion and expiry by schedule.
    pub const SCHEDULER: &'static str = "system:scheduler";
    /// The server itself: uses keys for the secrets that it keeps.
    pub const SECRETS: &'static str = "system:secrets";
    /// The administrator whose token was minted at `init`.
    pub const ADMIN: &'static str = "admin";

    /// A principal of the system of this name, without a session.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let (name, kind) = (name.to_owned(), Kind::System);
        Self::verified(Identity { name, kind, groups: Vec::new(), session: None })
    }

    /// A principal about whom this was verified.
    #[must_use]
    pub fn verified(identity: Identity) -> Self {
        Self(Arc::new(identity))
    }

    /// The name, as policies and the audit log write it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Everything that was verified about him.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0
    }

    /// The role that he acts in.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.0.session.as_ref()?.role.as_deref()
    }

    /// UID of the pod that calls.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        match &self.0.kind {
            Kind::Workload(workload) => workload.pod.as_ref().map(|pod| pod.uid.as_str()),
            Kind::System | Kind::User | Kind::Node | Kind::Federated { .. } => None,
        }
    }

    /// The session in which he calls.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.0.session.as_ref()
    }

    fn told_apart_by(&self) -> (&str, Option<&str>, Option<SessionId>) {
        (self.name(), self.role(), self.session().map(|session| session.id))
    }
}

impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        self.told_apart_by() == other.told_apart_by()
    }
}

impl Eq for Principal {}

impl Hash for Principal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.told_apart_by().hash(state);
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({})", self.name())
    }
}

/// What a caller presented to show who he is.
#[derive(Debug)]
pub enum Presented {
    /// Nothing.
    Nothing,
    /// Something that is no credential. Unlike nothing, it never stands back behind a
    /// certificate: who meant to be somebody else is not taken for the node.
    Unreadable,
    /// A bearer token.
    Bearer(SecretVec),
    /// A signature over the request.
    Signed(Box<SignedHead>),
}

/// The head of a request that is signed by AWS Signature Version 4.
#[derive(Debug)]
pub struct SignedHead {
    /// The method, in capitals.
    pub method: String,
    /// The path as on the wire.
    pub path: String,
    /// The query as on the wire; empty when there is none.
    pub query: String,
    /// Names and values of the headers, in their order. The session token among them opens
    /// nothing without the signature.
    pub headers: Vec<(String, String)>,
    /// SHA-256 that the body is declared to have; compared with the body before it is used.
    pub body_sha256: [u8; 32],
}

/// The other end of a connection, as far as it was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its address; `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// Its certificate, if it showed one that somebody known here has signed.
    pub certificate: Option<PeerCertificate>,
    /// The user of the process there, as the kernel says, if the operator lets him in by that.
    pub user: Option<u32>,
}

/// A certificate that TLS verified when the connection was made: its holder has the key, and one of
/// those who are known here vouches for it. Which of them, and whether it is good for what is asked,
/// is judged anew by whoever uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of it.
    pub fingerprint: [u8; 32],
    /// The node of this installation that it names. Whoever signed it may have written that.
    pub node: Option<Name>,
    /// It, and the certificates between it and an authority, in DER.
    pub chain: Vec<Vec<u8>>,
}

/// Where a call came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The peer's address; `None` on a unix socket and for the server itself.
    pub address: Option<IpAddr>,
    /// Whether an authenticated agent on the pod's own node hands the call on.
    pub by_node_agent: bool,
}

/// One authenticated call: who, from where, and under which request id.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who calls.
    pub principal: Principal,
    /// From where.
    pub source: Source,
    /// Identity of the request.
    pub request: RequestId,
}
