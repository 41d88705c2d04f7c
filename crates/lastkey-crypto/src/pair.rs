//! Key pairs, parsed once.
//!
//! Room      `crypto`, inside. The one place that knows how each asymmetric kind is stored.
//! Source    RFC 5958 (PKCS#8, version 1), RFC 5280.
//! Holds     A parsed pair has the curve or modulus size of its spec, and the RSA
//!           exponent 65,537, which FIPS 186-5 (A.1.1) permits and every tool uses.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1_SIGNING,
        ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
        KeyPair as _, RsaKeyPair,
    },
};
use lastkey_secret::SecretVec;

use crate::{
    entropy::Entropy,
    material::{MaterialError, MaterialSpec},
};

/// A private key ready for use. No `Clone`, no `Debug`.
pub(crate) enum KeyPair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    #[cfg(feature = "sm")]
    Sm2(crate::sm::Sm2Key),
}

/// How the library names a kind of pair.
enum Family {
    Rsa(KeySize),
    Ecdsa(&'static EcdsaSigningAlgorithm),
    Ed25519,
    Sm2,
}

fn family_of(spec: MaterialSpec) -> Option<Family> {
    use MaterialSpec as S;
    match spec {
        S::Rsa2048 => Some(Family::Rsa(KeySize::Rsa2048)),
        S::Rsa3072 => Some(Family::Rsa(KeySize::Rsa3072)),
        S::Rsa4096 => Some(Family::Rsa(KeySize::Rsa4096)),
        S::P256 => Some(Family::Ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)),
        S::P384 => Some(Family::Ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING)),
        S::Secp256k1 => Some(Family::Ecdsa(&ECDSA_P256K1_SHA256_ASN1_SIGNING)),
        S::Ed25519 => Some(Family::Ed25519),
        S::Sm2 => Some(Family::Sm2),
        S::Aes128 | S::Aes256 | S::Sm4 | S::Hmac256 | S::Hmac384 | S::Hmac512 => None,
    }
}

impl KeyPair {
    /// Makes a pair and gives its private half as PKCS#8 DER.
    pub(crate) fn generate(
        spec: MaterialSpec,
        entropy: &mut dyn Entropy,
    ) -> Result<SecretVec, MaterialError> {
        match family_of(spec).ok_or(MaterialError::WrongSpec)? {
            Family::Rsa(size) => generate_rsa(size).ok_or(MaterialError::Failed),
            Family::Ecdsa(algorithm) => EcdsaKeyPair::generate(algorithm)
                .and_then(|pair| pair.to_pkcs8v1())
                .map(|der| SecretVec::copy_of(der.as_ref()))
                .map_err(|_| MaterialError::Failed),
            Family::Ed25519 => Ed25519KeyPair::generate()
                .and_then(|pair| pair.to_pkcs8v1())
                .map(|der| SecretVec::copy_of(der.as_ref()))
                .map_err(|_| MaterialError::Failed),
            Family::Sm2 => generate_sm2(entropy),
        }
    }

    /// Parses the private half and checks that it is of this kind.
    pub(crate) fn parse(spec: MaterialSpec, material: &SecretVec) -> Result<Self, MaterialError> {
        let family = family_of(spec).ok_or(MaterialError::WrongSpec)?;
        material.expose(|der| match family {
            Family::Rsa(size) => parse_rsa(size, der).ok_or(MaterialError::Malformed),
            Family::Ecdsa(algorithm) => EcdsaKeyPair::from_pkcs8(algorithm, der)
                .map(Self::Ecdsa)
                .map_err(|_| MaterialError::Malformed),
            Family::Ed25519 => Ed25519KeyPair::from_pkcs8(der)
                .map(Self::Ed25519)
                .map_err(|_| MaterialError::Malformed),
            Family::Sm2 => parse_sm2(der),
        })
    }

    /// The public half as SubjectPublicKeyInfo DER.
    pub(crate) fn public_key_der(&self) -> Result<Vec<u8>, MaterialError> {
        let der: Result<PublicKeyX509Der<'_>, _> = match self {
            Self::Rsa(pair) => pair.public_key().as_der(),
            Self::Ecdsa(pair) => pair.public_key().as_der(),
            Self::Ed25519(pair) => pair.public_key().as_der(),
            #[cfg(feature = "sm")]
            Self::Sm2(pair) => return pair.public_key_der(),
        };
        der.map(|der| der.as_ref().to_vec()).map_err(|_| MaterialError::Failed)
    }
}

fn generate_rsa(size: KeySize) -> Option<SecretVec> {
    let pair = RsaKeyPair::generate(size).ok()?;
    let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
    Some(SecretVec::copy_of(der.as_ref()))
}

fn parse_rsa(size: KeySize, der: &[u8]) -> Option<KeyPair> {
    let pair = RsaKeyPair::from_pkcs8(der).ok()?;
    let fits = pair.public_modulus_len() == size.len()
        && pair.public_key().as_ref().ends_with(&EXPONENT_65537);
    fits.then_some(KeyPair::Rsa(pair))
}

/// The exponent is the last element of a PKCS#1 public key; the library refuses exponents over
/// 33 bits, so nothing else can end in these bytes.
const EXPONENT_65537: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

#[cfg(feature = "sm")]
fn generate_sm2(entropy: &mut dyn Entropy) -> Result<SecretVec, MaterialError> {
    crate::sm::Sm2Key::generate(entropy)
}

#[cfg(not(feature = "sm"))]
fn generate_sm2(_entropy: &mut dyn Entropy) -> Result<SecretVec, MaterialError> {
    Err(MaterialError::Unsupported)
}

#[cfg(feature = "sm")]
fn parse_sm2(der: &[u8]) -> Result<KeyPair, MaterialError> {
    crate::sm::Sm2Key::parse(der).map(KeyPair::Sm2)
}

#[cfg(not(feature = "sm"))]
fn parse_sm2(_der: &[u8]) -> Result<KeyPair, MaterialError> {
    Err(MaterialError::Unsupported)
}
