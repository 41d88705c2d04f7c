//! A secret whose length is known at run time only.
//!
//! Room      `secret`. For plaintext, key material of many kinds, passphrases and tokens.
//! Holds     The buffer never grows after construction, so it is never moved and leaves no
//!           stale copy; the whole capacity is wiped on drop.

use core::fmt;

use zeroize::Zeroize;

use crate::{array::SecretArray, compare::ct_eq};

/// A secret of any length, kept on the heap and wiped on drop. The length is not secret.
pub struct SecretVec(Vec<u8>);

impl SecretVec {
    /// Takes over `bytes` without a copy, spare capacity included.
    #[must_use]
    pub fn take(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Takes over the bytes of `text` without a copy: for passphrases and tokens.
    #[must_use]
    pub fn take_text(text: String) -> Self {
        Self(text.into_bytes())
    }

    /// Copies `bytes`; the caller still owns, and must wipe, the original.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Fills a fresh buffer of `len` bytes in place; on error the half-filled buffer is wiped.
    ///
    /// # Errors
    /// Whatever `fill` answers.
    pub fn try_fill<E>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut fresh = Self(vec![0; len]);
        fill(&mut fresh.0).map(|()| fresh)
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lends the bytes for the length of one call.
    pub fn expose<R>(&self, use_bytes: impl FnOnce(&[u8]) -> R) -> R {
        use_bytes(&self.0)
    }

    /// Copies the bytes into an array, or answers `None` when there are not exactly `N`.
    #[must_use]
    pub fn to_array<const N: usize>(&self) -> Option<SecretArray<N>> {
        SecretArray::try_copy_of(&self.0)
    }

    /// Whether both secrets are the same, in time that depends on the lengths alone.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        ct_eq(&self.0, &other.0)
    }
}

impl Drop for SecretVec {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretVec(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::SecretVec;

    #[test]
    fn vec_takes_over_a_buffer_without_a_copy() {
        let bytes = vec![1, 2, 3];
        let address = bytes.as_ptr();
        let secret = SecretVec::take(bytes);
        assert!(secret.expose(|lent| lent.as_ptr() == address && lent == [1, 2, 3]));
    }

    #[test]
    fn vec_takes_over_text_without_a_copy() {
        let text = String::from("correct horse");
        let address = text.as_ptr();
        let secret = SecretVec::take_text(text);
        assert!(secret.expose(|lent| lent.as_ptr() == address && lent == b"correct horse"));
    }

    #[test]
    fn vec_passes_the_error_of_its_filler_on() {
        assert_eq!(SecretVec::try_fill(4, |_| Err(7)).err(), Some(7));
    }

    #[test]
    fn vec_turns_into_an_array_of_its_own_length_only() {
        let secret = SecretVec::copy_of(&[9; 32]);
        assert!(secret.to_array::<31>().is_none());
        assert!(secret.to_array::<32>().unwrap().expose(|bytes| bytes == &[9; 32]));
    }

    #[test]
    fn vec_compares_content_and_length() {
        let secret = SecretVec::copy_of(b"abc");
        assert!(secret.ct_eq(&SecretVec::copy_of(b"abc")));
        assert!(!secret.ct_eq(&SecretVec::copy_of(b"abd")));
        assert!(!secret.ct_eq(&SecretVec::copy_of(b"abcd")));
    }

    #[test]
    fn vec_knows_its_length() {
        assert_eq!(SecretVec::copy_of(b"abc").len(), 3);
        assert!(SecretVec::take(Vec::new()).is_empty());
        assert!(!SecretVec::copy_of(b"a").is_empty());
    }

    #[test]
    fn vec_prints_nothing_of_its_content() {
        assert_eq!(format!("{:?}", SecretVec::copy_of(b"secret")), "SecretVec(..)");
    }
}
