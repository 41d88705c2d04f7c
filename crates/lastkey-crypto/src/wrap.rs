//! Wrapping of keys and records under a key that lives long.
//!
//! Room      `crypto`. For stored records, key material and the root key: a random 24-byte
//!           nonce can be drawn for every wrap without counting.
//! Source    C2SP XAES-256-GCM (NIST SP 800-108r1 counter mode over AES-256-CMAC, then
//!           AES-256-GCM). At most 2^80 wraps for each key at a collision risk of 2^-32.
//! Holds     The derived key and the subkey K1 are wiped.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use lastkey_secret::{SecretArray, SecretVec};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    aead::{OneTimeKey, TAG_LEN},
    blob::Suite,
    entropy::Entropy,
};

/// Bytes that wrapping adds: nonce 24 and tag 16.
pub const OVERHEAD_LEN: usize = NONCE_LEN + TAG_LEN;

const NONCE_LEN: usize = 24;

/// Why nothing was wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// No randomness for the nonce.
    #[error("no randomness available")]
    Entropy,
    /// The primitive refused: a plaintext over 64 GiB.
    #[error("wrapping failed")]
    Failed,
}

/// Wrong key, wrong associated data, or altered bytes: deliberately one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wrapped bytes cannot be unwrapped")]
pub struct UnwrapError;

/// A 256-bit key encryption key, prepared: block cipher ready and CMAC subkey computed.
pub struct WrapKey {
    /// Boxed: the schedule of the key has one home, where it is wiped.
    cipher: Box<EncryptingKey>,
    k1: SecretArray<16>,
}

impl WrapKey {
    /// Prepares `key`.
    ///
    /// # Errors
    /// [`WrapError::Failed`] when the library refuses, which it has no reason to.
    pub fn new(key: &SecretArray<32>) -> Result<Self, WrapError> {
        let prepared = Self::prepare(key);
        scrub_stack();
        prepared
    }

    #[inline(never)]
    fn prepare(key: &SecretArray<32>) -> Result<Self, WrapError> {
        let cipher = key
            .expose(|bytes| UnboundCipherKey::new(&AES_256, bytes))
            .and_then(EncryptingKey::ecb)
            .map(Box::new)
            .map_err(|_| WrapError::Failed)?;
        let k1 = SecretArray::try_fill(|block| {
            encrypt_blocks(&cipher, block).ok_or(WrapError::Failed)?;
            double(block);
            Ok(())
        })?;
        Ok(Self { cipher, k1 })
    }

    /// Wraps `plaintext`: nonce 24 ‖ ciphertext ‖ tag 16. `aad` is bound, not stored.
    ///
    /// # Errors
    /// [`WrapError::Entropy`] without a nonce; [`WrapError::Failed`] above 64 GiB.
    pub fn wrap(
        &self,
        aad: &[u8],
        plaintext: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, WrapError> {
        let mut out = Vec::new();
        self.wrap_into(aad, plaintext, entropy, &mut out)?;
        Ok(out)
    }

    /// As [`Self::wrap`], appended to `out`. On an error `out` is as before.
    ///
    /// # Errors
    /// As [`Self::wrap`].
    pub fn wrap_into(
        &self,
        aad: &[u8],
        plaintext: &[u8],
        entropy: &mut dyn Entropy,
        out: &mut Vec<u8>,
    ) -> Result<(), WrapError> {
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce).map_err(|_| WrapError::Entropy)?;
        let start = out.len();
        let total = plaintext.len().checked_add(OVERHEAD_LEN).ok_or(WrapError::Failed)?;
        out.resize(start.checked_add(total).ok_or(WrapError::Failed)?, 0);
        let fresh = out.get_mut(start..).unwrap_or_default();
        let sealed = self.seal_parts(aad, plaintext, &nonce, fresh);
        if sealed.is_none() {
            out.truncate(start);
        }
        sealed.ok_or(WrapError::Failed)
    }

    fn seal_parts(
        &self,
        aad: &[u8],
        plaintext: &[u8],
        nonce: &[u8; NONCE_LEN],
        out: &mut [u8],
    ) -> Option<()> {
        let (front, rest) = out.split_first_chunk_mut::<NONCE_LEN>()?;
        let (ciphertext, tag) = rest.split_last_chunk_mut::<TAG_LEN>()?;
        *front = *nonce;
        let key = self.derive_key(nonce)?;
        let once =
            OneTimeKey { suite: Suite::Aes256Gcm, key: &key, nonce: nonce.last_chunk::<12>()? };
        once.seal(aad, plaintext, ciphertext, tag).ok()
    }

    /// Unwraps what [`Self::wrap`] gave for the same `aad`.
    ///
    /// # Errors
    /// [`UnwrapError`], whatever is wrong.
    pub fn unwrap(&self, aad: &[u8], wrapped: &[u8]) -> Result<SecretVec, UnwrapError> {
        self.open_parts(aad, wrapped).ok_or(UnwrapError)
    }

