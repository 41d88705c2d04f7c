//! Bech32, as age writes its keys and we write shares.
//!
//! Room      `crypto`, inside.
//! Source    BIP 173, without its limit of 90 characters; age-encryption.org/v1.
//! Holds     Decoded bytes are wiped: they may be an identity. Tables are read by secret
//!           values, as in every implementation of age.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM_LEN: usize = 6;

/// The text of `bytes` under a human-readable part in lower case.
pub(crate) fn encode(part: &str, bytes: &[u8]) -> Zeroizing<String> {
    let values = regroup::<8, 5>(bytes, true).unwrap_or_default();
    let zeros = [0; CHECKSUM_LEN];
    let sum = polymod(expand(part).chain(values.iter().copied()).chain(zeros)) ^ 1;
    let check = (0..CHECKSUM_LEN).map(|at| low_byte(sum >> (5 * (CHECKSUM_LEN - 1 - at))) & 31);
    let mut text = Zeroizing::new(String::with_capacity(part.len() + 1 + values.len() + 6));
    text.push_str(part);
    text.push('1');
    for value in values.iter().copied().chain(check) {
        text.push(char::from(ALPHABET.get(usize::from(value)).copied().unwrap_or(b'q')));
    }
    text
}

/// The bytes behind a human-readable part, which must be `part` in lower or all in upper case.
pub(crate) fn decode(part: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let has = |is: fn(&u8) -> bool| text.as_bytes().iter().any(is);
    if has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) {
        return None;
    }
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    let data = lower.strip_prefix(part)?.strip_prefix('1')?;
    let values: Option<Vec<u8>> = data.bytes().map(value_of).collect();
    let values = Zeroizing::new(values?);
    if polymod(expand(part).chain(values.iter().copied())) != 1 {
        return None;
    }
    let (payload, _) = values.split_last_chunk::<CHECKSUM_LEN>()?;
    regroup::<5, 8>(payload, false)
}

fn value_of(letter: u8) -> Option<u8> {
    ALPHABET.iter().position(|known| *known == letter).and_then(|at| u8::try_from(at).ok())
}

fn expand(part: &str) -> impl Iterator<Item = u8> + '_ {
    let high = part.bytes().map(|letter| letter >> 5);
    high.chain([0]).chain(part.bytes().map(|letter| letter & 31))
}

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let next = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        let picked = GENERATOR.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1);
        picked.fold(next, |sum, (_, generator)| sum ^ generator)
    })
}

/// Cuts groups of `FROM` bits into groups of `TO` bits. Without padding, what is left over must
/// be less than a group, and zero.
fn regroup<const FROM: u32, const TO: u32>(groups: &[u8], pad: bool) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(groups.len().saturating_mul(2)));
    let (mut held, mut bits) = (0_u32, 0);
    let mask = (1 << TO) - 1;
    for group in groups {
        held = (held << FROM | u32::from(*group)) & 0xffff;
        bits += FROM;
        while bits >= TO {
            bits -= TO;
            out.push(low_byte(held >> bits & mask));
        }
    }
    let rest = held & ((1 << bits) - 1);
    if pad && bits > 0 {
        out.push(low_byte(rest << (TO - bits)));
    } else if bits >= FROM || rest != 0 {
        return None;
    }
    Some(out)
}

fn low_byte(value: u32) -> u8 {
    let [.., low] = value.to_be_bytes();
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{ALPHABET, CHECKSUM_LEN, decode, encode, expand, low_byte, polymod};

    /// BIP 173, "Test vectors": valid strings, among them one over 90 characters for us.
    #[test]
    fn strings_of_the_standard_decode_and_come_back() {
        for (part, text) in [
            ("a", "a12uel5l"),
            (
                "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio",
                "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
            ),
            ("?", "?1ezyfcl"),
        ] {
            assert_eq!(*decode(part, text).unwrap(), Vec::<u8>::new(), "{text}");
            assert_eq!(*encode(part, &[]), text);
        }
        assert!(decode("a", "A12UEL5L").is_some());
        let all: Vec<u8> = (0..20).map(|at| at * 13).collect();
        assert_eq!(*decode("bc", &encode("bc", &all)).unwrap(), all);
    }

    /// BIP 173, "Test vectors": invalid strings, and our own.
    #[test]
    fn strings_that_are_wrong_are_refused() {
        for (part, text) in [
            ("a", "A12uEL5L"),
            ("a", "a12uel5m"),
            ("a", "a2uel5l"),
            ("b", "a12uel5l"),
            ("a", "a1b2uel5l"),
            ("a", "a1"),
            ("a", "a1uel5l"),
            ("", ""),
        ] {
            assert!(decode(part, text).is_none(), "{text}");
        }
    }

    #[test]
    fn bits_left_over_must_be_few_and_zero() {
        let text = |values: &[u8]| {
            let all = expand("a").chain(values.iter().copied()).chain([0; CHECKSUM_LEN]);
            let sum = polymod(all) ^ 1;
            let check = (0..6).map(|at| low_byte(sum >> (5 * (5 - at))) & 31);
            let letters = values.iter().copied().chain(check);
            let letters = letters.map(|value| char::from(ALPHABET[usize::from(value)]));
            format!("a1{}", letters.collect::<String>())
        };
        assert_eq!(*decode("a", &text(&[31, 28])).unwrap(), [0xff]);
        assert!(decode("a", &text(&[31, 29])).is_none(), "not zero");
        assert!(decode("a", &text(&[31, 28, 0])).is_none(), "a group too many");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(&*decode("age", &encode("age", &bytes)).unwrap(), &bytes);
        }

        #[test]
        fn decoder_never_panics(text in "\\PC{0,80}") {
            let _ = decode("age", &text);
            let _ = decode("age", &format!("age1{text}"));
        }
    }
}
