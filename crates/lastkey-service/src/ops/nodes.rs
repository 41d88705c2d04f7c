//! Use cases: a node gets a one-time token, joins with it, and renews its certificate.
//!
//! Room      `service`. What a certificate looks like is the business of `trust`.
//! Source    `docs/identity.md`, "Nodes".
//! Holds     a token is used once; a certificate is signed for the node of the token, or of the
//!           certificate that asks, and for no other. When one is signed for a token, the one
//!           before is void before it leaves; for a certificate, that one is void as soon as the
//!           next one is shown, because the answer may be lost.

use std::sync::Arc;

use lastkey_core::access::{Enrolment, NODE_AUTHORITY_SECS, NODE_JOIN_SECS, Node, NodeAuthority};
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::ports::{Expected, Revision, Write};
use lastkey_core::principal::Peer;
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::time::Elapsed;
use lastkey_crypto::digest::sha256;
use lastkey_crypto::material;
use lastkey_secret::SecretVec;
use lastkey_trust::node_authority::{self, Authority, Issued};
use lastkey_trust::x509::SpiffeId;

use crate::access::read_authority;
use crate::audited::Visit;
use crate::authenticate::mint_token;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::exchange_token::Refused;
use crate::ops::named::Planned;
use crate::root::SecretPlace;
use crate::sealing::detached;

/// A node that may join.
#[derive(Debug)]
pub struct Invited {
    /// The node.
    pub node: Node,
    /// The token that it joins with, shown once. Good for [`NODE_JOIN_SECS`].
    pub token: SecretVec,
}

/// A node's new certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The node, as it is now.
    pub node: Node,
    /// Its certificate, in DER.
    pub certificate: Vec<u8>,
    /// Its SPIFFE id.
    pub spiffe_id: String,
}

/// What a node shows for a certificate.
enum Shown {
    /// Its one-time token.
    Token(SecretVec),
    /// The certificate that it has, by SHA-256.
    Certificate([u8; 32]),
}

