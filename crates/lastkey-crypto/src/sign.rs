//! Signatures and their verification.
//!
//! Room      `crypto`. Raw signatures: they carry neither key nor version.
//! Source    FIPS 186-5; RFC 8017 (PSS with a salt as long as the digest, PKCS#1 v1.5);
//!           SEC 1 (ECDSA, signatures in DER); RFC 8032 (Ed25519); GB/T 32918.2 (SM2, with
//!           the default identifier `1234567812345678`, signatures in DER).
//! Holds     A digest is signed only where the algorithm allows it and only at its length.

use core::fmt;
use std::sync::OnceLock;

use aws_lc_rs::{
    digest::{self, Digest},
    rand::SystemRandom,
    rsa::PublicEncryptingKey,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256K1_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
        EcdsaKeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
        RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
        VerificationAlgorithm,
    },
};
use lastkey_secret::SecretVec;

use crate::{
    material::{MaterialError, MaterialSpec},
    pair::KeyPair,
};

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignAlgorithm {
    /// RSASSA-PSS with SHA-256.
    RsassaPssSha256,
    /// RSASSA-PSS with SHA-384.
    RsassaPssSha384,
    /// RSASSA-PSS with SHA-512.
    RsassaPssSha512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsassaPkcs1V15Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsassaPkcs1V15Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsassaPkcs1V15Sha512,
    /// ECDSA with SHA-256, on P-256 and secp256k1.
    EcdsaSha256,
    /// ECDSA with SHA-384, on P-384.
    EcdsaSha384,
    /// Ed25519.
    Ed25519,
    /// SM2 with SM3.
    Sm2Dsa,
}

impl SignAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 10] = [
        Self::RsassaPssSha256,
        Self::RsassaPssSha384,
        Self::RsassaPssSha512,
        Self::RsassaPkcs1V15Sha256,
        Self::RsassaPkcs1V15Sha384,
        Self::RsassaPkcs1V15Sha512,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::Ed25519,
        Self::Sm2Dsa,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RsassaPssSha256 => "RSASSA_PSS_SHA_256",
            Self::RsassaPssSha384 => "RSASSA_PSS_SHA_384",
            Self::RsassaPssSha512 => "RSASSA_PSS_SHA_512",
            Self::RsassaPkcs1V15Sha256 => "RSASSA_PKCS1_V1_5_SHA_256",
            Self::RsassaPkcs1V15Sha384 => "RSASSA_PKCS1_V1_5_SHA_384",
            Self::RsassaPkcs1V15Sha512 => "RSASSA_PKCS1_V1_5_SHA_512",
            Self::EcdsaSha256 => "ECDSA_SHA_256",
            Self::EcdsaSha384 => "ECDSA_SHA_384",
            Self::Ed25519 => "ED25519",
            Self::Sm2Dsa => "SM2DSA",
        }
    }

    /// The algorithm of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The algorithms of a kind of key, the default first; none for kinds that do not sign.
    #[must_use]
    pub const fn for_spec(spec: MaterialSpec) -> &'static [Self] {
        use MaterialSpec as S;
        match spec {
            S::Rsa2048 | S::Rsa3072 | S::Rsa4096 => &RSA_ALGORITHMS,
            S::P256 | S::Secp256k1 => &[Self::EcdsaSha256],
            S::P384 => &[Self::EcdsaSha384],
            S::Ed25519 => &[Self::Ed25519],
            S::Sm2 => &[Self::Sm2Dsa],
            S::Aes128 | S::Aes256 | S::Sm4 | S::Hmac256 | S::Hmac384 | S::Hmac512 => &[],
        }
    }

    /// Length in bytes of the digest that may be signed instead of a message; `None` when the
    /// algorithm signs whole messages only.
    #[must_use]
    pub fn digest_len(self) -> Option<usize> {
        match self {
            Self::Sm2Dsa => Some(32),
            Self::RsassaPssSha256
            | Self::RsassaPssSha384
            | Self::RsassaPssSha512
            | Self::RsassaPkcs1V15Sha256
            | Self::RsassaPkcs1V15Sha384
            | Self::RsassaPkcs1V15Sha512
            | Self::EcdsaSha256
            | Self::EcdsaSha384
            | Self::Ed25519 => self.digest_algorithm().map(digest::Algorithm::output_len),
        }
    }

    /// The digest of the algorithms that the library computes.
    fn digest_algorithm(self) -> Option<&'static digest::Algorithm> {
        match self {
            Self::RsassaPssSha256 | Self::RsassaPkcs1V15Sha256 | Self::EcdsaSha256 => {
                Some(&digest::SHA256)
            }
            Self::RsassaPssSha384 | Self::RsassaPkcs1V15Sha384 | Self::EcdsaSha384 => {
                Some(&digest::SHA384)
            }
            Self::RsassaPssSha512 | Self::RsassaPkcs1V15Sha512 => Some(&digest::SHA512),
            Self::Ed25519 | Self::Sm2Dsa => None,
        }
    }
}

