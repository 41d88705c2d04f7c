//! AWS Signature Version 4: verifying requests, and signing ours.
//!
//! Room      `trust`.
//! Source    AWS General Reference, "Signature Version 4 signing process"; the form with the
//!           `Authorization` header, paths encoded twice as every service but S3 has it.
//! Holds     Host, date, session token and every other `x-amz-` header are signed, and so is the
//!           body. Signatures are compared in constant time. A path with `.`, `..` or an empty
//!           segment is refused, never normalised.

mod canonical;
mod date;
mod kept;

use aws_lc_rs::hmac;
use lastkey_core::time::Timestamp;
use lastkey_crypto::digest::sha256;
use lastkey_secret::{SecretArray, SecretVec, ct_eq};

use crate::session::{EpochRing, NotAccepted, Opened, Presentation};

use canonical::{hex, push_hex};
pub use date::format_date;
pub use kept::KeptKeys;
use kept::SigningKey;

/// How far the date of a request may be from ours, in seconds.
pub const WINDOW: u64 = 300;
/// Longest `Authorization` header that is looked at, in bytes.
pub const MAX_AUTHORIZATION_LEN: usize = 4_096;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";

/// A request as it came, or as it will go.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The path as on the wire, percent-encoded.
    pub path: &'a str,
    /// The query as on the wire, without the question mark; empty when there is none.
    pub query: &'a str,
    /// Names and values of the headers, in their order; names in any case.
    pub headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body.
    pub body_sha256: &'a [u8; 32],
}

/// Why a signature was refused: a word for the audit log, one sentence for everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request signature is not valid")]
pub enum SignatureError {
    /// No `Authorization` header of this kind, two of them, or not its form.
    Malformed,
    /// The signature is for another service.
    OtherService,
    /// A header that must be signed is not there or not signed.
    HeaderNotSigned,
    /// The date is not of its form, or differs from the one of the scope.
    BadDate,
    /// The date is more than five minutes away.
    OutsideWindow,
    /// The path is not canonical, or path or query are not well encoded.
    BadPath,
    /// The body is declared unsigned or with another hash.
    BodyNotSigned,
    /// The signature is another one.
    Mismatch,
}

impl SignatureError {
    /// The word for the audit log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "signature_malformed",
            Self::OtherService => "signature_other_service",
            Self::HeaderNotSigned => "signature_header_not_signed",
            Self::BadDate => "signature_bad_date",
            Self::OutsideWindow => "signature_outside_window",
            Self::BadPath => "signature_bad_path",
            Self::BodyNotSigned => "signature_body_not_signed",
            Self::Mismatch => "signature_mismatch",
        }
    }
}

/// The parts of a parsed `Authorization` header; nothing is verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// Names the credential.
    pub access_key_id: &'a str,
    /// Region of the scope; any is taken.
    pub region: &'a str,
    /// Service of the scope.
    pub service: &'a str,
    scope_date: &'a str,
    signed_headers: Vec<&'a str>,
    signature: [u8; 32],
}