impl Engine {
    /// Makes a node known, or lets one that is known join anew; the certificate that it has stays
    /// good until then.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that no certificate can carry, for a cluster that is not
    /// there, and for a node of another cluster; [`Error::Denied`], [`Error::Conflict`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn invite_node(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        cluster: Name,
    ) -> Result<Invited, Error> {
        self.spiffe_id(&name)?;
        let mut entropy = self.ports.entropy.open();
        let token = mint_token("lastkey_node", &mut *entropy)
            .map_err(|error| Error::Internal(error.into()))?;
        drop(entropy);
        let code_hash = token.expose(sha256);
        let named = name.clone();
        let set = self.change_named::<Node>(call, name, move |before| {
            if let Some(other) = before.current.and_then(|node| node.cluster.as_ref())
                && *other != cluster
            {
                let message = format!("this node belongs to cluster {other}; remove it first");
                return Err(Error::invalid("cluster", message));
            }
            let expires = Elapsed(before.clock.elapsed.0.saturating_add(NODE_JOIN_SECS));
            Ok(Planned::put(Node {
                name: named,
                cluster: Some(cluster),
                join: Some(Enrolment { code_hash, expires }),
                certificate: before.current.and_then(|node| node.certificate.clone()),
                created_at: before.current.map_or(before.now, |node| node.created_at),
                previous: before.current.and_then(|node| node.previous.clone()),
            }))
        });
        let node = set.await?.ok_or_else(|| Error::Internal("a plan wrote nothing".into()))?;
        Ok(Invited { node, token })
    }

    /// Exchanges a node's one-time token for its certificate. Runs to its end even when the
    /// caller goes away.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] whatever is wrong with name or token; [`Error::Invalid`] for a
    /// request that cannot be signed; [`Error::Conflict`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn join_node(
        self: &Arc<Self>,
        id: RequestId,
        peer: &Peer,
        name: Name,
        token: SecretVec,
        request: &[u8],
    ) -> Result<Joined, Error> {
        let request = parse_request(request)?;
        let visit = Visit::of(self, id, peer, "sys:JoinNode", format!("node/{name}"));
        let attempt = Attempt { name, shown: Shown::Token(token), request };
        Arc::clone(self).certify(visit, attempt).await
    }

    /// Signs the next certificate of the node whose agent calls; the one that it shows is good
    /// until the node has shown the next one. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without the good certificate of a node; else as
    /// [`Engine::join_node`].
    pub async fn renew_node(
        self: &Arc<Self>,
        id: RequestId,
        peer: &Peer,
        request: &[u8],
    ) -> Result<Joined, Error> {
        let agent = self.agent(peer).ok_or(Error::Unauthenticated)?;
        let shown = Shown::Certificate(agent.fingerprint);
        let request = parse_request(request)?;
        let visit = Visit::of(self, id, peer, "sys:RenewNode", format!("node/{}", agent.node));
        let visit = visit.by(agent.principal());
        Arc::clone(self).certify(visit, Attempt { name: agent.node, shown, request }).await
    }

    async fn certify(self: Arc<Self>, visit: Visit, attempt: Attempt) -> Result<Joined, Error> {
        detached(async move {
            let outcome = self.try_certify(&visit, &attempt).await;
            visit.close(&self, outcome).await
        })
        .await?
    }

    async fn try_certify(&self, visit: &Visit, attempt: &Attempt) -> Result<Joined, Refused> {
        // Most of what is wrong is found before anybody has to wait for it.
        let known = self.nodes.get(&attempt.name).ok_or(Refused::Token("no_such_node"))?;
        self.check_shown(&attempt.shown, &known)?;
        // Held until the new certificate counts: a second use of the same token or certificate
        // waits here, and finds that it is over.
        let changing = self.access_changes.lock().await;
        let path = RecordPath::node(&attempt.name);
        let found = self.read_one::<Node>(&path).await?;
        let (mut node, revision) = found.ok_or(Refused::Token("no_such_node"))?;
        self.check_shown(&attempt.shown, &node)?;
        let spiffe_id = self.spiffe_id(&node.name)?;
        let (issued, authority) = self.sign_certificate(attempt)?;
        visit.intend(self).await?;
        node.join = None;
        node.previous = match &attempt.shown {
            Shown::Token(_) => None,
            Shown::Certificate(shown) => node.certificate_of(shown).cloned(),
        };
        node.certificate = Some(issued.kept);
        self.write_node(path, &node, revision, authority).await?;
        drop(changing);
        Ok(Joined { node, certificate: issued.der, spiffe_id })
    }

    fn check_shown(&self, shown: &Shown, node: &Node) -> Result<(), Refused> {
        match shown {
            Shown::Token(token) => {
                let join = node.join.as_ref().ok_or(Refused::Token("no_token"))?;
                // Equality of hashes tells nothing of a token that somebody guesses at.
                if token.expose(sha256) != join.code_hash {
                    return Err(Refused::Token("wrong_token"));
                }
                if self.clock.observe().elapsed >= join.expires {
                    return Err(Refused::Token("expired"));
                }
                Ok(())
            }
            Shown::Certificate(fingerprint) => {
                let held = node.certificate_of(fingerprint);
                held.map(drop).ok_or(Refused::Token("superseded"))
            }
        }
    }

    /// Signs, by a new authority if there is none yet or the one that there is has served its time.
    /// A new one is to be written then.
    fn sign_certificate(
        &self,
        attempt: &Attempt,
    ) -> Result<(Issued, Option<NodeAuthority>), Error> {
        let internal = |error| Error::Internal(error);
        let (now, mut entropy) = (self.clock.wall(), self.ports.entropy.open());
        let place = SecretPlace::NodeAuthority;
        let (key, authority) = match self.nodes.authority() {
            Some(known) if now.0.saturating_sub(known.created_at.0) < NODE_AUTHORITY_SECS => {
                let key = self.keyring.materials.unwrap_secret(place, &known.private_key);
                (key.map_err(internal)?, None)
            }
            before => {
                let key = material::generate(node_authority::KEY_SPEC, &mut *entropy)
                    .map_err(|error| Error::Internal(error.into()))?;
                let private_key = self.keyring.materials.wrap_secret(place, &key, &mut *entropy);
                let private_key = private_key.map_err(internal)?;
                let certificate = Authority::open(&key)
                    .and_then(|one| one.certificate(self.instance, now, &mut *entropy))
                    .map_err(|error| Error::Internal(error.into()))?;
                let previous = before.map(|before| before.certificate.clone());
                let created_at = now;
                (key, Some(NodeAuthority { private_key, certificate, created_at, previous }))
            }
        };
        let issued = Authority::open(&key).and_then(|one| {
            one.issue(&attempt.request, self.instance, &attempt.name, now, &mut *entropy)
        });
        Ok((issued.map_err(|error| Error::Internal(error.into()))?, authority))
    }

    async fn write_node(
        &self,
        path: RecordPath,
        node: &Node,
        revision: Revision,
        authority: Option<NodeAuthority>,
    ) -> Result<(), Error> {
        let record = Some(Record::Node(node.clone()));
        let mut batch = vec![Write { path, expected: Expected::At(revision), record }];
        if let Some(authority) = authority {
            let stored = read_authority(&*self.store).await?;
            // Another server may have made one meanwhile, which signed what counts there.
            if stored.as_ref().map(|(stored, _)| stored) != self.nodes.authority().as_ref() {
                self.reload_node(&node.name).await;
                return Err(Error::Conflict);
            }
            let expected = stored.map_or(Expected::Absent, |(_, revision)| Expected::At(revision));
            let record = Some(Record::NodeAuthority(authority));
            batch.push(Write { path: RecordPath::node_authority(), expected, record });
        }
        let committed = self.store.commit(batch).await;
        self.reload_node(&node.name).await;
        committed?;
        Ok(())
    }

    fn spiffe_id(&self, name: &Name) -> Result<String, Error> {
        let id = SpiffeId::node(&self.instance.to_string(), name.as_str());
        let id = id.map_err(|_| Error::invalid("name", "a node has no @ in its name"))?;
        Ok(id.as_str().to_owned())
    }
}

/// An attempt to get a certificate.
struct Attempt {
    name: Name,
    shown: Shown,
    request: node_authority::Request,
}

fn parse_request(der: &[u8]) -> Result<node_authority::Request, Error> {
    node_authority::Request::parse(der).map_err(|_| {
        Error::invalid("csr", "expected a PKCS #10 request for a key on P-256, signed by that key")
    })
}
