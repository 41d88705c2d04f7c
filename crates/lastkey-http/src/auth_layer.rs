//! The one way from a request to a call: sealed or not, and who is it.
//!
//! Room      `http`.
//! Holds     a handler of a protected route takes an [`Admitted`]; [`admit`] alone makes one.
//!           The token is looked at before the body is read.

use std::sync::Arc;

use http::Request;
use http::header::{AUTHORIZATION, HOST};
use lastkey_core::ids::RequestId;
use lastkey_core::principal::{Caller, Peer, Presented, SignedHead};
use lastkey_crypto::digest::sha256;
use lastkey_secret::SecretVec;
use lastkey_service::call::Call;
use lastkey_service::engine::Engine;
use lastkey_service::error::Error;
use lastkey_service::sealing::Gate;

/// A request of a caller who is known, to a server that is unsealed.
pub(crate) struct Admitted {
    gate: Arc<Gate>,
    engine: Arc<Engine>,
    call: Call,
}

impl Admitted {
    /// The service.
    pub(crate) const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The unsealed service.
    pub(crate) const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The call.
    pub(crate) const fn call(&self) -> &Call {
        &self.call
    }

    /// Makes it a dry run, if `dry`.
    pub(crate) const fn dry(mut self, dry: bool) -> Self {
        self.call.dry_run = self.call.dry_run || dry;
        self
    }

    /// The same for one item of a batch.
    pub(crate) fn item(&self, dry: bool) -> Self {
        let call = Call { caller: self.call.caller.clone(), dry_run: self.call.dry_run };
        let (gate, engine) = (Arc::clone(&self.gate), Arc::clone(&self.engine));
        Self { gate, engine, call }.dry(dry)
    }
}

/// Lets a request in. The body of a signed request is checked once it is there.
///
/// # Errors
/// [`Error::Sealed`] first; [`Error::Unauthenticated`] without a valid credential;
/// [`Error::Unavailable`].
pub(crate) async fn admit<B>(
    gate: &Arc<Gate>,
    request: &Request<B>,
    peer: &Peer,
    id: RequestId,
) -> Result<(Admitted, SignedBody), Error> {
    let engine = gate.engine()?;
    let presented = presented(request);
    let (principal, source) = engine.authenticate(&presented, peer).await?;
    let signed = match presented {
        Presented::Signed(head) => SignedBody(Some(head.body_sha256)),
        Presented::Nothing | Presented::Unreadable | Presented::Bearer(_) => SignedBody(None),
    };
    let call = Call { caller: Caller { principal, source, request: id }, dry_run: false };
    Ok((Admitted { gate: Arc::clone(gate), engine, call }, signed))
}

/// What the body of a request must be.
#[must_use]
pub(crate) struct SignedBody(Option<[u8; 32]>);

impl SignedBody {
    /// Whether this is the body that was signed.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub(crate) fn check(&self, body: &[u8]) -> Result<(), Error> {
        match &self.0 {
            Some(signed) if *signed != sha256(body) => Err(Error::Unauthenticated),
            Some(_) | None => Ok(()),
        }
    }
}

/// The credential of a request: RFC 6750, section 2.1, or AWS Signature Version 4. More than one
/// is none that can be read.
fn presented<B>(request: &Request<B>) -> Presented {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Presented::Nothing,
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Presented::Unreadable,
    };
    if value.as_bytes().starts_with(SIGNATURE) {
        return signed_head(request).map_or(Presented::Unreadable, Presented::Signed);
    }
    let Some((scheme, token)) = value.as_bytes().split_at_checked(BEARER.len()) else {
        return Presented::Unreadable;
    };
    if scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty() {
        Presented::Bearer(SecretVec::copy_of(token))
    } else {
        Presented::Unreadable
    }
}

const BEARER: &[u8] = b"Bearer ";
const SIGNATURE: &[u8] = b"AWS4-HMAC-SHA256 ";

/// The head of a signed request; `None` when it does not say what its body is, or has a header
/// that is no text.
fn signed_head<B>(request: &Request<B>) -> Option<Box<SignedHead>> {
    let mut headers = Vec::with_capacity(request.headers().len() + 1);
    for (name, value) in request.headers() {
        headers.push((name.as_str().to_owned(), value.to_str().ok()?.to_owned()));
    }
    // HTTP/2 has the host in the target.
    if let (None, Some(authority)) = (request.headers().get(HOST), request.uri().authority()) {
        headers.push(("host".to_owned(), authority.as_str().to_owned()));
    }
    let declared = request.headers().get("x-amz-content-sha256")?;
    Some(Box::new(SignedHead {
        method: request.method().as_str().to_owned(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        body_sha256: from_hex(declared.as_bytes())?,
        headers,
    }))
}

/// 32 bytes out of 64 lower-case hexadecimal digits.
pub(crate) fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = hex_value(*high)? << 4 | hex_value(*low)?;
    }
    Some(bytes)
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&'static str]) -> Presented {
        let mut request = Request::new(());
        for value in values {
            request.headers_mut().append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        presented(&request)
    }

    #[test]
    fn a_bearer_token_is_taken_from_its_header() {
        for value in ["Bearer abc", "bearer abc", "BEARER abc"] {
            let Presented::Bearer(token) = of(&[value]) else { panic!("{value}") };
            assert!(token.ct_eq(&SecretVec::copy_of(b"abc")));
        }
    }

    #[test]
    fn anything_else_is_no_credential_and_not_the_same_as_none() {
        assert!(matches!(of(&[]), Presented::Nothing));
        for values in [&[""][..], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearerabc"]] {
            assert!(matches!(of(values), Presented::Unreadable), "{values:?}");
        }
        assert!(matches!(of(&["Bearer abc", "Bearer abc"]), Presented::Unreadable));
    }
}
