//! The encryption context: what a ciphertext is for, bound to it as associated data.
//!
//! Room      `crypto`. One encoding for every door, so a ciphertext made through one opens
//!           through another.
//! Source    `docs/formats/context.md`.
//! Holds     Two contexts are equal exactly when their encodings are: sorted, length-prefixed,
//!           no duplicate names, no Unicode normalisation, one encoding for "nothing".

use std::borrow::Cow;

use crate::digest::sha256;

/// The longest encoding, in bytes.
pub const MAX_ENCODED_LEN: usize = 8_192;

const KIND_NONE: u8 = 0;
const KIND_PAIRS: u8 = 1;
const KIND_RAW: u8 = 2;

/// Why something is not an encryption context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// A name occurs twice.
    #[error("the encryption context names one entry twice")]
    DuplicateName,
    /// The encoding would be over [`MAX_ENCODED_LEN`].
    #[error("the encryption context is too long")]
    TooLong,
    /// Bytes that [`EncryptionContext::encoded`] never gives.
    #[error("the encryption context is malformed")]
    Malformed,
}

/// A context in its encoded form. Not secret: it may appear in records and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionContext {
    // INVARIANT: canonical, as `parse` accepts it.
    encoded: Cow<'static, [u8]>,
}

impl EncryptionContext {
    /// The context of a ciphertext that was given none.
    #[must_use]
    pub fn none() -> Self {
        Self { encoded: Cow::Borrowed(&[KIND_NONE]) }
    }

    /// A map of names to values, in any order. An empty map is [`Self::none`].
    ///
    /// # Errors
    /// [`ContextError::DuplicateName`]; [`ContextError::TooLong`].
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ContextError> {
        let mut pairs: Vec<(K, V)> = pairs.into_iter().collect();
        if pairs.is_empty() {
            return Ok(Self::none());
        }
        pairs.sort_by(|(left, _), (right, _)| left.as_ref().cmp(right.as_ref()));
        let names = || pairs.iter().map(|(name, _)| name.as_ref());
        if names().zip(names().skip(1)).any(|(left, right)| left == right) {
            return Err(ContextError::DuplicateName);
        }
        let mut encoded = vec![KIND_PAIRS];
        push_len(&mut encoded, pairs.len())?;
        for (name, value) in &pairs {
            push_prefixed(&mut encoded, name.as_ref().as_bytes())?;
            push_prefixed(&mut encoded, value.as_ref().as_bytes())?;
        }
        Ok(Self { encoded: encoded.into() })
    }

    /// Bytes of which we know no structure. No bytes are [`Self::none`].
    ///
    /// # Errors
    /// [`ContextError::TooLong`].
    pub fn from_raw(bytes: &[u8]) -> Result<Self, ContextError> {
        if bytes.is_empty() {
            return Ok(Self::none());
        }
        let mut encoded = vec![KIND_RAW];
        push_prefixed(&mut encoded, bytes)?;
        Ok(Self { encoded: encoded.into() })
    }

    /// Reads an encoding back.
    ///
    /// # Errors
    /// [`ContextError::TooLong`] above [`MAX_ENCODED_LEN`]; [`ContextError::DuplicateName`];
    /// [`ContextError::Malformed`] for everything else that [`Self::encoded`] never gives:
    /// unsorted names, bad UTF-8, wrong lengths, trailing bytes, an empty map or empty bytes.
    pub fn parse(encoded: &[u8]) -> Result<Self, ContextError> {
        if encoded.len() > MAX_ENCODED_LEN {
            return Err(ContextError::TooLong);
        }
        let (kind, rest) = encoded.split_first().ok_or(ContextError::Malformed)?;
        match (*kind, rest) {
            (KIND_NONE, []) => {}
            (KIND_PAIRS, body) => check_pairs(body)?,
            (KIND_RAW, body) => check_raw(body)?,
            (_, _) => return Err(ContextError::Malformed),
        }
        Ok(Self { encoded: encoded.to_vec().into() })
    }

