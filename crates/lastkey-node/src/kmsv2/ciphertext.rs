//! The ciphertext that the API server stores beside each object: a seed under a local key, and
//! that local key under a key of the service.
//!
//! Room      `node`. Parsed from bytes of strangers: whoever reaches etcd can write them.
//! Source    docs/formats/kmsv2.md.
//! Holds     Self-contained: nothing but the key service is needed to open it. Key id and
//!           annotations are bound to it.

use std::collections::BTreeMap;

use lastkey_crypto::blob::{self, BlobHeader};
use lastkey_crypto::entropy::Entropy;
use lastkey_crypto::wrap::{self, WrapKey};
use lastkey_secret::SecretVec;

use crate::fields::sized;

/// The API server refuses longer ciphertexts and key ids, in bytes.
pub const MAX_CIPHERTEXT_LEN: usize = 1_024;
/// The longest key id, in bytes.
pub const MAX_KEY_ID_LEN: usize = 1_024;
/// The longest annotations, names and values together, in bytes.
pub const MAX_ANNOTATIONS_LEN: usize = 32 * 1_024;

const MAGIC: [u8; 3] = *b"LKS";
const FORMAT: u8 = 1;
/// Magic, format, and the lengths of two fields.
const PREFIX_LEN: usize = MAGIC.len() + 1 + 2 * 2;

/// A local key as it stands in every ciphertext made under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedLocalKey {
    /// Protected by the key service; a ciphertext blob.
    pub by_service: Vec<u8>,
    /// Protected by RSAES-OAEP for the offline recovery key; empty without one.
    pub for_recovery: Vec<u8>,
}

/// What is stored beside the ciphertext and bound to it.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// The key id.
    pub key_id: &'a str,
    /// The annotations.
    pub annotations: &'a BTreeMap<String, Vec<u8>>,
}

impl Bound<'_> {
    /// Checks that nothing is longer than an API server stores; the message says what is.
    pub(super) fn check_lengths(&self, ciphertext: &[u8]) -> Result<(), String> {
        let annotations = self.annotations.iter().map(|(name, value)| name.len() + value.len());
        for (what, len, most) in [
            ("ciphertext", ciphertext.len(), MAX_CIPHERTEXT_LEN),
            ("key_id", self.key_id.len(), MAX_KEY_ID_LEN),
            ("annotations", annotations.sum(), MAX_ANNOTATIONS_LEN),
        ] {
            if len > most {
                return Err(format!("{what}: {len} bytes, at most {most} are allowed"));
            }
        }
        Ok(())
    }
}

/// A ciphertext, taken apart. Nothing of it is authenticated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ciphertext<'a> {
    /// Everything before the sealed seed.
    header: &'a [u8],
    /// The local key under the key service.
    pub by_service: &'a [u8],
    /// The local key for the offline recovery key; empty without one.
    pub for_recovery: &'a [u8],
    sealed: &'a [u8],
}

/// Not a ciphertext of this format, or not one that opens. Deliberately one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext cannot be decrypted")]
pub struct Undecryptable;

impl<'a> Ciphertext<'a> {
    /// Takes a ciphertext apart.
    ///
    /// # Errors
    /// [`Undecryptable`] for anything that is not of this format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Undecryptable> {
        if bytes.len() > MAX_CIPHERTEXT_LEN {
            return Err(Undecryptable);
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(Undecryptable)?;
        let rest = rest.strip_prefix(&[FORMAT]).ok_or(Undecryptable)?;
        let (by_service, rest) = sized(rest).ok_or(Undecryptable)?;
        let (for_recovery, sealed) = sized(rest).ok_or(Undecryptable)?;
        let header_len = bytes.len().checked_sub(sealed.len()).ok_or(Undecryptable)?;
        let header = bytes.get(..header_len).ok_or(Undecryptable)?;
        if sealed.len() <= wrap::OVERHEAD_LEN || blob::peek(by_service).is_err() {
            return Err(Undecryptable);
        }
        Ok(Self { header, by_service, for_recovery, sealed })
    }

    /// Key and version of the service that the local key is protected under, as the ciphertext
    /// says; it proves itself when the local key is recovered.
    ///
    /// # Errors
    /// [`Undecryptable`]; not after [`Ciphertext::parse`].
    pub fn protected_by(&self) -> Result<BlobHeader, Undecryptable> {
        blob::peek(self.by_service).map_err(|_| Undecryptable)
    }

    /// Opens the seed with its local key.
    ///
    /// # Errors
    /// [`Undecryptable`], whatever is wrong.
    pub fn open(&self, local: &WrapKey, bound: Bound<'_>) -> Result<SecretVec, Undecryptable> {
        local.unwrap(&aad(self.header, bound), self.sealed).map_err(|_| Undecryptable)
    }
}

/// Why a seed was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Empty, or longer than fits into a ciphertext of 1,024 bytes.
    #[error("a plaintext has 1 to {} bytes here", .most)]
    Length {
        /// The longest plaintext that fits.
        most: usize,
    },
    /// No randomness, or the primitive refused.
    #[error("the seed cannot be sealed")]
    Failed,
}