const RSA_ALGORITHMS: [SignAlgorithm; 6] = [
    SignAlgorithm::RsassaPssSha256,
    SignAlgorithm::RsassaPssSha384,
    SignAlgorithm::RsassaPssSha512,
    SignAlgorithm::RsassaPkcs1V15Sha256,
    SignAlgorithm::RsassaPkcs1V15Sha384,
    SignAlgorithm::RsassaPkcs1V15Sha512,
];

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// The message; it is hashed here.
    Raw(&'a [u8]),
    /// The digest of the message, made by the caller. For SM2 this is SM3(Z ‖ message).
    Digest(&'a [u8]),
}

/// Why a signature was neither made nor judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key does not do this algorithm.
    #[error("the key does not support this signing algorithm")]
    WrongAlgorithm,
    /// The algorithm signs whole messages only.
    #[error("this signing algorithm does not take a digest")]
    DigestNotAllowed,
    /// The digest is not as long as the one of the algorithm.
    #[error("the digest has the wrong length for this signing algorithm")]
    DigestLength,
    /// The primitive refused, which it has no reason to.
    #[error("signing failed")]
    Failed,
}

/// A private key, parsed for many signatures.
pub struct SigningKey {
    spec: MaterialSpec,
    pair: KeyPair,
}

impl SigningKey {
    /// Parses the material of one version.
    ///
    /// # Errors
    /// [`MaterialError::WrongSpec`] for kinds that do not sign; [`MaterialError::Malformed`];
    /// [`MaterialError::Unsupported`].
    pub fn new(spec: MaterialSpec, material: &SecretVec) -> Result<Self, MaterialError> {
        KeyPair::parse(spec, material).map(|pair| Self { spec, pair })
    }

    /// The public half as SubjectPublicKeyInfo DER.
    ///
    /// # Errors
    /// [`MaterialError::Failed`] when the library refuses, which it has no reason to.
    pub fn public_key_der(&self) -> Result<Vec<u8>, MaterialError> {
        self.pair.public_key_der()
    }

