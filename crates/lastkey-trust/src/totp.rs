//! Time-based one-time passwords: the second factor of a local administrator.
//!
//! Room      `trust`.
//! Source    RFC 6238 over RFC 4226: six digits, steps of 30 s, one step of tolerance either way.
//! Holds     A code is good once: the caller keeps the step that was used, and no step up to it
//!           is accepted again. Six ASCII digits and nothing else, so a code has one spelling.

use core::fmt;

use aws_lc_rs::hmac;
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_secret::{SecretArray, SecretVec, ct_eq};

use crate::b32;

/// Length of a step, in seconds.
pub const STEP_SECONDS: u64 = 30;
/// Length of a secret that is drawn here, in bytes.
pub const SECRET_LEN: usize = 20;
/// Shortest secret that is taken, in bytes (RFC 4226, R6).
const MIN_SECRET_LEN: usize = 16;
const DIGITS: usize = 6;
const MODULUS: u32 = 1_000_000;

/// The hash under the code. Most authenticator programs know SHA-1 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TotpHash {
    /// SHA-1, whose collisions do not matter inside an HMAC.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// The secret that a server and an authenticator share.
pub struct Totp {
    hash: TotpHash,
    secret: SecretVec,
}

/// The number of a step since 1970; kept after a login so that its code is not good again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(pub u64);

impl Totp {
    /// Draws a new secret.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn draw(hash: TotpHash, entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let secret = SecretVec::try_fill(SECRET_LEN, |bytes| entropy.fill(bytes))?;
        Ok(Self { hash, secret })
    }

    /// Takes a kept secret; `None` when it has fewer than 16 bytes.
    #[must_use]
    pub fn new(hash: TotpHash, secret: SecretVec) -> Option<Self> {
        (secret.len() >= MIN_SECRET_LEN).then_some(Self { hash, secret })
    }

    /// The secret, for the store.
    #[must_use]
    pub const fn secret(&self) -> &SecretVec {
        &self.secret
    }

    /// The step of `code`, if it is the one of now or of a neighbouring step and was not used:
    /// only steps after `last` count. The caller keeps the answer before it lets anybody in.
    #[must_use]
    pub fn verify(&self, code: &SecretVec, now: Timestamp, last: Option<Step>) -> Option<Step> {
        let current = now.0 / STEP_SECONDS;
        let near = [current.checked_sub(1), Some(current), current.checked_add(1)];
        let is_fresh = |step: &u64| last.is_none_or(|last| *step > last.0);
        let mut found = None;
        // Every step is compared, whatever was found before. Two steps may share a code: the later
        // one is used up, or the code would be good a second time.
        for step in near.into_iter().flatten().filter(is_fresh) {
            let expected = self.code(Step(step))?;
            let is_equal = code.expose(|code| expected.expose(|digits| ct_eq(code, digits)));
            if is_equal {
                found = Some(Step(step));
            }
        }
        found
    }

    /// The code of a step, as ASCII digits.
    fn code(&self, step: Step) -> Option<SecretArray<DIGITS>> {
        let algorithm = match self.hash {
            TotpHash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            TotpHash::Sha256 => hmac::HMAC_SHA256,
        };
        let key = self.secret.expose(|secret| hmac::Key::new(algorithm, secret));
        let tag = hmac::sign(&key, &step.0.to_be_bytes());
        let offset = usize::from(tag.as_ref().last()? & 15);
        let word = tag.as_ref().get(offset..)?.first_chunk::<4>()?;
        let mut number = (u32::from_be_bytes(*word) & 0x7fff_ffff) % MODULUS;
        SecretArray::try_fill(|digits| {
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + u8::try_from(number % 10).map_err(|_| ())?;
                number /= 10;
            }
            Ok::<(), ()>(())
        })
        .ok()
    }

    /// The address that authenticators read from a picture: `otpauth://totp/ISSUER:ACCOUNT?...`.
    #[must_use]
    pub fn otpauth_uri(&self, issuer: &str, account: &str) -> SecretVec {
        let hash = match self.hash {
            TotpHash::Sha1 => "SHA1",
            TotpHash::Sha256 => "SHA256",
        };
        let (issuer, account) = (percent_encode(issuer), percent_encode(account));
        let mut uri = String::with_capacity(256 + issuer.len() * 2 + account.len());
        uri.push_str(&format!("otpauth://totp/{issuer}:{account}?secret="));
        self.secret.expose(|secret| b32::push(secret, &mut uri));
        uri.push_str(&format!(
            "&issuer={issuer}&algorithm={hash}&digits={DIGITS}&period={STEP_SECONDS}"
        ));
        SecretVec::take_text(uri)
    }
}

