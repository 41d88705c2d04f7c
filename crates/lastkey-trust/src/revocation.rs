//! Revocations: sessions that are over before their time.
//!
//! Room      `trust`. A set in memory on every replica; entries are plain values for the store.
//! Holds     An entry lives as long as a session that it could end; 100,000 sessions that nobody
//!           revoked cost nothing.

use std::collections::HashMap;

use lastkey_core::time::Timestamp;

use crate::session::{MAX_LIFETIME, Session, SessionId, Subject};

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
    entries: HashMap<Target, (Timestamp, Timestamp)>,
}

impl Revocations {
    /// Takes up an entry. Entries of one target are joined: the later times count.
    pub fn insert(&mut self, entry: Revocation) {
        let kept = self.entries.entry(entry.target).or_default();
        kept.0 = kept.0.max(entry.issued_until);
        kept.1 = kept.1.max(entry.keep_until);
    }

    /// Drops the entries that can end no session any more.
    pub fn prune(&mut self, now: Timestamp) {
        self.entries.retain(|_, (_, keep_until)| *keep_until > now);
    }

    /// The entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = Revocation> {
        self.entries.iter().map(|(target, (issued_until, keep_until))| Revocation {
            target: target.clone(),
            issued_until: *issued_until,
            keep_until: *keep_until,
        })
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The word of the entry that ends `session`: `revoked_session`, `revoked_pod`,
    /// `revoked_service_account`, `revoked_node`, `revoked_subject`, `revoked_role`,
    /// `revoked_cluster`, `revoked_everything`.
    #[must_use]
    pub fn is_revoked(&self, session: &Session) -> Option<&'static str> {
        if self.entries.is_empty() {
            return None;
        }
        if self.entries.contains_key(&Target::Session(session.id)) {
            return Some("revoked_session");
        }
        let is_ended = |target: &Target| {
            self.entries.get(target).is_some_and(|(until, _)| session.issued_at <= *until)
        };
        if is_ended(&Target::Everything) {
            return Some("revoked_everything");
        }
        if is_ended(&Target::Subject { name: session.subject.to_string() }) {
            return Some("revoked_subject");
        }
        let role = session.role.as_ref().map(|name| Target::Role { name: name.clone() });
        if role.as_ref().is_some_and(is_ended) {
            return Some("revoked_role");
        }
        let node = session.subject.node().map(|name| Target::Node { name: name.to_owned() });
        if node.as_ref().is_some_and(is_ended) {
            return Some("revoked_node");
        }
        self.is_workload_revoked(&session.subject, is_ended)
    }

    fn is_workload_revoked(
        &self,
        subject: &Subject,
        is_ended: impl Fn(&Target) -> bool,
    ) -> Option<&'static str> {
        let Subject::Workload(one) = subject else {
            return None;
        };
        let pod = one.pod.as_ref().map(|pod| Target::Pod { uid: pod.uid.clone() });
        if pod.is_some_and(|pod| self.entries.contains_key(&pod)) {
            return Some("revoked_pod");
        }
        let by_uid = Target::ServiceAccountUid { uid: one.service_account.uid.clone() };
        let by_name = Target::ServiceAccount {
            cluster: one.cluster.clone(),
            namespace: one.namespace.clone(),
            name: one.service_account.name.clone(),
        };
        if is_ended(&by_uid) || is_ended(&by_name) {
            return Some("revoked_service_account");
        }
        is_ended(&Target::Cluster { name: one.cluster.clone() }).then_some("revoked_cluster")
    }
}
