//! The texts of a credential: access key id, session token, bearer.
//!
//! Room      `trust`, inside.
//! Source    `docs/formats/session.md`, "Texts". Base32 and base64url are RFC 4648.
//! Holds     Each text has a prefix and ends in a checksum, so a scanner can tell a credential
//!           from a lookalike without asking anybody. The checksum is no protection and is
//!           never taken for one.

use lastkey_core::ids::SessionId;
use lastkey_crypto::digest::sha256_of;
use lastkey_secret::SecretVec;

use super::{MAX_ENCODED_LEN, caveat};
use crate::{b32, b64};

/// Length of an access key id, in bytes.
pub const ACCESS_KEY_ID_LEN: usize = 36;
/// What a session token begins with.
pub const SESSION_TOKEN_PREFIX: &str = "lks1.";
/// What a bearer begins with.
pub const BEARER_PREFIX: &str = "lkb1_";
/// Longest session token, in bytes.
pub const MAX_SESSION_TOKEN_LEN: usize =
    SESSION_TOKEN_PREFIX.len() + (MAX_SEALED_LEN + CHECKSUM_LEN).div_ceil(3) * 4;
/// Longest bearer with all its caveats, in bytes.
pub const MAX_BEARER_LEN: usize = BEARER_PREFIX.len()
    + (MAX_SEALED_LEN + CHECKSUM_LEN + 39 + caveat::MAX_TOTAL_LEN).div_ceil(3) * 4;

const ACCESS_KEY_ID_PREFIX: &str = "LKTA";
const CHECKSUM_LEN: usize = 4;
const MAX_SEALED_LEN: usize = MAX_ENCODED_LEN + lastkey_crypto::wrap::OVERHEAD_LEN;

/// The access key id of a session.
pub(super) fn access_key_id(id: SessionId) -> String {
    let sum = checksum(ACCESS_KEY_ID_PREFIX, &id.0);
    let mut text = String::with_capacity(ACCESS_KEY_ID_LEN);
    text.push_str(ACCESS_KEY_ID_PREFIX);
    b32::push(&[id.0.as_slice(), &sum].concat(), &mut text);
    text
}

/// The session of an access key id whose checksum is right.
pub(super) fn parse_access_key_id(text: &str) -> Option<SessionId> {
    let digits = text.strip_prefix(ACCESS_KEY_ID_PREFIX)?.as_bytes();
    if text.len() != ACCESS_KEY_ID_LEN {
        return None;
    }
    let bytes = b32::decode(digits)?;
    let (id, sum) = bytes.split_first_chunk::<16>()?;
    (checksum(ACCESS_KEY_ID_PREFIX, id) == *sum).then_some(SessionId(*id))
}

/// The text of `body`, its checksum put behind it.
pub(super) fn armor(prefix: &str, mut body: Vec<u8>) -> SecretVec {
    body.extend_from_slice(&checksum(prefix, &body));
    let mut text = String::with_capacity(prefix.len() + body.len().div_ceil(3) * 4);
    text.push_str(prefix);
    text.push_str(&b64::encode(&body));
    SecretVec::take_text(text)
}

/// The body of a text with this prefix and a right checksum, at most `max_len` bytes long.
pub(super) fn dearmor(prefix: &str, max_len: usize, text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > max_len {
        return None;
    }
    let mut body = b64::decode(text.strip_prefix(prefix.as_bytes())?)?;
    let (front, sum) = body.split_last_chunk::<CHECKSUM_LEN>()?;
    if checksum(prefix, front) != *sum {
        return None;
    }
    body.truncate(body.len().saturating_sub(CHECKSUM_LEN));
    Some(body)
}

/// Whether `text` is an access key id of Lastkey, for scanners: prefix and checksum are right.
#[must_use]
pub fn looks_like_access_key_id(text: &str) -> bool {
    parse_access_key_id(text).is_some()
}

/// Whether `text` is a session token of Lastkey, for scanners: prefix and checksum are right.
#[must_use]
pub fn looks_like_session_token(text: &[u8]) -> bool {
    dearmor(SESSION_TOKEN_PREFIX, MAX_SESSION_TOKEN_LEN, text).is_some()
}

/// Whether `text` is a bearer of Lastkey, for scanners: prefix and checksum are right.
#[must_use]
pub fn looks_like_bearer(text: &[u8]) -> bool {
    dearmor(BEARER_PREFIX, MAX_BEARER_LEN, text).is_some()
}

fn checksum(prefix: &str, body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = sha256_of(&[prefix.as_bytes(), body]);
    hash.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_key_id_goes_both_ways_and_has_one_spelling() {
        let id = SessionId([0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255]);
        let text = access_key_id(id);
        assert_eq!(text.len(), ACCESS_KEY_ID_LEN);
        assert_eq!(parse_access_key_id(&text), Some(id));
        assert_eq!(parse_access_key_id(&text.to_lowercase()), None);
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'B' { b'C' } else { b'B' };
            assert_eq!(parse_access_key_id(std::str::from_utf8(&other).unwrap()), None, "{at}");
        }
        assert_eq!(parse_access_key_id(&format!("{text}A")), None);
        assert_eq!(parse_access_key_id(text.split_at(35).0), None);
    }

    #[test]
    fn armor_refuses_another_prefix_and_a_wrong_checksum() {
        let text = armor(BEARER_PREFIX, vec![1, 2, 3]);
        text.expose(|text| {
            assert_eq!(dearmor(BEARER_PREFIX, 100, text), Some(vec![1, 2, 3]));
            assert_eq!(dearmor(BEARER_PREFIX, text.len() - 1, text), None);
            assert_eq!(dearmor(SESSION_TOKEN_PREFIX, 100, text), None);
            let mut renamed = SESSION_TOKEN_PREFIX.as_bytes().to_vec();
            renamed.extend_from_slice(&text[5..]);
            assert_eq!(dearmor(SESSION_TOKEN_PREFIX, 100, &renamed), None);
            assert!(!looks_like_bearer(&text[..text.len() - 2]));
        });
    }
}
