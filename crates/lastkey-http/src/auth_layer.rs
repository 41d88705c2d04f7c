//! The one way from a request to a call: sealed or not, and who is it.
//!
//! Room      `http`.
//! Holds     a handler of a protected route takes an [`Admitted`]; [`admit`] alone makes one.
//!           The token is looked at before the body is read.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use lastkey_core::ids::RequestId;
use lastkey_core::principal::{Caller, Presented, Source};
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

/// Lets a request in.
///
/// # Errors
/// [`Error::Sealed`] first; [`Error::Unauthenticated`] without a valid token;
/// [`Error::Unavailable`].
pub(crate) async fn admit(
    gate: &Arc<Gate>,
    headers: &HeaderMap,
    request: RequestId,
) -> Result<Admitted, Error> {
    let engine = gate.engine()?;
    let principal = engine.authenticate(&presented(headers)).await?;
    let call =
        Call { caller: Caller { principal, source: Source::default(), request }, dry_run: false };
    Ok(Admitted { gate: Arc::clone(gate), engine, call })
}

/// The credential of a request (RFC 6750, section 2.1). More than one is none.
fn presented(headers: &HeaderMap) -> Presented {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Presented::Nothing };
    let Some((scheme, token)) = value.as_bytes().split_at_checked(BEARER.len()) else {
        return Presented::Nothing;
    };
    if scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty() {
        Presented::Bearer(SecretVec::copy_of(token))
    } else {
        Presented::Nothing
    }
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&'static str]) -> Presented {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        presented(&headers)
    }

    #[test]
    fn a_bearer_token_is_taken_from_its_header() {
        for value in ["Bearer abc", "bearer abc", "BEARER abc"] {
            let Presented::Bearer(token) = of(&[value]) else { panic!("{value}") };
            assert!(token.ct_eq(&SecretVec::copy_of(b"abc")));
        }
    }

    #[test]
    fn anything_else_is_no_credential() {
        for values in [&[][..], &[""], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearerabc"]] {
            assert!(matches!(of(values), Presented::Nothing), "{values:?}");
        }
        assert!(matches!(of(&["Bearer abc", "Bearer abc"]), Presented::Nothing));
    }
}
