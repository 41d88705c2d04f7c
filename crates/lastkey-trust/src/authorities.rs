//! Authorities that certificates of clients are checked by.
//!
//! Room      `trust`. Whose authorities they are is the business of the caller.
//! Source    RFC 5280, section 6, by webpki; RFC 7468 for PEM.
//! Holds     a chain is checked by the authorities of one set and by no others, those of the
//!           machine among them. An authority whose time is over vouches for nobody.

use core::fmt;
use core::time::Duration;

use lastkey_core::time::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::refusal::Refusal;

/// Most authorities in a set.
pub const MAX_AUTHORITIES: usize = 64;
/// Most certificates that a client may show, its own included.
pub const MAX_CHAIN_LEN: usize = 8;

/// Why a set of authorities was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthoritiesError {
    /// Neither certificates in PEM nor anything else that is read here.
    #[error("not certificates in PEM")]
    Malformed,
    /// A private key lies beside them: its owner should know.
    #[error("a private key is among the certificates")]
    PrivateKey,
    /// A certificate that may sign no others.
    #[error("a certificate is none of an authority")]
    NoAuthority,
    /// No certificate at all.
    #[error("there is no certificate")]
    Empty,
    /// More than 64.
    #[error("there are more than 64 certificates")]
    TooMany,
}

/// A set of authorities; an empty one vouches for nobody.
#[derive(Default)]
pub struct Authorities(Vec<Authority>);

struct Authority {
    certificate: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    begins: Timestamp,
    ends: Timestamp,
}

impl Authorities {
    /// Certificates in PEM; a set is taken whole or not at all.
    ///
    /// # Errors
    /// [`AuthoritiesError`] by variant.
    pub fn from_pem(text: &str) -> Result<Self, AuthoritiesError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(AuthoritiesError::PrivateKey);
        }
        let certificates =
            CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>();
        Self::from_certificates(certificates.map_err(|_| AuthoritiesError::Malformed)?)
    }

    /// Certificates in DER.
    ///
    /// # Errors
    /// [`AuthoritiesError`] by variant.
    pub fn from_certificates(
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, AuthoritiesError> {
        if certificates.is_empty() {
            return Err(AuthoritiesError::Empty);
        }
        if certificates.len() > MAX_AUTHORITIES {
            return Err(AuthoritiesError::TooMany);
        }
        certificates.into_iter().map(Authority::read).collect::<Result<_, _>>().map(Self)
    }

    /// The certificates, in DER.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|one| one.certificate.as_ref())
    }

    /// Checks what a client has shown, its own certificate first, each in DER. Nothing of the
    /// names in it is looked at.
    ///
    /// # Errors
    /// [`Refusal::IssuerNotTrusted`] when none of these authorities vouches for it,
    /// [`Refusal::Expired`] and [`Refusal::NotYetValid`] for any certificate on the way;
    /// [`Refusal::UsageNotAllowed`] when it is an authority itself or no certificate for clients;
    /// [`Refusal::TooLong`], [`Refusal::Malformed`].
    pub fn verify(&self, chain: &[Vec<u8>], now: Timestamp) -> Result<(), Refusal> {
        let (leaf, between) = chain.split_first().ok_or(Refusal::Malformed)?;
        if chain.len() > MAX_CHAIN_LEN {
            return Err(Refusal::TooLong);
        }
        let leaf = CertificateDer::from(leaf.as_slice());
        let leaf = EndEntityCert::try_from(&leaf).map_err(|_| Refusal::Malformed)?;
        let between: Vec<_> =
            between.iter().map(|one| CertificateDer::from(one.as_slice())).collect();
        let good = self.0.iter().filter(|one| one.begins <= now && now < one.ends);
        let anchors: Vec<_> = good.map(|one| one.anchor.clone()).collect();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.0));
        let (algorithms, usage) = (ALL_VERIFICATION_ALGS, KeyUsage::client_auth());
        leaf.verify_for_usage(algorithms, &anchors, &between, at, usage, None, None)
            .map(drop)
            .map_err(|error| refusal(&error))
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

impl Authority {
    fn read(certificate: CertificateDer<'static>) -> Result<Self, AuthoritiesError> {
        let (rest, read) =
            X509Certificate::from_der(&certificate).map_err(|_| AuthoritiesError::Malformed)?;
        let may_sign = read
            .key_usage()
            .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
        if !rest.is_empty() || !read.is_ca() || !may_sign {
            return Err(AuthoritiesError::NoAuthority);
        }
        let moment = |at: i64| Timestamp(u64::try_from(at).unwrap_or(0));
        let begins = moment(read.validity().not_before.timestamp());
        // The last second is one in which it is good.
        let ends = moment(read.validity().not_after.timestamp().saturating_add(1));
        let anchor = anchor_from_trusted_cert(&certificate)
            .map_err(|_| AuthoritiesError::NoAuthority)?
            .to_owned();
        Ok(Self { certificate, anchor, begins, ends })
    }
}

fn refusal(error: &Error) -> Refusal {
    if matches!(error, Error::CertExpired { .. }) {
        Refusal::Expired
    } else if matches!(error, Error::CertNotValidYet { .. }) {
        Refusal::NotYetValid
    } else if matches!(error, Error::CaUsedAsEndEntity | Error::RequiredEkuNotFoundContext(_)) {
        Refusal::UsageNotAllowed
    } else {
        Refusal::IssuerNotTrusted
    }
}
