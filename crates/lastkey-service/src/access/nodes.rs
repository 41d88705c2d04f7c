//! Nodes in memory: whose certificate is good, and which agent made a connection.
//!
//! Room      `service`.
//! Holds     a certificate is good while its node's record holds it, and no longer: not after the
//!           node has shown the next one, and not after it was removed. That is asked for each
//!           call, whatever TLS said when the connection was made.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use lastkey_core::access::{NODE_CERTIFICATE_SECS, Node, NodeAuthority, RevokedWhat};
use lastkey_core::ids::Name;
use lastkey_core::ports::{Expected, Revision, Store, StoreError, Write};
use lastkey_core::principal::{Identity, Kind, Peer, Principal};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::time::Timestamp;
use lastkey_trust::session::NodeAgent;
use lastkey_trust::x509;

use crate::access::proofs::UsedProofs;
use crate::engine::Engine;
use crate::error::Error;

/// The nodes, and what signs their certificates.
#[derive(Debug)]
pub(crate) struct Nodes {
    known: RwLock<HashMap<Name, Node>>,
    /// Nodes of which nothing can be said until the store answers.
    unread: RwLock<HashSet<Name>>,
    /// The last token of a node that lets it in no more, by SHA-256, as far as this process saw it
    /// end.
    spent: RwLock<HashMap<Name, [u8; 32]>>,
    authority: RwLock<Option<Arc<NodeAuthority>>>,
    /// What TPMs have proved already.
    pub(crate) proofs: UsedProofs,
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
        let (known, authority) = (RwLock::new(known), RwLock::new(authority));
        Ok(Self {
            known,
            unread: RwLock::default(),
            spent: RwLock::default(),
            authority,
            proofs: UsedProofs::default(),
        })
    }

    /// A node.
    pub(crate) fn get(&self, name: &Name) -> Option<Node> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn set(&self, name: &Name, node: Option<Node>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut spent = self.spent.write().unwrap_or_else(PoisonError::into_inner);
        let Some(node) = node else {
            spent.remove(name);
            known.remove(name);
            return;
        };
        let token = |node: &Node| node.join.as_ref().map(|join| join.code_hash);
        let after = token(&node);
        if let Some(before) = known.insert(name.clone(), node).as_ref().and_then(token)
            && after != Some(before)
        {
            spent.insert(name.clone(), before);
        }
    }

    /// Whether this was the last token of a node before the one, if any, that lets it in.
    pub(crate) fn is_spent(&self, name: &Name, token: &[u8; 32]) -> bool {
        let spent = self.spent.read().unwrap_or_else(PoisonError::into_inner);
        spent.get(name) == Some(token)
    }

    /// A node whose TPM has an attestation key of this name.
    pub(crate) fn with_tpm(&self, key: &[u8; 32]) -> Option<Name> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let is_of = |node: &&Node| node.tpm.as_ref().is_some_and(|named| named.name == *key);
        known.values().find(is_of).map(|node| node.name.clone())
    }

    /// Whether nothing can be said of a node.
    fn is_unread(&self, name: &Name) -> bool {
        self.unread.read().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Those that a revocation is about and nothing can be said of.
    fn unread_of(&self, what: &RevokedWhat) -> Vec<Name> {
        let unread = self.unread.read().unwrap_or_else(PoisonError::into_inner);
        unread.iter().filter(|name| is_about(what, name)).cloned().collect()
    }

    fn mark(&self, name: &Name, is_unread: bool) {
        let mut unread = self.unread.write().unwrap_or_else(PoisonError::into_inner);
        if is_unread {
            unread.insert(name.clone());
        } else {
            unread.remove(name);
        }
    }

    /// The latest date of a certificate, or of the key of a TPM, that a revocation is about.
    pub(crate) fn last_issued(&self, what: &RevokedWhat) -> Option<Timestamp> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let concerned = known.values().filter(|node| is_about(what, &node.name));
        let dates = concerned.flat_map(|node| {
            let issued_at = node.certificate.as_ref().map(|held| held.issued_at);
            [issued_at, node.tpm.as_ref().map(|key| key.since)]
        });
        dates.flatten().max()
    }

    /// Since when the keys of TPMs count that are on record. They have no end, so what revokes one
    /// has none either. In a record that could not be read there may be any.
    pub(crate) fn tpm_keys(&self) -> TpmKeys {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let unread = self.unread.read().unwrap_or_else(PoisonError::into_inner);
        let named = known.values().filter_map(|node| Some((node, node.tpm.as_ref()?)));
        let named = named.map(|(node, key)| (node.name.clone(), key.since));
        TpmKeys(named.chain(unread.iter().map(|name| (name.clone(), Timestamp(0)))).collect())
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

/// The keys of TPMs on record, by since when they count.
pub(crate) struct TpmKeys(Vec<(Name, Timestamp)>);

impl TpmKeys {
    /// Whether one of them would be good again without a revocation.
    pub(crate) fn need(&self, what: &RevokedWhat, issued_until: Timestamp) -> bool {
        self.0.iter().any(|(node, since)| *since <= issued_until && is_about(what, node))
    }
}

/// Whether a revocation is about a node.
pub(crate) fn is_about(what: &RevokedWhat, node: &Name) -> bool {
    match what {
        RevokedWhat::Node(name) => node.as_str() == name,
        RevokedWhat::Everything => true,
        RevokedWhat::Session(_)
        | RevokedWhat::Pod(_)
        | RevokedWhat::ServiceAccount(_)
        | RevokedWhat::User(_)
        | RevokedWhat::Role(_)
        | RevokedWhat::Cluster(_) => false,
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

    /// Why nobody is let in by the certificate at the other end of a connection. A node that was
    /// let go, removed or revoked, is refused by name, by the revocation that tells so. One that is
    /// not known may have joined after the backup that was restored: that says nothing about it,
    /// nor does a certificate that was replaced or is over.
    pub(crate) fn refuse_peer(&self, peer: &Peer) -> Error {
        let named = peer.certificate.as_ref().and_then(|shown| Some((shown, shown.node.as_ref()?)));
        let Some((shown, name)) = named else { return Error::Unauthenticated };
        let issued_at = match self.nodes.get(name) {
            Some(node) => node.certificate_of(&shown.fingerprint).map(|held| held.issued_at),
            None => shown.chain.first().and_then(|leaf| self.date_of(leaf)),
        };
        match issued_at.is_some_and(|at| self.sessions.is_node_revoked(name, at)) {
            true => Error::Denied,
            false => Error::Unauthenticated,
        }
    }

    /// When the certificate of a node was signed, which its end tells.
    fn date_of(&self, leaf: &[u8]) -> Option<Timestamp> {
        let read = x509::read_peer(leaf, self.clock.wall()).ok()?;
        Some(Timestamp(read.expires_at.0.saturating_sub(NODE_CERTIFICATE_SECS)))
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

    /// Reads a node again that could not be read, before anything is said of it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while it cannot be.
    pub(crate) async fn reread_node(&self, name: &Name) -> Result<(), Error> {
        if !self.nodes.is_unread(name) {
            return Ok(());
        }
        let _changing = self.access_changes.lock().await;
        self.reread_held(name).await
    }

    /// The same while changes are held.
    async fn reread_held(&self, name: &Name) -> Result<(), Error> {
        // Somebody who held changes before may have read it.
        if self.nodes.is_unread(name) {
            self.reload_node(name).await;
        }
        if self.nodes.is_unread(name) {
            return Err(Error::Unavailable("the record of the node could not be read".into()));
        }
        Ok(())
    }

    /// Reads those nodes again that a revocation is about and that could not be read: it has to
    /// know how their certificates are dated. Called while changes are held.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while one cannot be.
    pub(crate) async fn reread_concerned(&self, what: &RevokedWhat) -> Result<(), Error> {
        for name in self.nodes.unread_of(what) {
            self.reread_held(&name).await?;
        }
        Ok(())
    }

    /// Reads a node again, and the authority, after a write of them that succeeded or may have:
    /// what the store holds counts. A node that cannot be read is kept out until it can, and is
    /// not told that it was let go. Called while changes are held, so that the last write counts
    /// last.
    pub(crate) async fn reload_node(&self, name: &Name) {
        let read = self.read_one::<Node>(&RecordPath::node(name)).await;
        match read {
            // Nobody may find a node that is neither unread nor there.
            Ok(found) => {
                self.nodes.set(name, found.map(|(node, _)| node));
                self.nodes.mark(name, false);
            }
            Err(error) => {
                tracing::error!(node = %name, %error, "a node could not be read; it is kept out");
                self.nodes.mark(name, true);
                self.nodes.set(name, None);
            }
        }
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