impl<'a> Authorization<'a> {
    /// Parses the value of the header.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn parse(value: &'a str) -> Result<Self, SignatureError> {
        Self::parse_parts(value).ok_or(SignatureError::Malformed)
    }

    fn parse_parts(value: &'a str) -> Option<Self> {
        if value.len() > MAX_AUTHORIZATION_LEN {
            return None;
        }
        let rest = value.strip_prefix(ALGORITHM)?.strip_prefix(' ')?;
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, text) = part.trim().split_once('=')?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return None,
            };
            if place.replace(text).is_some() {
                return None;
            }
        }
        let scope: Vec<&str> = credential?.split('/').collect();
        let [access_key_id, scope_date, region, service, TERMINATOR] = *scope.as_slice() else {
            return None;
        };
        let signed_headers: Vec<&str> = signed?.split(';').collect();
        let is_name = |name: &&str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
        };
        let is_sorted = signed_headers.is_sorted_by(|one, next| one < next);
        let signature = canonical::parse_hex(signature?)?;
        (!access_key_id.is_empty() && is_sorted && signed_headers.iter().all(is_name)).then_some(
            Self { access_key_id, region, service, scope_date, signed_headers, signature },
        )
    }

    /// Verifies a request under the secret of [`Self::access_key_id`].
    ///
    /// # Errors
    /// [`SignatureError`] by variant.
    pub fn verify(
        &self,
        request: &Request<'_>,
        secret: &SecretVec,
        service: &str,
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        let text = self.text_to_sign(request, service, now)?;
        self.judge(&self.scope().signing_key(secret), &text)
    }

    /// The same with a signing key that is kept from the request before, if there was one.
    fn verify_kept(
        &self,
        request: &Request<'_>,
        secret: &dyn Fn() -> SecretVec,
        kept: &KeptKeys,
        (service, now): (&str, Timestamp),
    ) -> Result<(), SignatureError> {
        let text = self.text_to_sign(request, service, now)?;
        let name = [self.access_key_id, self.scope_date, self.region, self.service];
        if let Some(judged) = kept.with(name, |key| self.judge(key, &text)) {
            return judged;
        }
        let key = self.scope().signing_key(&secret());
        self.judge(&key, &text)?;
        // A key that nobody has shown to hold takes nobody's place.
        kept.keep(name, key);
        Ok(())
    }

    fn judge(&self, key: &SigningKey, text: &str) -> Result<(), SignatureError> {
        let expected = first_32(&key.sign(text));
        if ct_eq(&expected, &self.signature) { Ok(()) } else { Err(SignatureError::Mismatch) }
    }

    const fn scope(&self) -> Scope<'a> {
        Scope { date: self.scope_date, region: self.region, service: self.service }
    }

    /// What the signature of a request is one of, once everything else about it is right.
    fn text_to_sign(
        &self,
        request: &Request<'_>,
        service: &str,
        now: Timestamp,
    ) -> Result<String, SignatureError> {
        if self.service != service {
            return Err(SignatureError::OtherService);
        }
        let date = self.check_date(request, now)?;
        self.check_signed_headers(request)?;
        check_body(request)?;
        let canonical = canonical::request(request, &self.signed_headers)?;
        Ok(self.scope().text_to_sign(date, &canonical))
    }

    fn check_date<'r>(
        &self,
        request: &Request<'r>,
        now: Timestamp,
    ) -> Result<&'r str, SignatureError> {
        let date = only_header(request, "x-amz-date").ok_or(SignatureError::HeaderNotSigned)?;
        let at = date::parse_date(date).ok_or(SignatureError::BadDate)?;
        if date.get(..8) != Some(self.scope_date) {
            return Err(SignatureError::BadDate);
        }
        if at.seconds_since(now).unsigned_abs() > WINDOW {
            return Err(SignatureError::OutsideWindow);
        }
        Ok(date)
    }

    fn check_signed_headers(&self, request: &Request<'_>) -> Result<(), SignatureError> {
        let is_signed = |name: &str| self.signed_headers.contains(&name);
        let is_there =
            |name: &str| request.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let forgotten = request.headers.iter().any(|(name, _)| {
            must_be_signed(name)
                && !self.signed_headers.iter().any(|one| name.eq_ignore_ascii_case(one))
        });
        let all_there = self.signed_headers.iter().all(|name| is_there(name));
        if forgotten || !all_there || !is_signed("host") || !is_signed("x-amz-date") {
            return Err(SignatureError::HeaderNotSigned);
        }
        Ok(())
    }
}

/// Opens the session of a request that is signed by the secret of a triple and carries its session
/// token.
///
/// # Errors
/// [`NotAccepted`], whatever is wrong; its word is one of [`SignatureError::word`] where the
/// signature is at fault.
pub fn open_signed(
    ring: &EpochRing,
    request: &Request<'_>,
    service: &str,
    presentation: &Presentation<'_>,
    kept: &KeptKeys,
) -> Result<Opened, NotAccepted> {
    let refuse = |error: SignatureError| NotAccepted(error.word());
    let header = only_header(request, "authorization").ok_or(SignatureError::Malformed);
    let authorization = header.and_then(Authorization::parse).map_err(refuse)?;
    let token = only_header(request, "x-amz-security-token");
    let token = token.ok_or(SignatureError::HeaderNotSigned).map_err(refuse)?;
    let session_token = SecretVec::copy_of(token.as_bytes());
    ring.open_triple(authorization.access_key_id, &session_token, presentation, |secret| {
        authorization
            .verify_kept(request, secret, kept, (service, presentation.now))
            .map_err(SignatureError::word)
    })
}

