//! Who calls: a presented credential becomes a principal.
//!
//! Room      `service`. The one place where that happens; identities of workloads come in here.
//! Holds     the text of a token is nowhere; it is found by its SHA-256, and since it was drawn
//!           with 256 bits of entropy the hash needs no stretching.

use core::net::IpAddr;

use lastkey_core::principal::{Identity, Kind, Peer, Presented, Principal, Source};
use lastkey_core::record::{Record, RecordPath, TokenRecord};
use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::sha256;
use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_secret::{SecretArray, SecretVec};

use lastkey_trust::session::BEARER_PREFIX;

use crate::access::{Agent, Origin};
use crate::engine::Engine;
use crate::error::Error;
use crate::root::draw_secret;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_LEN: usize = 256;

/// Mints a token: a prefix that scanners find, 32 random bytes and a checksum, in hexadecimal.
pub(crate) fn mint_token(
    prefix: &str,
    entropy: &mut dyn Entropy,
) -> Result<SecretVec, EntropyError> {
    let secret: SecretArray<32> = draw_secret(entropy)?;
    let text = secret.expose(|bytes| {
        let checksum = sha256(bytes);
        let mut text = String::with_capacity(prefix.len() + 73);
        text.push_str(prefix);
        text.push('_');
        for byte in bytes.iter().chain(checksum.iter().take(4)) {
            text.push(hex_digit(byte >> 4));
            text.push(hex_digit(byte & 15));
        }
        text
    });
    Ok(SecretVec::take_text(text))
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

/// The record of a token, and where it lies.
pub(crate) fn token_record(
    token: &SecretVec,
    principal: Principal,
    created_at: Timestamp,
) -> (RecordPath, Record) {
    let hash = token.expose(sha256);
    (RecordPath::token(&hash), Record::Token(TokenRecord { principal, created_at }))
}

/// Whether a token is one of sessions, whatever else is wrong with it.
fn is_of_a_session(token: &[u8]) -> bool {
    token.starts_with(BEARER_PREFIX.as_bytes())
}

/// Where somebody calls from, as policy and audit are told.
pub(crate) fn source_of(address: Option<IpAddr>, agent: Option<&Agent>, who: &Principal) -> Source {
    Source { address, by_node_agent: agent.is_some_and(|agent| agent.serves(who)) }
}

/// A user of this machine: without rights, unless policies give him some.
fn local_user(uid: u32) -> Principal {
    let kind = Kind::Federated { provider: LOCAL_USERS.to_owned(), subject: uid.to_string() };
    let name = format!("{LOCAL_USERS}:{uid}");
    Principal::verified(Identity { name, kind, groups: Vec::new(), session: None })
}

/// The provider that local users are subjects of; no other has its name.
pub(crate) const LOCAL_USERS: &str = "unix";

impl Engine {
    /// Finds out who calls, and from where.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without a valid credential; [`Error::Denied`] for a node that was
    /// let go and shows nothing else; [`Error::Unavailable`].
    pub async fn authenticate(
        &self,
        presented: &Presented,
        peer: &Peer,
    ) -> Result<(Principal, Source), Error> {
        if let Some(node) = peer.certificate.as_ref().and_then(|shown| shown.node.as_ref()) {
            self.reread_node(node).await?;
        }
        let agent = self.agent(peer);
        if let Some(agent) = &agent {
            self.note_shown(agent).await;
        }
        let principal = self.identify(presented, Origin { peer, agent: agent.as_ref() }).await?;
        let source = source_of(peer.address, agent.as_ref(), &principal);
        Ok((principal, source))
    }

    async fn identify(&self, presented: &Presented, from: Origin<'_>) -> Result<Principal, Error> {
        let now = self.clock.wall();
        let opened = match presented {
            Presented::Nothing => {
                let agent = from.agent.map(Agent::principal);
                let who = agent.or_else(|| from.peer.user.map(local_user));
                return who.ok_or_else(|| self.refuse_peer(from.peer));
            }
            Presented::Unreadable => return Err(Error::Unauthenticated),
            Presented::Signed(head) => self.sessions.open_signed(head, from, now),
            Presented::Bearer(token) if token.expose(is_of_a_session) => {
                self.sessions.open_bearer(token, from, now)
            }
            Presented::Bearer(token) => return self.find_token(token).await,
        };
        let who = opened.map_err(|refused| {
            tracing::debug!(reason = refused.word(), "a session was refused");
            Error::Unauthenticated
        })?;
        if self.is_gone(&who, now) {
            tracing::debug!(reason = "pod_gone", "a session was refused");
            return Err(Error::Unauthenticated);
        }
        Ok(who)
    }

    async fn find_token(&self, token: &SecretVec) -> Result<Principal, Error> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(Error::Unauthenticated);
        }
        let hash = token.expose(sha256);
        match self.principals.get(&hash) {
            Some(principal) => Ok(principal),
            None => Box::pin(self.read_token(hash)).await,
        }
    }

    async fn read_token(&self, hash: [u8; 32]) -> Result<Principal, Error> {
        let stored = self.store.get(&RecordPath::token(&hash)).await?;
        let Some(Record::Token(record)) = stored.map(|stored| stored.record) else {
            return Err(Error::Unauthenticated);
        };
        self.principals.insert(hash, record.principal.clone());
        Ok(record.principal)
    }
}
