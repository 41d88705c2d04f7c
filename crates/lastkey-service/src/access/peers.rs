//! Certificates of clients: who may have signed one, and what one says that TLS has verified.
//!
//! Room      `service`.
//! Holds     that TLS verified a certificate says only that one of those known here vouches for
//!           it. Whose it is, and what it is good for, is judged by whoever uses it, by the
//!           authorities of that use alone.

use std::sync::Arc;

use lastkey_core::ids::Name;
use lastkey_core::principal::PeerCertificate;
use lastkey_core::time::Timestamp;
use lastkey_trust::x509::{self, fingerprint};

use super::{Access, NodeTrust};
use crate::engine::Engine;

/// What a listener checks certificates of clients by.
pub struct PeerTrust {
    nodes: Option<NodeTrust>,
    access: Arc<Access>,
    now: Timestamp,
}

impl PeerTrust {
    /// The certificates, in DER, of those who may have signed one: the authority of nodes, with the
    /// one before it while that counts, and those of trust domains and of kubelets.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        let nodes = self.nodes.iter().flat_map(NodeTrust::certificates);
        nodes.chain(self.access.authorities())
    }

    /// Whether nobody but the authority of nodes is among them.
    #[must_use]
    pub fn is_of_nodes_alone(&self) -> bool {
        self.access.authorities().next().is_none()
    }

    /// The wall clock.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }
}

impl Engine {
    /// What certificates of clients are checked by; `None` while nobody can have one.
    #[must_use]
    pub fn peer_trust(&self) -> Option<PeerTrust> {
        let (nodes, access, now) = (self.node_trust(), self.access.get(), self.clock.wall());
        let trust = PeerTrust { nodes, access, now };
        let is_somebody_known = trust.certificates().next().is_some();
        is_somebody_known.then_some(trust)
    }

    /// What a client has shown, its own certificate first, each in DER; TLS has verified it.
    #[must_use]
    pub fn read_peer(&self, chain: Vec<Vec<u8>>) -> Option<PeerCertificate> {
        let leaf = chain.first()?;
        let node = x509::read_peer(leaf, self.clock.wall())
            .ok()
            .and_then(|read| Name::parse(read.id.node_name(&self.instance.to_string())?).ok());
        Some(PeerCertificate { fingerprint: fingerprint(leaf), node, chain })
    }
}