impl fmt::Debug for Totp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Totp").field("hash", &self.hash).finish_non_exhaustive()
    }
}

fn percent_encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| {
        if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED_SHA1: &[u8] = b"12345678901234567890";
    const SEED_SHA256: &[u8] = b"12345678901234567890123456789012";

    fn totp(hash: TotpHash) -> Totp {
        let seed = match hash {
            TotpHash::Sha1 => SEED_SHA1,
            TotpHash::Sha256 => SEED_SHA256,
        };
        Totp::new(hash, SecretVec::copy_of(seed)).unwrap()
    }

    fn code(text: &str) -> SecretVec {
        SecretVec::copy_of(text.as_bytes())
    }

    /// RFC 6238, appendix B; the last six of its eight digits.
    #[test]
    fn codes_match_the_vectors_of_the_standard() {
        for (seconds, sha1, sha256) in [
            (59, "287082", "119246"),
            (1_111_111_109, "081804", "084774"),
            (1_111_111_111, "050471", "062674"),
            (1_234_567_890, "005924", "819424"),
            (2_000_000_000, "279037", "698825"),
            (20_000_000_000, "353130", "737706"),
        ] {
            let at = Timestamp(seconds);
            let step = Some(Step(seconds / 30));
            assert_eq!(totp(TotpHash::Sha1).verify(&code(sha1), at, None), step);
            assert_eq!(totp(TotpHash::Sha256).verify(&code(sha256), at, None), step);
            assert_eq!(totp(TotpHash::Sha256).verify(&code(sha1), at, None), None);
        }
    }

    #[test]
    fn code_is_good_one_step_away_and_no_farther() {
        let totp = totp(TotpHash::Sha1);
        let used = |seconds| totp.verify(&code("287082"), Timestamp(seconds), None);
        assert_eq!(used(30), Some(Step(1)));
        assert_eq!(used(0), Some(Step(1)));
        assert_eq!(used(89), Some(Step(1)));
        assert_eq!(used(90), None);
    }

    #[test]
    fn code_is_good_once() {
        let totp = totp(TotpHash::Sha1);
        let at = Timestamp(1_111_111_109);
        let step = totp.verify(&code("081804"), at, None).unwrap();
        assert_eq!(totp.verify(&code("081804"), at, Some(step)), None);
        assert_eq!(totp.verify(&code("081804"), Timestamp(at.0 + 30), Some(step)), None);
        let next = Timestamp(1_111_111_111);
        assert_eq!(totp.verify(&code("050471"), next, Some(step)), Some(Step(step.0 + 1)));
    }

    /// Steps 910,737 and 910,738 of this secret have one code.
    #[test]
    fn code_that_two_steps_share_is_good_once() {
        let totp = totp(TotpHash::Sha1);
        let at = Timestamp(910_737 * 30);
        let used = totp.verify(&code("911617"), at, None);
        assert_eq!(used, Some(Step(910_738)));
        assert_eq!(totp.verify(&code("911617"), Timestamp(at.0 + 30), used), None);
    }

    #[test]
    fn address_has_what_authenticators_read() {
        let uri = totp(TotpHash::Sha1).otpauth_uri("Last key", "ops@example.org");
        let expected = "otpauth://totp/Last%20key:ops%40example.org\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Last%20key\
             &algorithm=SHA1&digits=6&period=30";
        uri.expose(|uri| assert_eq!(std::str::from_utf8(uri).unwrap(), expected));
    }

    #[test]
    fn secret_of_fewer_than_sixteen_bytes_is_refused() {
        assert!(Totp::new(TotpHash::Sha1, SecretVec::copy_of(&[0; 15])).is_none());
    }
}