    /// Signs a message or a digest. Randomness, where an algorithm needs it, comes from the
    /// cryptographic library.
    ///
    /// # Errors
    /// [`SignError`] by variant; nothing depends on the content of the message.
    pub fn sign(
        &self,
        algorithm: SignAlgorithm,
        message: Message<'_>,
    ) -> Result<Vec<u8>, SignError> {
        check(self.spec, algorithm, message)?;
        match &self.pair {
            KeyPair::Rsa(pair) => sign_rsa(pair, algorithm, message),
            KeyPair::Ecdsa(pair) => sign_ecdsa(pair, algorithm, message),
            KeyPair::Ed25519(pair) => match message {
                Message::Raw(bytes) => pair
                    .try_sign(bytes)
                    .map(|signature| signature.as_ref().to_vec())
                    .map_err(|_| SignError::Failed),
                Message::Digest(_) => Err(SignError::DigestNotAllowed),
            },
            #[cfg(feature = "sm")]
            KeyPair::Sm2(pair) => pair.sign(message),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// A public key, parsed for many verifications.
pub struct VerifyingKey {
    spec: MaterialSpec,
    spki_der: Vec<u8>,
    // One place for each algorithm of `spec`, parsed at first use.
    parsed: [OnceLock<Option<ParsedPublicKey>>; 6],
}

impl VerifyingKey {
    /// Parses SubjectPublicKeyInfo DER.
    ///
    /// # Errors
    /// [`MaterialError::WrongSpec`] for kinds that do not sign; [`MaterialError::Malformed`]
    /// for a public key of another kind or size; [`MaterialError::Unsupported`].
    pub fn new(spec: MaterialSpec, spki_der: &[u8]) -> Result<Self, MaterialError> {
        let first = SignAlgorithm::for_spec(spec).first().ok_or(MaterialError::WrongSpec)?;
        let key =
            Self { spec, spki_der: spki_der.to_vec(), parsed: [const { OnceLock::new() }; 6] };
        key.check_kind(*first)?;
        Ok(key)
    }

    fn check_kind(&self, first: SignAlgorithm) -> Result<(), MaterialError> {
        if self.spec == MaterialSpec::Sm2 {
            return check_sm2(&self.spki_der);
        }
        if let Some(bits) = self.spec.rsa_bits() {
            let key = PublicEncryptingKey::from_der(&self.spki_der);
            if key.map_err(|_| MaterialError::Malformed)?.key_size_bits() != bits {
                return Err(MaterialError::Malformed);
            }
        }
        self.parsed_for(first).map(|_| ()).ok_or(MaterialError::Malformed)
    }

    /// Whether `signature` is one of `message` under this key.
    ///
    /// # Errors
    /// [`SignError`] when the question itself is wrong; an invalid signature is `Ok(false)`.
    pub fn verify(
        &self,
        algorithm: SignAlgorithm,
        message: Message<'_>,
        signature: &[u8],
    ) -> Result<bool, SignError> {
        check(self.spec, algorithm, message)?;
        if algorithm == SignAlgorithm::Sm2Dsa {
            return verify_sm2(&self.spki_der, message, signature);
        }
        let key = self.parsed_for(algorithm).ok_or(SignError::Failed)?;
        let outcome = match message {
            Message::Raw(bytes) => key.verify_sig(bytes, signature),
            Message::Digest(bytes) => key.verify_digest_sig(&import(algorithm, bytes)?, signature),
        };
        Ok(outcome.is_ok())
    }

    fn parsed_for(&self, algorithm: SignAlgorithm) -> Option<&ParsedPublicKey> {
        let place = SignAlgorithm::for_spec(self.spec).iter().position(|one| *one == algorithm)?;
        let verification = verification_of(self.spec, algorithm)?;
        self.parsed
            .get(place)?
            .get_or_init(|| ParsedPublicKey::new(verification, &self.spki_der).ok())
            .as_ref()
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("spec", &self.spec).finish_non_exhaustive()
    }
}

fn check(
    spec: MaterialSpec,
    algorithm: SignAlgorithm,
    message: Message<'_>,
) -> Result<(), SignError> {
    if !SignAlgorithm::for_spec(spec).contains(&algorithm) {
        return Err(SignError::WrongAlgorithm);
    }
    match message {
        Message::Raw(_) => Ok(()),
        Message::Digest(digest) => match algorithm.digest_len() {
            None => Err(SignError::DigestNotAllowed),
            Some(len) if len == digest.len() => Ok(()),
            Some(_) => Err(SignError::DigestLength),
        },
    }
}

fn import(algorithm: SignAlgorithm, digest: &[u8]) -> Result<Digest, SignError> {
    let hash = algorithm.digest_algorithm().ok_or(SignError::DigestNotAllowed)?;
    Digest::import_less_safe(digest, hash).map_err(|_| SignError::DigestLength)
}

fn sign_rsa(
    pair: &RsaKeyPair,
    algorithm: SignAlgorithm,
    message: Message<'_>,
) -> Result<Vec<u8>, SignError> {
    let encoding = rsa_encoding(algorithm).ok_or(SignError::WrongAlgorithm)?;
    let mut signature = vec![0; pair.public_modulus_len()];
    match message {
        Message::Raw(bytes) => pair.sign(encoding, &SystemRandom::new(), bytes, &mut signature),
        Message::Digest(bytes) => {
            pair.sign_digest(encoding, &import(algorithm, bytes)?, &mut signature)
        }
    }
    .map_err(|_| SignError::Failed)?;
    Ok(signature)
}

fn sign_ecdsa(
    pair: &EcdsaKeyPair,
    algorithm: SignAlgorithm,
    message: Message<'_>,
) -> Result<Vec<u8>, SignError> {
    match message {
        Message::Raw(bytes) => pair.sign(&SystemRandom::new(), bytes),
        Message::Digest(bytes) => pair.sign_digest(&import(algorithm, bytes)?),
    }
    .map(|signature| signature.as_ref().to_vec())
    .map_err(|_| SignError::Failed)
}

fn rsa_encoding(algorithm: SignAlgorithm) -> Option<&'static dyn RsaEncoding> {
    match algorithm {
        SignAlgorithm::RsassaPssSha256 => Some(&RSA_PSS_SHA256),
        SignAlgorithm::RsassaPssSha384 => Some(&RSA_PSS_SHA384),
        SignAlgorithm::RsassaPssSha512 => Some(&RSA_PSS_SHA512),
        SignAlgorithm::RsassaPkcs1V15Sha256 => Some(&RSA_PKCS1_SHA256),
        SignAlgorithm::RsassaPkcs1V15Sha384 => Some(&RSA_PKCS1_SHA384),
        SignAlgorithm::RsassaPkcs1V15Sha512 => Some(&RSA_PKCS1_SHA512),
        SignAlgorithm::EcdsaSha256
        | SignAlgorithm::EcdsaSha384
        | SignAlgorithm::Ed25519
        | SignAlgorithm::Sm2Dsa => None,
    }
}

fn verification_of(
    spec: MaterialSpec,
    algorithm: SignAlgorithm,
) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        SignAlgorithm::RsassaPssSha256 => Some(&RSA_PSS_2048_8192_SHA256),
        SignAlgorithm::RsassaPssSha384 => Some(&RSA_PSS_2048_8192_SHA384),
        SignAlgorithm::RsassaPssSha512 => Some(&RSA_PSS_2048_8192_SHA512),
        SignAlgorithm::RsassaPkcs1V15Sha256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        SignAlgorithm::RsassaPkcs1V15Sha384 => Some(&RSA_PKCS1_2048_8192_SHA384),
        SignAlgorithm::RsassaPkcs1V15Sha512 => Some(&RSA_PKCS1_2048_8192_SHA512),
        SignAlgorithm::EcdsaSha256 if spec == MaterialSpec::Secp256k1 => {
            Some(&ECDSA_P256K1_SHA256_ASN1)
        }
        SignAlgorithm::EcdsaSha256 => Some(&ECDSA_P256_SHA256_ASN1),
        SignAlgorithm::EcdsaSha384 => Some(&ECDSA_P384_SHA384_ASN1),
        SignAlgorithm::Ed25519 => Some(&ED25519),
        SignAlgorithm::Sm2Dsa => None,
    }
}

