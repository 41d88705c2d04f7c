//! The ways in which an account of MariaDB or MySQL shows its password, and what is kept of it.
//!
//! Room      `connect`, inside.
//! Source    MariaDB, "Authentication plugin - mysql_native_password"; MySQL, source
//!           documentation, "Caching_sha2_password information".

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use lastkey_crypto::entropy::{Entropy, EntropyError};
use zeroize::Zeroizing;

use super::sha_crypt::{DIGITS, sha256, sha256_crypt};

/// Of a challenge, in bytes.
pub(super) const CHALLENGE_LEN: usize = 20;
/// Of a salt, in bytes.
const SALT_LEN: usize = 20;
/// How often a MySQL hashes a password, as it keeps it: in thousands, three digits of base 16.
const ROUNDS: (u32, &str) = (5_000, "005");

/// One of the ways that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plugin {
    /// SHA-1.
    Native,
    /// SHA-256. A server that has not seen the password since it was set asks for the password itself.
    CachingSha2,
}

impl Plugin {
    /// What servers call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
        }
    }

    /// Shows that the password is known, and not which it is: its hash, under one that a server
    /// can make of the challenge and of the hash of that hash.
    pub(super) fn answer(
        self,
        challenge: &[u8; CHALLENGE_LEN],
        password: &[u8],
    ) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Native => {
                let once = sha1(&[password]);
                masked(&*once, &*sha1(&[challenge, &*sha1(&[&*once])]))
            }
            Self::CachingSha2 => {
                let once = sha256([password]);
                masked(&*once, &*sha256([&sha256([&once[..]])[..], challenge]))
            }
        }
    }

    /// What a server keeps of a password, in letters, digits and `$*./`.
    ///
    /// # Errors
    /// [`EntropyError`]: no salt.
    pub(super) fn kept_of(
        self,
        password: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<String, EntropyError> {
        match self {
            Self::Native => {
                let twice = sha1(&[&*sha1(&[password])]);
                let hex = twice.iter().map(|byte| format!("{byte:02X}"));
                Ok(std::iter::once("*".to_owned()).chain(hex).collect())
            }
            Self::CachingSha2 => {
                let mut drawn = [0; SALT_LEN];
                entropy.fill(&mut drawn)?;
                Ok(salted(password, drawn))
            }
        }
    }
}

/// `$A$`, rounds, `$`, salt and hash. A salt of 6 random bits in each of its bytes: MySQL draws 7, and some
/// that need care in a statement.
fn salted(password: &[u8], drawn: [u8; SALT_LEN]) -> String {
    let digit = |byte: u8| DIGITS.get(usize::from(byte) % DIGITS.len()).copied().map(char::from);
    let salt: String = drawn.into_iter().filter_map(digit).collect();
    let (rounds, written) = ROUNDS;
    format!("$A${written}${salt}{}", sha256_crypt(password, salt.as_bytes(), rounds))
}

fn masked(hash: &[u8], mask: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(hash.iter().zip(mask).map(|(a, b)| a ^ b).collect())
}

fn sha1(parts: &[&[u8]]) -> Zeroizing<[u8; 20]> {
    let joined = Zeroizing::new(parts.concat());
    let mut out = Zeroizing::new([0; 20]);
    out.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &joined).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use lastkey_testkit::entropy::{Dry, Seeded};

    use super::*;

    /// From the manual of MariaDB: what PASSWORD('mypass') answers.
    #[test]
    fn what_is_kept_of_a_password_is_what_the_manual_says() {
        let kept = Plugin::Native.kept_of(b"mypass", &mut Dry).unwrap();
        assert_eq!(kept, "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4");
    }

    #[test]
    fn what_a_mysql_keeps_has_a_salt_of_its_own_and_nothing_that_needs_care() {
        let mut entropy = Seeded::new(1);
        let [one, other] = [0, 1].map(|_| Plugin::CachingSha2.kept_of(b"p", &mut entropy).unwrap());
        assert_ne!(one, other);
        for kept in [one, other] {
            let (salt, hash) = kept.strip_prefix("$A$005$").unwrap().split_at(SALT_LEN);
            assert_eq!(hash, sha256_crypt(b"p", salt.as_bytes(), 5_000));
            assert!(kept.len() == 70 && salt.bytes().all(|byte| DIGITS.contains(&byte)), "{kept}");
        }
        assert!(Plugin::CachingSha2.kept_of(b"p", &mut Dry).is_err());
    }

    /// A vector of the MySQL driver of Go.
    #[test]
    fn answer_by_sha_256_is_that_of_others() {
        let challenge =
            [10, 47, 74, 111, 75, 73, 34, 48, 88, 76, 114, 74, 37, 13, 3, 80, 82, 2, 23, 21];
        let expected = [
            244, 144, 231, 111, 102, 217, 216, 102, 101, 206, 84, 217, 140, 120, 208, 172, 254, 47,
            176, 176, 139, 66, 61, 168, 7, 20, 72, 115, 211, 11, 49, 44,
        ];
        assert_eq!(**Plugin::CachingSha2.answer(&challenge, b"secret"), expected);
    }
}
