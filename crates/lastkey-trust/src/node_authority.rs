//! The authority of nodes: requests for certificates are read, and certificates signed.
//!
//! Room      `trust`. The key of the authority comes in, certificates go out; who may have one is
//!           the business of the caller.
//! Source    RFC 5280 for certificates, RFC 2986 for requests; SPIFFE X.509-SVID for names.
//! Holds     of a request only the public key is taken, and only when the request is signed by its
//!           private half. What a certificate says is decided by the caller: a request that asks
//!           for another name, or to be an authority, gets neither.

use lastkey_core::access::{NODE_CERTIFICATE_SECS, NodeCertificate};
use lastkey_core::ids::{InstanceId, Name};
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::sign::{Message, SignAlgorithm, SigningKey, VerifyingKey};
use lastkey_secret::SecretVec;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;

use crate::refusal::Refusal;
use crate::x509::{SpiffeId, fingerprint};

/// What keys of nodes and of their authority are.
pub const KEY_SPEC: MaterialSpec = MaterialSpec::P256;

/// Longest request that is read, in bytes.
pub const MAX_REQUEST_LEN: usize = 4_096;

/// How long an authority is good, in seconds: ten years.
const AUTHORITY_SECS: u64 = 3_650 * 86_400;

/// Clocks may be behind by this much, in seconds.
const CLOCK_SKEW_SECS: u64 = 60;

/// Length of an uncompressed point of P-256, with which a public key of it ends.
const POINT_LEN: usize = 65;

/// `Lastkey node authority` as the one common name, in DER: what a server tells its peers to look
/// for, so that those who have no certificate of it are not asked for another.
pub const SUBJECT_DER: &[u8] =
    b"\x30\x21\x31\x1f\x30\x1d\x06\x03\x55\x04\x03\x0c\x16Lastkey node authority";

const SUBJECT: &str = "Lastkey node authority";

/// The authority cannot sign; its key or the time is none that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate cannot be signed")]
pub struct CannotSign;

/// A request for a certificate, signed by the key that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    public_key: Vec<u8>,
}

impl Request {
    /// Reads a PKCS #10 request in DER.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for anything but a request for a key on P-256, with a point that is
    /// not compressed; [`Refusal::BadSignature`] when it is not signed by that key.
    pub fn parse(der: &[u8]) -> Result<Self, Refusal> {
        if der.len() > MAX_REQUEST_LEN {
            return Err(Refusal::Malformed);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| Refusal::Malformed)?;
        if !rest.is_empty() {
            return Err(Refusal::Malformed);
        }
        let info = &request.certification_request_info;
        let key =
            VerifyingKey::new(KEY_SPEC, info.subject_pki.raw).map_err(|_| Refusal::Malformed)?;
        let public_key = info.subject_pki.subject_public_key.data.to_vec();
        if public_key.len() != POINT_LEN {
            return Err(Refusal::Malformed);
        }
        // The algorithm stands outside of what is signed; one that is none of ours is refused.
        let is_ours = request.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256
            && request.signature_algorithm.parameters.is_none()
            && request.signature_value.unused_bits == 0;
        if !is_ours {
            return Err(Refusal::Malformed);
        }
        let message = Message::Raw(info.raw);
        let signature = &request.signature_value.data;
        match key.verify(SignAlgorithm::EcdsaSha256, message, signature) {
            Ok(true) => Ok(Self { public_key }),
            Ok(false) | Err(_) => Err(Refusal::BadSignature),
        }
    }
}

impl PublicKeyData for Request {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A certificate of a node that was signed just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, in DER.
    pub der: Vec<u8>,
    /// What is kept of it.
    pub kept: NodeCertificate,
}

/// Signs certificates of the nodes of one installation.
pub struct Authority(Issuer<'static, Key>);

impl Authority {
    /// The authority of this private key, as PKCS #8.
    ///
    /// # Errors
    /// [`CannotSign`] when it is none on P-256.
    pub fn open(private_key: &SecretVec) -> Result<Self, CannotSign> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self(Issuer::new(params, Key::parse(private_key)?)))
    }

    /// The authority's own certificate, in DER.
    ///
    /// # Errors
    /// [`CannotSign`].
    pub fn certificate(
        &self,
        instance: InstanceId,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, CannotSign> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // SPIFFE X.509-SVID, section 4.2: an authority has the name of its trust domain.
        params.subject_alt_names = vec![uri(&format!("spiffe://{instance}"))?];
        finish(&mut params, now, AUTHORITY_SECS, entropy)?;
        let signed = params.signed_by(self.0.key(), &self.0).map_err(|_| CannotSign)?;
        Ok(signed.der().to_vec())
    }

    /// Signs the certificate of a node, good for [`NODE_CERTIFICATE_SECS`] from `now`.
    ///
    /// # Errors
    /// [`CannotSign`], also for a name that no SPIFFE id can have.
    pub fn issue(
        &self,
        request: &Request,
        instance: InstanceId,
        node: &Name,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Result<Issued, CannotSign> {
        let id = SpiffeId::node(&instance.to_string(), node.as_str()).map_err(|_| CannotSign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![uri(id.as_str())?];
        let expires_at = finish(&mut params, now, NODE_CERTIFICATE_SECS, entropy)?;
        let der = params.signed_by(request, &self.0).map_err(|_| CannotSign)?.der().to_vec();
        let kept = NodeCertificate { fingerprint: fingerprint(&der), issued_at: now, expires_at };
        Ok(Issued { der, kept })
    }
}

fn subject() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, SUBJECT);
    name
}

fn uri(text: &str) -> Result<SanType, CannotSign> {
    text.try_into().map(SanType::URI).map_err(|_| CannotSign)
}

/// Sets times and serial number, and answers the end.
fn finish(
    params: &mut CertificateParams,
    now: Timestamp,
    seconds: u64,
    entropy: &mut dyn Entropy,
) -> Result<Timestamp, CannotSign> {
    let mut serial = [0; 16];
    entropy.fill(&mut serial).map_err(|_| CannotSign)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let expires_at = Timestamp(now.0.saturating_add(seconds));
    params.not_before = moment(Timestamp(now.0.saturating_sub(CLOCK_SKEW_SECS)))?;
    params.not_after = moment(expires_at)?;
    Ok(expires_at)
}

fn moment(at: Timestamp) -> Result<OffsetDateTime, CannotSign> {
    let seconds = i64::try_from(at.0).map_err(|_| CannotSign)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CannotSign)
}

/// A private key on P-256.
struct Key {
    private: SigningKey,
    public: Vec<u8>,
}

impl Key {
    fn parse(private_key: &SecretVec) -> Result<Self, CannotSign> {
        let private = SigningKey::new(KEY_SPEC, private_key).map_err(|_| CannotSign)?;
        let info = private.public_key_der().map_err(|_| CannotSign)?;
        let public = info.last_chunk::<POINT_LEN>().ok_or(CannotSign)?.to_vec();
        Ok(Self { private, public })
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.private
            .sign(SignAlgorithm::EcdsaSha256, Message::Raw(message))
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
