//! JSON Web Tokens: parse, verify, and only then read.
//!
//! Room      `trust`.
//! Source    RFC 7515 (compact serialization), RFC 7519, RFC 8725 (best practices).
//! Holds     No claim leaves before the signature was verified under a key that the caller
//!           trusts. The header chooses among the keys given and chooses nothing else.

use core::time::Duration;

use lastkey_core::time::Timestamp;
use lastkey_secret::SecretVec;
use serde_json::{Map, Value};

use crate::jwks::{Algorithm, KeySet};
use crate::refusal::Refusal;
use crate::{b64, strict_json};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_LEN: usize = 20_000;

/// Verifies a token under `keys` and gives its claims. Times, issuer and audience are still to be
/// judged.
///
/// # Errors
/// [`Refusal::TooLong`], [`Refusal::Malformed`], [`Refusal::HeaderNotAllowed`],
/// [`Refusal::AlgorithmNotAllowed`], [`Refusal::UnknownKey`], [`Refusal::AlgorithmMismatch`],
/// [`Refusal::BadSignature`].
pub fn verify(token: &SecretVec, keys: &KeySet) -> Result<Claims, Refusal> {
    token.expose(|bytes| {
        let parsed = Compact::parse(bytes)?;
        let key = keys.find(parsed.header.key_id.as_deref()).ok_or(Refusal::UnknownKey)?;
        let is_valid = parsed.signature.expose(|signature| {
            key.verify(parsed.header.algorithm, parsed.signing_input, signature)
        });
        if !is_valid.ok_or(Refusal::AlgorithmMismatch)? {
            return Err(Refusal::BadSignature);
        }
        parsed.payload.expose(strict_json::parse_object).map(Claims).ok_or(Refusal::Malformed)
    })
}

/// The parts of a token, nothing of it believed yet.
struct Compact<'a> {
    header: Header,
    signing_input: &'a [u8],
    payload: SecretVec,
    signature: SecretVec,
}

struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl<'a> Compact<'a> {
    fn parse(token: &'a [u8]) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(Refusal::TooLong);
        }
        let mut segments = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(Refusal::Malformed);
        };
        let signed_len = token.len().saturating_sub(signature.len()).saturating_sub(1);
        Ok(Self {
            header: Header::parse(header)?,
            signing_input: token.get(..signed_len).ok_or(Refusal::Malformed)?,
            payload: b64::decode_secret(payload).ok_or(Refusal::Malformed)?,
            signature: b64::decode_secret(signature).ok_or(Refusal::Malformed)?,
        })
    }
}

impl Header {
    fn parse(segment: &[u8]) -> Result<Self, Refusal> {
        let bytes = b64::decode(segment).ok_or(Refusal::Malformed)?;
        let members = strict_json::parse_object(&bytes).ok_or(Refusal::Malformed)?;
        for (name, value) in &members {
            if !is_harmless(name, value) {
                return Err(Refusal::HeaderNotAllowed);
            }
        }
        let algorithm = members.get("alg").and_then(Value::as_str).ok_or(Refusal::Malformed)?;
        Ok(Self {
            algorithm: Algorithm::parse(algorithm).ok_or(Refusal::AlgorithmNotAllowed)?,
            key_id: members.get("kid").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

/// Whether a header member is known and brings neither a key, an address of one, nor other rules.
/// Thumbprints of certificates are carried by some issuers and are ignored.
fn is_harmless(name: &str, value: &Value) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    match name {
        "alg" | "kid" | "x5t" | "x5t#S256" => true,
        "typ" => text.eq_ignore_ascii_case("JWT") || text.eq_ignore_ascii_case("at+jwt"),
        _ => false,
    }
}

/// The claims of a token whose signature was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Map<String, Value>);

/// When a token is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// `iat`.
    pub issued_at: Timestamp,
    /// `nbf`; `iat` where there is none and none is asked for.
    pub not_before: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
}

impl Claims {
    /// The claim of this name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The claim of this name as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(Value::as_str)
    }

    /// The claim at a path such as `resource_access/app/roles`. A name with slashes, as some
    /// issuers have it, is found whole before it is taken apart.
    #[must_use]
    pub fn at_path(&self, path: &str) -> Option<&Value> {
        if let Some(whole) = self.0.get(path) {
            return Some(whole);
        }
        let mut steps = path.split('/');
        let first = self.0.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.as_object()?.get(step))
    }

