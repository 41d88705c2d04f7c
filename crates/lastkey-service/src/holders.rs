//! Who on which node holds which version of a secret, as the nodes say it.
//!
//! Room      `service`.
//! Holds     A node speaks of itself alone, and each of its statements takes the place of the one
//!           before; one that is incomplete takes out no pod that it leaves out. Nothing of this is
//!           stored: after a start the nodes are asked for their statements, and until they have
//!           answered the list says since when it listens. What a node said is kept until it says
//!           something else; who has fallen silent is told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lastkey_core::ids::{Name, VersionNo};
use lastkey_core::secret_item::SecretName;
use lastkey_core::time::Timestamp;

/// Most holders that one node may name.
pub const MAX_HOLDERS: usize = 8_192;

/// A pod that holds a version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The secret.
    pub secret: SecretName,
    /// UID of the pod.
    pub pod_uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub pod: String,
    /// The version.
    pub version: VersionNo,
    /// Its node gave it this out of memory, while no server answered.
    pub given_in_outage: bool,
}

impl Holder {
    /// The same, however it came by what it holds.
    fn plain(&self) -> Self {
        Self { given_in_outage: false, ..self.clone() }
    }
}

/// What a node says: a name for its statement, and the statement when it is a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Names it; the same for the same holders.
    pub digest: String,
    /// Everybody on the node who holds something.
    pub holders: Option<Vec<Holder>>,
    /// There may be more on the node: its agent has just started.
    pub is_incomplete: bool,
}

/// A holder, where and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The cluster of its node.
    pub cluster: Option<Name>,
    /// Its node.
    pub node: Name,
    /// Who holds what.
    pub holder: Holder,
    /// When the node first said so.
    pub since: Timestamp,
    /// When the node was last heard of.
    pub heard_at: Timestamp,
}

/// Everybody of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumers {
    /// Since when nodes are listened to. Who was not heard of since is not in the list.
    pub heard_since: Timestamp,
    /// Whether no node is still finding out who on it holds what.
    pub is_complete: bool,
    /// The pods, by node.
    pub consumers: Vec<Consumer>,
}

/// What all nodes have said.
pub(crate) struct Holders {
    heard_since: Timestamp,
    nodes: Mutex<BTreeMap<Name, Stated>>,
}

struct Stated {
    digest: String,
    is_incomplete: bool,
    heard_at: Timestamp,
    holders: BTreeMap<Holder, Timestamp>,
}

impl Holders {
    /// Nothing was said yet.
    pub(crate) fn none(now: Timestamp) -> Self {
        Self { heard_since: now, nodes: Mutex::default() }
    }

    /// Who is new in what a node says; none when its holders are not known here.
    pub(crate) fn news(&self, node: &Name, statement: &Statement) -> Option<Vec<Holder>> {
        let nodes = self.lock();
        let known = nodes.get(node);
        let Some(holders) = &statement.holders else {
            return known.filter(|known| known.digest == statement.digest).map(|_| Vec::new());
        };
        let is_new = |holder: &&Holder| {
            holder.given_in_outage
                || known.is_none_or(|known| !known.holders.contains_key(&holder.plain()))
        };
        Some(holders.iter().filter(is_new).cloned().collect())
    }

    /// Takes over what a node says.
    pub(crate) fn hear(&self, node: &Name, statement: Statement, now: Timestamp) {
        let Statement { digest, holders, is_incomplete } = statement;
        let mut nodes = self.lock();
        let Some(holders) = holders else {
            if let Some(known) = nodes.get_mut(node).filter(|known| known.digest == digest) {
                known.heard_at = now;
            }
            return;
        };
        let before = nodes.remove(node).map(|stated| stated.holders).unwrap_or_default();
        let mut holders: BTreeMap<_, _> =
            holders.iter().map(|holder| (holder.plain(), now)).collect();
        let of = |one: &Holder| (one.secret.clone(), one.pod_uid.clone());
        let spoken_of: BTreeSet<_> = holders.keys().map(of).collect();
        for (holder, since) in before {
            let is_kept =
                is_incomplete && holders.len() < MAX_HOLDERS && !spoken_of.contains(&of(&holder));
            if is_kept || holders.contains_key(&holder) {
                holders.insert(holder, since);
            }
        }
        nodes.insert(node.clone(), Stated { digest, is_incomplete, heard_at: now, holders });
    }

    /// Everybody who holds a version of a secret. `cluster` tells that of a node, if it is still
    /// one.
    pub(crate) fn of(
        &self,
        secret: &SecretName,
        cluster: impl Fn(&Name) -> Option<Option<Name>>,
    ) -> Consumers {
        let mut nodes = self.lock();
        // A node that was removed speaks no more.
        nodes.retain(|node, _| cluster(node).is_some());
        let mut consumers = Vec::new();
        for (node, stated) in &*nodes {
            for (holder, since) in stated.holders.iter().filter(|(one, _)| one.secret == *secret) {
                consumers.push(Consumer {
                    cluster: cluster(node).flatten(),
                    node: node.clone(),
                    holder: holder.clone(),
                    since: *since,
                    heard_at: stated.heard_at,
                });
            }
        }
        consumers.sort_by(|a, b| (&a.node, &a.holder).cmp(&(&b.node, &b.holder)));
        let is_complete = nodes.values().all(|stated| !stated.is_incomplete);
        Consumers { heard_since: self.heard_since, is_complete, consumers }
    }

