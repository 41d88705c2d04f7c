//! A secret of fixed length.
//!
//! Room      `secret`. For keys: the length is part of the type.
//! Holds     The bytes have one home on the heap from birth to drop; moving the value
//!           copies a pointer and leaves no second copy on a stack.

use core::fmt;

use zeroize::Zeroize;

use crate::compare::ct_eq;

/// A secret of exactly `N` bytes, kept on the heap and wiped on drop.
pub struct SecretArray<const N: usize>(Box<[u8; N]>);

impl<const N: usize> SecretArray<N> {
    /// Fills a fresh buffer in place; on error the half-filled buffer is wiped.
    ///
    /// # Errors
    /// Whatever `fill` answers.
    pub fn try_fill<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut fresh = Self(Box::new([0; N]));
        fill(&mut fresh.0).map(|()| fresh)
    }

    /// Copies `bytes`; the caller still owns, and must wipe, the original.
    #[must_use]
    pub fn copy_of(bytes: &[u8; N]) -> Self {
        let mut fresh = Self(Box::new([0; N]));
        fresh.0.copy_from_slice(bytes);
        fresh
    }

    /// Copies `bytes`, or answers `None` when there are not exactly `N` of them.
    #[must_use]
    pub fn try_copy_of(bytes: &[u8]) -> Option<Self> {
        <&[u8; N]>::try_from(bytes).ok().map(Self::copy_of)
    }

    /// Lends the bytes for the length of one call.
    pub fn expose<R>(&self, use_bytes: impl FnOnce(&[u8; N]) -> R) -> R {
        use_bytes(&self.0)
    }

    /// Whether both secrets are the same, in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        ct_eq(self.0.as_slice(), other.0.as_slice())
    }
}

impl<const N: usize> Drop for SecretArray<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> fmt::Debug for SecretArray<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretArray<{N}>(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::SecretArray;

    #[test]
    fn array_lends_what_it_was_filled_with() {
        let secret = SecretArray::<4>::try_fill(|bytes| {
            bytes.copy_from_slice(&[1, 2, 3, 4]);
            Ok::<(), ()>(())
        })
        .unwrap();
        assert!(secret.expose(|bytes| bytes == &[1, 2, 3, 4]));
    }

    #[test]
    fn array_passes_the_error_of_its_filler_on() {
        assert_eq!(SecretArray::<4>::try_fill(|_| Err(7)).err(), Some(7));
    }

    #[test]
    fn array_refuses_another_length() {
        assert!(SecretArray::<4>::try_copy_of(&[0; 3]).is_none());
        assert!(SecretArray::<4>::try_copy_of(&[0; 5]).is_none());
        assert!(SecretArray::<4>::try_copy_of(&[0; 4]).is_some());
    }

    #[test]
    fn array_compares_content() {
        let one = SecretArray::copy_of(&[1, 2]);
        assert!(one.ct_eq(&SecretArray::copy_of(&[1, 2])));
        assert!(!one.ct_eq(&SecretArray::copy_of(&[1, 3])));
    }

    #[test]
    fn array_prints_nothing_of_its_content() {
        let secret = SecretArray::copy_of(&[0x41; 8]);
        assert_eq!(format!("{secret:?}"), "SecretArray<8>(..)");
    }
}
