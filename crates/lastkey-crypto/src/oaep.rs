//! RSA encryption of short plaintexts.
//!
//! Room      `crypto`. For RSA keys whose usage is ENCRYPT_DECRYPT, and for importing material.
//! Source    RFC 8017, 7.1: RSAES-OAEP with SHA-256 for hash and mask, empty label.
//! Holds     Every failure of a decryption is one value.

use core::fmt;

use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use lastkey_secret::SecretVec;
use zeroize::Zeroizing;

use crate::material::{MaterialError, MaterialSpec, validate};

/// Why RSA encryption or decryption did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OaepError {
    /// The plaintext is longer than the key allows.
    #[error("plaintext is too long for this key")]
    TooLong,
    /// Wrong key, wrong length, or altered bytes: deliberately one value.
    #[error("ciphertext cannot be decrypted")]
    Undecryptable,
    /// The primitive refused, which it has no reason to.
    #[error("encryption failed")]
    Failed,
}

/// A private RSA key, parsed for many operations.
pub struct OaepKey {
    private: OaepPrivateDecryptingKey,
    public: OaepPublicKey,
}

impl OaepKey {
    /// Parses the material of one version.
    ///
    /// # Errors
    /// [`MaterialError::WrongSpec`] unless `spec` is an RSA kind; [`MaterialError::Malformed`]
    /// for material of another kind or size.
    pub fn new(spec: MaterialSpec, material: &SecretVec) -> Result<Self, MaterialError> {
        spec.rsa_bits().ok_or(MaterialError::WrongSpec)?;
        validate(spec, material)?;
        let private = material
            .expose(PrivateDecryptingKey::from_pkcs8)
            .map_err(|_| MaterialError::Malformed)?;
        let public = OaepPublicEncryptingKey::new(private.public_key());
        let public = OaepPublicKey(public.map_err(|_| MaterialError::Failed)?);
        let private = OaepPrivateDecryptingKey::new(private).map_err(|_| MaterialError::Failed)?;
        Ok(Self { private, public })
    }

    /// The longest plaintext in bytes: 190, 318 or 446.
    #[must_use]
    pub fn max_plaintext_len(&self) -> usize {
        self.public.max_plaintext_len()
    }

    /// Length of the modulus, and so of every ciphertext, in bytes.
    #[must_use]
    pub fn modulus_len(&self) -> usize {
        self.private.key_size_bytes()
    }

    /// Encrypts to the public half of this key.
    ///
    /// # Errors
    /// As [`OaepPublicKey::encrypt`].
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, OaepError> {
        self.public.encrypt(plaintext)
    }

    /// Decrypts what was encrypted to the public half.
    ///
    /// # Errors
    /// [`OaepError::Undecryptable`], whatever is wrong.
    pub fn decrypt(&self, ciphertext: &[u8]) -> Result<SecretVec, OaepError> {
        // Wiped by hand: the library fills a buffer of the size of the modulus.
        let mut buffer = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let plaintext = self
            .private
            .decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut buffer, None)
            .map_err(|_| OaepError::Undecryptable)?;
        Ok(SecretVec::copy_of(plaintext))
    }
}

impl fmt::Debug for OaepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OaepKey(..)")
    }
}

/// A public RSA key.
#[derive(Debug)]
pub struct OaepPublicKey(OaepPublicEncryptingKey);

impl OaepPublicKey {
    /// Parses SubjectPublicKeyInfo DER.
    ///
    /// # Errors
    /// [`MaterialError::WrongSpec`] unless `spec` is an RSA kind; [`MaterialError::Malformed`]
    /// for another structure or size.
    pub fn new(spec: MaterialSpec, spki_der: &[u8]) -> Result<Self, MaterialError> {
        let bits = spec.rsa_bits().ok_or(MaterialError::WrongSpec)?;
        let key = PublicEncryptingKey::from_der(spki_der).map_err(|_| MaterialError::Malformed)?;
        if key.key_size_bits() != bits {
            return Err(MaterialError::Malformed);
        }
        OaepPublicEncryptingKey::new(key).map(Self).map_err(|_| MaterialError::Malformed)
    }

