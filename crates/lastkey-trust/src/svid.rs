//! Trust domains: certificates of workloads (X.509-SVID), and the bundles that they are judged by.
//!
//! Room      `trust`.
//! Source    X.509-SVID, JWT-SVID, SPIFFE-ID and "SPIFFE Trust Domain and Bundle" of the SPIFFE
//!           project.
//! Holds     a certificate is judged by the authorities of one trust domain, which the caller
//!           chose, and its name is one of that domain. Names are compared as bytes, segment by
//!           segment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_core::time::Timestamp;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::authorities::{Authorities, AuthoritiesError};
use crate::jwks::{self, JwksError, KeySet, Purpose};
use crate::refusal::Refusal;
use crate::x509::{Peer, SpiffeId, read_svid};

/// Why a bundle was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not a set of keys, or a key of it is malformed.
    #[error("the bundle is no SPIFFE bundle: {0}")]
    Keys(JwksError),
    /// A key for certificates without exactly one certificate.
    #[error("the bundle is no SPIFFE bundle: x5c has to be one certificate")]
    Certificate,
    /// A certificate of it is none of an authority.
    #[error("the bundle cannot be used: {0}")]
    Authorities(AuthoritiesError),
    /// Neither authorities nor keys.
    #[error("the bundle has neither authorities nor keys of its trust domain")]
    Empty,
}

/// What a trust domain publishes: what its certificates, and what its tokens are checked by.
#[derive(Debug)]
pub struct Bundle {
    /// Authorities of certificates.
    pub authorities: Option<Authorities>,
    /// Keys of tokens.
    pub tokens: Option<KeySet>,
}

impl Bundle {
    /// Reads a bundle: the JSON of SPIFFE, or certificates in PEM.
    ///
    /// # Errors
    /// [`BundleError`]; a bundle is taken whole or not at all.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        if !text.trim_ascii_start().starts_with('{') {
            let authorities = Authorities::from_pem(text).map_err(BundleError::Authorities)?;
            return Ok(Self { authorities: Some(authorities), tokens: None });
        }
        let entries = jwks::entries(text.as_bytes()).map_err(BundleError::Keys)?;
        let tokens = match KeySet::of(&entries, Purpose::JwtSvid) {
            Ok(keys) => Some(keys),
            Err(JwksError::Empty) => None,
            Err(error) => return Err(BundleError::Keys(error)),
        };
        let of_certificates = entries.iter().filter(|entry| is_for_certificates(entry));
        let certificates: Vec<_> = of_certificates.map(certificate).collect::<Result<_, _>>()?;
        let authorities = match Authorities::from_certificates(certificates) {
            Ok(authorities) => Some(authorities),
            Err(AuthoritiesError::Empty) => None,
            Err(error) => return Err(BundleError::Authorities(error)),
        };
        if authorities.is_none() && tokens.is_none() {
            return Err(BundleError::Empty);
        }
        Ok(Self { authorities, tokens })
    }
}

fn is_for_certificates(entry: &Value) -> bool {
    entry.get("use").and_then(Value::as_str) == Some("x509-svid")
}

fn certificate(entry: &Value) -> Result<CertificateDer<'static>, BundleError> {
    let chain = entry.get("x5c").and_then(Value::as_array).ok_or(BundleError::Certificate)?;
    let [only] = chain.as_slice() else { return Err(BundleError::Certificate) };
    let text = only.as_str().ok_or(BundleError::Certificate)?;
    let der = STANDARD.decode(text).map_err(|_| BundleError::Certificate)?;
    Ok(CertificateDer::from(der))
}

/// Whether this can be the name of a trust domain: 1 to 255 of `a-z 0-9 . _ -`.
#[must_use]
pub fn is_trust_domain(name: &str) -> bool {
    SpiffeId::parse(&format!("spiffe://{name}")).is_ok_and(|id| id.trust_domain() == name)
}

/// One trust domain, and who vouches for its workloads.
#[derive(Debug)]
pub struct TrustDomain {
    /// Its name.
    pub name: String,
    /// Its authorities.
    pub authorities: Authorities,
}

impl TrustDomain {
    /// Judges what a workload has shown on a connection, its own certificate first, each in DER.
    ///
    /// # Errors
    /// As [`read_svid`] and [`Authorities::verify`]; [`Refusal::TrustDomainMismatch`] for a name of
    /// another trust domain, [`Refusal::SubjectMalformed`] for that of a whole one.
    pub fn verify(&self, chain: &[Vec<u8>], now: Timestamp) -> Result<Peer, Refusal> {
        let peer = read_svid(chain.first().ok_or(Refusal::Malformed)?, now)?;
        if peer.id.trust_domain() != self.name {
            return Err(Refusal::TrustDomainMismatch);
        }
        if peer.id.path().is_empty() {
            return Err(Refusal::SubjectMalformed);
        }
        self.authorities.verify(chain, now)?;
        Ok(peer)
    }
}

/// SPIFFE ids: one, or every one below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdPattern {
    /// This one.
    One(SpiffeId),
    /// Those whose path goes on below that of this one.
    Below(SpiffeId),
}

impl IdPattern {
    /// Parses an id, or an id with `/*` behind it.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for anything else, and for a trust domain without a path, which is
    /// no workload.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if let Some(path) = text.strip_suffix("/*") {
            return SpiffeId::parse(path).map(Self::Below);
        }
        let id = SpiffeId::parse(text)?;
        if id.path().is_empty() { Err(Refusal::Malformed) } else { Ok(Self::One(id)) }
    }

    /// The trust domain that it is in.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        let (Self::One(id) | Self::Below(id)) = self;
        id.trust_domain()
    }

    /// Whether an id is one of these.
    #[must_use]
    pub fn admits(&self, id: &SpiffeId) -> bool {
        match self {
            Self::One(only) => only == id,
            Self::Below(above) => {
                let below = id.as_str().strip_prefix(above.as_str());
                below.is_some_and(|below| below.starts_with('/'))
            }
        }
    }
}
