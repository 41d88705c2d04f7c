//! Certificates of clients on TLS connections: of nodes, and of workloads of trust domains.
//!
//! Room      `http`. What a certificate is worth is asked of the service, for each call; here TLS
//!           learns who may have signed one.
//! Holds     nobody has to have one. A certificate that nobody known here has signed, or that is
//!           over, ends the handshake; it is never taken for none.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use lastkey_core::principal::PeerCertificate;
use lastkey_service::ops::{NODE_AUTHORITY_SUBJECT, PeerTrust};
use lastkey_service::sealing::Gate;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Verifies certificates of clients by the authorities that the service has at that moment.
pub(crate) struct Peers {
    gate: OnceLock<Weak<Gate>>,
    provider: Arc<CryptoProvider>,
    subjects: Vec<DistinguishedName>,
}

impl Default for Peers {
    /// Asks for no certificate until it knows a service.
    fn default() -> Self {
        Self {
            gate: OnceLock::new(),
            provider: Arc::new(default_provider()),
            subjects: vec![NODE_AUTHORITY_SUBJECT.to_vec().into()],
        }
    }
}

impl Peers {
    /// Takes the clients of this service. The first one stays.
    pub(crate) fn admit_clients_of(&self, gate: &Arc<Gate>) {
        self.gate.get_or_init(|| Arc::downgrade(gate));
    }

    /// `None` while the server is sealed, and while nobody can have a certificate.
    fn trust(&self) -> Option<PeerTrust> {
        self.gate.get()?.upgrade()?.engine().ok()?.peer_trust()
    }
}

/// What a client has shown, if it has.
pub(crate) fn shown_by(stream: &TlsStream<TcpStream>, gate: &Gate) -> Option<PeerCertificate> {
    let shown = stream.get_ref().1.peer_certificates()?;
    gate.engine().ok()?.read_peer(shown.iter().map(|one| one.to_vec()).collect())
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers(..)")
    }
}

impl ClientCertVerifier for Peers {
    fn offer_client_auth(&self) -> bool {
        self.trust().is_some()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// With nobody named, a client shows what it has: authorities of trust domains come and go.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        if self.trust().is_some_and(|trust| !trust.is_of_nodes_alone()) {
            return &[];
        }
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _by_the_machine: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let trust = self.trust().ok_or_else(|| unknown.clone())?;
        let mut roots = RootCertStore::empty();
        for authority in trust.certificates() {
            roots.add(CertificateDer::from(authority).into_owned())?;
        }
        let by_the_service = UnixTime::since_unix_epoch(Duration::from_secs(trust.now().0));
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|_| unknown)?
            .verify_client_cert(end_entity, intermediates, by_the_service)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
