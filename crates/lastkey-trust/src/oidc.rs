//! OpenID Connect and plain JWT issuers: continuous integration, and people.
//!
//! Room      `trust`. Whoever talks to an issuer (fetches, redirects, polls) is elsewhere; here
//!           its answers are judged.
//! Source    OpenID Connect Core 1.0, section 3.1.3.7; RFC 7636 (PKCE); RFC 8628 (device flow);
//!           OpenID Connect Discovery 1.0, section 4.3; RFC 9207 (issuer in the answer).
//! Holds     An answer is a token or an error, never both; what carries both is refused.

mod device;
mod discovery;
mod login;

use core::time::Duration;
use std::collections::BTreeMap;

use lastkey_core::time::Timestamp;
use lastkey_secret::SecretVec;
use serde_json::Value;

pub use device::{DeviceAuthorization, TokenAnswer, TokenReply};
pub use discovery::{Discovery, DiscoveryError};
pub use login::{Login, LoginSecrets, Pkce};

use crate::glob;
use crate::jwks::KeySet;
use crate::jwt::{self, Claims};
use crate::refusal::Refusal;

/// Longest lifetime of a token of an issuer unless it is configured otherwise.
pub const MAX_LIFETIME: Duration = Duration::from_secs(86_400);
/// Difference of clocks that is tolerated.
pub const LEEWAY: Duration = Duration::from_secs(60);
/// Most groups that are taken over; with more, the token is refused rather than cut.
pub const MAX_GROUPS: usize = 128;
/// Longest subject or group, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// What is trusted about one issuer.
#[derive(Debug)]
pub struct IssuerTrust {
    /// Name of the issuer in our configuration.
    pub provider: String,
    /// `iss`, compared byte by byte.
    pub issuer: String,
    /// Audiences that mean us.
    pub audiences: Vec<String>,
    /// Whether a token may have audiences beside ours; then `azp` must be one of ours.
    pub allow_other_audiences: bool,
    /// The keys of this issuer and of no other.
    pub keys: KeySet,
    /// Longest time between `iat` and `exp`.
    pub max_lifetime: Duration,
    /// Difference of clocks that is tolerated.
    pub leeway: Duration,
    /// Claims that must be there, by path, each with one of the values or patterns.
    pub bound_claims: BTreeMap<String, Vec<Bound>>,
    /// Path of the claim that becomes the subject; `sub` by default.
    pub subject_claim: String,
    /// Path of the claim that becomes the groups: text or an array of texts.
    pub groups_claim: Option<String>,
}

impl IssuerTrust {
    /// Trust with the strict settings: one audience, `sub` as the subject, no groups.
    #[must_use]
    pub fn strict(provider: String, issuer: String, audience: String, keys: KeySet) -> Self {
        Self {
            provider,
            issuer,
            audiences: vec![audience],
            allow_other_audiences: false,
            keys,
            max_lifetime: MAX_LIFETIME,
            leeway: LEEWAY,
            bound_claims: BTreeMap::new(),
            subject_claim: "sub".to_owned(),
            groups_claim: None,
        }
    }
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// This text, or this number or truth value as JSON writes it.
    Exact(String),
    /// A text of this pattern with `*`.
    Glob(String),
}

impl Bound {
    /// Whether a claim of this value is good; in an array, one of its items must be.
    #[must_use]
    pub fn admits(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Exact(wanted), Value::String(text)) => wanted == text,
            (Self::Exact(wanted), Value::Bool(truth)) => {
                wanted == if *truth { "true" } else { "false" }
            }
            (Self::Exact(wanted), Value::Number(number)) => number.to_string() == wanted.as_str(),
            (Self::Glob(pattern), Value::String(text)) => glob::matches(pattern, text),
            (_, Value::Array(items)) => {
                items.iter().any(|item| !item.is_array() && self.admits(item))
            }
            (Self::Exact(_) | Self::Glob(_), Value::Null | Value::Object(_))
            | (Self::Glob(_), Value::Bool(_) | Value::Number(_)) => false,
        }
    }
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The issuer in our configuration.
    pub provider: String,
    /// The subject.
    pub subject: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// `jti`.
    pub token_id: Option<String>,
    /// `amr`, as RFC 8176 names methods.
    pub methods: Vec<String>,
    /// `auth_time`: when the person was last asked.
    pub authenticated_at: Option<Timestamp>,
    /// `exp`.
    pub expires_at: Timestamp,
    /// Every claim, for policies.
    pub claims: Claims,
}

