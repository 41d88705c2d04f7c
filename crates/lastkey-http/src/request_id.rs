//! Identities of requests: eight random bytes for the process, eight of a counter.
//!
//! Room      `http`.
//! Holds     no two requests of one installation share an identity, as long as the prefix is
//!           drawn anew at each start.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use lastkey_core::ids::RequestId;

/// Gives each request its identity.
#[derive(Debug)]
pub(crate) struct RequestIds {
    prefix: [u8; 8],
    next: AtomicU64,
}

impl RequestIds {
    /// Identities with this prefix.
    pub(crate) const fn new(prefix: [u8; 8]) -> Self {
        Self { prefix, next: AtomicU64::new(0) }
    }

    /// The next one.
    pub(crate) fn next(&self) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        let (head, tail) = id.split_at_mut(8);
        head.copy_from_slice(&self.prefix);
        tail.copy_from_slice(&number.to_be_bytes());
        RequestId(id)
    }
}

/// The text of an identity, 32 hexadecimal digits: the same as its `Display`, without a heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestIdText([u8; 32]);

impl RequestIdText {
    /// The text of this identity.
    pub(crate) fn of(id: RequestId) -> Self {
        let mut text = [b'0'; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(id.0) {
            if let [high, low] = pair {
                *high = hex_digit(byte >> 4);
                *low = hex_digit(byte & 15);
            }
        }
        Self(text)
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        // INVARIANT: hexadecimal digits are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The value of the header.
    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl fmt::Display for RequestIdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_display_of_the_identity() {
        let id = RequestId([0x00, 0x01, 0x9f, 0xa0, 0xff, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(RequestIdText::of(id).as_str(), id.to_string());
        assert_eq!(RequestIdText::of(id).header(), id.to_string().as_str());
    }

    #[test]
    fn no_two_requests_share_an_identity() {
        let ids = RequestIds::new([7; 8]);
        let (one, two) = (ids.next(), ids.next());
        assert_ne!(one, two);
        assert!(one.0.starts_with(&[7; 8]) && two.0.starts_with(&[7; 8]));
    }
}
