//! Which server certificates a client accepts.
//!
//! Room      `client`. The system's roots are never used: a key service is trusted by its own
//!           authority, or by the fingerprint that was printed when it was made.
//! Holds     The name in the address is checked in every mode.

use std::{fmt, str::FromStr, sync::Arc};

use lastkey_crypto::digest::sha256;
use lastkey_secret::SecretVec;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

/// What vouches for the server of an `https://` address.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Nothing was given: `https://` does not connect.
    #[default]
    Nothing,
    /// PEM text with one or more CA certificates.
    Authority(Vec<u8>),
    /// The SHA-256 of the CA certificate that the server must send along.
    Pinned(Fingerprint),
}

/// SHA-256 of a certificate's DER, written `sha256:` and 64 hex digits (colons between
/// bytes are allowed).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// Why a TLS connection cannot be prepared or a fingerprint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// `https://` without [`Trust`].
    #[error("nothing vouches for the server's certificate (system roots are not used)")]
    Nothing,
    /// The PEM text holds no certificate, or one that is no CA certificate.
    #[error("the CA file holds no usable PEM certificate")]
    Authority,
    /// Not `sha256:` and 64 hex digits.
    #[error("not a fingerprint; use sha256: and 64 hex digits")]
    Fingerprint,
    /// The PEM text holds no certificate and key that fit together.
    #[error("the identity holds no certificate and key in PEM that fit together")]
    Identity,
    /// The key of a node that `lastkey node join --seal-key` has sealed. The programs of Lastkey ask the
    /// TPM for it; this library asks none.
    #[error(
        "the key of the identity is sealed to the TPM of its node, which programs of Lastkey alone \
         ask; give one whose key is in the clear"
    )]
    SealedIdentity,
    /// There is an identity, and no TLS to show it by.
    #[error("a client certificate can only be shown to an https:// address")]
    IdentityUnseen,
    /// The TLS library refused the configuration.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl Fingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(sha256(certificate))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let digits = text.trim().strip_prefix("sha256:").ok_or(TrustError::Fingerprint)?;
        let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(TrustError::Fingerprint);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair
                .iter()
                .try_fold(0, |acc, digit| {
                    let value = char::from(*digit).to_digit(16)?;
                    Some(acc << 4 | u8::try_from(value).ok()?)
                })
                .ok_or(TrustError::Fingerprint)?;
        }
        Ok(Self(bytes))
    }
}

/// TLS 1.2 and 1.3, HTTP/2 preferred, with a client certificate if there is an identity.
pub(crate) fn tls_config(
    trust: &Trust,
    identity: Option<&SecretVec>,
) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?;
    let builder = match trust {
        Trust::Nothing => return Err(TrustError::Nothing),
        Trust::Authority(pem) => builder.with_root_certificates(roots_in(pem)?),
        Trust::Pinned(fingerprint) => {
            let verifier = pinned_verifier(*fingerprint, provider);
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let (chain, key) = pem.expose(identity_in)?;
            builder.with_client_auth_cert(chain, key).map_err(|_| TrustError::Identity)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What begins the key of a node that its TPM has sealed (docs/formats/node-key.md).
const SEALED_KEY: &[u8] = b"-----BEGIN LASTKEY SEALED KEY-----";

fn identity_in(
    pem: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TrustError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|_| TrustError::Identity)?;
    let is_sealed = pem.windows(SEALED_KEY.len()).any(|window| window == SEALED_KEY);
    let missing = if is_sealed { TrustError::SealedIdentity } else { TrustError::Identity };
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| missing)?;
    if chain.is_empty() { Err(TrustError::Identity) } else { Ok((chain, key)) }
}

fn roots_in(pem: &[u8]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| TrustError::Authority)?;
        roots.add(certificate).map_err(|_| TrustError::Authority)?;
    }
    if roots.is_empty() { Err(TrustError::Authority) } else { Ok(roots) }
}

/// Accepts a chain that ends in the CA with one fingerprint, which the server has to send along,
/// and only for the name asked for.
#[must_use]
pub fn pinned_verifier(
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(PinnedAuthority { fingerprint, provider })
}

#[derive(Debug)]
struct PinnedAuthority {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl PinnedAuthority {
    /// The usual verifier, with the pinned certificate as its only root.
    fn verifier_from(
        &self,
        sent: &[CertificateDer<'_>],
    ) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        let pinned = sent
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.fingerprint)
            .ok_or_else(|| invalid(CertificateError::Other(OtherError(Arc::new(NotSent)))))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|_| invalid(CertificateError::UnknownIssuer))
    }
}

/// The chain has no certificate with the pinned fingerprint: another authority, or a server
/// that does not send its own along.
#[derive(Debug, thiserror::Error)]
#[error("the server sent no CA certificate with this fingerprint")]
struct NotSent;

fn invalid(reason: CertificateError) -> rustls::Error {
    rustls::Error::InvalidCertificate(reason)
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier_from(intermediates)?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;
    use rustls_pki_types::CertificateDer;

    use super::{Fingerprint, Trust, TrustError, tls_config};

    #[test]
    fn fingerprint_reads_back_what_it_prints() {
        let fingerprint = Fingerprint::of(&CertificateDer::from(vec![1, 2, 3]));
        assert_eq!(fingerprint.to_string().parse::<Fingerprint>().unwrap(), fingerprint);
    }

    #[test]
    fn fingerprint_allows_colons_and_capitals() {
        let plain = format!("sha256:{}", "ab".repeat(32));
        let colons = format!("sha256:{}", ["AB"; 32].join(":"));
        assert_eq!(plain.parse::<Fingerprint>().unwrap(), colons.parse::<Fingerprint>().unwrap());
    }

    #[test]
    fn fingerprint_rejects_what_is_not_sha256_in_hex() {
        for text in
            ["", "ab", &"ab".repeat(32), "sha256:ab", &format!("sha256:{}", "zz".repeat(32))]
        {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }

    #[test]
    fn tls_refuses_to_start_without_an_authority() {
        assert!(matches!(tls_config(&Trust::Nothing, None), Err(TrustError::Nothing)));
        let text = Trust::Authority(b"not pem".to_vec());
        assert!(matches!(tls_config(&text, None), Err(TrustError::Authority)));
    }

    #[test]
    fn tls_says_that_the_key_of_an_identity_is_sealed() {
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let trust = Trust::Authority(made.cert.pem().into_bytes());
        let sealed = "-----BEGIN LASTKEY SEALED KEY-----\nTEtO\n-----END LASTKEY SEALED KEY-----\n";
        let identity = SecretVec::copy_of([sealed, &made.cert.pem()].concat().as_bytes());
        let refused = tls_config(&trust, Some(&identity)).unwrap_err();
        assert!(matches!(refused, TrustError::SealedIdentity), "{refused}");
    }

    #[test]
    fn tls_refuses_an_identity_that_is_none() {
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let trust = Trust::Authority(made.cert.pem().into_bytes());
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let identity =
            |pem: &str| tls_config(&trust, Some(&SecretVec::copy_of(pem.as_bytes()))).map(drop);
        assert!(identity(&format!("{key}{cert}")).is_ok());
        for pem in ["", &cert, &key, &format!("{}{key}", other.cert.pem())] {
            assert!(matches!(identity(pem), Err(TrustError::Identity)), "{pem}");
        }
    }
}
