//! Base32: access key ids, and the secrets that authenticators read.
//!
//! Room      `trust`, inside.
//! Source    RFC 4648, section 6; capitals, without padding.

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Appends the text of `bytes`. A caller with a secret gives `out` room for it beforehand.
pub(crate) fn push(bytes: &[u8], out: &mut String) {
    for chunk in bytes.chunks(5) {
        let mut group = [0; 8];
        for (place, byte) in group.iter_mut().skip(3).zip(chunk) {
            *place = *byte;
        }
        let number = u64::from_be_bytes(group);
        for place in 0..(chunk.len() * 8).div_ceil(5) {
            let digit = usize::try_from((number >> (35 - place * 5)) & 31);
            let digit = digit.ok().and_then(|at| ALPHABET.get(at));
            out.push(char::from(digit.copied().unwrap_or(b'A')));
        }
    }
}

/// The bytes of whole groups of eight digits; `None` for anything else.
pub(crate) fn decode(digits: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(digits.len() / 8 * 5);
    let (groups, rest) = digits.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    for group in groups {
        let number = group.iter().try_fold(0_u64, |number, digit| {
            let value = ALPHABET.iter().position(|one| one == digit)?;
            Some((number << 5) | u64::try_from(value).ok()?)
        })?;
        bytes.extend(number.to_be_bytes().into_iter().skip(3));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{decode, push};

    /// RFC 4648, section 10, without the padding.
    #[test]
    fn text_matches_the_vectors_of_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            let mut out = String::new();
            push(bytes.as_bytes(), &mut out);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn decoding_takes_whole_groups_of_capitals() {
        assert_eq!(decode(b"MZXW6YTB"), Some(b"fooba".to_vec()));
        for bad in ["MZXW6YT", "MZXW6YTBO", "mzxw6ytb", "MZXW6YT1", "MZXW6YT="] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
