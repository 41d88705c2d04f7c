//! An authenticator, as people have it on their telephone: an address in, codes out.
//!
//! Room      `testkit`.
//! Source    RFC 6238 over RFC 4226, with SHA-1, six digits and steps of 30 s; RFC 4648 for
//!           base32. Written beside `trust::totp` and not with it.

use aws_lc_rs::hmac;

/// A second factor.
#[derive(Debug)]
pub struct Authenticator(hmac::Key);

impl Authenticator {
    /// Reads `otpauth://totp/..?secret=..`.
    ///
    /// # Panics
    /// When it has no secret.
    #[must_use]
    pub fn scan(address: &str) -> Self {
        let (_, parameters) = address.split_once('?').expect("parameters");
        let secret = parameters.split('&').find_map(|one| one.strip_prefix("secret="));
        let secret = base32(secret.expect("a secret"));
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret))
    }

    /// What it shows at a moment, in seconds since 1970.
    #[must_use]
    pub fn code_at(&self, seconds: u64) -> String {
        let tag = hmac::sign(&self.0, &(seconds / 30).to_be_bytes());
        let offset = tag.as_ref().last().map_or(0, |last| usize::from(last & 15));
        let word = tag.as_ref().iter().skip(offset).take(4);
        let number = word.fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        format!("{:06}", (number & 0x7fff_ffff) % 1_000_000)
    }
}

fn base32(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for letter in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|one| *one == letter);
        let value = value.expect("a letter of base32");
        held = held << 5 | u32::try_from(value).unwrap_or(0);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 255).unwrap_or(0));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B; the last six of its eight digits.
    #[test]
    fn authenticator_shows_the_codes_of_the_standard() {
        let address = "otpauth://totp/a:b?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=a";
        let authenticator = Authenticator::scan(address);
        for (seconds, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037")]
        {
            assert_eq!(authenticator.code_at(seconds), code);
        }
    }
}
