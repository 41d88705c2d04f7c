//! Revocations: sessions that are over before their time.
//!
//! Room      `trust`. A set in memory on every replica, of what the store keeps.
//! Holds     An entry lives as long as what it could end; 100,000 sessions that nobody
//!           revoked cost nothing.

use std::collections::HashMap;

use lastkey_core::access::{Revocation, RevokedWhat};
use lastkey_core::time::Timestamp;

use crate::session::{Session, Subject, Workload};

/// The revocations of this replica.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// One map for each kind: what has no entries is not looked for.
    kinds: [HashMap<RevokedWhat, Times>; KINDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    issued_until: Timestamp,
    needed_until: Timestamp,
}

const KINDS: usize = 8;

/// Puts together what would end a session, if it has one of its kind.
type Candidate<'a> = &'a dyn Fn() -> Option<RevokedWhat>;

/// A kind, as the place of its map.
#[derive(Clone, Copy)]
enum Kind {
    Session,
    Pod,
    ServiceAccount,
    Node,
    User,
    Role,
    Cluster,
    Everything,
}

const fn kind(what: &RevokedWhat) -> Kind {
    match what {
        RevokedWhat::Session(_) => Kind::Session,
        RevokedWhat::Pod(_) => Kind::Pod,
        RevokedWhat::ServiceAccount(_) => Kind::ServiceAccount,
        RevokedWhat::Node(_) => Kind::Node,
        RevokedWhat::User(_) => Kind::User,
        RevokedWhat::Role(_) => Kind::Role,
        RevokedWhat::Cluster(_) => Kind::Cluster,
        RevokedWhat::Everything => Kind::Everything,
    }
}

impl Revocations {
    /// Takes up an entry. Entries about the same are joined: the later times count.
    pub fn insert(&mut self, entry: &Revocation) {
        let what = match &entry.what {
            // Digits may have been written large; sessions write theirs small.
            RevokedWhat::Session(id) => RevokedWhat::Session(id.to_ascii_lowercase()),
            RevokedWhat::Pod(_)
            | RevokedWhat::ServiceAccount(_)
            | RevokedWhat::Node(_)
            | RevokedWhat::User(_)
            | RevokedWhat::Role(_)
            | RevokedWhat::Cluster(_)
            | RevokedWhat::Everything => entry.what.clone(),
        };
        let Some(map) = self.kinds.get_mut(kind(&what) as usize) else {
            return;
        };
        let kept = map.entry(what).or_default();
        kept.issued_until = kept.issued_until.max(entry.issued_until);
        kept.needed_until = kept.needed_until.max(entry.needed_until);
    }

    /// Drops the entries that can end no session any more, but for those that are needed for
    /// something else.
    pub fn prune(&mut self, now: Timestamp, is_needed: impl Fn(&RevokedWhat, Timestamp) -> bool) {
        for map in &mut self.kinds {
            map.retain(|what, times| {
                times.needed_until > now || is_needed(what, times.issued_until)
            });
        }
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
    /// `revoked_service_account`, `revoked_node`, `revoked_user`, `revoked_role`,
    /// `revoked_cluster`, `revoked_everything`. A session and a pod are over whenever they began,
    /// others up to the moment of the entry.
    #[must_use]
    pub fn is_revoked(&self, session: &Session) -> Option<&'static str> {
        let id = || Some(RevokedWhat::Session(session.id.to_string()));
        if self.find(Kind::Session, id).is_some() {
            return Some("revoked_session");
        }
        let ends = |kind, what: Candidate<'_>| {
            self.find(kind, what).is_some_and(|times| session.issued_at <= times.issued_until)
        };
        if ends(Kind::Everything, &|| Some(RevokedWhat::Everything)) {
            return Some("revoked_everything");
        }
        if ends(Kind::Role, &|| session.role.clone().map(RevokedWhat::Role)) {
            return Some("revoked_role");
        }
        let node = || session.subject.node().map(|name| RevokedWhat::Node(name.to_owned()));
        if ends(Kind::Node, &node) {
            return Some("revoked_node");
        }
        match &session.subject {
            Subject::Workload(workload) => self.ends_workload(workload, &ends),
            Subject::User(user) => {
                let user = || Some(RevokedWhat::User(user.name.clone()));
                ends(Kind::User, &user).then_some("revoked_user")
            }
            Subject::Federated(_) | Subject::Node { .. } | Subject::Spiffe { .. } => None,
        }
    }

    /// The word of the entry that ends the certificate of a node, signed at `issued_at`:
    /// `revoked_everything` or `revoked_node`.
    #[must_use]
    pub fn is_node_revoked(&self, name: &str, issued_at: Timestamp) -> Option<&'static str> {
        let ends = |kind, what: Candidate<'_>| {
            self.find(kind, what).is_some_and(|times| issued_at <= times.issued_until)
        };
        if ends(Kind::Everything, &|| Some(RevokedWhat::Everything)) {
            return Some("revoked_everything");
        }
        let node = || Some(RevokedWhat::Node(name.to_owned()));
        ends(Kind::Node, &node).then_some("revoked_node")
    }

    /// Up to which moment certificates of a node are over, whatever they say.
    #[must_use]
    pub fn node_revoked_until(&self, name: &str) -> Option<Timestamp> {
        let everything = self.find(Kind::Everything, || Some(RevokedWhat::Everything));
        let node = self.find(Kind::Node, || Some(RevokedWhat::Node(name.to_owned())));
        everything.into_iter().chain(node).map(|times| times.issued_until).max()
    }

    fn ends_workload(
        &self,
        one: &Workload,
        ends: &dyn Fn(Kind, Candidate<'_>) -> bool,
    ) -> Option<&'static str> {
        let pod = || one.pod.as_ref().map(|pod| RevokedWhat::Pod(pod.uid.clone()));
        if self.find(Kind::Pod, pod).is_some() {
            return Some("revoked_pod");
        }
        let account = || {
            let (cluster, namespace) = (&one.cluster, &one.namespace);
            let path = format!("{cluster}/{namespace}/{}", one.service_account.name);
            Some(RevokedWhat::ServiceAccount(path))
        };
        if ends(Kind::ServiceAccount, &account) {
            return Some("revoked_service_account");
        }
        let cluster = || Some(RevokedWhat::Cluster(one.cluster.clone()));
        ends(Kind::Cluster, &cluster).then_some("revoked_cluster")
    }

    /// The entry about something, which is put together only where its kind has entries.
    fn find(&self, kind: Kind, what: impl FnOnce() -> Option<RevokedWhat>) -> Option<&Times> {
        let map = self.kinds.get(kind as usize).filter(|map| !map.is_empty())?;
        map.get(&what()?)
    }
}
