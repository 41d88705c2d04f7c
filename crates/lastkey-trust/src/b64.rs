//! Base64url as JOSE and our own credentials use it: without padding, one spelling only.
//!
//! Room      `trust`, inside.
//! Source    RFC 7515, section 2; RFC 4648, section 5.
//! Holds     Padding, white space and stray low bits are refused, so no two texts mean the same
//!           bytes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_secret::SecretVec;

/// The text of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of `text`, if it is their one spelling.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// As [`decode`], for what must not lie about.
pub(crate) fn decode_secret(text: &[u8]) -> Option<SecretVec> {
    decode(text).map(SecretVec::take)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn text_has_one_spelling() {
        assert_eq!(encode(&[0xfb, 0xff]), "-_8");
        assert_eq!(decode(b"-_8"), Some(vec![0xfb, 0xff]));
        for bad in ["-_8=", "-_9", "+/8", " -_8", "-_8\n", "-", "-_8A_"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