/// Judges a token of one issuer. `nonce` is the one of the login, for ID tokens; without it the
/// token stands for itself, as those of continuous integration do.
///
/// # Errors
/// [`Refusal`]: for the audit log, never for the caller.
pub fn verify(
    token: &SecretVec,
    trust: &IssuerTrust,
    nonce: Option<&SecretVec>,
    now: Timestamp,
) -> Result<Identity, Refusal> {
    let claims = jwt::verify(token, &trust.keys)?;
    if claims.text("iss") != Some(trust.issuer.as_str()) {
        return Err(Refusal::IssuerNotTrusted);
    }
    let validity = claims.validity(false)?;
    validity.check(now, trust.max_lifetime, trust.leeway)?;
    check_audience(&claims, trust)?;
    check_nonce(&claims, nonce)?;
    for (path, bounds) in &trust.bound_claims {
        let value = claims.at_path(path).ok_or(Refusal::ClaimMissing)?;
        if !bounds.iter().any(|bound| bound.admits(value)) {
            return Err(Refusal::ClaimMismatch);
        }
    }
    let authenticated_at = claims.value("auth_time").and_then(Value::as_u64).map(Timestamp);
    Ok(Identity {
        provider: trust.provider.clone(),
        subject: subject(&claims, trust)?,
        groups: groups(&claims, trust)?,
        token_id: claims.text("jti").filter(|id| is_name(id)).map(str::to_owned),
        methods: texts(claims.value("amr")).unwrap_or_default(),
        authenticated_at,
        expires_at: validity.expires_at,
        claims,
    })
}

fn check_audience(claims: &Claims, trust: &IssuerTrust) -> Result<(), Refusal> {
    claims.check_audience(&trust.audiences, trust.allow_other_audiences)?;
    let is_alone = claims.audiences()?.len() == 1;
    match claims.text("azp") {
        // OpenID Connect Core, 3.1.3.7, 4 and 5: with several audiences, who asked must be us.
        Some(party) if !trust.audiences.iter().any(|ours| ours == party) && !is_alone => {
            Err(Refusal::AudienceForeign)
        }
        None if !is_alone => Err(Refusal::AudienceForeign),
        Some(_) | None => Ok(()),
    }
}

fn check_nonce(claims: &Claims, nonce: Option<&SecretVec>) -> Result<(), Refusal> {
    let Some(nonce) = nonce else {
        return Ok(());
    };
    let given = SecretVec::copy_of(claims.text("nonce").ok_or(Refusal::NonceMismatch)?.as_bytes());
    if given.ct_eq(nonce) { Ok(()) } else { Err(Refusal::NonceMismatch) }
}

fn subject(claims: &Claims, trust: &IssuerTrust) -> Result<String, Refusal> {
    let value = claims.at_path(&trust.subject_claim).and_then(Value::as_str);
    let text = value.ok_or(Refusal::ClaimMissing)?;
    if is_name(text) { Ok(text.to_owned()) } else { Err(Refusal::SubjectMalformed) }
}

fn groups(claims: &Claims, trust: &IssuerTrust) -> Result<Vec<String>, Refusal> {
    let Some(path) = &trust.groups_claim else {
        return Ok(Vec::new());
    };
    let Some(value) = claims.at_path(path) else {
        return Ok(Vec::new());
    };
    let groups = texts(Some(value)).ok_or(Refusal::ClaimMismatch)?;
    if groups.len() <= MAX_GROUPS && groups.iter().all(|group| is_name(group)) {
        Ok(groups)
    } else {
        Err(Refusal::ClaimMismatch)
    }
}

/// One text or an array of texts.
fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    match value? {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// 1 to 255 bytes without control characters: they could forge lines of a log.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_LEN).contains(&text.len()) && !text.chars().any(char::is_control)
}