    /// The longest plaintext in bytes: 190, 318 or 446.
    #[must_use]
    pub fn max_plaintext_len(&self) -> usize {
        self.0.max_plaintext_size(&OAEP_SHA256_MGF1SHA256)
    }

    /// Encrypts `plaintext`; the result is as long as the modulus. Randomness comes from the
    /// cryptographic library.
    ///
    /// # Errors
    /// [`OaepError::TooLong`] above [`Self::max_plaintext_len`]; [`OaepError::Failed`].
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, OaepError> {
        if plaintext.len() > self.max_plaintext_len() {
            return Err(OaepError::TooLong);
        }
        let mut out = vec![0; self.0.ciphertext_size()];
        let written = self
            .0
            .encrypt(&OAEP_SHA256_MGF1SHA256, plaintext, &mut out, None)
            .map_err(|_| OaepError::Failed)?
            .len();
        out.truncate(written);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretVec;

    use super::{OaepError, OaepKey, OaepPublicKey};
    use crate::{
        material::{MaterialError, MaterialSpec, public_key_der},
        testing::sample_material,
    };

    #[test]
    fn encryption_round_trips_up_to_the_limit_of_the_key() {
        let key = OaepKey::new(MaterialSpec::Rsa2048, &sample_material(MaterialSpec::Rsa2048));
        let key = key.unwrap();
        assert_eq!(key.max_plaintext_len(), 190);
        for len in [0, 1, 190] {
            let ciphertext = key.encrypt(&vec![5; len]).unwrap();
            assert_eq!(ciphertext.len(), 256);
            let opened = key.decrypt(&ciphertext).unwrap();
            assert!(opened.expose(|bytes| bytes == vec![5; len]));
        }
        assert_eq!(key.encrypt(&[0; 191]), Err(OaepError::TooLong));
    }

    #[test]
    fn decryption_refuses_other_keys_and_damage_alike() {
        let make = || {
            let material = sample_material(MaterialSpec::Rsa2048);
            OaepKey::new(MaterialSpec::Rsa2048, &material).unwrap()
        };
        let (key, other) = (make(), make());
        let ciphertext = key.encrypt(b"secret").unwrap();
        let mut flipped = ciphertext.clone();
        flipped[100] ^= 1;
        let refused = Some(OaepError::Undecryptable);
        assert_eq!(other.decrypt(&ciphertext).err(), refused);
        assert_eq!(key.decrypt(&flipped).err(), refused);
        assert_eq!(key.decrypt(&ciphertext[..255]).err(), refused);
        assert_eq!(key.decrypt(b"").err(), refused);
    }

    #[test]
    fn public_half_encrypts_for_the_private_half() {
        let material = sample_material(MaterialSpec::Rsa2048);
        let der = public_key_der(MaterialSpec::Rsa2048, &material).unwrap();
        let public = OaepPublicKey::new(MaterialSpec::Rsa2048, &der).unwrap();
        let ciphertext = public.encrypt(b"hello").unwrap();
        let key = OaepKey::new(MaterialSpec::Rsa2048, &material).unwrap();
        assert!(key.decrypt(&ciphertext).unwrap().expose(|bytes| bytes == b"hello"));
        let wrong_size = OaepPublicKey::new(MaterialSpec::Rsa3072, &der);
        assert_eq!(wrong_size.err(), Some(MaterialError::Malformed));
    }

    #[test]
    fn key_refuses_other_kinds() {
        let material = SecretVec::copy_of(&[0; 32]);
        let outcome = OaepKey::new(MaterialSpec::Aes256, &material);
        assert_eq!(outcome.err(), Some(MaterialError::WrongSpec));
    }
}