impl WrappedLocalKey {
    /// Seals a seed under the local key.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(
        &self,
        local: &WrapKey,
        seed: &[u8],
        bound: Bound<'_>,
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, SealError> {
        let mut out = self.header().ok_or(SealError::Failed)?;
        let most = MAX_CIPHERTEXT_LEN.saturating_sub(out.len() + wrap::OVERHEAD_LEN);
        if seed.is_empty() || seed.len() > most {
            return Err(SealError::Length { most });
        }
        let aad = aad(&out, bound);
        local.wrap_into(&aad, seed, entropy, &mut out).map_err(|_| SealError::Failed)?;
        Ok(out)
    }

    fn header(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(MAX_CIPHERTEXT_LEN);
        out.extend_from_slice(&MAGIC);
        out.push(FORMAT);
        for part in [&self.by_service, &self.for_recovery] {
            out.extend_from_slice(&u16::try_from(part.len()).ok()?.to_be_bytes());
            out.extend_from_slice(part);
        }
        Some(out)
    }

    /// Bytes that a ciphertext under this local key adds to its seed.
    #[must_use]
    pub fn overhead_len(&self) -> usize {
        PREFIX_LEN + self.by_service.len() + self.for_recovery.len() + wrap::OVERHEAD_LEN
    }
}

/// Header, key id and annotations, each with its length, so that no two readings are the same.
fn aad(header: &[u8], bound: Bound<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAX_CIPHERTEXT_LEN);
    let mut add = |part: &[u8]| {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    };
    add(header);
    add(bound.key_id.as_bytes());
    for (name, value) in bound.annotations {
        add(name.as_bytes());
        add(value);
    }
    out
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::entropy::SystemEntropy;
    use lastkey_secret::SecretArray;

    use super::*;

    const KEY_ID: &str = "lk1.abc";

    fn local() -> WrapKey {
        WrapKey::new(&SecretArray::copy_of(&[7; 32])).unwrap()
    }

    fn wrapped(for_recovery: usize) -> WrappedLocalKey {
        let mut by_service = b"LK\x01\x01".to_vec();
        by_service.extend_from_slice(&[0xAA; 16]);
        by_service.extend_from_slice(&3_u32.to_be_bytes());
        by_service.resize(136, 0x55);
        WrappedLocalKey { by_service, for_recovery: vec![1; for_recovery] }
    }

    fn annotations() -> BTreeMap<String, Vec<u8>> {
        [("a.example".to_owned(), b"1".to_vec())].into()
    }

    fn sealed(seed: &[u8], annotations: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
        let bound = Bound { key_id: KEY_ID, annotations };
        wrapped(0).seal(&local(), seed, bound, &mut SystemEntropy).unwrap()
    }

    #[test]
    fn ciphertext_opens_to_its_seed_and_names_its_key_version() {
        let annotations = annotations();
        let bytes = sealed(&[9; 32], &annotations);
        assert_eq!(bytes.len(), 32 + wrapped(0).overhead_len());
        let parsed = Ciphertext::parse(&bytes).unwrap();
        let by = parsed.protected_by().unwrap();
        assert_eq!((by.key_id, by.version), ([0xAA; 16], 3));
        let seed = parsed.open(&local(), Bound { key_id: KEY_ID, annotations: &annotations });
        assert!(seed.unwrap().expose(|seed| seed == [9; 32]));
    }

    #[test]
    fn every_changed_bit_and_every_truncation_is_refused() {
        let annotations = annotations();
        let bytes = sealed(&[9; 32], &annotations);
        let bound = Bound { key_id: KEY_ID, annotations: &annotations };
        let opens = |bytes: &[u8]| {
            Ciphertext::parse(bytes).and_then(|parsed| parsed.open(&local(), bound)).is_ok()
        };
        assert!(opens(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&bad), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(!opens(&bytes[..len]), "length {len}");
        }
    }

    #[test]
    fn another_key_id_or_other_annotations_are_refused() {
        let annotations = annotations();
        let bytes = sealed(&[9; 32], &annotations);
        let parsed = Ciphertext::parse(&bytes).unwrap();
        let none = BTreeMap::new();
        let moved = [("a.exampl".to_owned(), b"e1".to_vec())].into();
        let more = [("a.example".to_owned(), b"1".to_vec()), ("b.c".to_owned(), vec![])].into();
        for annotations in [&none, &moved, &more] {
            assert!(parsed.open(&local(), Bound { key_id: KEY_ID, annotations }).is_err());
        }
        let other = Bound { key_id: "lk1.abd", annotations: &annotations };
        assert!(parsed.open(&local(), other).is_err());
    }

    #[test]
    fn a_plaintext_fills_a_ciphertext_of_1024_bytes_and_no_more() {
        let annotations = annotations();
        let bound = Bound { key_id: KEY_ID, annotations: &annotations };
        for recovery in [0, 384, 512] {
            let wrapped = wrapped(recovery);
            let most = MAX_CIPHERTEXT_LEN - wrapped.overhead_len();
            assert!(most >= 32, "a seed fits beside {recovery} bytes");
            let seal =
                |len: usize| wrapped.seal(&local(), &vec![1; len], bound, &mut SystemEntropy);
            assert_eq!(seal(most).unwrap().len(), MAX_CIPHERTEXT_LEN);
            assert_eq!(seal(most + 1), Err(SealError::Length { most }));
            assert_eq!(seal(0), Err(SealError::Length { most }));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let bytes = sealed(&[9; 32], &annotations());
        for (at, value) in [(4, 0xFF), (5, 0xFF), (5, 0), (5 + 1 + 136, 0xFF)] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert_eq!(Ciphertext::parse(&bad), Err(Undecryptable), "{at}");
        }
    }
}