/// Headers that decide what a request means.
fn must_be_signed(name: &str) -> bool {
    let is_amazon =
        name.split_at_checked(6).is_some_and(|(front, _)| front.eq_ignore_ascii_case("x-amz-"));
    is_amazon || name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case("content-type")
}

/// The one value of a header; `None` when there is none, or more than one.
fn only_header<'a>(request: &Request<'a>, name: &str) -> Option<&'a str> {
    let mut found = request.headers.iter().filter(|(one, _)| one.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value),
        (None | Some(_), _) => None,
    }
}

/// A declared hash must be the one of the body; `UNSIGNED-PAYLOAD` and streaming are none.
fn check_body(request: &Request<'_>) -> Result<(), SignatureError> {
    let is_declared =
        request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-amz-content-sha256"));
    if !is_declared
        || only_header(request, "x-amz-content-sha256") == Some(hex(request.body_sha256).as_str())
    {
        Ok(())
    } else {
        Err(SignatureError::BodyNotSigned)
    }
}

/// What a signature is good for.
#[derive(Clone, Copy, Debug)]
struct Scope<'a> {
    date: &'a str,
    region: &'a str,
    service: &'a str,
}

impl Scope<'_> {
    fn text_to_sign(&self, date: &str, canonical_request: &str) -> String {
        let mut text = String::with_capacity(160 + self.region.len() + self.service.len());
        for part in [ALGORITHM, "\n", date, "\n", self.date, "/", self.region, "/", self.service] {
            text.push_str(part);
        }
        text.push('/');
        text.push_str(TERMINATOR);
        text.push('\n');
        push_hex(&sha256(canonical_request.as_bytes()), &mut text);
        text
    }

    fn signing_key(&self, secret: &SecretVec) -> SigningKey {
        let start = secret.expose(|secret| SecretVec::take([b"AWS4", secret].concat()));
        let day = start.expose(|start| mac(start, self.date.as_bytes()));
        let day = SecretArray::copy_of(&first_32(&day));
        let parts = [self.region, self.service, TERMINATOR];
        let last: SecretArray<32> = parts.iter().fold(day, |key, part| {
            key.expose(|key| SecretArray::copy_of(&first_32(&mac(key, part.as_bytes()))))
        });
        SigningKey::of(&last)
    }
}

/// The whole of a tag of HMAC-SHA-256, which has 32 bytes.
fn first_32(tag: &hmac::Tag) -> [u8; 32] {
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

fn mac(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

/// Who signs, for what and when.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// Names the credential.
    pub access_key_id: &'a str,
    /// The secret of the triple.
    pub secret: &'a SecretVec,
    /// Region of the scope.
    pub region: &'a str,
    /// Service of the scope.
    pub service: &'a str,
    /// The wall clock.
    pub now: Timestamp,
}

impl Signer<'_> {
    /// Signs every header of `request`, which has `host`, the `x-amz-date` of [`format_date`] and,
    /// with a session, `x-amz-security-token`. Gives the value of `Authorization`.
    ///
    /// # Errors
    /// [`SignatureError`] when the request could not be verified either.
    pub fn authorization(&self, request: &Request<'_>) -> Result<String, SignatureError> {
        let date = only_header(request, "x-amz-date").ok_or(SignatureError::HeaderNotSigned)?;
        if date != format_date(self.now) {
            return Err(SignatureError::BadDate);
        }
        check_body(request)?;
        let mut names: Vec<String> =
            request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        let signed: Vec<&str> = names.iter().map(String::as_str).collect();
        if !signed.contains(&"host") {
            return Err(SignatureError::HeaderNotSigned);
        }
        let canonical = canonical::request(request, &signed)?;
        let day = date.get(..8).ok_or(SignatureError::BadDate)?;
        let Self { access_key_id, region, service, .. } = self;
        let scope = Scope { date: day, region, service };
        let text = scope.text_to_sign(date, &canonical);
        let signature = first_32(&scope.signing_key(self.secret).sign(&text));
        let (signed, signature) = (signed.join(";"), hex(&signature));
        Ok(format!(
            "{ALGORITHM} Credential={access_key_id}/{day}/{region}/{service}/{TERMINATOR}, \
             SignedHeaders={signed}, Signature={signature}"
        ))
    }
}
