//! The suites of the envelope, and the one place that chooses between them.
//!
//! Room      `crypto`.
//! Source    NIST SP 800-38D (AES-256-GCM); RFC 8439 (ChaCha20-Poly1305); RFC 8998 (SM4-GCM).
//! Holds     Key and nonce come from a payload key that serves one envelope, and a position
//!           that is sealed once.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use lastkey_secret::SecretArray;
use zeroize::Zeroize;

use super::EnvelopeError;

/// Bytes of an authentication tag.
pub(super) const TAG_LEN: usize = 16;

/// How the segments of an envelope are protected. The number stands in the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-256-GCM: the fastest where the processor has AES instructions.
    #[default]
    Aes256Gcm,
    /// ChaCha20-Poly1305: for processors without AES instructions.
    ChaCha20Poly1305,
    /// SM4-GCM, with the first 16 bytes of the payload key. Needs the cargo feature `sm`.
    Sm4Gcm,
}

impl Suite {
    /// Every suite of the format, in the order of its numbers.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::ChaCha20Poly1305, Self::Sm4Gcm];

    /// The number in the header, from 1.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
            Self::Sm4Gcm => 3,
        }
    }

    /// The name in documents and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES_256_GCM",
            Self::ChaCha20Poly1305 => "CHACHA20_POLY1305",
            Self::Sm4Gcm => "SM4_GCM",
        }
    }

    /// The suite of a name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }

    /// Whether this build can use it.
    #[must_use]
    pub fn is_supported(self) -> bool {
        match self {
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => true,
            Self::Sm4Gcm => cfg!(feature = "sm"),
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.number() == number)
    }
}

/// A payload key, ready. Shared by threads.
pub(super) enum Cipher {
    Library(LessSafeKey),
    #[cfg(feature = "sm")]
    Sm4(crate::sm::Sm4Cipher),
}

impl Cipher {
    pub(super) fn new(suite: Suite, key: &SecretArray<32>) -> Result<Self, EnvelopeError> {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            #[cfg(feature = "sm")]
            Suite::Sm4Gcm => return key.expose(Self::sm4),
            #[cfg(not(feature = "sm"))]
            Suite::Sm4Gcm => return Err(EnvelopeError::UnsupportedSuite),
        };
        key.expose(|bytes| UnboundKey::new(algorithm, bytes))
            .map(|key| Self::Library(LessSafeKey::new(key)))
            .map_err(|_| EnvelopeError::Failed)
    }

    #[cfg(feature = "sm")]
    fn sm4(key: &[u8; 32]) -> Result<Self, EnvelopeError> {
        let half = key.first_chunk::<16>().ok_or(EnvelopeError::Failed)?;
        Ok(Self::Sm4(crate::sm::Sm4Cipher::new(half)))
    }

    /// Seals where the plaintext lies: plaintext and 16 free bytes in, ciphertext ‖ tag out.
    pub(super) fn seal(&self, nonce: [u8; 12], segment: &mut [u8]) -> Result<(), EnvelopeError> {
        let at = segment.len().checked_sub(TAG_LEN).ok_or(EnvelopeError::WrongSegment)?;
        let (text, free) = segment.split_at_mut_checked(at).ok_or(EnvelopeError::WrongSegment)?;
        match self {
            Self::Library(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), text);
                free.copy_from_slice(tag.map_err(|_| EnvelopeError::Failed)?.as_ref());
            }
            #[cfg(feature = "sm")]
            Self::Sm4(key) => {
                let tag = key.seal_in_place(&nonce, text).map_err(|_| EnvelopeError::Failed)?;
                free.copy_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Seals into `segment`, which is 16 bytes longer than the plaintext.
    pub(super) fn seal_from(
        &self,
        nonce: [u8; 12],
        plaintext: &[u8],
        segment: &mut [u8],
    ) -> Result<(), EnvelopeError> {
        let wrong = EnvelopeError::WrongSegment;
        let (text, free) = segment.split_at_mut_checked(plaintext.len()).ok_or(wrong)?;
        if free.len() != TAG_LEN {
            return Err(wrong);
        }
        match self {
            Self::Library(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.seal_out_of_place_scatter(nonce, Aad::empty(), plaintext, text, &[], free)
                    .map_err(|_| EnvelopeError::Failed)
            }
            #[cfg(feature = "sm")]
            Self::Sm4(_) => {
                text.copy_from_slice(plaintext);
                self.seal(nonce, segment)
            }
        }
    }

    /// Opens where the ciphertext lies: ciphertext ‖ tag in, plaintext and 16 bytes without
    /// meaning out. After an error everything is zero.
    pub(super) fn open(&self, nonce: [u8; 12], segment: &mut [u8]) -> Result<(), EnvelopeError> {
        let opened = match self {
            Self::Library(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, Aad::empty(), segment).is_ok()
            }
            #[cfg(feature = "sm")]
            Self::Sm4(key) => key.open_in_place(&nonce, segment).is_ok(),
        };
        if !opened {
            segment.zeroize();
            return Err(EnvelopeError::Undecryptable);
        }
        Ok(())
    }

    /// Opens into `plaintext`, which is 16 bytes shorter than the segment. After an error it is
    /// zero.
    pub(super) fn open_into(
        &self,
        nonce: [u8; 12],
        segment: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), EnvelopeError> {
        let wrong = EnvelopeError::WrongSegment;
        let (text, tag) = segment.split_at_checked(plaintext.len()).ok_or(wrong)?;
        let tag: &[u8; TAG_LEN] = tag.try_into().map_err(|_| wrong)?;
        let opened = match self {
            Self::Library(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_separate_gather(nonce, Aad::empty(), text, tag, plaintext).is_ok()
            }
            #[cfg(feature = "sm")]
            Self::Sm4(key) => {
                plaintext.copy_from_slice(text);
                key.open_in_place_separate(&nonce, plaintext, tag).is_ok()
            }
        };
        if !opened {
            plaintext.zeroize();
            return Err(EnvelopeError::Undecryptable);
        }
        Ok(())
    }
}