    /// Each change is one call on a map, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Stated>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn holder(pod: &str, version: u32) -> Holder {
        Holder {
            secret: SecretName::parse("a/b").unwrap(),
            version: VersionNo::new(version).unwrap(),
            namespace: "n".to_owned(),
            service_account: "s".to_owned(),
            pod: pod.to_owned(),
            pod_uid: format!("uid-{pod}"),
            given_in_outage: false,
        }
    }

    fn said(digest: &str, holders: &[Holder]) -> Statement {
        Statement {
            digest: digest.to_owned(),
            holders: Some(holders.to_vec()),
            is_incomplete: false,
        }
    }

    fn versions(holders: &Holders) -> Vec<(String, u32, u64)> {
        let all = holders.of(&SecretName::parse("a/b").unwrap(), |_| Some(None));
        let of = |one: Consumer| (one.holder.pod, one.holder.version.number(), one.since.0);
        all.consumers.into_iter().map(of).collect()
    }

    /// Takes a statement over as the server does.
    fn hear(holders: &Holders, node: &Name, statement: Statement, now: u64) -> Option<Vec<Holder>> {
        let news = holders.news(node, &statement)?;
        holders.hear(node, statement, Timestamp(now));
        Some(news)
    }

    #[test]
    fn each_statement_takes_the_place_of_the_one_before() {
        let (holders, node) = (Holders::none(Timestamp(1)), name("w1"));
        let (p, q) = (holder("p", 1), holder("q", 1));
        let news = hear(&holders, &node, said("x", &[p.clone(), q.clone()]), 2).unwrap();
        assert_eq!(news, [p.clone(), q]);
        let moved = holder("q", 2);
        let news = hear(&holders, &node, said("y", &[p, moved.clone()]), 3).unwrap();
        assert_eq!(news, [moved]);
        assert_eq!(versions(&holders), [("p".to_owned(), 1, 2), ("q".to_owned(), 2, 3)]);
        hear(&holders, &node, said("z", &[]), 4).unwrap();
        assert!(versions(&holders).is_empty());
    }

    #[test]
    fn what_was_given_in_an_outage_is_news_once_and_holds_as_anything_else() {
        let (holders, node) = (Holders::none(Timestamp(1)), name("w1"));
        let given = Holder { given_in_outage: true, ..holder("p", 1) };
        let news = hear(&holders, &node, said("x", std::slice::from_ref(&given)), 2).unwrap();
        assert_eq!(news, [given]);
        let news = hear(&holders, &node, said("y", &[holder("p", 1)]), 3).unwrap();
        assert!(news.is_empty());
        assert_eq!(versions(&holders), [("p".to_owned(), 1, 2)]);
    }

    #[test]
    fn digest_alone_is_enough_while_it_is_known_and_no_longer() {
        let (holders, node) = (Holders::none(Timestamp(1)), name("w1"));
        let alone = |digest: &str| Statement {
            digest: digest.to_owned(),
            holders: None,
            is_incomplete: false,
        };
        assert_eq!(hear(&holders, &node, alone("x"), 2), None);
        hear(&holders, &node, said("x", &[holder("p", 1)]), 2).unwrap();
        assert_eq!(hear(&holders, &node, alone("x"), 3), Some(Vec::new()));
        assert_eq!(hear(&holders, &node, alone("y"), 4), None);
        assert_eq!(hear(&holders, &name("w2"), alone("x"), 4), None);
    }

    #[test]
    fn incomplete_statement_takes_out_no_pod_that_it_leaves_out() {
        let (holders, node) = (Holders::none(Timestamp(1)), name("w1"));
        hear(&holders, &node, said("x", &[holder("p", 1), holder("q", 1)]), 2).unwrap();
        let first = Statement { is_incomplete: true, ..said("y", &[holder("q", 2)]) };
        assert_eq!(hear(&holders, &node, first, 3).unwrap(), [holder("q", 2)]);
        assert_eq!(versions(&holders), [("p".to_owned(), 1, 2), ("q".to_owned(), 2, 3)]);
        let secret = SecretName::parse("a/b").unwrap();
        assert!(!holders.of(&secret, |_| Some(None)).is_complete);
        hear(&holders, &node, said("z", &[holder("q", 2)]), 4).unwrap();
        assert_eq!(versions(&holders), [("q".to_owned(), 2, 3)]);
        assert!(holders.of(&secret, |_| Some(None)).is_complete);
    }

    #[test]
    fn news_stay_news_until_they_are_taken_over() {
        let (holders, node) = (Holders::none(Timestamp(1)), name("w1"));
        let statement = said("x", &[holder("p", 1)]);
        for _ in 0..2 {
            assert_eq!(holders.news(&node, &statement).unwrap(), [holder("p", 1)]);
        }
        holders.hear(&node, statement.clone(), Timestamp(2));
        assert!(holders.news(&node, &statement).unwrap().is_empty());
    }

    #[test]
    fn node_that_was_removed_is_left_out() {
        let holders = Holders::none(Timestamp(1));
        hear(&holders, &name("w1"), said("x", &[holder("p", 1)]), 2).unwrap();
        let all = holders.of(&SecretName::parse("a/b").unwrap(), |_| None);
        assert!(all.consumers.is_empty());
    }
}
