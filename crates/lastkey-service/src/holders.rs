//! Who on which node holds which version of a secret, as the nodes say it.
//!
//! Room      `service`.
//! Holds     A node speaks of itself alone, and each of its statements takes the place of the one
//!           before. Nothing of this is stored: after a start the nodes are asked for their
//!           statements, and until they have answered the list says since when it listens. What a
//!           node said is kept until it says something else; who has fallen silent is told apart.

use std::collections::BTreeMap;
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
    heard_at: Timestamp,
    holders: BTreeMap<Holder, Timestamp>,
}

impl Holders {
    /// Nothing was said yet.
    pub(crate) fn none(now: Timestamp) -> Self {
        Self { heard_since: now, nodes: Mutex::default() }
    }

    /// Takes over what a node says; whether that was possible: not without its holders, when they
    /// are not known here. Answers who is new.
    pub(crate) fn hear(
        &self,
        node: &Name,
        statement: Statement,
        now: Timestamp,
    ) -> Option<Vec<Holder>> {
        let mut nodes = self.lock();
        let Some(holders) = statement.holders else {
            let stated = nodes.get_mut(node).filter(|known| known.digest == statement.digest)?;
            stated.heard_at = now;
            return Some(Vec::new());
        };
        let before = nodes.remove(node).map(|stated| stated.holders).unwrap_or_default();
        let mut news = Vec::new();
        let holders = holders.into_iter().map(|holder| {
            let plain = holder.plain();
            let since = before.get(&plain).copied();
            if since.is_none() || holder.given_in_outage {
                news.push(holder);
            }
            (plain, since.unwrap_or(now))
        });
        let stated = Stated { holders: holders.collect(), heard_at: now, digest: statement.digest };
        nodes.insert(node.clone(), stated);
        Some(news)
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
        Consumers { heard_since: self.heard_since, consumers }
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
        Statement { digest: digest.to_owned(), holders: Some(holders.to_vec()) }
    }

    fn versions(holders: &Holders) -> Vec<(String, u32, u64)> {
        let all = holders.of(&SecretName::parse("a/b").unwrap(), |_| Some(None));
        let of = |one: Consumer| (one.holder.pod, one.holder.version.number(), one.since.0);
        all.consumers.into_iter().map(of).collect()
    }

    #[test]
    fn each_statement_takes_the_place_of_the_one_before() {
        let (holders, node) = (Holders::none(Timestamp(1)), name("w1"));
        let (p, q) = (holder("p", 1), holder("q", 1));
        let news = holders.hear(&node, said("x", &[p.clone(), q.clone()]), Timestamp(2)).unwrap();
        assert_eq!(news, [p.clone(), q]);
        let moved = holder("q", 2);
        let news = holders.hear(&node, said("y", &[p, moved.clone()]), Timestamp(3)).unwrap();
        assert_eq!(news, [moved]);
        assert_eq!(versions(&holders), [("p".to_owned(), 1, 2), ("q".to_owned(), 2, 3)]);
        holders.hear(&node, said("z", &[]), Timestamp(4)).unwrap();
        assert!(versions(&holders).is_empty());
    }

    #[test]
    fn what_was_given_in_an_outage_is_news_once_and_holds_as_anything_else() {
        let (holders, node) = (Holders::none(Timestamp(1)), name("w1"));
        let given = Holder { given_in_outage: true, ..holder("p", 1) };
        let news =
            holders.hear(&node, said("x", std::slice::from_ref(&given)), Timestamp(2)).unwrap();
        assert_eq!(news, [given]);
        let news = holders.hear(&node, said("y", &[holder("p", 1)]), Timestamp(3)).unwrap();
        assert!(news.is_empty());
        assert_eq!(versions(&holders), [("p".to_owned(), 1, 2)]);
    }

    #[test]
    fn digest_alone_is_enough_while_it_is_known_and_no_longer() {
        let (holders, node) = (Holders::none(Timestamp(1)), name("w1"));
        let alone = |digest: &str| Statement { digest: digest.to_owned(), holders: None };
        assert_eq!(holders.hear(&node, alone("x"), Timestamp(2)), None);
        holders.hear(&node, said("x", &[holder("p", 1)]), Timestamp(2)).unwrap();
        assert_eq!(holders.hear(&node, alone("x"), Timestamp(3)), Some(Vec::new()));
        assert_eq!(holders.hear(&node, alone("y"), Timestamp(4)), None);
        assert_eq!(holders.hear(&name("w2"), alone("x"), Timestamp(4)), None);
    }

    #[test]
    fn node_that_was_removed_is_left_out() {
        let holders = Holders::none(Timestamp(1));
        holders.hear(&name("w1"), said("x", &[holder("p", 1)]), Timestamp(2)).unwrap();
        let all = holders.of(&SecretName::parse("a/b").unwrap(), |_| None);
        assert!(all.consumers.is_empty());
    }
}
