//! Use cases: a node gets a one-time token, joins with it, and renews its certificate.
//!
//! Room      `service`. What a certificate looks like is the business of `trust`.
//! Source    `docs/identity.md`, "Nodes".
//! Holds     a token is used once; a certificate is signed for the node of the token, or of the
//!           certificate that asks, and for no other. When one is signed, the one before is void
//!           before it leaves.

use std::sync::Arc;

use lastkey_core::access::{Enrolment, NODE_JOIN_SECS, Node, NodeAuthority};
use lastkey_core::audit::{Event, Phase};
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::ports::{Expected, Revision, Write};
use lastkey_core::principal::{Peer, Principal, Source};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::time::Elapsed;
use lastkey_crypto::digest::sha256;
use lastkey_crypto::material;
use lastkey_secret::SecretVec;
use lastkey_trust::node_authority::{self, Authority, Issued};
use lastkey_trust::x509::SpiffeId;

use crate::authenticate::mint_token;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
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

/// Who it is until that is known.
const ANONYMOUS: &str = "anonymous";

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
        let attempt = self.attempt("sys:JoinNode", id, peer, name, Shown::Token(token), request)?;
        let engine = Arc::clone(self);
        detached(async move { engine.certify(attempt).await }).await?
    }

    /// Signs the next certificate of the node whose agent calls; the one that it shows is void
    /// then. Runs to its end even when the caller goes away.
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
        let mut attempt =
            self.attempt("sys:RenewNode", id, peer, agent.node.clone(), shown, request)?;
        attempt.who = agent.principal();
        let engine = Arc::clone(self);
        detached(async move { engine.certify(attempt).await }).await?
    }

    fn attempt(
        &self,
        action: &'static str,
        id: RequestId,
        peer: &Peer,
        name: Name,
        shown: Shown,
        request: &[u8],
    ) -> Result<Attempt, Error> {
        let request = node_authority::Request::parse(request).map_err(|_| {
            let expected = "expected a PKCS #10 request for a key on P-256, signed by that key";
            Error::invalid("csr", expected)
        })?;
        let who = Principal::named(ANONYMOUS);
        let source = Source { address: peer.address, by_node_agent: false };
        Ok(Attempt { action, id, source, who, name, shown, request })
    }

    async fn certify(&self, attempt: Attempt) -> Result<Joined, Error> {
        let outcome = self.try_certify(&attempt).await;
        let (outcome, phase, reason) = match outcome {
            Ok(joined) => (Ok(joined), Phase::Outcome, ""),
            Err(Refused::Credential(word)) => (Err(Error::Unauthenticated), Phase::Whole, word),
            Err(Refused::Early(error)) => (Err(error), Phase::Whole, ""),
            Err(Refused::Late(error)) => (Err(error), Phase::Outcome, ""),
        };
        let result = outcome.as_ref().map_or_else(Error::code, |_| "ok");
        let target = attempt.target();
        let event = self.event(&attempt, &target, phase, result, reason);
        let recorded = match phase {
            Phase::Whole => self.ports.audit.append_answer(&event).await,
            Phase::Intent | Phase::Outcome => self.ports.audit.append(&event),
        };
        recorded.map_err(Error::Unavailable)?;
        outcome
    }

    async fn try_certify(&self, attempt: &Attempt) -> Result<Joined, Refused> {
        // Most of what is wrong is found before anybody has to wait for it.
        let known = self.nodes.get(&attempt.name).ok_or(Refused::Credential("no_such_node"))?;
        self.check_shown(&attempt.shown, &known)?;
        // Held until the new certificate counts: a second use of the same token or certificate
        // waits here, and finds that it is over.
        let changing = self.access_changes.lock().await;
        let path = RecordPath::node(&attempt.name);
        let found = self.read_one::<Node>(&path).await.map_err(Refused::Early)?;
        let (mut node, revision) = found.ok_or(Refused::Credential("no_such_node"))?;
        self.check_shown(&attempt.shown, &node)?;
        let target = attempt.target();
        let intent = self.event(attempt, &target, Phase::Intent, "pending", "");
        let intended = self.ports.audit.append_durably(&intent).await;
        intended.map_err(|cause| Refused::Early(Error::Unavailable(cause)))?;
        let joined = async {
            let (issued, authority) = self.sign_certificate(attempt)?;
            node.join = None;
            node.certificate = Some(issued.kept);
            self.write_node(path, &node, revision, authority).await?;
            let spiffe_id = self.spiffe_id(&node.name)?;
            Ok(Joined { node, certificate: issued.der, spiffe_id })
        };
        let joined = joined.await.map_err(Refused::Late);
        drop(changing);
        joined
    }

    fn check_shown(&self, shown: &Shown, node: &Node) -> Result<(), Refused> {
        match shown {
            Shown::Token(token) => {
                let join = node.join.as_ref().ok_or(Refused::Credential("no_token"))?;
                // Equality of hashes tells nothing of a token that somebody guesses at.
                if token.expose(sha256) != join.code_hash {
                    return Err(Refused::Credential("wrong_token"));
                }
                if self.clock.observe().elapsed >= join.expires {
                    return Err(Refused::Credential("expired"));
                }
                Ok(())
            }
            Shown::Certificate(fingerprint) => {
                let held = node.certificate.as_ref().map(|held| held.fingerprint);
                let is_held = held == Some(*fingerprint);
                if is_held { Ok(()) } else { Err(Refused::Credential("superseded")) }
            }
        }
    }

    /// Signs, by a new authority if there is none yet, which is to be written then.
    fn sign_certificate(
        &self,
        attempt: &Attempt,
    ) -> Result<(Issued, Option<NodeAuthority>), Error> {
        let internal = |error| Error::Internal(error);
        let (now, mut entropy) = (self.clock.wall(), self.ports.entropy.open());
        let place = SecretPlace::NodeAuthority;
        let (key, authority) = match self.nodes.authority() {
            Some(known) => {
                let key = self.keyring.materials.unwrap_secret(place, &known.private_key);
                (key.map_err(internal)?, None)
            }
            None => {
                let key = material::generate(node_authority::KEY_SPEC, &mut *entropy)
                    .map_err(|error| Error::Internal(error.into()))?;
                let private_key = self.keyring.materials.wrap_secret(place, &key, &mut *entropy);
                let private_key = private_key.map_err(internal)?;
                let certificate = Authority::open(&key)
                    .and_then(|one| one.certificate(self.instance, now, &mut *entropy))
                    .map_err(|error| Error::Internal(error.into()))?;
                (key, Some(NodeAuthority { private_key, certificate, created_at: now }))
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
            let record = Some(Record::NodeAuthority(authority));
            let path = RecordPath::node_authority();
            batch.push(Write { path, expected: Expected::Absent, record });
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

    fn event<'a>(
        &self,
        attempt: &'a Attempt,
        target: &'a str,
        phase: Phase,
        result: &'static str,
        reason: &'a str,
    ) -> Event<'a> {
        Event {
            at: self.clock.wall(),
            request: attempt.id,
            who: &attempt.who,
            action: attempt.action,
            phase,
            key: None,
            version: None,
            context_hash: None,
            result,
            reason,
            source: attempt.source,
            target: Some(target),
        }
    }
}

/// An attempt to get a certificate.
struct Attempt {
    action: &'static str,
    id: RequestId,
    source: Source,
    who: Principal,
    name: Name,
    shown: Shown,
    request: node_authority::Request,
}

impl Attempt {
    fn target(&self) -> String {
        format!("node/{}", self.name)
    }
}

/// Why there is no certificate.
enum Refused {
    /// What was shown is not good; a word for the log.
    Credential(&'static str),
    /// Something else, before the intent was recorded.
    Early(Error),
    /// Something else, after that.
    Late(Error),
}
