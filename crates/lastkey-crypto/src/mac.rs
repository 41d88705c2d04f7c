//! Message authentication codes under HMAC keys.
//!
//! Room      `crypto`.
//! Source    FIPS 198-1. The codes are never truncated.

use core::fmt;

use aws_lc_rs::hmac;
use lastkey_secret::SecretVec;

use crate::material::{MaterialError, MaterialSpec, validate};

/// An HMAC key, prepared for many messages.
pub struct MacKey(hmac::Key);

impl MacKey {
    /// Prepares the material of one version.
    ///
    /// # Errors
    /// [`MaterialError::WrongSpec`] unless `spec` is HMAC_256, HMAC_384 or HMAC_512;
    /// [`MaterialError::Malformed`] when the material has another length.
    pub fn new(spec: MaterialSpec, material: &SecretVec) -> Result<Self, MaterialError> {
        let algorithm = algorithm_of(spec).ok_or(MaterialError::WrongSpec)?;
        validate(spec, material)?;
        Ok(Self(material.expose(|bytes| hmac::Key::new(algorithm, bytes))))
    }

    /// The code of `message`: 32, 48 or 64 bytes.
    #[must_use]
    pub fn compute(&self, message: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, message).as_ref().to_vec()
    }

    /// Whether `mac` is the whole code of `message`; in constant time.
    #[must_use]
    pub fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.0, message, mac).is_ok()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

fn algorithm_of(spec: MaterialSpec) -> Option<hmac::Algorithm> {
    use MaterialSpec as S;
    match spec {
        S::Hmac256 => Some(hmac::HMAC_SHA256),
        S::Hmac384 => Some(hmac::HMAC_SHA384),
        S::Hmac512 => Some(hmac::HMAC_SHA512),
        S::Aes128
        | S::Aes256
        | S::Sm4
        | S::Rsa2048
        | S::Rsa3072
        | S::Rsa4096
        | S::P256
        | S::P384
        | S::Secp256k1
        | S::Ed25519
        | S::Sm2 => None,
    }
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;

    use super::MacKey;
    use crate::{
        material::{MaterialError, MaterialSpec},
        testing::{sample_material, unhex},
    };

    /// RFC 4231, test case 1, whose 20-byte key is padded with zeros as HMAC does it.
    #[test]
    fn codes_match_the_vectors_of_the_standard() {
        let compute = |spec: MaterialSpec| {
            let mut bytes = vec![0x0b; 20];
            bytes.resize(spec.symmetric_len().unwrap(), 0);
            MacKey::new(spec, &SecretVec::take(bytes)).unwrap().compute(b"Hi There")
        };
        assert_eq!(
            compute(MaterialSpec::Hmac256),
            unhex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
        );
        assert_eq!(
            compute(MaterialSpec::Hmac384),
            unhex(
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c\
                 faea9ea9076ede7f4af152e8b2fa9cb6"
            )
        );
        assert_eq!(
            compute(MaterialSpec::Hmac512),
            unhex(
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
            )
        );
    }

    #[test]
    fn verification_wants_the_whole_code_of_this_message() {
        let key = MacKey::new(MaterialSpec::Hmac256, &sample_material(MaterialSpec::Hmac256));
        let key = key.unwrap();
        let mac = key.compute(b"message");
        assert!(key.verify(b"message", &mac));
        assert!(!key.verify(b"massage", &mac));
        assert!(!key.verify(b"message", &mac[..31]));
        assert!(!key.verify(b"message", b""));
        let mut flipped = mac;
        flipped[0] ^= 1;
        assert!(!key.verify(b"message", &flipped));
    }

    #[test]
    fn key_refuses_other_kinds_and_lengths() {
        let bytes = SecretVec::copy_of(&[0; 32]);
        let refuse = |spec| MacKey::new(spec, &bytes).err();
        assert_eq!(refuse(MaterialSpec::Aes256), Some(MaterialError::WrongSpec));
        assert_eq!(refuse(MaterialSpec::Hmac384), Some(MaterialError::Malformed));
    }
}
