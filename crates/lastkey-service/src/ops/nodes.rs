//! Use cases: a node gets a way in, joins by it, and renews its certificate.
//!
//! Room      `service`. What a certificate looks like is the business of `trust`.
//! Source    `docs/identity.md`, "Nodes".
//! Holds     a token is used once; a certificate is signed for the node of the token, or of the
//!           certificate that asks, and for no other. When one is signed for a token, the one
//!           before is void before it leaves; for a certificate, that one is void as soon as the
//!           next one is shown, because the answer may be lost.

use std::sync::Arc;

use lastkey_core::access::{
    Enrolment, NODE_AUTHORITY_SECS, NODE_JOIN_SECS, Node, NodeAuthority, RevokedWhat, TpmKey,
};
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::ports::{Expected, Write};
use lastkey_core::principal::Peer;
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::time::{Elapsed, Timestamp};
use lastkey_crypto::digest::sha256;
use lastkey_secret::SecretVec;
use lastkey_trust::attestation;
pub use lastkey_trust::attestation::{CHALLENGE_SECS, Evidence};
use lastkey_trust::kubelet;
use lastkey_trust::node_authority::{self, Authority, Issued};
use lastkey_trust::refusal::Refusal;
use lastkey_trust::sigv4::format_date;
use lastkey_trust::x509::SpiffeId;

use crate::access::Access;
use crate::audited::Visit;
use crate::authenticate::mint_token;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::exchange_token::Refused;
use crate::ops::named::{Before, Planned};
use crate::ops::revoke::ahead_of;
use crate::root::SecretPlace;
use crate::sealing::detached;

/// A node that may join.
#[derive(Debug)]
pub struct Invited {
    /// The node.
    pub node: Node,
    /// The token that it joins with, shown once. Good for [`NODE_JOIN_SECS`]. `None` where it has
    /// another way in.
    pub token: Option<SecretVec>,
}

/// How a node is to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayIn {
    /// Once, by a token.
    Token,
    /// Whenever it has to, by the attestation key of its TPM, which has this name.
    Tpm([u8; 32]),
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
    /// The certificate of its kubelet, with what is between that and an authority, in DER.
    Kubelet { cluster: Name, chain: Vec<Vec<u8>> },
    /// What its TPM has signed, or the word for what is wrong.
    Tpm(Result<Proof, &'static str>),
    /// The certificate that it has, by SHA-256.
    Certificate([u8; 32]),
}

/// What the TPM of a node has proved.
struct Proof {
    /// The name of the key that signed.
    key: [u8; 32],
    /// What it signed.
    bound: [u8; 32],
}

