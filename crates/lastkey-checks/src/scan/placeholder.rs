//! Texts that stand where a secret would, and are none.
//!
//! Room      `checks`, inside `scan`.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

/// Parts that no real secret has and many examples do, in lower case.
const WORDS: &[&str] = &[
    "example",
    "changeme",
    "change_me",
    "change-me",
    "placeholder",
    "your_",
    "your-",
    "yourtoken",
    "yourkey",
    "yoursecret",
    "yourpassword",
    "insert_",
    "insert-",
    "replace_",
    "replace-",
    "replaceme",
    "dummy",
    "fake",
    "sample",
    "xxxx",
    "redacted",
    "notreal",
    "not-a-real",
    "not_a_real",
    "notasecret",
    "todo",
    "fixme",
    "abcdefgh",
    "12345678",
    "87654321",
    "01234567",
    "deadbeef",
    "....",
    "****",
    "-----",
    "_____",
    "${",
    "{{",
    "<%",
    "%s",
    "<your",
    "lorem",
    "foobar",
    "cafebabe",
    "0000000",
    "1111111",
    "aaaaaaa",
    "test-token",
    "test_token",
    "mysecret",
    "mypassword",
    "my-secret",
    "my_secret",
    "qwerty",
    "1q2w3e4r",
    "asdfgh",
    "zxcvbn",
];

/// The same, to be looked for at once.
static PARTS: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(WORDS).ok());

/// Whether a text is a placeholder: it says so, counts up, or hardly varies.
pub(super) fn is_placeholder(secret: &[u8]) -> bool {
    let lower = secret.to_ascii_lowercase();
    let says_so = || PARTS.iter().any(|parts| parts.is_match(secret));
    hardly_varies(&lower) || counts_up(&lower) || says_so()
}

/// At most a fifth of the characters, and never more than four, are different ones.
fn hardly_varies(text: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in text {
        if let Some(slot) = seen.get_mut(usize::from(*byte)) {
            *slot = true;
        }
    }
    let different = seen.iter().filter(|slot| **slot).count();
    text.len() >= 8 && different <= 4.min(text.len() / 4)
}

/// More than half of the steps between neighbours are the same small one.
fn counts_up(text: &[u8]) -> bool {
    let steps = |step: u8| {
        text.windows(2).filter(|pair| matches!(pair, [a, b] if b.wrapping_sub(*a) == step)).count()
    };
    let len = text.len();
    len >= 8 && (steps(1) * 2 > len || steps(0) * 2 > len || steps(255) * 2 > len)
}

#[cfg(test)]
mod tests {
    use super::is_placeholder;

    #[test]
    fn placeholders_are_told_from_secrets() {
        for text in [
            "your-api-key-here",
            "xxxxxxxxxxxxxxxx",
            "AKIAIOSFODNN7EXAMPLE",
            "abcdefghijklmnop",
            "1234567890",
            "AAAAAAAAAAAA",
            "abababababab",
            "${SECRET_TOKEN}",
            "changeme123",
        ] {
            assert!(is_placeholder(text.as_bytes()), "{text}");
        }
        for text in ["kT9vQ2xLmZ7wRb4N", "f3a9c1e07b52d846", "Tr0ub4dor&3-zebra"] {
            assert!(!is_placeholder(text.as_bytes()), "{text}");
        }
    }
}
