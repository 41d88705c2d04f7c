//! SHA-256-crypt: how MySQL keeps a password.
//!
//! Room      `connect`, inside.
//! Source    U. Drepper, "Unix crypt using SHA-256 and SHA-512", version 0.6, section "Algorithm",
//!           whose numbers the steps here have. That cuts a salt to 16 bytes; MySQL takes all of its 20, and
//!           so does this.

use std::iter::repeat_n;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use zeroize::Zeroizing;

/// What six bits are written as.
pub(super) const DIGITS: &[u8; 64] =
    b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// SHA-256, wiped when it is dropped.
pub(super) type Digest = Zeroizing<[u8; SHA256_OUTPUT_LEN]>;

/// SHA-256 of parts, one behind the other.
pub(super) fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut context = Context::new(&SHA256);
    parts.into_iter().for_each(|part| context.update(part));
    let mut out = Zeroizing::new([0; SHA256_OUTPUT_LEN]);
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The last 43 characters of what `crypt` answers.
pub(super) fn sha256_crypt(password: &[u8], salt: &[u8], rounds: u32) -> String {
    // Steps 1 to 12.
    let mixed = sha256([password, salt, password]);
    let filling = repeated(&mixed, password.len());
    let bits = (0..usize::BITS).map(|bit| password.len() >> bit).take_while(|left| *left > 0);
    let by_bits = bits.map(|left| if left & 1 == 1 { &mixed[..] } else { password });
    let first = sha256([password, salt, &filling].into_iter().chain(by_bits));
    // Steps 13 to 20.
    let of_password = repeated(&sha256(repeat_n(password, password.len())), password.len());
    let [head, ..] = *first;
    let of_salt = repeated(&sha256(repeat_n(salt, 16 + usize::from(head))), salt.len());
    // Step 21.
    let mut last = first;
    for round in 0..rounds {
        let (begins, ends) = match round % 2 {
            1 => (&of_password[..], &last[..]),
            _ => (&last[..], &of_password[..]),
        };
        let salt = if round % 3 == 0 { &[][..] } else { &of_salt[..] };
        let again = if round % 7 == 0 { &[][..] } else { &of_password[..] };
        last = sha256([begins, salt, again, ends]);
    }
    in_digits(&last)
}

/// A digest, as often as it takes to be so long.
fn repeated(digest: &Digest, len: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(digest.iter().copied().cycle().take(len).collect())
}

/// Step 22, e: three bytes from three places are four characters, the lowest bits first.
fn in_digits(digest: &Digest) -> String {
    let byte = |place: usize| digest.get(place).copied().map_or(0, u32::from);
    let digits = |bits: u32, count: u32| {
        let digit = move |at: u32| (bits >> (6 * at)) as usize % DIGITS.len();
        (0..count).filter_map(move |at| DIGITS.get(digit(at))).copied().map(char::from)
    };
    let places = std::iter::successors(Some((0, 10, 20)), |(a, b, c)| Some((c + 1, a + 1, b + 1)));
    let threes = places.take(10).map(|(a, b, c)| byte(a) << 16 | byte(b) << 8 | byte(c));
    threes.flat_map(|bits| digits(bits, 4)).chain(digits(byte(31) << 8 | byte(30), 3)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libxcrypt 4.4 answers; the lengths are those about a digest.
    #[test]
    fn crypt_is_that_of_others() {
        for (password, salt, rounds, expected) in [
            ("Hello world!", "saltstring", 5_000, "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
            ("", "a", 1_000, "h8gEN0ODxYvLokgp44mp9FQeMZy0f9j01cbNDQnD727"),
            (
                &"x".repeat(32),
                "0123456789abcdef",
                1_000,
                "9aTLN.HDRFFfhWWAE8/dBgfLdtuUGOFKc.qMLPMC1P8",
            ),
            (
                &"y".repeat(33),
                "0123456789abcdef",
                1_001,
                "D7vN71H/7l1NtM6hcRD2Gh4n8S1cWzcCEqIs3k18XX6",
            ),
            (&"z".repeat(64), "b", 1_002, "y5x9j9UVnH/ZlRcLA5SnE9CVDd93YTb2N6Dcj4dIzD7"),
        ] {
            let crypted = sha256_crypt(password.as_bytes(), salt.as_bytes(), rounds);
            assert_eq!(crypted, expected, "{password}");
        }
    }

    /// The example of hashcat for what a MySQL keeps (its mode 7401).
    #[test]
    fn salt_of_a_mysql_counts_in_full() {
        let salt =
            *b"\xf9\xcc\x98\xce\x08\x89\x29\x24\xf5\x0a\x21\x3b\x6b\xc5\x71\xa2\xc1\x17\x78\xc5";
        let kept = "bTy95Y99eAME1dwEkHOA1ndHGBWz.1bxSSRkuTXFGV/";
        assert_eq!(sha256_crypt(b"hashcat", &salt, 5_000), kept);
        assert_ne!(sha256_crypt(b"hashcat", &salt[..16], 5_000), kept);
    }

    /// What MySQL 9.7.4 kept of a password that it was given.
    #[test]
    fn crypt_is_that_of_a_mysql() {
        let salt = b"\x29\x4e\x18\x3d|oq4o\x01\x1c\x04\x7f\x16`5fPe-";
        let kept = "wRHb.If.b4CTBJZr7/nQTA7I/DuyTDHYGGOlJMFfaXB";
        assert_eq!(sha256_crypt(b"pw", salt, 10_000), kept);
    }
}
