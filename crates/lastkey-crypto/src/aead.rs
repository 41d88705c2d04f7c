//! One authenticated encryption under a key that is used once.
//!
//! Room      `crypto`, inside. The one place that chooses between the suites.
//! Source    NIST SP 800-38D (GCM); GB/T 36624 and RFC 8998 for SM4-GCM.
//! Holds     Callers derive key and nonce afresh for each message, so no nonce repeats.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};

use crate::blob::Suite;

/// Bytes of an authentication tag.
pub(crate) const TAG_LEN: usize = 16;

/// The primitive refused; for opening: the tag is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Key and nonce of one message. Suites with 128-bit keys use the first half of the key.
pub(crate) struct OneTimeKey<'a> {
    pub(crate) suite: Suite,
    pub(crate) key: &'a [u8; 32],
    pub(crate) nonce: &'a [u8; 12],
}

impl OneTimeKey<'_> {
    /// Encrypts `plaintext` into `ciphertext`, which has the same length.
    pub(crate) fn seal(
        &self,
        aad: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        match self.suite {
            Suite::Aes256Gcm => {
                seal_aes(&AES_256_GCM, self.key, self.nonce, aad, plaintext, ciphertext, tag)
            }
            Suite::Aes128Gcm => {
                let (key, _) = self.halves()?;
                seal_aes(&AES_128_GCM, key, self.nonce, aad, plaintext, ciphertext, tag)
            }
            #[cfg(feature = "sm")]
            Suite::Sm4Gcm => {
                let (key, _) = self.halves()?;
                crate::sm::seal_sm4(key, self.nonce, aad, plaintext, ciphertext, tag)
            }
            #[cfg(not(feature = "sm"))]
            Suite::Sm4Gcm => Err(Refused),
        }
    }

    /// Decrypts `ciphertext` into `plaintext`, which has the same length and holds nothing of
    /// use after an error.
    pub(crate) fn open(
        &self,
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        plaintext: &mut [u8],
    ) -> Result<(), Refused> {
        match self.suite {
            Suite::Aes256Gcm => {
                open_aes(&AES_256_GCM, self.key, self.nonce, aad, ciphertext, tag, plaintext)
            }
            Suite::Aes128Gcm => {
                let (key, _) = self.halves()?;
                open_aes(&AES_128_GCM, key, self.nonce, aad, ciphertext, tag, plaintext)
            }
            #[cfg(feature = "sm")]
            Suite::Sm4Gcm => {
                let (key, _) = self.halves()?;
                crate::sm::open_sm4(key, self.nonce, aad, ciphertext, tag, plaintext)
            }
            #[cfg(not(feature = "sm"))]
            Suite::Sm4Gcm => Err(Refused),
        }
    }

    fn halves(&self) -> Result<(&[u8; 16], &[u8]), Refused> {
        self.key.split_first_chunk::<16>().ok_or(Refused)
    }
}

fn seal_aes(
    algorithm: &'static Algorithm,
    key: &[u8],
    nonce: &[u8; 12],
    aad: &[u8],
    plaintext: &[u8],
    ciphertext: &mut [u8],
    tag: &mut [u8; TAG_LEN],
) -> Result<(), Refused> {
    let key = UnboundKey::new(algorithm, key).map_err(|_| Refused)?;
    LessSafeKey::new(key)
        .seal_out_of_place_scatter(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(aad),
            plaintext,
            ciphertext,
            &[],
            tag,
        )
        .map_err(|_| Refused)
}

fn open_aes(
    algorithm: &'static Algorithm,
    key: &[u8],
    nonce: &[u8; 12],
    aad: &[u8],
    ciphertext: &[u8],
    tag: &[u8; TAG_LEN],
    plaintext: &mut [u8],
) -> Result<(), Refused> {
    let key = UnboundKey::new(algorithm, key).map_err(|_| Refused)?;
    let nonce = Nonce::assume_unique_for_key(*nonce);
    LessSafeKey::new(key)
        .open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, plaintext)
        .map_err(|_| Refused)
}
