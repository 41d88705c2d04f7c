//! What the API server knows a key version by.
//!
//! Room      `node`.
//! Source    KEP-3299: public, never used again once it was left; docs/formats/kmsv2.md.
//! Holds     The same on every control-plane node; another one with each activation of a version,
//!           also when an older version is made primary again.

use lastkey_crypto::digest::{sha256, sha256_of};

use crate::ports::KeyInUse;

const DOMAIN: &[u8] = b"lastkey/kmsv2/key-id/v1\0";
/// Begins every key id of this plugin.
pub const KEY_ID_PREFIX: &str = "lk1.";

/// The key id of one activation of one version.
///
/// `made_at` tells a version from another of the same number: after a restore of an older store a
/// rotation makes a second version N.
pub(crate) fn key_id(key: &KeyInUse, made_at: &str, cluster: &str) -> String {
    let len = |text: &str| (text.len() as u64).to_be_bytes();
    let hash = sha256_of(&[
        DOMAIN,
        &key.id,
        &key.version.to_be_bytes(),
        &key.activation.to_be_bytes(),
        &len(made_at),
        made_at.as_bytes(),
        cluster.as_bytes(),
    ]);
    format!("{KEY_ID_PREFIX}{}", base32(&hash))
}

/// The hash of a key id under which the API server's own metrics speak of it.
#[must_use]
pub fn key_id_hash(key_id: &str) -> String {
    let hash = sha256(key_id.as_bytes());
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// RFC 4648, section 6, in lower case and without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut out, mut held, mut bits) = (String::new(), 0_u32, 0_u32);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xFFFF;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.extend(digit(ALPHABET, held >> bits));
        }
    }
    if bits > 0 {
        out.extend(digit(ALPHABET, held << (5 - bits)));
    }
    out
}

fn digit(alphabet: &[u8; 32], value: u32) -> Option<char> {
    alphabet.get((value & 31) as usize).copied().map(char::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyInUse = KeyInUse { id: [1; 16], version: 2, activation: 3 };

    #[test]
    fn base32_is_that_of_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("fooba", "mzxw6ytb")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
    }

    #[test]
    fn key_id_differs_in_everything_that_makes_another_key() {
        let id = key_id(&KEY, "2026-11-23T10:00:00Z", "prod");
        assert_eq!(id.len(), 56);
        let others = [
            key_id(&KeyInUse { id: [2; 16], ..KEY }, "2026-11-23T10:00:00Z", "prod"),
            key_id(&KeyInUse { version: 1, ..KEY }, "2026-11-23T10:00:00Z", "prod"),
            key_id(&KeyInUse { activation: 4, ..KEY }, "2026-11-23T10:00:00Z", "prod"),
            key_id(&KEY, "2026-11-23T10:00:01Z", "prod"),
            key_id(&KEY, "2026-11-23T10:00:00Z", "stage"),
            key_id(&KEY, "2026-11-23T10:00:00Zp", "rod"),
        ];
        assert!(others.iter().all(|other| *other != id));
    }

    /// `printf abc | sha256sum`.
    #[test]
    fn hash_is_that_of_the_api_servers_metrics() {
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key_id_hash("abc"), expected);
    }
}
