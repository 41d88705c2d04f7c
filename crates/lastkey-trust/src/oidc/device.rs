//! Answers of a token endpoint, and the device flow for logins without a browser.
//!
//! Room      `trust`, inside.
//! Source    RFC 8628 (device flow), RFC 6749, sections 5.1 and 5.2 (answers).
//! Holds     An answer with a token and an error is refused: neither half is believed.

use core::time::Duration;

use lastkey_secret::SecretVec;
use serde_json::{Map, Value};

use super::discovery::is_https;
use crate::refusal::Refusal;
use crate::strict_json;

/// Longest answer that is read, in bytes.
const MAX_ANSWER_LEN: usize = 131_072;
/// Pause between two questions unless the issuer says otherwise (RFC 8628, 3.2).
const DEFAULT_INTERVAL: u64 = 5;
/// Longest pause that is taken over, in seconds.
const MAX_INTERVAL: u64 = 300;
/// Longest time for a person to log in that is taken over, in seconds.
const MAX_EXPIRY: u64 = 3_600;

/// The answer to a device that asks for a code.
#[derive(Debug)]
pub struct DeviceAuthorization {
    /// Asks for the token; a secret.
    pub device_code: SecretVec,
    /// What the person types; shown on the terminal.
    pub user_code: String,
    /// Where the person types it.
    pub verification_uri: String,
    /// The same with the code in it, for a picture.
    pub verification_uri_complete: Option<String>,
    /// How long the codes are good.
    pub expires_in: Duration,
    /// Pause between two questions.
    pub interval: Duration,
}

impl DeviceAuthorization {
    /// Parses the answer.
    ///
    /// # Errors
    /// [`Refusal::Malformed`]; also for an address that is not plain https, and for a user code
    /// that does more to a terminal than show itself.
    pub fn parse(answer: &[u8]) -> Result<Self, Refusal> {
        let mut members = parse(answer)?;
        if members.contains_key("error") {
            return Err(Refusal::Malformed);
        }
        let device_code = take_secret(&mut members, "device_code").ok_or(Refusal::Malformed)?;
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let user_code = text("user_code").filter(|code| is_shown(code));
        let verification_uri = text("verification_uri").filter(|uri| is_https(uri));
        let complete = text("verification_uri_complete").filter(|uri| is_https(uri));
        let seconds = |name: &str| members.get(name).and_then(Value::as_u64);
        let expires_in = seconds("expires_in").ok_or(Refusal::Malformed)?;
        let interval = seconds("interval").unwrap_or(DEFAULT_INTERVAL);
        Ok(Self {
            device_code,
            user_code: user_code.ok_or(Refusal::Malformed)?.to_owned(),
            verification_uri: verification_uri.ok_or(Refusal::Malformed)?.to_owned(),
            verification_uri_complete: complete.map(str::to_owned),
            expires_in: Duration::from_secs(expires_in.min(MAX_EXPIRY)),
            interval: Duration::from_secs(interval.clamp(1, MAX_INTERVAL)),
        })
    }
}

/// A token endpoint's answer.
#[derive(Debug)]
pub enum TokenAnswer {
    /// The tokens.
    Tokens(TokenReply),
    /// Nobody has approved yet: ask again after the pause.
    Pending,
    /// Ask again, and five seconds slower from now on.
    SlowDown,
    /// The person said no.
    Denied,
    /// The code is no longer good.
    Expired,
}

/// Tokens as they came; nothing is verified yet.
#[derive(Debug)]
pub struct TokenReply {
    /// Who logged in: for [`super::verify`].
    pub id_token: SecretVec,
    /// For the issuer's own API; not needed here.
    pub access_token: Option<SecretVec>,
}

impl TokenAnswer {
    /// Parses the answer of a token endpoint.
    ///
    /// # Errors
    /// [`Refusal::Malformed`]: no ID token, an error that is not known, or a token beside an
    /// error.
    pub fn parse(answer: &[u8]) -> Result<Self, Refusal> {
        let mut members = parse(answer)?;
        let id_token = take_secret(&mut members, "id_token");
        let access_token = take_secret(&mut members, "access_token");
        let Some(error) = members.get("error") else {
            let id_token = id_token.ok_or(Refusal::Malformed)?;
            return Ok(Self::Tokens(TokenReply { id_token, access_token }));
        };
        if id_token.is_some() || access_token.is_some() {
            return Err(Refusal::Malformed);
        }
        match error.as_str() {
            Some("authorization_pending") => Ok(Self::Pending),
            Some("slow_down") => Ok(Self::SlowDown),
            Some("access_denied") => Ok(Self::Denied),
            Some("expired_token") => Ok(Self::Expired),
            Some(_) | None => Err(Refusal::Malformed),
        }
    }
}

fn parse(answer: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if answer.len() > MAX_ANSWER_LEN {
        return Err(Refusal::TooLong);
    }
    strict_json::parse_object(answer).ok_or(Refusal::Malformed)
}

/// Takes a text out of the answer, not a copy of it.
fn take_secret(members: &mut Map<String, Value>, name: &str) -> Option<SecretVec> {
    match members.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(SecretVec::take_text(text)),
        Some(_) | None => None,
    }
}

fn is_shown(code: &str) -> bool {
    (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::{DeviceAuthorization, TokenAnswer};

    #[test]
    fn device_answer_of_the_standard_is_read() {
        let answer = br#"{"device_code":"GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
            "user_code":"WDJB-MJHT","verification_uri":"https://example.com/device",
            "verification_uri_complete":"https://example.com/device?user_code=WDJB-MJHT",
            "expires_in":1800,"interval":5}"#;
        let read = DeviceAuthorization::parse(answer).unwrap();
        assert_eq!(read.user_code, "WDJB-MJHT");
        assert_eq!(read.interval, Duration::from_secs(5));
        assert_eq!(read.expires_in, Duration::from_secs(1800));
        assert_eq!(read.device_code.len(), 41);
    }

    #[test]
    fn device_answer_that_would_move_the_cursor_is_refused() {
        let answer = |code: &str, uri: &str| {
            format!(
                r#"{{"device_code":"x","user_code":"{code}","verification_uri":"{uri}","expires_in":9}}"#
            )
        };
        assert!(DeviceAuthorization::parse(answer("A", "https://e.org").as_bytes()).is_ok());
        assert!(
            DeviceAuthorization::parse(answer("\\u001b[2J", "https://e.org").as_bytes()).is_err()
        );
        assert!(DeviceAuthorization::parse(answer("A", "http://e.org").as_bytes()).is_err());
    }

    #[test]
    fn token_answer_is_one_of_five() {
        let parse = |text: &str| TokenAnswer::parse(text.as_bytes());
        assert!(matches!(parse(r#"{"id_token":"a.b.c"}"#), Ok(TokenAnswer::Tokens(_))));
        assert!(matches!(parse(r#"{"error":"authorization_pending"}"#), Ok(TokenAnswer::Pending)));
        assert!(matches!(parse(r#"{"error":"slow_down"}"#), Ok(TokenAnswer::SlowDown)));
        assert!(matches!(parse(r#"{"error":"access_denied"}"#), Ok(TokenAnswer::Denied)));
        assert!(matches!(parse(r#"{"error":"expired_token"}"#), Ok(TokenAnswer::Expired)));
        for bad in [
            r#"{}"#,
            r#"{"access_token":"x"}"#,
            r#"{"error":"other"}"#,
            r#"{"error":null,"id_token":"a.b.c"}"#,
            r#"{"id_token":""}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