impl Engine {
    /// Makes a node known, or lets one that is known join anew; the certificate that it has stays
    /// good until then. The last way in that it was given is the only one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that no certificate can carry, for a cluster that is not
    /// there, for a node of another cluster, and for one that no way in would let in yet, because
    /// it was revoked by a clock that had run ahead; [`Error::Denied`], [`Error::Conflict`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn invite_node(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        cluster: Name,
        way: WayIn,
    ) -> Result<Invited, Error> {
        self.spiffe_id(&name)?;
        let (token, key) = match way {
            WayIn::Token => {
                let token = mint_token("lastkey_node", &mut *self.ports.entropy.open());
                (Some(token.map_err(|error| Error::Internal(error.into()))?), None)
            }
            WayIn::Tpm(key) => (None, Some(key)),
        };
        let code_hash = token.as_ref().map(|token| token.expose(sha256));
        let (engine, named) = (Arc::clone(self), name.clone());
        let set = self.change_named::<Node>(call, name, move |before| {
            if let Some(other) = before.current.and_then(|node| node.cluster.as_ref())
                && *other != cluster
            {
                let message = format!("this node belongs to cluster {other}; remove it first");
                return Err(Error::invalid("cluster", message));
            }
            // Not earlier than what was revoked within the same second.
            let since = engine.good_from(&named, engine.clock.wall())?;
            let expires = Elapsed(before.clock.elapsed.0.saturating_add(NODE_JOIN_SECS));
            Ok(Planned::put(Node {
                name: named,
                cluster: Some(cluster),
                join: code_hash.map(|code_hash| Enrolment { code_hash, expires }),
                certificate: before.current.and_then(|node| node.certificate.clone()),
                created_at: before.current.map_or(before.now, |node| node.created_at),
                previous: before.current.and_then(|node| node.previous.clone()),
                tpm: key.map(|name| TpmKey { name, since }),
            }))
        });
        let node = set.await?.ok_or_else(|| Error::Internal("a plan wrote nothing".into()))?;
        Ok(Invited { node, token })
    }

    /// From when on a way in that a node is given now lets it in.
    fn good_from(&self, name: &Name, now: Timestamp) -> Result<Timestamp, Error> {
        let good = self.sessions.node_good_from(name);
        if good > ahead_of(now) {
            let message = format!(
                "this node was revoked up to {}, by a clock that had run ahead; it can come back \
                 after that",
                format_date(Timestamp(good.0.saturating_sub(1)))
            );
            return Err(Error::invalid("name", message));
        }
        Ok(now.max(good))
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

    /// Exchanges the certificate of a node's kubelet, on the connection, for one of ours. A node that
    /// is not known yet is made known. Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] whatever is wrong with name, cluster or certificate; else as
    /// [`Engine::join_node`].
    pub async fn join_by_kubelet(
        self: &Arc<Self>,
        id: RequestId,
        peer: &Peer,
        name: Name,
        cluster: Name,
        request: &[u8],
    ) -> Result<Joined, Error> {
        let request = parse_request(request)?;
        self.spiffe_id(&name)?;
        let visit = Visit::of(self, id, peer, "sys:JoinNode", format!("node/{name}"));
        let chain = peer.certificate.as_ref().map(|shown| shown.chain.clone()).unwrap_or_default();
        let shown = Shown::Kubelet { cluster, chain };
        Arc::clone(self).certify(visit, Attempt { name, shown, request }).await
    }

    /// What the TPM of a node has to sign for [`Engine::join_by_tpm`]. Nothing is written, and
    /// whether there is such a node is not told.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn challenge_node(&self, name: &Name) -> Result<Vec<u8>, Error> {
        self.sessions.challenge(name, self.clock.wall())
    }

    /// Exchanges what a node's TPM has signed over a challenge and this request for a certificate.
    /// Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] whatever is wrong with name, challenge or evidence; else as
    /// [`Engine::join_node`].
    pub async fn join_by_tpm(
        self: &Arc<Self>,
        id: RequestId,
        peer: &Peer,
        name: Name,
        challenge: &[u8],
        evidence: &Evidence<'_>,
        request: &[u8],
    ) -> Result<Joined, Error> {
        self.reread_node(&name).await?;
        let visit = Visit::of(self, id, peer, "sys:JoinNode", format!("node/{name}"));
        let shown = Shown::Tpm(self.judge_tpm(&name, challenge, evidence, request, &visit));
        let request = parse_request(request)?;
        Arc::clone(self).certify(visit, Attempt { name, shown, request }).await
    }

    /// What evidence proves. Signatures cost; none is looked at by a key that nobody has named.
    fn judge_tpm(
        &self,
        name: &Name,
        challenge: &[u8],
        evidence: &Evidence<'_>,
        request: &[u8],
        visit: &Visit,
    ) -> Result<Proof, &'static str> {
        self.sessions.check_challenge(name, challenge, visit.at()).map_err(Refusal::word)?;
        let node = self.nodes.get(name).ok_or("no_such_node")?;
        let named = node.tpm.ok_or("no_tpm_key")?;
        let shown = attestation::name_of(evidence.public);
        let is_named = named.name == shown;
        let holder = if is_named { Some(name.clone()) } else { self.nodes.with_tpm(&shown) };
        let holder = holder.ok_or("other_tpm")?;
        let bound = attestation::bound_to(challenge, name, request);
        let verified = attestation::verify(evidence, &bound);
        if verified.is_ok() {
            visit.recognise("tpm".to_owned(), holder.to_string());
        }
        if !is_named {
            return Err("other_tpm");
        }
        Ok(Proof { key: verified.map_err(Refusal::word)?, bound })
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
        if let Some(node) = peer.certificate.as_ref().and_then(|shown| shown.node.as_ref()) {
            self.reread_node(node).await?;
        }
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
        self.reread_node(&attempt.name).await?;
        // Most of what is wrong is found before anybody has to wait for it.
        self.check_shown(attempt, self.nodes.get(&attempt.name), visit)?;
        // Held until the new certificate counts: a second use of the same token or certificate
        // waits here, and finds that it is over.
        let changing = self.access_changes.lock().await;
        let found = self.read_one::<Node>(&RecordPath::node(&attempt.name)).await?;
        let (known, expected) = match found {
            Some((node, revision)) => (Some(node), Expected::At(revision)),
            None => (None, Expected::Absent),
        };
        let mut node = self.check_shown(attempt, known, visit)?;
        let spiffe_id = self.spiffe_id(&node.name)?;
        let date = self.date_of_next(attempt, &node, visit.at())?;
        let (issued, authority) = self.sign_certificate(attempt, date)?;
        visit.intend(self).await?;
        node.join = None;
        node.previous = match &attempt.shown {
            Shown::Token(_) | Shown::Kubelet { .. } | Shown::Tpm(_) => None,
            Shown::Certificate(shown) => node.certificate_of(shown).cloned(),
        };
        node.certificate = Some(issued.kept);
        self.write_node(&node, expected, authority).await?;
        if let Shown::Tpm(Ok(proof)) = &attempt.shown {
            self.nodes.proofs.remember(proof.bound, visit.at());
        }
        drop(changing);
        Ok(Joined { node, certificate: issued.der, spiffe_id })
    }

    /// Whether what is shown is good for the node that it names; the node as it is known, or as it
    /// is made known.
    fn check_shown(
        &self,
        attempt: &Attempt,
        known: Option<Node>,
        visit: &Visit,
    ) -> Result<Node, Refused> {
        let now = visit.at();
        match (&attempt.shown, known) {
            (Shown::Kubelet { cluster, chain }, known) => {
                self.check_kubelet(&attempt.name, cluster, chain, visit)?;
                let node = known.unwrap_or_else(|| new_node(&attempt.name, cluster, now));
                if node.cluster.as_ref() != Some(cluster) {
                    return Err(Refused::Token("other_cluster"));
                }
                // The last way in that it was given is the only one.
                let has_other = node.tpm.is_some();
                if has_other { Err(Refused::Token("other_way_in")) } else { Ok(node) }
            }
            (Shown::Tpm(Err(refused)), _) => Err(Refused::Token(refused)),
            (Shown::Tpm(Ok(proof)), known) => {
                let node = self.check_tpm(proof.key, known, now)?;
                self.nodes.proofs.check(&proof.bound, now).map_err(Refused::Token)?;
                Ok(node)
            }
            (Shown::Token(_) | Shown::Certificate(_), None) => Err(Refused::Token("no_such_node")),
            (Shown::Token(token), Some(node)) => self.check_token(token, node, visit),
            (Shown::Certificate(fingerprint), Some(node)) => {
                let held = node.certificate_of(fingerprint);
                let issued_at = held.ok_or(Refused::Token("superseded"))?.issued_at;
                let is_revoked = self.sessions.is_node_revoked(&node.name, issued_at);
                if is_revoked { Err(Refused::Token("revoked_node")) } else { Ok(node) }
            }
        }
    }

    fn check_token(&self, token: &SecretVec, node: Node, visit: &Visit) -> Result<Node, Refused> {
        // Equality of hashes tells nothing of a token that somebody guesses at.
        let shown = token.expose(sha256);
        let is_good = node.join.as_ref().is_some_and(|join| join.code_hash == shown);
        if is_good || self.nodes.is_spent(&node.name, &shown) {
            visit.recognise("node".to_owned(), node.name.to_string());
        }
        let join = node.join.as_ref().ok_or(Refused::Token("no_token"))?;
        if !is_good {
            return Err(Refused::Token("wrong_token"));
        }
        let is_over = self.clock.observe().elapsed >= join.expires;
        if is_over { Err(Refused::Token("expired")) } else { Ok(node) }
    }

    fn check_tpm(
        &self,
        shown: [u8; 32],
        known: Option<Node>,
        now: Timestamp,
    ) -> Result<Node, Refused> {
        let node = known.ok_or(Refused::Token("no_such_node"))?;
        let key = node.tpm.as_ref().ok_or(Refused::Token("no_tpm_key"))?;
        if key.name != shown {
            return Err(Refused::Token("other_tpm"));
        }
        // Named while the clock had run ahead, it would outlive revocations until that date.
        if key.since > ahead_of(now) {
            return Err(Refused::Token("dated_ahead"));
        }
        // A node that was revoked comes back when its key was named again.
        let is_revoked = self.sessions.is_node_revoked(&node.name, key.since);
        if is_revoked { Err(Refused::Token("revoked_node")) } else { Ok(node) }
    }

    fn check_kubelet(
        &self,
        name: &Name,
        cluster: &Name,
        chain: &[Vec<u8>],
        visit: &Visit,
    ) -> Result<(), Refused> {
        let access = self.access.get();
        let authorities = access.kubelets.get(cluster);
        let authorities = authorities.ok_or(Refused::Token("no_kubelet_authorities"))?;
        if chain.is_empty() {
            return Err(Refused::Token("no_certificate"));
        }
        let kubelet = kubelet::verify(authorities, chain, visit.at())?;
        visit.recognise(format!("kubelets/{cluster}"), kubelet.node.clone());
        if kubelet.node != name.as_str() {
            return Err(Refused::Token("other_node"));
        }
        // A node that was put out comes back by a certificate that was signed later.
        if self.sessions.is_node_revoked(name, kubelet.issued_at) {
            return Err(Refused::Token("revoked_node"));
        }
        Ok(())
    }

    /// The date of the next certificate: when it was asked for, so that a revocation that comes
    /// meanwhile ends it. A token lets a node in again after what was revoked within the same
    /// second; what was dated ahead for that is followed by what is shown for it. A clock that has
    /// run ahead since is believed no further than revocations believe it.
    fn date_of_next(
        &self,
        attempt: &Attempt,
        node: &Node,
        asked: Timestamp,
    ) -> Result<Timestamp, Refused> {
        let ahead = ahead_of(asked);
        let shown = match &attempt.shown {
            Shown::Token(_) => {
                let date = asked.max(self.sessions.node_good_from(&attempt.name));
                return if date <= ahead { Ok(date) } else { Err(Refused::Token("revoked_node")) };
            }
            Shown::Certificate(shown) => node.certificate_of(shown).map(|held| held.issued_at),
            Shown::Tpm(_) => node.tpm.as_ref().map(|key| key.since),
            Shown::Kubelet { .. } => None,
        };
        Ok(shown.filter(|shown| *shown <= ahead).map_or(asked, |shown| asked.max(shown)))
    }

    /// Signs, by a new authority if there is none yet or the one that there is has served its time.
    /// A new one is to be written then.
    fn sign_certificate(
        &self,
        attempt: &Attempt,
        date: Timestamp,
    ) -> Result<(Issued, Option<NodeAuthority>), Error> {
        let (now, mut entropy) = (self.clock.wall(), self.ports.entropy.open());
        let place = SecretPlace::NodeAuthority;
        let (key, authority) = match self.nodes.authority() {
            Some(known) if now.0.saturating_sub(known.created_at.0) < NODE_AUTHORITY_SECS => {
                let key = self.keyring.materials.unwrap_secret(place, &known.private_key);
                (key.map_err(Error::Internal)?, None)
            }
            before => {
                let (key, fresh) = self.make_authority(before.as_deref(), now)?;
                (key, Some(fresh))
            }
        };
        let issued = Authority::open(&key).and_then(|one| {
            one.issue(&attempt.request, self.instance, &attempt.name, date, &mut *entropy)
        });
        Ok((issued.map_err(|error| Error::Internal(error.into()))?, authority))
    }

    async fn write_node(
        &self,
        node: &Node,
        expected: Expected,
        authority: Option<NodeAuthority>,
    ) -> Result<(), Error> {
        let (path, record) = (RecordPath::node(&node.name), Some(Record::Node(node.clone())));
        let mut batch = vec![Write { path: path.clone(), expected, record: record.clone() }];
        if let Some(authority) = authority {
            let write = self.authority_write(authority).await;
            if write.is_err() {
                self.reload_node(&node.name).await;
            }
            batch.push(write?);
        }
        // One more node is one more that its cluster is needed for.
        let candidate = match expected {
            Expected::Absent => Some(self.judge(&path, record).await?),
            Expected::At(_) => None,
        };
        batch.extend(candidate.as_ref().map(Access::count));
        let committed = self.store.commit(batch).await;
        self.reload_node(&node.name).await;
        committed?;
        if let Some(candidate) = candidate {
            self.install(candidate);
        }
        Ok(())
    }

    /// Removes a node; its certificate is void at once, and so are those of its kubelet that were
    /// signed until now, and the sessions of pods on it.
    ///
    /// # Errors
    /// As [`Engine::remove_named`].
    pub async fn remove_node(self: &Arc<Self>, call: &Call, name: Name) -> Result<(), Error> {
        let revoked = RevokedWhat::Node(name.to_string());
        let plan = move |_: &Before<'_, Node>| Ok(Planned::remove().revoking(revoked));
        self.change_named::<Node>(call, name, plan).await.map(drop)
    }

    fn spiffe_id(&self, name: &Name) -> Result<String, Error> {
        let id = SpiffeId::node(&self.instance.to_string(), name.as_str());
        let id = id.map_err(|_| Error::invalid("name", "a node has no @ in its name"))?;
        Ok(id.as_str().to_owned())
    }
}

/// A node that joins for the first time.
fn new_node(name: &Name, cluster: &Name, now: Timestamp) -> Node {
    Node {
        name: name.clone(),
        cluster: Some(cluster.clone()),
        join: None,
        certificate: None,
        created_at: now,
        previous: None,
        tpm: None,
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
