//! TLS towards others: whose certificates are taken, and what is shown.
//!
//! Room      `connect`, inside.
//! Holds     The name in the address is checked in every mode.

use std::io;
use std::sync::Arc;

use lastkey_client::{Fingerprint, pinned_verifier};
use lastkey_secret::SecretVec;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use super::OutboundError;

/// Whose certificates are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of the authorities that the machine knows.
    #[default]
    System,
    /// Those of the authorities in this PEM text, and no other.
    Authority(Vec<u8>),
    /// Those of the authority with this fingerprint, which is sent along.
    Pinned(Fingerprint),
}

impl From<Option<&str>> for Trust {
    fn from(authority: Option<&str>) -> Self {
        authority.map_or(Self::System, |pem| Self::Authority(pem.as_bytes().to_vec()))
    }
}

/// A certificate to show, and its private key.
#[derive(Debug)]
pub struct Identity {
    /// Certificates in PEM, the own one first.
    pub chain: Vec<u8>,
    /// The private key in PEM.
    pub private_key: SecretVec,
}

pub(super) fn connector(
    trust: &Trust,
    identity: Option<&Identity>,
    (host, protocol): (&str, &[u8]),
) -> Result<(TlsConnector, ServerName<'static>), OutboundError> {
    let failed = |error: rustls::Error| {
        OutboundError::Tls(host.to_owned(), io::Error::new(io::ErrorKind::InvalidInput, error))
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| OutboundError::Address("its host is no name that a certificate can have"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match trust {
        Trust::Pinned(fingerprint) => builder
            .dangerous()
            .with_custom_certificate_verifier(pinned_verifier(*fingerprint, provider)),
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::Authority(pem) => builder.with_root_certificates(roots_in(pem)?),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = parts(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(failed)?
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn system_roots() -> Result<RootCertStore, OutboundError> {
    let mut roots = RootCertStore::empty();
    // What cannot be read there is left out, as every program does.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let message = "this machine knows no authorities; name one, or install ca-certificates";
        return Err(OutboundError::Pem(message));
    }
    Ok(roots)
}

fn roots_in(pem: &[u8]) -> Result<RootCertStore, OutboundError> {
    let bad = || OutboundError::Pem("the authority is no PEM text of CA certificates");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| bad())?;
        roots.add(certificate).map_err(|_| bad())?;
    }
    if roots.is_empty() { Err(bad()) } else { Ok(roots) }
}

type Parts = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn parts(identity: &Identity) -> Result<Parts, OutboundError> {
    let bad = || OutboundError::Pem("the client certificate and its key are no PEM text");
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&identity.chain).collect();
    let chain = chain.map_err(|_| bad())?;
    let key = identity.private_key.expose(PrivateKeyDer::from_pem_slice).map_err(|_| bad())?;
    if chain.is_empty() { Err(bad()) } else { Ok((chain, key)) }
}
