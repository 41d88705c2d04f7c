//! SM4-GCM and SM2, for builds with the cargo feature `sm`.
//!
//! Room      `crypto`, inside. RustCrypto: the main library has neither.
//! Source    GB/T 32907 (SM4), GB/T 32918 (SM2), GB/T 32905 (SM3), RFC 8998.
//! Holds     Private keys are PKCS#8 DER; signatures are DER, made with the identifier
//!           `1234567812345678` and a nonce derived from key and message (RFC 6979).

use aes_gcm::{
    AesGcm, KeyInit,
    aead::{AeadInOut, consts::U12, inout::InOutBuf},
};
use lastkey_secret::{SecretArray, SecretVec};
use sm2::{
    PublicKey, SecretKey,
    dsa::{
        DerSignature, Signature, SigningKey, VerifyingKey,
        signature::{
            Signer, Verifier,
            hazmat::{PrehashSigner, PrehashVerifier},
        },
    },
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey},
};
use sm4::Sm4;

use crate::{
    aead::{Refused, TAG_LEN},
    entropy::Entropy,
    material::MaterialError,
    sign::{Message, SignError},
};

/// The identifier of GB/T 35276 for signers who agreed on no other.
const DEFAULT_ID: &str = "1234567812345678";

type Sm4Gcm = AesGcm<Sm4, U12>;

/// Encrypts into `ciphertext`, which is as long as `plaintext`.
pub(crate) fn seal_sm4(
    key: &[u8; 16],
    nonce: &[u8; 12],
    aad: &[u8],
    plaintext: &[u8],
    ciphertext: &mut [u8],
    tag: &mut [u8; TAG_LEN],
) -> Result<(), Refused> {
    let buffer = InOutBuf::new(plaintext, ciphertext).map_err(|_| Refused)?;
    let made = Sm4Gcm::new(key.into())
        .encrypt_inout_detached(nonce.into(), aad, buffer)
        .map_err(|_| Refused)?;
    *tag = made.into();
    Ok(())
}

/// Decrypts into `plaintext`, which is as long as `ciphertext`.
pub(crate) fn open_sm4(
    key: &[u8; 16],
    nonce: &[u8; 12],
    aad: &[u8],
    ciphertext: &[u8],
    tag: &[u8; TAG_LEN],
    plaintext: &mut [u8],
) -> Result<(), Refused> {
    let buffer = InOutBuf::new(ciphertext, plaintext).map_err(|_| Refused)?;
    Sm4Gcm::new(key.into())
        .decrypt_inout_detached(nonce.into(), aad, buffer, tag.into())
        .map_err(|_| Refused)
}

/// A key of SM4-GCM that is kept ready, for many messages without associated data.
pub(crate) struct Sm4Cipher(Box<Sm4Gcm>);

impl Sm4Cipher {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(Box::new(Sm4Gcm::new(key.into())))
    }

    /// Encrypts where the plaintext lies and answers the tag.
    pub(crate) fn seal_in_place(
        &self,
        nonce: &[u8; 12],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Refused> {
        let made = self.0.encrypt_inout_detached(nonce.into(), &[], text.into());
        made.map(Into::into).map_err(|_| Refused)
    }

    /// Decrypts ciphertext ‖ tag where it lies.
    pub(crate) fn open_in_place(
        &self,
        nonce: &[u8; 12],
        segment: &mut [u8],
    ) -> Result<(), Refused> {
        let (text, tag) = segment.split_last_chunk_mut::<TAG_LEN>().ok_or(Refused)?;
        self.open_in_place_separate(nonce, text, tag)
    }

    /// Decrypts a ciphertext where it lies.
    pub(crate) fn open_in_place_separate(
        &self,
        nonce: &[u8; 12],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        self.0
            .decrypt_inout_detached(nonce.into(), &[], text.into(), tag.into())
            .map_err(|_| Refused)
    }
}

/// An SM2 private key. Boxed: the key has one home.
pub(crate) struct Sm2Key(Box<SigningKey>);

impl Sm2Key {
    /// Makes a private key as PKCS#8 DER.
    pub(crate) fn generate(entropy: &mut dyn Entropy) -> Result<SecretVec, MaterialError> {
        // A random 256-bit number misses the range of private keys once in 2^32 draws.
        for _ in 0..8 {
            let scalar = SecretArray::<32>::try_fill(|bytes| entropy.fill(bytes))
                .map_err(|_| MaterialError::Entropy)?;
            let Ok(key) = scalar.expose(|bytes| SecretKey::from_slice(bytes)) else { continue };
            let der = key.to_pkcs8_der().map_err(|_| MaterialError::Failed)?;
            return Ok(SecretVec::copy_of(der.as_bytes()));
        }
        Err(MaterialError::Failed)
    }

    /// Parses PKCS#8 DER.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, MaterialError> {
        SecretKey::from_pkcs8_der(der)
            .ok()
            .and_then(|key| SigningKey::new(DEFAULT_ID, &key).ok())
            .map(|key| Self(Box::new(key)))
            .ok_or(MaterialError::Malformed)
    }

    /// The public half as SubjectPublicKeyInfo DER.
    pub(crate) fn public_key_der(&self) -> Result<Vec<u8>, MaterialError> {
        PublicKey::from_sec1_bytes(&self.0.verifying_key().to_sec1_bytes())
            .ok()
            .and_then(|key| key.to_public_key_der().ok())
            .map(|der| der.as_bytes().to_vec())
            .ok_or(MaterialError::Failed)
    }

    /// Signs a message, or a digest that covers the identifier already.
    pub(crate) fn sign(&self, message: Message<'_>) -> Result<Vec<u8>, SignError> {
        let signature: Signature = match message {
            Message::Raw(bytes) => self.0.try_sign(bytes),
            Message::Digest(bytes) => self.0.sign_prehash(bytes),
        }
        .map_err(|_| SignError::Failed)?;
        Ok(DerSignature::from(signature).as_ref().to_vec())
    }
}

/// Whether these bytes are an SM2 public key.
pub(crate) fn check_public_key(spki_der: &[u8]) -> Result<(), MaterialError> {
    parse_public_key(spki_der).map(|_| ()).ok_or(MaterialError::Malformed)
}

/// Judges a signature under a public key.
pub(crate) fn verify(
    spki_der: &[u8],
    message: Message<'_>,
    signature: &[u8],
) -> Result<bool, SignError> {
    let key = parse_public_key(spki_der).ok_or(SignError::Failed)?;
    let Ok(signature) = Signature::from_der(signature) else { return Ok(false) };
    let outcome = match message {
        Message::Raw(bytes) => key.verify(bytes, &signature),
        Message::Digest(bytes) => key.verify_prehash(bytes, &signature),
    };
    Ok(outcome.is_ok())
}

fn parse_public_key(spki_der: &[u8]) -> Option<VerifyingKey> {
    let key = PublicKey::from_public_key_der(spki_der).ok()?;
    VerifyingKey::new(DEFAULT_ID, key).ok()
}
