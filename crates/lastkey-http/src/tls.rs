//! TLS: the identity of the server, which can be replaced while it runs.
//!
//! Room      `http`. PEM comes in as bytes; files are the binary's business.
//! Source    TLS 1.3 (RFC 8446) and 1.2 (RFC 5246) by rustls; ALPN (RFC 7301).
//! Holds     a reload that fails leaves the identity that was there; connections that are open
//!           keep the one they began with.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use lastkey_secret::SecretVec;
use lastkey_service::sealing::Gate;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::NoServerSessionStorage;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::peers::Peers;

/// Why a TLS identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate chain is not PEM, or holds no certificate.
    #[error("the certificate chain holds no certificate in PEM")]
    Certificate,
    /// The private key is not PEM, or of a kind that is not known.
    #[error("the private key is not a key in PEM")]
    Key,
    /// Chain and key do not fit together, or TLS cannot use them.
    #[error("certificate and private key cannot be used")]
    Unusable(#[source] rustls::Error),
}

/// The TLS identity of a listener. Clones share it.
#[derive(Clone)]
pub struct TlsHandle {
    config: Arc<RwLock<Arc<ServerConfig>>>,
    peers: Arc<Peers>,
}

impl TlsHandle {
    /// An identity of a certificate chain, leaf first, and its private key, both in PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn from_pem(chain: &[u8], key: &SecretVec) -> Result<Self, TlsError> {
        let peers = Arc::new(Peers::default());
        let config = Arc::new(RwLock::new(config(chain, key, &peers)?));
        Ok(Self { config, peers })
    }

    /// Takes certificates of the clients of this service from now on.
    pub(crate) fn admit_clients_of(&self, gate: &Arc<Gate>) {
        self.peers.admit_clients_of(gate);
    }

    /// Replaces the identity for connections to come.
    ///
    /// # Errors
    /// [`TlsError`]; then the old identity stays.
    pub fn reload(&self, chain: &[u8], key: &SecretVec) -> Result<(), TlsError> {
        let fresh = config(chain, key, &self.peers)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Takes connections with the identity of this moment.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(config)
    }
}

impl fmt::Debug for TlsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsHandle(..)")
    }
}

fn config(
    chain: &[u8],
    key: &SecretVec,
    peers: &Arc<Peers>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::Certificate);
    }
    let key = key.expose(PrivateKeyDer::from_pem_slice).map_err(|_| TlsError::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(Arc::clone(peers) as _)
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    // A session that is taken up again skips the check of the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> (String, SecretVec) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), SecretVec::take_text(made.signing_key.serialize_pem()))
    }

    #[test]
    fn identity_is_read_from_pem() {
        let (chain, key) = identity();
        assert!(TlsHandle::from_pem(chain.as_bytes(), &key).is_ok());
    }

    #[test]
    fn no_session_of_tls_is_kept_since_taking_one_up_skips_the_check_of_the_client() {
        let (chain, key) = identity();
        let handle = TlsHandle::from_pem(chain.as_bytes(), &key).unwrap();
        let config = Arc::clone(&handle.config.read().unwrap());
        assert_eq!(config.send_tls13_tickets, 0);
        assert!(!config.session_storage.can_cache());
        assert!(!config.ticketer.enabled());
    }

    #[test]
    fn identity_that_does_not_fit_is_refused_and_the_old_one_stays() {
        let ((chain, key), (_, other)) = (identity(), identity());
        let handle = TlsHandle::from_pem(chain.as_bytes(), &key).unwrap();
        let before = Arc::as_ptr(&handle.config.read().unwrap());
        for (chain, key) in [
            (chain.as_bytes(), &other),
            (&b""[..], &key),
            (chain.as_bytes(), &SecretVec::take(Vec::new())),
        ] {
            assert!(handle.reload(chain, key).is_err());
        }
        assert_eq!(Arc::as_ptr(&handle.config.read().unwrap()), before);
        handle.reload(chain.as_bytes(), &key).unwrap();
        assert_ne!(Arc::as_ptr(&handle.config.read().unwrap()), before);
    }
}
