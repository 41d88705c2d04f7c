//! Nodes in memory: whose certificate is good, and which agent made a connection.
//!
//! Room      `service`.
//! Holds     a certificate is good while its node's record holds it, and no longer: not after the
//!           node has shown the next one, and not after it was removed. That is asked for each
//!           call, whatever TLS said when the connection was made.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use lastkey_core::access::{Node, NodeAuthority};
use lastkey_core::ids::Name;
use lastkey_core::ports::{Expected, Revision, Store, StoreError, Write};
use lastkey_core::principal::{Identity, Kind, Peer, Principal};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::time::Timestamp;
use lastkey_trust::session::NodeAgent;

use crate::engine::Engine;
use crate::error::Error;

/// The nodes, and what signs their certificates.
#[derive(Debug)]
pub(crate) struct Nodes {
    known: RwLock<HashMap<Name, Node>>,
    authority: RwLock<Option<Arc<NodeAuthority>>>,
}

impl Nodes {
    /// Reads nodes and authority.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, Error> {
        let mut known = HashMap::new();
        for stored in store.scan(&PathRange::kind("node", None, usize::MAX)).await? {
            let Record::Node(node) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            known.insert(node.name.clone(), node);
        }
        let authority = read_authority(store).await?.map(|(authority, _)| authority);
        Ok(Self { known: RwLock::new(known), authority: RwLock::new(authority) })
    }

    /// A node.
    pub(crate) fn get(&self, name: &Name) -> Option<Node> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn set(&self, name: &Name, node: Option<Node>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match node {
            Some(node) => known.insert(name.clone(), node),
            None => known.remove(name),
        };
    }

    /// Voids the certificate before the one that a node shows. False when there is none.
    fn void_previous(&self, agent: &Agent) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let node = known.get_mut(&agent.node).filter(|node| agent.shows_last(node));
        node.is_some_and(|node| node.previous.take().is_some())
    }

    /// What signs certificates, once there was a node that needed one.
    pub(crate) fn authority(&self) -> Option<Arc<NodeAuthority>> {
        self.authority.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The authority as it is stored.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Internal`].
pub(crate) async fn read_authority(
    store: &dyn Store,
) -> Result<Option<(Arc<NodeAuthority>, Revision)>, Error> {
    match store.get(&RecordPath::node_authority()).await? {
        None => Ok(None),
        Some(stored) => {
            let Record::NodeAuthority(authority) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            Ok(Some((Arc::new(authority), stored.revision)))
        }
    }
}

/// The agent of a node, whose certificate is good now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Its node.
    pub(crate) node: Name,
    /// The cluster that the node belongs to.
    cluster: Name,
    /// SHA-256 of its certificate.
    pub(crate) fingerprint: [u8; 32],
    /// Whether a certificate before this one is good as well.
    has_previous: bool,
}

impl Agent {
    /// It as sessions want to know it.
    pub(crate) fn as_trusted(&self) -> NodeAgent<'_> {
        NodeAgent { cluster: self.cluster.as_str(), node: self.node.as_str() }
    }

    /// Whether somebody is a pod on its own node.
    pub(crate) fn serves(&self, who: &Principal) -> bool {
        match &who.identity().kind {
            Kind::Workload(pod) => {
                let node = pod.node.as_ref().map(|node| node.name.as_str());
                self.as_trusted().serves(&pod.cluster, node)
            }
            Kind::System | Kind::User | Kind::Node | Kind::Federated { .. } => false,
        }
    }

    /// Whether it has the last certificate that its node was sent.
    fn shows_last(&self, node: &Node) -> bool {
        node.certificate.as_ref().is_some_and(|held| held.fingerprint == self.fingerprint)
    }

    /// It as a caller of its own.
    pub(crate) fn principal(&self) -> Principal {
        let name = format!("node:{}", self.node);
        Principal::verified(Identity { name, kind: Kind::Node, groups: Vec::new(), session: None })
    }
}

/// What a listener checks certificates of nodes by.
#[derive(Clone, Debug)]
pub struct NodeTrust {
    /// What signs certificates now.
    pub authority: Arc<NodeAuthority>,
    /// The wall clock.
    pub now: Timestamp,
}

impl NodeTrust {
    /// The certificates, in DER, of those who may have signed one that is not over: the authority,
    /// and the one before it until the last that it signed has ended.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        let counts = self.authority.overlaps(self.now);
        let previous = self.authority.previous.as_deref().filter(|_| counts);
        std::iter::once(self.authority.certificate.as_slice()).chain(previous)
    }
}

impl Engine {
    /// The agent at the other end of a connection, if its certificate is good now.
    pub(crate) fn agent(&self, peer: &Peer) -> Option<Agent> {
        let shown = peer.certificate.as_ref()?;
        let known = self.nodes.known.read().unwrap_or_else(PoisonError::into_inner);
        let node = known.get(shown.node.as_ref()?)?;
        let held = node.certificate_of(&shown.fingerprint)?;
        let is_good = self.clock.wall() < held.expires_at
            && !self.sessions.is_node_revoked(&node.name, held.issued_at);
        let cluster = node.cluster.clone()?;
        let (fingerprint, has_previous) = (held.fingerprint, node.previous.is_some());
        is_good.then(|| Agent { node: node.name.clone(), cluster, fingerprint, has_previous })
    }

    /// Whether the certificate at the other end of a connection is of a node that was let go:
    /// removed, or revoked. TLS has verified it, so it is refused by name; one that was replaced or
    /// is over says nothing about the node. Either way nobody is let in by it.
    pub(crate) fn was_let_go(&self, peer: &Peer) -> bool {
        let Some(shown) = &peer.certificate else { return false };
        let Some(name) = &shown.node else { return false };
        let Some(node) = self.nodes.get(name) else { return true };
        let held = node.certificate_of(&shown.fingerprint);
        held.is_some_and(|held| self.sessions.is_node_revoked(&node.name, held.issued_at))
    }

    /// A node has shown a certificate: the one before it is void from now on, in the store as
    /// well, so that a start does not bring it back.
    pub(crate) async fn note_shown(&self, agent: &Agent) {
        if !agent.has_previous || !self.nodes.void_previous(agent) {
            return;
        }
        let _changing = self.access_changes.lock().await;
        if let Err(error) = self.forget_previous(agent).await {
            let node = &agent.node;
            tracing::warn!(%node, %error, "a replaced certificate is void until a restart only");
        }
    }

    async fn forget_previous(&self, agent: &Agent) -> Result<(), Error> {
        let path = RecordPath::node(&agent.node);
        let Some((mut node, revision)) = self.read_one::<Node>(&path).await? else {
            return Ok(());
        };
        if agent.shows_last(&node) && node.previous.take().is_some() {
            let (expected, record) = (Expected::At(revision), Some(Record::Node(node)));
            self.store.commit(vec![Write { path, expected, record }]).await?;
        }
        Ok(())
    }

    /// Reads a node again, and the authority, after a write of them that succeeded or may have:
    /// what the store holds counts. A node that cannot be read is unknown. Called while changes
    /// are held, so that the last write counts last.
    pub(crate) async fn reload_node(&self, name: &Name) {
        let read = self.read_one::<Node>(&RecordPath::node(name)).await;
        if let Err(error) = &read {
            tracing::error!(node = %name, %error, "a node could not be read; it is kept out");
        }
        self.nodes.set(name, read.ok().flatten().map(|(node, _)| node));
        self.reload_authority().await;
    }

    /// Reads the authority again; one that cannot be read stays as it was known.
    pub(crate) async fn reload_authority(&self) {
        if let Ok(Some((authority, _))) = read_authority(&*self.store).await {
            let mut place = self.nodes.authority.write().unwrap_or_else(PoisonError::into_inner);
            *place = Some(authority);
        }
    }

    /// What certificates of nodes are checked by; `None` while no node has ever joined.
    #[must_use]
    pub fn node_trust(&self) -> Option<NodeTrust> {
        Some(NodeTrust { authority: self.nodes.authority()?, now: self.clock.wall() })
    }
}
