//! Revocations: sessions that are over before their time.
//!
//! Room      `trust`. A set in memory on every replica; entries are plain values for the store.
//! Holds     An entry lives as long as a session that it could end; 100,000 sessions that nobody
//!           revoked cost nothing.

use std::collections::HashMap;

use lastkey_core::time::Timestamp;

use crate::session::{MAX_LIFETIME, Session, SessionId, Subject, Workload};

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One session.
    Session(SessionId),
    /// Every session of a pod, by uid.
    Pod {
        /// uid of the pod.
        uid: String,
    },
    /// Every session of a service account, by uid.
    ServiceAccountUid {
        /// uid of the service account.
        uid: String,
    },
    /// Every session of a service account, by name.
    ServiceAccount {
        /// The cluster.
        cluster: String,
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
    /// Every session of a node and of the pods on it.
    Node {
        /// Name of the node.
        name: String,
    },
    /// Every session of a subject, by the name that the audit log writes.
    Subject {
        /// The name.
        name: String,
    },
    /// Every session of a role.
    Role {
        /// Name of the role.
        name: String,
    },
    /// Every session of a cluster.
    Cluster {
        /// Name of the cluster.
        name: String,
    },
    /// Every session.
    Everything,
}

/// One entry, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What is revoked.
    pub target: Target,
    /// Sessions that began up to this second are over. A session and a pod are over whenever they
    /// began.
    pub issued_until: Timestamp,
    /// When the entry can be dropped.
    pub keep_until: Timestamp,
}

impl Revocation {
    /// Revokes everything of `target` that began up to `now`, kept until the last of it has
    /// ended by itself.
    #[must_use]
    pub fn at(target: Target, now: Timestamp) -> Self {
        let keep_until = Timestamp(now.0.saturating_add(MAX_LIFETIME.as_secs()));
        Self { target, issued_until: now, keep_until }
    }

    /// As [`Self::at`], kept for longer: for a pod, whose token may still be exchanged until
    /// `last_exchange`.
    #[must_use]
    pub fn at_until(target: Target, now: Timestamp, last_exchange: Timestamp) -> Self {
        let last = Self::at(target, now.max(last_exchange));
        Self { issued_until: now, ..last }
    }
}

/// The revocations of this replica.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// One map for each kind of target: what has no entries is not looked for.
    kinds: [HashMap<Target, Times>; KINDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    issued_until: Timestamp,
    keep_until: Timestamp,
}

const KINDS: usize = 9;

/// Puts a target together, if the session has one of its kind.
type Candidate<'a> = &'a dyn Fn() -> Option<Target>;

/// A kind of target, as the place of its map.
#[derive(Clone, Copy)]
enum Kind {
    Session,
    Pod,
    ServiceAccountUid,
    ServiceAccount,
    Node,
    Subject,
    Role,
    Cluster,
    Everything,
}

impl Target {
    const fn kind(&self) -> Kind {
        match self {
            Self::Session(_) => Kind::Session,
            Self::Pod { .. } => Kind::Pod,
            Self::ServiceAccountUid { .. } => Kind::ServiceAccountUid,
            Self::ServiceAccount { .. } => Kind::ServiceAccount,
            Self::Node { .. } => Kind::Node,
            Self::Subject { .. } => Kind::Subject,
            Self::Role { .. } => Kind::Role,
            Self::Cluster { .. } => Kind::Cluster,
            Self::Everything => Kind::Everything,
        }
    }
}

impl Revocations {
    /// Takes up an entry. Entries of one target are joined: the later times count.
    pub fn insert(&mut self, entry: Revocation) {
        let Some(map) = self.kinds.get_mut(entry.target.kind() as usize) else {
            return;
        };
        let kept = map.entry(entry.target).or_default();
        kept.issued_until = kept.issued_until.max(entry.issued_until);
        kept.keep_until = kept.keep_until.max(entry.keep_until);
    }

    /// Drops the entries that can end no session any more.
    pub fn prune(&mut self, now: Timestamp) {
        for map in &mut self.kinds {
            map.retain(|_, times| times.keep_until > now);
        }
    }

