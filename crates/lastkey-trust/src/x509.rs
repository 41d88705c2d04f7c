//! Certificates of peers: which SPIFFE id, and which certificate.
//!
//! Room      `trust`. TLS has verified chain, times and usage before a certificate comes here.
//! Source    RFC 5280 (4.2.1.6); SPIFFE-ID and X.509-SVID of the SPIFFE project.
//! Holds     Exactly one URI name: with two, two readers could see two peers. Names are compared
//!           as bytes and have one spelling.

use core::fmt;

use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::sha256;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::refusal::Refusal;

/// Longest SPIFFE id, in bytes.
pub const MAX_SPIFFE_ID_LEN: usize = 2_048;
const MAX_TRUST_DOMAIN_LEN: usize = 255;

/// `spiffe://TRUST-DOMAIN/PATH`, well formed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: String,
    domain_len: usize,
}

impl SpiffeId {
    const SCHEME: &'static str = "spiffe://";

    /// Parses an id.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for anything that the standard does not allow: capitals in the
    /// trust domain, a port, empty or dot segments, a slash at the end.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let rest = text.strip_prefix(Self::SCHEME).ok_or(Refusal::Malformed)?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_domain_char =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        let is_domain = (1..=MAX_TRUST_DOMAIN_LEN).contains(&domain.len())
            && domain.bytes().all(is_domain_char);
        let is_path = path.split('/').skip(1).all(is_segment);
        if text.len() <= MAX_SPIFFE_ID_LEN && is_domain && is_path {
            Ok(Self { text: text.to_owned(), domain_len: domain.len() })
        } else {
            Err(Refusal::Malformed)
        }
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.after_scheme().split_at_checked(self.domain_len).map_or("", |(domain, _)| domain)
    }

    /// The path, with its slash; empty for the trust domain itself.
    #[must_use]
    pub fn path(&self) -> &str {
        self.after_scheme().split_at_checked(self.domain_len).map_or("", |(_, path)| path)
    }

    /// The id of a node of this instance: `spiffe://INSTANCE/node/NAME`.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] when instance or name do not fit.
    pub fn node(instance: &str, name: &str) -> Result<Self, Refusal> {
        if !is_segment(name) {
            return Err(Refusal::Malformed);
        }
        let id = Self::parse(&format!("{}{instance}/node/{name}", Self::SCHEME))?;
        if id.trust_domain() == instance { Ok(id) } else { Err(Refusal::Malformed) }
    }

    /// The name of the node, if this is the id of a node of `instance`.
    #[must_use]
    pub fn node_name(&self, instance: &str) -> Option<&str> {
        let name = self.path().strip_prefix("/node/")?;
        (self.trust_domain() == instance && is_segment(name)).then_some(name)
    }

    fn after_scheme(&self) -> &str {
        self.text.strip_prefix(Self::SCHEME).unwrap_or_default()
    }
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty()
        && segment != "."
        && segment != ".."
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({self})")
    }
}

/// What a certificate that TLS verified says of its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its one URI name.
    pub id: SpiffeId,
    /// SHA-256 of the whole certificate: what a session is bound to.
    pub fingerprint: [u8; 32],
    /// The end of the certificate; a session by it ends no later.
    pub expires_at: Timestamp,
}

/// Reads the leaf certificate of a peer. The chain must have been verified.
///
/// # Errors
/// [`Refusal::Malformed`]; [`Refusal::NameMissing`] without exactly one URI name, or with a CA
/// certificate; [`Refusal::Expired`].
pub fn read_peer(leaf_der: &[u8], now: Timestamp) -> Result<Peer, Refusal> {
    peer(&parse(leaf_der)?, leaf_der, now)
}

/// Reads the leaf certificate of a workload (X.509-SVID), whoever has signed it.
///
/// # Errors
/// As [`read_peer`]; [`Refusal::UsageNotAllowed`] unless its key is for signatures, and not for
/// those of certificates.
pub fn read_svid(leaf_der: &[u8], now: Timestamp) -> Result<Peer, Refusal> {
    let leaf = parse(leaf_der)?;
    let peer = peer(&leaf, leaf_der, now)?;
    if allows_signatures_alone(&leaf)? { Ok(peer) } else { Err(Refusal::UsageNotAllowed) }
}

/// Whether the key of a certificate is for signatures, and not for those of certificates.
pub(crate) fn allows_signatures_alone(leaf: &X509Certificate<'_>) -> Result<bool, Refusal> {
    let usage = leaf.key_usage().map_err(|_| Refusal::Malformed)?;
    Ok(usage.is_some_and(|usage| {
        let usage = usage.value;
        usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign()
    }))
}

/// Reads a certificate that fills these bytes.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Refusal::Malformed)?;
    if rest.is_empty() { Ok(certificate) } else { Err(Refusal::Malformed) }
}

fn peer(leaf: &X509Certificate<'_>, leaf_der: &[u8], now: Timestamp) -> Result<Peer, Refusal> {
    if leaf.is_ca() {
        return Err(Refusal::NameMissing);
    }
    let end = leaf.validity().not_after.timestamp();
    let expires_at = u64::try_from(end).map(Timestamp).map_err(|_| Refusal::Expired)?;
    if now >= expires_at {
        return Err(Refusal::Expired);
    }
    let id = SpiffeId::parse(only_uri(leaf)?)?;
    Ok(Peer { id, fingerprint: fingerprint(leaf_der), expires_at })
}

/// SHA-256 of a certificate in DER.
#[must_use]
pub fn fingerprint(certificate_der: &[u8]) -> [u8; 32] {
    sha256(certificate_der)
}

fn only_uri<'a>(leaf: &'a X509Certificate<'_>) -> Result<&'a str, Refusal> {
    let mut found = None;
    for extension in leaf.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            continue;
        };
        for name in &names.general_names {
            if let GeneralName::URI(uri) = name
                && found.replace(*uri).is_some()
            {
                return Err(Refusal::NameMissing);
            }
        }
    }
    found.ok_or(Refusal::NameMissing)
}
