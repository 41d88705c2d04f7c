//! Sessions: who may act until when, sealed so that any replica with the epoch key opens them.
//!
//! Room      `trust`. [`EpochRing`] seals and opens; nothing is stored at a login.
//! Source    `docs/formats/session.md`.
//! Holds     A session that was opened was also checked: times, source, certificate, node and
//!           revocation are arguments of opening, so no caller forgets one. The session token of
//!           a triple opens nothing without a signature by the secret.

mod caveat;
mod codec;
mod epoch;
mod form;
mod kept;
mod present;

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use lastkey_core::ids::SessionId;
use lastkey_core::time::Timestamp;

pub use caveat::{Caveat, CaveatError, MAX_CAVEATS, Narrowing, attenuate};
pub use codec::{decode_session, encode_session};
pub use epoch::{EpochError, EpochKeys, EpochRing, SealError, Triple};
pub use form::{
    ACCESS_KEY_ID_LEN, BEARER_PREFIX, MAX_BEARER_LEN, MAX_SESSION_TOKEN_LEN, SESSION_TOKEN_PREFIX,
    looks_like_access_key_id, looks_like_bearer, looks_like_session_token,
};
pub use kept::KeptBearers;
pub use present::{NodeAgent, NotAccepted, Opened, Presentation};

use crate::service_account::ObjectRef;

/// Longest lifetime of a session.
pub const MAX_LIFETIME: Duration = Duration::from_secs(43_200);
/// Longest session policy, in bytes.
pub const MAX_POLICY_LEN: usize = 2_048;
/// Longest encoded session, in bytes.
pub const MAX_ENCODED_LEN: usize = 4_096;

/// One session: facts that were verified when it began. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its identity.
    pub id: SessionId,
    /// Who acts.
    pub subject: Subject,
    /// The role that was taken on; none where the subject acts as itself.
    pub role: Option<String>,
    /// When it began.
    pub issued_at: Timestamp,
    /// When it ends; at that second it is over.
    pub expires_at: Timestamp,
    /// Whether only an authenticated agent on the pod's own node may present it.
    pub via_provider: bool,
    /// A policy in Cedar that can only take away; at most 2,048 bytes.
    pub policy: Option<String>,
    /// Networks it may come from; any, when empty.
    pub sources: Vec<Network>,
    /// SHA-256 of the client certificate that must be on the connection.
    pub certificate: Option<[u8; 32]>,
    /// How strongly the subject was authenticated.
    pub strength: AuthStrength,
}

/// Who acts in a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A service account of a cluster, by way of its token.
    Workload(Workload),
    /// A person or program that another issuer vouches for.
    Federated(Federated),
    /// A local user.
    User(User),
    /// A node agent with a certificate of ours.
    Node {
        /// Name of the node.
        name: String,
    },
    /// A workload with an X.509 SVID.
    Spiffe {
        /// The whole SPIFFE id.
        id: String,
    },
}

/// A service account, and the pod and token that stood for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Name of the cluster in our configuration.
    pub cluster: String,
    /// Namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: ObjectRef,
    /// The pod.
    pub pod: Option<ObjectRef>,
    /// Name of the node of the pod.
    pub node: Option<String>,
    /// `jti` of the token.
    pub token_id: Option<String>,
}

/// A subject of another issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Federated {
    /// Name of the issuer in our configuration.
    pub provider: String,
    /// The subject there.
    pub subject: String,
    /// Its groups there.
    pub groups: Vec<String>,
    /// `jti` of the token.
    pub token_id: Option<String>,
}

/// A local user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// The name.
    pub name: String,
    /// The groups.
    pub groups: Vec<String>,
}

/// How strongly a subject was authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthStrength {
    /// Methods, as RFC 8176 names them (`pwd`, `otp`, `hwk`, `mfa`).
    pub methods: Vec<String>,
    /// When a second factor was last given.
    pub mfa_at: Option<Timestamp>,
}

/// An IP network. IPv4 addresses inside IPv6 are taken as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `address` with a prefix of so many bits, at most 32 or 128. Bits of the
    /// address below the prefix must be zero.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let (bits, width) = bits_of(address);
        let is_whole = mask(bits, prefix, width) == bits;
        (prefix <= width && address == address.to_canonical() && is_whole)
            .then_some(Self { address, prefix })
    }

    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: bits_of(address).1 }
    }

    /// The address and the prefix in bits.
    #[must_use]
    pub const fn parts(&self) -> (IpAddr, u8) {
        (self.address, self.prefix)
    }

    /// Whether `address` lies in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, width) = bits_of(self.address);
        let (theirs, their_width) = bits_of(address.to_canonical());
        width == their_width && mask(theirs, self.prefix, width) == ours
    }
}

fn bits_of(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

fn mask(bits: u128, prefix: u8, width: u8) -> u128 {
    let low = u32::from(width.saturating_sub(prefix));
    bits.checked_shr(low).and_then(|high| high.checked_shl(low)).unwrap_or(0)
}

impl Subject {
    /// The node that the subject is or runs on.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Workload(workload) => workload.node.as_deref(),
            Self::Node { name } => Some(name),
            Self::Federated(_) | Self::User(_) | Self::Spiffe { .. } => None,
        }
    }
}

/// The name of the subject, as policies and the audit log write it.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(one) => {
                let account = &one.service_account.name;
                write!(f, "k8s:{}/{}/{account}", one.cluster, one.namespace)
            }
            Self::Federated(one) => write!(f, "oidc:{}/{}", one.provider, one.subject),
            Self::User(one) => write!(f, "user:{}", one.name),
            Self::Node { name } => write!(f, "node:{name}"),
            Self::Spiffe { id } => f.write_str(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, prefix: u8) -> Option<Network> {
        Network::new(address.parse().unwrap(), prefix)
    }

    #[test]
    fn network_holds_the_addresses_with_its_prefix() {
        let inside = |net: &str, prefix, address: &str| {
            network(net, prefix).unwrap().contains(address.parse().unwrap())
        };
        assert!(inside("10.1.0.0", 16, "10.1.255.1"));
        assert!(inside("10.1.0.0", 16, "::ffff:10.1.2.3"));
        assert!(inside("0.0.0.0", 0, "203.0.113.9"));
        assert!(inside("2001:db8::", 32, "2001:db8:1::1"));
        assert!(inside("::", 0, "2001:db8::1"));
        assert!(!inside("10.1.0.0", 16, "10.2.0.1"));
        assert!(!inside("10.1.0.1", 32, "10.1.0.2"));
        assert!(!inside("::", 0, "10.1.0.1"));
        assert!(!inside("0.0.0.0", 0, "2001:db8::1"));
    }

    #[test]
    fn network_refuses_what_has_two_spellings() {
        assert!(network("10.1.0.1", 16).is_none());
        assert!(network("10.1.0.0", 33).is_none());
        assert!(network("2001:db8::", 129).is_none());
        assert!(network("::ffff:10.0.0.0", 104).is_none());
        assert!(network("10.1.0.1", 32).is_some());
    }
}