    /// The entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = Revocation> {
        self.kinds.iter().flatten().map(|(target, times)| Revocation {
            target: target.clone(),
            issued_until: times.issued_until,
            keep_until: times.keep_until,
        })
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.iter().map(HashMap::len).sum()
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.iter().all(HashMap::is_empty)
    }

    /// The word of the entry that ends `session`: `revoked_session`, `revoked_pod`,
    /// `revoked_service_account`, `revoked_node`, `revoked_subject`, `revoked_role`,
    /// `revoked_cluster`, `revoked_everything`.
    #[must_use]
    pub fn is_revoked(&self, session: &Session) -> Option<&'static str> {
        if self.find(Kind::Session, || Some(Target::Session(session.id))).is_some() {
            return Some("revoked_session");
        }
        let ends = |kind, target: Candidate<'_>| {
            self.find(kind, target).is_some_and(|times| session.issued_at <= times.issued_until)
        };
        if ends(Kind::Everything, &|| Some(Target::Everything)) {
            return Some("revoked_everything");
        }
        let subject = &session.subject;
        if ends(Kind::Subject, &|| Some(Target::Subject { name: subject.to_string() })) {
            return Some("revoked_subject");
        }
        if ends(Kind::Role, &|| session.role.clone().map(|name| Target::Role { name })) {
            return Some("revoked_role");
        }
        if ends(Kind::Node, &|| subject.node().map(|name| Target::Node { name: name.to_owned() })) {
            return Some("revoked_node");
        }
        match subject {
            Subject::Workload(workload) => self.ends_workload(workload, &ends),
            Subject::Federated(_)
            | Subject::User(_)
            | Subject::Node { .. }
            | Subject::Spiffe { .. } => None,
        }
    }

    /// The word of the entry that ends the certificate of a node, signed at `issued_at`:
    /// `revoked_everything`, `revoked_subject` or `revoked_node`.
    #[must_use]
    pub fn is_node_revoked(&self, name: &str, issued_at: Timestamp) -> Option<&'static str> {
        let ends = |kind, target: Candidate<'_>| {
            self.find(kind, target).is_some_and(|times| issued_at <= times.issued_until)
        };
        if ends(Kind::Everything, &|| Some(Target::Everything)) {
            return Some("revoked_everything");
        }
        let subject = Subject::Node { name: name.to_owned() };
        if ends(Kind::Subject, &|| Some(Target::Subject { name: subject.to_string() })) {
            return Some("revoked_subject");
        }
        let node = || Some(Target::Node { name: name.to_owned() });
        ends(Kind::Node, &node).then_some("revoked_node")
    }

    fn ends_workload(
        &self,
        one: &Workload,
        ends: &dyn Fn(Kind, Candidate<'_>) -> bool,
    ) -> Option<&'static str> {
        let pod = || one.pod.as_ref().map(|pod| Target::Pod { uid: pod.uid.clone() });
        if self.find(Kind::Pod, pod).is_some() {
            return Some("revoked_pod");
        }
        let account = &one.service_account;
        let by_uid = || Some(Target::ServiceAccountUid { uid: account.uid.clone() });
        let by_name = || {
            Some(Target::ServiceAccount {
                cluster: one.cluster.clone(),
                namespace: one.namespace.clone(),
                name: account.name.clone(),
            })
        };
        if ends(Kind::ServiceAccountUid, &by_uid) || ends(Kind::ServiceAccount, &by_name) {
            return Some("revoked_service_account");
        }
        let cluster = || Some(Target::Cluster { name: one.cluster.clone() });
        ends(Kind::Cluster, &cluster).then_some("revoked_cluster")
    }

    /// The entry of a target, which is put together only where its kind has entries.
    fn find(&self, kind: Kind, target: impl FnOnce() -> Option<Target>) -> Option<&Times> {
        let map = self.kinds.get(kind as usize).filter(|map| !map.is_empty())?;
        map.get(&target()?)
    }
}