    /// The audiences: one text or an array of them.
    ///
    /// # Errors
    /// [`Refusal::AudienceMissing`] when there is none or it is of another kind.
    pub fn audiences(&self) -> Result<Vec<&str>, Refusal> {
        let found: Option<Vec<&str>> = match self.value("aud") {
            Some(Value::String(one)) => Some(vec![one]),
            Some(Value::Array(several)) => several.iter().map(Value::as_str).collect(),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => None,
        };
        found.filter(|list| !list.is_empty()).ok_or(Refusal::AudienceMissing)
    }

    /// Judges `aud`: ours must be there, and nobody else's unless `allow_others`.
    ///
    /// # Errors
    /// [`Refusal::AudienceMissing`], [`Refusal::AudienceForeign`].
    pub fn check_audience(&self, ours: &[String], allow_others: bool) -> Result<(), Refusal> {
        let named = self.audiences()?;
        let is_ours = |one: &&str| ours.iter().any(|our| our == one);
        if !named.iter().any(is_ours) {
            return Err(Refusal::AudienceMissing);
        }
        if allow_others || (named.len() == 1 && named.iter().all(is_ours)) {
            Ok(())
        } else {
            Err(Refusal::AudienceForeign)
        }
    }

    /// The times of a token; `nbf` may be missing unless `asks_not_before`.
    ///
    /// # Errors
    /// [`Refusal::TimeMissing`] when one is missing or not a number.
    pub fn validity(&self, asks_not_before: bool) -> Result<Validity, Refusal> {
        let time = |name: &str| self.value(name).map(numeric_date).transpose();
        let issued_at = time("iat")?.ok_or(Refusal::TimeMissing)?;
        let expires_at = time("exp")?.ok_or(Refusal::TimeMissing)?;
        let not_before = match time("nbf")? {
            Some(time) => time,
            None if asks_not_before => return Err(Refusal::TimeMissing),
            None => issued_at,
        };
        Ok(Validity { issued_at, not_before, expires_at })
    }
}

impl Validity {
    /// Whether a token of these times is good at `now`.
    ///
    /// # Errors
    /// [`Refusal::LifetimeTooLong`], [`Refusal::NotYetValid`], [`Refusal::Expired`].
    pub fn check(
        self,
        now: Timestamp,
        max_lifetime: Duration,
        leeway: Duration,
    ) -> Result<(), Refusal> {
        let lifetime = self.expires_at.0.checked_sub(self.issued_at.0);
        if lifetime.is_none_or(|seconds| seconds == 0 || seconds > max_lifetime.as_secs()) {
            return Err(Refusal::LifetimeTooLong);
        }
        let latest = now.0.saturating_add(leeway.as_secs());
        if self.not_before.0 > latest || self.issued_at.0 > latest {
            return Err(Refusal::NotYetValid);
        }
        if now.0 >= self.expires_at.0.saturating_add(leeway.as_secs()) {
            return Err(Refusal::Expired);
        }
        Ok(())
    }
}

/// A NumericDate in whole seconds; fractions, which the standard allows, are cut off.
fn numeric_date(value: &Value) -> Result<Timestamp, Refusal> {
    /// 9999-12-31T23:59:59Z: a later moment is a mistake of units.
    const LATEST: u64 = 253_402_300_799;
    let number = value.as_number().ok_or(Refusal::TimeMissing)?;
    let seconds = number.as_u64().or_else(|| number.as_f64().and_then(whole_seconds));
    seconds.filter(|one| *one <= LATEST).map(Timestamp).ok_or(Refusal::TimeMissing)
}

fn whole_seconds(number: f64) -> Option<u64> {
    // 2^53: beyond it a double no longer holds every whole number.
    let is_in_range = (0.0..9_007_199_254_740_992.0).contains(&number);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked on the line above; the fraction is to go"
    )]
    is_in_range.then_some(number as u64)
}