    /// The canonical encoding, 1 to [`MAX_ENCODED_LEN`] bytes.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// SHA-256 of the encoding: what a ciphertext is bound to.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        if self.is_none() { NONE_HASH } else { sha256(&self.encoded) }
    }

    /// Whether there is no context.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self.encoded == [KIND_NONE]
    }

    /// The names and values of a map, sorted by the bytes of the names.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut body = match self.encoded.split_first() {
            Some((&KIND_PAIRS, body)) => body.get(4..).unwrap_or_default(),
            Some(_) | None => &[],
        };
        core::iter::from_fn(move || Some((take_text(&mut body)?, take_text(&mut body)?)))
    }

    /// The bytes of a context that is no map.
    #[must_use]
    pub fn raw(&self) -> Option<&[u8]> {
        match self.encoded.split_first() {
            Some((&KIND_RAW, body)) => body.get(4..),
            Some(_) | None => None,
        }
    }
}

impl Default for EncryptionContext {
    fn default() -> Self {
        Self::none()
    }
}

fn push_len(encoded: &mut Vec<u8>, len: usize) -> Result<(), ContextError> {
    let len = u32::try_from(len).map_err(|_| ContextError::TooLong)?;
    encoded.extend_from_slice(&len.to_be_bytes());
    Ok(())
}

fn push_prefixed(encoded: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ContextError> {
    let total = encoded.len().saturating_add(4).saturating_add(bytes.len());
    if total > MAX_ENCODED_LEN {
        return Err(ContextError::TooLong);
    }
    push_len(encoded, bytes.len())?;
    encoded.extend_from_slice(bytes);
    Ok(())
}

fn check_raw(mut body: &[u8]) -> Result<(), ContextError> {
    match take_prefixed(&mut body) {
        Some(bytes) if !bytes.is_empty() && body.is_empty() => Ok(()),
        Some(_) | None => Err(ContextError::Malformed),
    }
}

fn check_pairs(mut body: &[u8]) -> Result<(), ContextError> {
    let count = take_u32(&mut body).ok_or(ContextError::Malformed)?;
    if count == 0 {
        return Err(ContextError::Malformed);
    }
    let mut previous: Option<&str> = None;
    for _ in 0..count {
        let name = take_text(&mut body).ok_or(ContextError::Malformed)?;
        take_text(&mut body).ok_or(ContextError::Malformed)?;
        match previous.map(|previous| previous.cmp(name)) {
            Some(core::cmp::Ordering::Equal) => return Err(ContextError::DuplicateName),
            Some(core::cmp::Ordering::Greater) => return Err(ContextError::Malformed),
            Some(core::cmp::Ordering::Less) | None => previous = Some(name),
        }
    }
    if body.is_empty() { Ok(()) } else { Err(ContextError::Malformed) }
}

fn take_u32(body: &mut &[u8]) -> Option<u32> {
    let (number, rest) = body.split_first_chunk::<4>()?;
    *body = rest;
    Some(u32::from_be_bytes(*number))
}

fn take_prefixed<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_u32(body)?).ok()?;
    let (bytes, rest) = body.split_at_checked(len)?;
    *body = rest;
    Some(bytes)
}

fn take_text<'a>(body: &mut &'a [u8]) -> Option<&'a str> {
    core::str::from_utf8(take_prefixed(body)?).ok()
}