#[cfg(feature = "sm")]
fn check_sm2(spki_der: &[u8]) -> Result<(), MaterialError> {
    crate::sm::check_public_key(spki_der)
}

#[cfg(not(feature = "sm"))]
fn check_sm2(_spki_der: &[u8]) -> Result<(), MaterialError> {
    Err(MaterialError::Unsupported)
}

#[cfg(feature = "sm")]
fn verify_sm2(spki_der: &[u8], message: Message<'_>, signature: &[u8]) -> Result<bool, SignError> {
    crate::sm::verify(spki_der, message, signature)
}

#[cfg(not(feature = "sm"))]
fn verify_sm2(
    _spki_der: &[u8],
    _message: Message<'_>,
    _signature: &[u8],
) -> Result<bool, SignError> {
    Err(SignError::WrongAlgorithm)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
    use lastkey_secret::SecretVec;

    use super::{Message, SignAlgorithm, SignError, SigningKey, VerifyingKey};
    use crate::{
        material::{MaterialError, MaterialSpec, public_key_der},
        testing::{sample_material, sample_specs, unhex},
    };

    fn signing_specs() -> impl Iterator<Item = MaterialSpec> {
        sample_specs().filter(|spec| !SignAlgorithm::for_spec(*spec).is_empty())
    }

    /// The kinds whose digest is a plain hash of the message.
    fn hashing_specs() -> impl Iterator<Item = MaterialSpec> {
        signing_specs().filter(|spec| !matches!(spec, MaterialSpec::Ed25519 | MaterialSpec::Sm2))
    }

    fn keys(spec: MaterialSpec) -> (SigningKey, VerifyingKey) {
        let material = sample_material(spec);
        let der = public_key_der(spec, &material).unwrap();
        let signing = SigningKey::new(spec, &material).unwrap();
        assert_eq!(signing.public_key_der().unwrap(), der);
        (signing, VerifyingKey::new(spec, &der).unwrap())
    }

    fn digest_of(algorithm: SignAlgorithm, message: &[u8]) -> Vec<u8> {
        let hash = match algorithm.digest_len().unwrap() {
            32 => &SHA256,
            48 => &SHA384,
            _ => &SHA512,
        };
        digest(hash, message).as_ref().to_vec()
    }

    #[test]
    fn names_parse_back() {
        for algorithm in SignAlgorithm::ALL {
            assert_eq!(SignAlgorithm::parse(algorithm.name()), Some(algorithm));
        }
        assert_eq!(SignAlgorithm::parse("RSASSA_PSS_SHA_1"), None);
    }

    #[test]
    fn signatures_verify_under_their_own_message_key_and_algorithm() {
        for spec in signing_specs() {
            let (signing, verifying) = keys(spec);
            let (_, stranger) = keys(spec);
            for algorithm in SignAlgorithm::for_spec(spec) {
                let verify = |message: &[u8], signature: &[u8]| {
                    verifying.verify(*algorithm, Message::Raw(message), signature)
                };
                let signature = signing.sign(*algorithm, Message::Raw(b"message")).unwrap();
                assert_eq!(verify(b"message", &signature), Ok(true), "{algorithm:?}");
                assert_eq!(verify(b"massage", &signature), Ok(false), "{algorithm:?}");
                assert_eq!(verify(b"message", &signature[1..]), Ok(false), "{algorithm:?}");
                assert_eq!(verify(b"message", b""), Ok(false), "{algorithm:?}");
                let by_stranger = stranger.verify(*algorithm, Message::Raw(b"message"), &signature);
                assert_eq!(by_stranger, Ok(false), "{algorithm:?}");
                for other in SignAlgorithm::for_spec(spec).iter().filter(|one| *one != algorithm) {
                    let crossed = verifying.verify(*other, Message::Raw(b"message"), &signature);
                    assert_eq!(crossed, Ok(false), "{algorithm:?} as {other:?}");
                }
            }
        }
    }

    #[test]
    fn signing_a_digest_is_signing_its_message() {
        for spec in hashing_specs() {
            let (signing, verifying) = keys(spec);
            for algorithm in SignAlgorithm::for_spec(spec) {
                let digest = digest_of(*algorithm, b"message");
                let of_digest = signing.sign(*algorithm, Message::Digest(&digest)).unwrap();
                let of_message = signing.sign(*algorithm, Message::Raw(b"message")).unwrap();
                for (message, signature) in
                    [(Message::Raw(b"message"), of_digest), (Message::Digest(&digest), of_message)]
                {
                    let valid = verifying.verify(*algorithm, message, &signature);
                    assert_eq!(valid, Ok(true), "{algorithm:?}");
                }
            }
        }
    }

    #[test]
    fn digests_of_the_wrong_length_are_refused() {
        for spec in hashing_specs() {
            let (signing, verifying) = keys(spec);
            for algorithm in SignAlgorithm::for_spec(spec) {
                let right = algorithm.digest_len().unwrap();
                for len in [0, right - 1, right + 1] {
                    let digest = vec![0; len];
                    let refused = Some(SignError::DigestLength);
                    let message = Message::Digest(&digest);
                    assert_eq!(signing.sign(*algorithm, message).err(), refused);
                    assert_eq!(verifying.verify(*algorithm, message, b"").err(), refused);
                }
            }
        }
    }

    #[test]
    fn ed25519_takes_no_digest() {
        let (signing, verifying) = keys(MaterialSpec::Ed25519);
        let message = Message::Digest(&[0; 64]);
        let refused = Some(SignError::DigestNotAllowed);
        assert_eq!(signing.sign(SignAlgorithm::Ed25519, message).err(), refused);
        assert_eq!(verifying.verify(SignAlgorithm::Ed25519, message, b"").err(), refused);
    }

    #[test]
    fn keys_refuse_algorithms_of_other_kinds() {
        for spec in signing_specs() {
            let (signing, verifying) = keys(spec);
            let mine = SignAlgorithm::for_spec(spec);
            for other in SignAlgorithm::ALL.into_iter().filter(|other| !mine.contains(other)) {
                let refused = Some(SignError::WrongAlgorithm);
                assert_eq!(signing.sign(other, Message::Raw(b"")).err(), refused);
                assert_eq!(verifying.verify(other, Message::Raw(b""), b"").err(), refused);
            }
        }
    }

    #[test]
    fn public_keys_of_another_kind_are_refused() {
        let der = public_key_der(MaterialSpec::P256, &sample_material(MaterialSpec::P256)).unwrap();
        for spec in [
            MaterialSpec::P384,
            MaterialSpec::Secp256k1,
            MaterialSpec::Ed25519,
            MaterialSpec::Rsa2048,
        ] {
            let outcome = VerifyingKey::new(spec, &der);
            assert_eq!(outcome.err(), Some(MaterialError::Malformed), "{spec:?}");
        }
        let symmetric = VerifyingKey::new(MaterialSpec::Aes256, &der);
        assert_eq!(symmetric.err(), Some(MaterialError::WrongSpec));
        assert!(VerifyingKey::new(MaterialSpec::P256, &der[1..]).is_err());
    }

    /// RFC 8032, 7.1, test 2: the seed in a PKCS#8 frame (RFC 8410, section 7).
    #[test]
    fn ed25519_matches_the_vector_of_the_standard() {
        let pkcs8 = unhex(
            "302e020100300506032b6570042204204ccd089b28ff96da9db6c346ec114e0f\
             5b8a319f35aba624da8cf6ed4fb8a6fb",
        );
        let key = SigningKey::new(MaterialSpec::Ed25519, &SecretVec::take(pkcs8)).unwrap();
        let signature = key.sign(SignAlgorithm::Ed25519, Message::Raw(&[0x72])).unwrap();
        assert_eq!(
            signature,
            unhex(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                 085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            )
        );
    }

    #[cfg(feature = "sm")]
    #[test]
    fn sm2_signs_a_digest_that_covers_the_identifier() {
        let (signing, verifying) = keys(MaterialSpec::Sm2);
        let digest = Message::Digest(&[0x5a; 32]);
        let signature = signing.sign(SignAlgorithm::Sm2Dsa, digest).unwrap();
        let verify = |message| verifying.verify(SignAlgorithm::Sm2Dsa, message, &signature);
        assert_eq!(verify(digest), Ok(true));
        assert_eq!(verify(Message::Digest(&[0; 32])), Ok(false));
        assert_eq!(verify(Message::Raw(&[0x5a; 32])), Ok(false));
        assert_eq!(verify(Message::Digest(&[0x5a; 31])), Err(SignError::DigestLength));
    }
}