    fn open_parts(&self, aad: &[u8], wrapped: &[u8]) -> Option<SecretVec> {
        let (nonce, rest) = wrapped.split_first_chunk::<NONCE_LEN>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        let key = self.derive_key(nonce)?;
        let once =
            OneTimeKey { suite: Suite::Aes256Gcm, key: &key, nonce: nonce.last_chunk::<12>()? };
        SecretVec::try_fill(ciphertext.len(), |plaintext| {
            once.open(aad, ciphertext, tag, plaintext)
        })
        .ok()
    }

    /// The two CMACs over one full block each: E(M1 ^ K1) ‖ E(M2 ^ K1).
    fn derive_key(&self, nonce: &[u8; NONCE_LEN]) -> Option<Zeroizing<[u8; 32]>> {
        let mut blocks = Zeroizing::new([0; 32]);
        let (front, _) = nonce.split_first_chunk::<12>()?;
        for (counter, block) in (1_u8..).zip(blocks.chunks_exact_mut(16)) {
            let (header, rest) = block.split_first_chunk_mut::<4>()?;
            *header = [0, counter, b'X', 0];
            rest.copy_from_slice(front);
            self.k1.expose(|k1| block.iter_mut().zip(k1).for_each(|(byte, k)| *byte ^= k));
        }
        encrypt_blocks(&self.cipher, blocks.as_mut())?;
        Some(blocks)
    }
}

impl core::fmt::Debug for WrapKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("WrapKey(..)")
    }
}

/// Overwrites the part of the stack that calls before this one have used: the library hands the
/// schedule of a key on by value.
#[inline(never)]
fn scrub_stack() {
    let mut used = [0_u8; 16 << 10];
    used.zeroize();
    core::hint::black_box(&used);
}

fn encrypt_blocks(cipher: &EncryptingKey, blocks: &mut [u8]) -> Option<()> {
    cipher.less_safe_encrypt(blocks, EncryptionContext::None).ok().map(|_| ())
}

/// Doubling in GF(2^128), without a branch on the secret (SP 800-38B, 6.1).
fn double(block: &mut [u8; 16]) {
    let doubled = u128::from_be_bytes(*block);
    let carry = (doubled >> 127).wrapping_neg() & 0x87;
    *block = ((doubled << 1) ^ carry).to_be_bytes();
}

#[cfg(test)]
mod tests {
    use lastkey_secret::SecretArray;

    use super::{OVERHEAD_LEN, UnwrapError, WrapError, WrapKey};
    use crate::testing::{FixedEntropy, unhex};

    const NONCE: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWX";

    fn key(byte: u8) -> WrapKey {
        WrapKey::new(&SecretArray::copy_of(&[byte; 32])).unwrap()
    }

    fn wrap_fixed(key: &WrapKey, aad: &[u8]) -> Vec<u8> {
        key.wrap(aad, b"XAES-256-GCM", &mut FixedEntropy(NONCE.to_vec())).unwrap()
    }

    /// The two vectors of the C2SP document; the first bit of the CMAC subkey differs.
    #[test]
    fn wrapping_matches_the_vectors_of_the_standard() {
        let first = wrap_fixed(&key(1), b"");
        let second = wrap_fixed(&key(3), b"c2sp.org/XAES-256-GCM");
        assert_eq!(first[24..], unhex("ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"));
        assert_eq!(second[24..], unhex("986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"));
        assert_eq!(first[..24], *NONCE);
    }

    #[test]
    fn wrapping_gives_back_what_went_in() {
        let wrapped = wrap_fixed(&key(1), b"aad");
        assert_eq!(wrapped.len(), 12 + OVERHEAD_LEN);
        let plaintext = key(1).unwrap(b"aad", &wrapped).unwrap();
        assert!(plaintext.expose(|bytes| bytes == b"XAES-256-GCM"));
    }

    #[test]
    fn unwrapping_refuses_every_bit_flip_and_truncation() {
        let wrapped = wrap_fixed(&key(1), b"aad");
        for bit in 0..wrapped.len() * 8 {
            let mut bad = wrapped.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key(1).unwrap(b"aad", &bad).err(), Some(UnwrapError));
        }
        for len in 0..wrapped.len() {
            assert_eq!(key(1).unwrap(b"aad", &wrapped[..len]).err(), Some(UnwrapError));
        }
    }

    #[test]
    fn unwrapping_refuses_another_key_and_other_data() {
        let wrapped = wrap_fixed(&key(1), b"aad");
        assert!(key(2).unwrap(b"aad", &wrapped).is_err());
        assert!(key(1).unwrap(b"", &wrapped).is_err());
    }

    #[test]
    fn wrapping_without_randomness_leaves_the_buffer_alone() {
        let mut out = vec![7];
        let outcome = key(1).wrap_into(b"", b"x", &mut FixedEntropy(vec![0; 23]), &mut out);
        assert_eq!((outcome, out), (Err(WrapError::Entropy), vec![7]));
    }

    #[test]
    fn wrapping_appends_to_the_buffer() {
        let mut out = vec![7];
        let mut entropy = FixedEntropy(NONCE.to_vec());
        key(1).wrap_into(b"aad", b"XAES-256-GCM", &mut entropy, &mut out).unwrap();
        assert_eq!(out[1..], wrap_fixed(&key(1), b"aad"));
    }
}