/// SHA-256 of the one byte that encodes no context: most calls have none.
const NONE_HASH: [u8; 32] = [
    0x6e, 0x34, 0x0b, 0x9c, 0xff, 0xb3, 0x7a, 0x98, 0x9c, 0xa5, 0x44, 0xe6, 0xbb, 0x78, 0x0a, 0x2c,
    0x78, 0x90, 0x1d, 0x3f, 0xb3, 0x37, 0x38, 0x76, 0x85, 0x11, 0xa3, 0x06, 0x17, 0xaf, 0xa0, 0x1d,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, proptest};

    use super::{ContextError, EncryptionContext, MAX_ENCODED_LEN};

    #[test]
    fn the_hash_of_no_context_is_that_of_its_encoding() {
        let none = EncryptionContext::none();
        assert_eq!(none.hash(), crate::digest::sha256(none.encoded()));
    }

    #[test]
    fn empty_contexts_of_every_kind_are_one_byte() {
        let no_pairs = EncryptionContext::from_pairs::<&str, &str>([]).unwrap();
        assert_eq!(no_pairs.encoded(), [0]);
        assert_eq!(EncryptionContext::from_raw(b"").unwrap().encoded(), [0]);
        assert_eq!(EncryptionContext::default(), EncryptionContext::none());
        assert!(no_pairs.is_none());
    }

    #[test]
    fn map_is_sorted_by_bytes_and_prefixed() {
        let context = EncryptionContext::from_pairs([("b", "2"), ("a", ""), ("B", "3")]).unwrap();
        let expected =
            b"\x01\0\0\0\x03\0\0\0\x01B\0\0\0\x013\0\0\0\x01a\0\0\0\0\0\0\0\x01b\0\0\0\x012";
        assert_eq!(context.encoded(), expected);
        let pairs: Vec<_> = context.pairs().collect();
        assert_eq!(pairs, [("B", "3"), ("a", ""), ("b", "2")]);
        assert_eq!(context.raw(), None);
    }

    #[test]
    fn boundaries_between_name_and_value_matter() {
        let one = EncryptionContext::from_pairs([("ab", "c")]).unwrap();
        let two = EncryptionContext::from_pairs([("a", "bc")]).unwrap();
        assert_ne!(one.hash(), two.hash());
    }

    #[test]
    fn unicode_is_not_normalised() {
        let composed = EncryptionContext::from_pairs([("n", "\u{e9}")]).unwrap();
        let decomposed = EncryptionContext::from_pairs([("n", "e\u{301}")]).unwrap();
        assert_ne!(composed.hash(), decomposed.hash());
    }

    #[test]
    fn raw_bytes_differ_from_the_map_that_encodes_alike() {
        let map = EncryptionContext::from_pairs([("a", "b")]).unwrap();
        let raw = EncryptionContext::from_raw(map.encoded()).unwrap();
        assert_ne!(map.hash(), raw.hash());
        assert_eq!(raw.raw(), Some(map.encoded()));
        assert_eq!(raw.pairs().count(), 0);
    }

    #[test]
    fn duplicate_names_are_refused() {
        let twice = EncryptionContext::from_pairs([("a", "1"), ("b", "2"), ("a", "1")]);
        assert_eq!(twice, Err(ContextError::DuplicateName));
    }

    #[test]
    fn length_is_limited_to_the_byte() {
        let fits = vec![0; MAX_ENCODED_LEN - 5];
        assert_eq!(EncryptionContext::from_raw(&fits).unwrap().encoded().len(), MAX_ENCODED_LEN);
        let over = vec![0; MAX_ENCODED_LEN - 4];
        assert_eq!(EncryptionContext::from_raw(&over), Err(ContextError::TooLong));
        let value = "v".repeat(MAX_ENCODED_LEN);
        assert_eq!(EncryptionContext::from_pairs([("n", value)]), Err(ContextError::TooLong));
        assert_eq!(EncryptionContext::parse(&[0; 8_193]), Err(ContextError::TooLong));
    }

    #[test]
    fn parser_refuses_every_encoding_but_the_canonical() {
        let malformed: [&[u8]; 11] = [
            b"",
            b"\0\0",
            b"\x03",
            b"\x01\0\0\0\0",
            b"\x01\0\0\0\x01\0\0\0\x01a",
            b"\x01\0\0\0\x01\0\0\0\x01a\0\0\0\0x",
            b"\x01\0\0\0\x02\0\0\0\x01b\0\0\0\0\0\0\0\x01a\0\0\0\0",
            b"\x01\0\0\0\x01\0\0\0\x01\xff\0\0\0\0",
            b"\x01\xff\xff\xff\xff",
            b"\x02\0\0\0\0",
            b"\x02\0\0\0\x01ab",
        ];
        for bytes in malformed {
            assert_eq!(EncryptionContext::parse(bytes), Err(ContextError::Malformed), "{bytes:?}");
        }
        let twice = b"\x01\0\0\0\x02\0\0\0\x01a\0\0\0\0\0\0\0\x01a\0\0\0\0";
        assert_eq!(EncryptionContext::parse(twice), Err(ContextError::DuplicateName));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn encoding_survives_a_round_trip_and_any_order(
            (pairs, shuffled) in proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..8)
                .prop_flat_map(|map| {
                    let pairs: Vec<_> = map.into_iter().collect();
                    (Just(pairs.clone()), Just(pairs).prop_shuffle())
                })
        ) {
            let context = EncryptionContext::from_pairs(shuffled).unwrap();
            prop_assert_eq!(EncryptionContext::parse(context.encoded()).unwrap(), context.clone());
            let read: Vec<_> = context
                .pairs()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn parser_accepts_only_what_it_would_write(
            bytes in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            if let Ok(context) = EncryptionContext::parse(&bytes) {
                prop_assert_eq!(context.encoded(), bytes.as_slice());
            }
        }
    }
}
