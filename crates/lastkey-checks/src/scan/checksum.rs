//! Checksums that issuers put into their tokens.
//!
//! Room      `checks`, inside `scan`.
//! Source    CRC-32 of ISO 3309 (as in gzip); BIP 173 for Bech32; SHA-256 of FIPS 180-4.

use aws_lc_rs::digest;

/// CRC-32 as in gzip and PNG.
pub(super) fn crc32(text: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in text {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let low = sum & 1;
            sum = (sum >> 1) ^ (0xEDB8_8320 * low);
        }
    }
    !sum
}

/// A number in base 62 (digits, upper case, lower case), filled with zeros to `width` digits.
pub(super) fn base62(mut number: u32, width: usize) -> Vec<u8> {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::with_capacity(width);
    while number > 0 || text.len() < width {
        let digit = usize::try_from(number % 62).unwrap_or_default();
        text.push(DIGITS.get(digit).copied().unwrap_or(b'0'));
        number /= 62;
    }
    text.reverse();
    text
}

/// The first four bytes of SHA-256.
pub(super) fn sha256_head(parts: &[&[u8]]) -> [u8; 4] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(part);
    }
    let hash = hash.finish();
    hash.as_ref().first_chunk().copied().unwrap_or_default()
}

/// Whether a text is Bech32 of one case, its checksum right.
pub(super) fn is_bech32(text: &[u8]) -> bool {
    const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let lower = text.to_ascii_lowercase();
    let Some(split) = lower.iter().rposition(|byte| *byte == b'1') else { return false };
    let (name, data) = lower.split_at(split);
    let values: Option<Vec<u8>> = data
        .iter()
        .skip(1)
        .map(|byte| ALPHABET.iter().position(|known| known == byte))
        .map(|at| at.and_then(|at| u8::try_from(at).ok()))
        .collect();
    let Some(values) = values else { return false };
    let high = name.iter().map(|byte| byte >> 5);
    let low = name.iter().map(|byte| byte & 31);
    polymod(high.chain([0]).chain(low).chain(values)) == 1
}

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let mut sum = 1_u32;
    for value in values {
        let top = sum >> 25;
        sum = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
        for (bit, generator) in GENERATOR.iter().enumerate() {
            if (top >> bit) & 1 == 1 {
                sum ^= generator;
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{base62, crc32, is_bech32};

    #[test]
    fn crc32_is_the_one_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn base62_fills_with_zeros() {
        assert_eq!(base62(0, 6), b"000000");
        assert_eq!(base62(61, 1), b"z");
        assert_eq!(base62(62, 2), b"10");
    }

    #[test]
    fn bech32_of_the_standard_is_right_and_a_changed_one_wrong() {
        assert!(is_bech32(b"A12UEL5L"));
        assert!(is_bech32(b"abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw"));
        assert!(!is_bech32(b"abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxq"));
        assert!(!is_bech32(b"no separator"));
    }
}
