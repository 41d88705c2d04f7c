//! Comparison in constant time.
//!
//! Room      `secret`. The only comparison allowed for secrets, tags and commitments.

use subtle::ConstantTimeEq;

/// Whether `a` and `b` hold the same bytes.
///
/// Time depends on the lengths, which are public, and never on the content.
#[must_use]
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::ct_eq;

    #[test]
    fn comparison_sees_every_byte_and_the_length() {
        assert!(ct_eq(b"", b""));
        assert!(ct_eq(b"abc", b"abc"));
        assert!(!ct_eq(b"abc", b"abd"));
        assert!(!ct_eq(b"abc", b"xbc"));
        assert!(!ct_eq(b"abc", b"ab"));
        assert!(!ct_eq(b"", b"a"));
    }
}
