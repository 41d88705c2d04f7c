//! The anti-forensic split: a key spread so that losing any part of it loses all.
//!
//! Room      `luks`.
//! Source    LUKS2 specification, 2.4 (AF splitter `luks1`); TKS1, C. Fruhwirth.
//! Holds     Both directions wipe what they worked on.

use aws_lc_rs::digest::{self, Algorithm, SHA256, SHA512};
use lastkey_crypto::entropy::Entropy;
use lastkey_secret::SecretVec;
use zeroize::Zeroizing;

use crate::error::Error;

/// Stripes of every key slot in the field.
pub(crate) const STRIPES: usize = 4_000;

/// The hash of a split, by its name in the header.
pub(crate) fn hash(name: &str) -> Result<&'static Algorithm, Error> {
    match name {
        "sha256" => Ok(&SHA256),
        "sha512" => Ok(&SHA512),
        _ => Err(Error::Unsupported("the hash of an anti-forensic split")),
    }
}

/// Splits a key into [`STRIPES`] parts of its length.
pub(crate) fn split(
    key: &SecretVec,
    hash: &'static Algorithm,
    entropy: &mut dyn Entropy,
) -> Result<SecretVec, Error> {
    let len = key.len();
    let mut folded = Zeroizing::new(vec![0; len]);
    SecretVec::try_fill(len.saturating_mul(STRIPES), |out| {
        let (drawn, last) = out.split_at_mut(len.saturating_mul(STRIPES - 1));
        entropy.fill(drawn).map_err(|_| Error::Primitive)?;
        for stripe in drawn.chunks_exact(len) {
            xor(&mut folded, stripe);
            diffuse(&mut folded, hash);
        }
        key.expose(|key| last.copy_from_slice(key));
        xor(last, &folded);
        Ok(())
    })
}

/// Gives the key of a split of `len` bytes a stripe.
pub(crate) fn merge(
    parts: &SecretVec,
    len: usize,
    hash: &'static Algorithm,
) -> Result<SecretVec, Error> {
    SecretVec::try_fill(len, |key| {
        parts
            .expose(|parts| {
                let (drawn, last) = parts.split_at_checked(len.saturating_mul(STRIPES - 1))?;
                for stripe in drawn.chunks_exact(len) {
                    xor(key, stripe);
                    diffuse(key, hash);
                }
                xor(key, last.get(..len)?);
                Some(())
            })
            .ok_or(Error::Unsupported("a key slot of another length"))
    })
}

fn xor(into: &mut [u8], other: &[u8]) {
    for (byte, other) in into.iter_mut().zip(other) {
        *byte ^= other;
    }
}

/// Each block of the digest's length becomes the digest of its number and itself.
fn diffuse(block: &mut [u8], hash: &'static Algorithm) {
    for (number, chunk) in (0_u32..).zip(block.chunks_mut(hash.output_len())) {
        let mut context = digest::Context::new(hash);
        context.update(&number.to_be_bytes());
        context.update(chunk);
        for (byte, digest) in chunk.iter_mut().zip(context.finish().as_ref()) {
            *byte = *digest;
        }
    }
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::entropy::SystemEntropy;
    use lastkey_secret::SecretVec;

    use super::{STRIPES, hash, merge, split};

    #[test]
    fn merge_gives_what_was_split_and_every_part_is_needed() {
        for (len, name) in [(64, "sha256"), (32, "sha512"), (96, "sha256"), (20, "sha256")] {
            let key = SecretVec::copy_of(&vec![0x5A; len]);
            let hash = hash(name).unwrap();
            let parts = split(&key, hash, &mut SystemEntropy).unwrap();
            assert_eq!(parts.len(), len * STRIPES);
            assert!(merge(&parts, len, hash).unwrap().ct_eq(&key));
            let changed = parts.expose(|bytes| {
                let mut bytes = bytes.to_vec();
                bytes[len * 7] ^= 1;
                SecretVec::take(bytes)
            });
            assert!(!merge(&changed, len, hash).unwrap().ct_eq(&key));
        }
    }

    #[test]
    fn merge_refuses_a_split_that_is_too_short() {
        let parts = SecretVec::copy_of(&[0; 64 * STRIPES - 1]);
        assert!(merge(&parts, 64, hash("sha256").unwrap()).is_err());
    }
}
