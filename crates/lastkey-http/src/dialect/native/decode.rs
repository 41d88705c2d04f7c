//! From the wire to the domain: everything that is checked before a use case is called.
//!
//! Room      `http`.
//! Holds     unknown fields are refused; a secret goes straight from the body into memory that
//!           wipes itself.

use std::fmt::Display;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use lastkey_core::ids::{AliasName, KeyRef, Name, VersionNo};
use lastkey_core::limits::MAX_PAGE_LEN;
use lastkey_crypto::context::EncryptionContext;
use lastkey_crypto::material::MaterialSpec;
use lastkey_service::call::Call;
use lastkey_service::engine::Engine;
use lastkey_service::sealing::Gate;
use lastkey_wire::native::query::DryRunQuery;
use lastkey_wire::words::KeySpec;
use lastkey_wire::{Base64Bytes, StringMap};
use serde::de::DeserializeOwned;
use std::sync::Arc;

use super::query::{self, Query};
use super::syntax;
use super::words::spec_in;
use crate::auth_layer::Admitted;
use crate::problem::{Problem, Syntax};
use crate::router::Params;

/// A request that was let in: its call, and what its path says.
pub(crate) struct Ask {
    admitted: Admitted,
    params: Params,
}

impl Ask {
    /// The unsealed service.
    pub(super) fn engine(&self) -> &Arc<Engine> {
        self.admitted.engine()
    }

    /// The service, sealed or not.
    pub(super) const fn gate(&self) -> &Arc<Gate> {
        self.admitted.gate()
    }

    /// The call.
    pub(super) const fn call(&self) -> &Call {
        self.admitted.call()
    }

    /// The same call for one item of a batch.
    pub(super) fn item(&self, dry: bool) -> Self {
        Self { admitted: self.admitted.item(dry), params: Params::default() }
    }

    /// The key in the path.
    ///
    /// # Errors
    /// [`Syntax`].
    pub(super) fn key(&self) -> Result<KeyRef, Syntax> {
        key("key", &self.params.get(0, "key")?)
    }

    /// The version in the path.
    ///
    /// # Errors
    /// [`Syntax`].
    pub(super) fn version(&self) -> Result<VersionNo, Syntax> {
        parse("version", &self.params.get(1, "version")?, |text| text.parse())
    }

    /// The name in the path.
    ///
    /// # Errors
    /// [`Syntax`].
    pub(super) fn name(&self) -> Result<Name, Syntax> {
        parse("name", &self.params.get(0, "name")?, Name::parse)
    }

    /// The one parameter of a path that names no key.
    ///
    /// # Errors
    /// [`Syntax`].
    pub(super) fn text(&self, name: &str) -> Result<String, Syntax> {
        self.params.get(0, name)
    }

    /// The second parameter of a path whose second one is no version.
    ///
    /// # Errors
    /// [`Syntax`].
    pub(super) fn second(&self, name: &str) -> Result<String, Syntax> {
        self.params.get(1, name)
    }

    /// The alias in the path.
    ///
    /// # Errors
    /// [`Syntax`].
    pub(super) fn alias(&self) -> Result<AliasName, Syntax> {
        alias("alias", &self.params.get(0, "alias")?)
    }
}

/// What a request brings besides its credential.
pub(crate) struct Input {
    /// The parameters of its path.
    pub(crate) params: Params,
    /// Its query string.
    pub(crate) query: Option<Box<str>>,
    /// Its body.
    pub(crate) body: Bytes,
}

/// A request body that knows whether it asks for a dry run.
pub(crate) trait RequestBody: DeserializeOwned {
    /// Whether it asks for a dry run itself; others do so in the query.
    fn is_dry(&self) -> bool {
        false
    }
}

/// Reads a request with a JSON body.
///
/// # Errors
/// [`Problem::Syntax`].
pub(super) fn with_body<B: RequestBody>(
    admitted: Admitted,
    input: Input,
) -> Result<(Ask, B), Problem> {
    let body: B = json(&input.body)?;
    let dry = body.is_dry()
        || match input.query {
            None => false,
            Some(query) => query::parse::<DryRunQuery>(Some(&query))?.is_dry(),
        };
    Ok((Ask { admitted: admitted.dry(dry), params: input.params }, body))
}

/// Reads a request without body.
///
/// # Errors
/// [`Problem::Syntax`].
pub(super) fn with_query<Q: Query>(admitted: Admitted, input: Input) -> Result<(Ask, Q), Problem> {
    let query: Q = query::parse(input.query.as_deref())?;
    Ok((Ask { admitted: admitted.dry(query.is_dry()), params: input.params }, query))
}

/// Reads a JSON body; an empty one is an empty object.
///
/// # Errors
/// [`Syntax`], naming the field and the allowed values.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Syntax> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|_| syntax::explain::<T>(body))
}

/// Whether a body of this length may come with these headers.
///
/// # Errors
/// [`Problem::UnsupportedMediaType`].
pub(crate) fn check_content_type(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return if body.is_empty() { Ok(()) } else { Err(Problem::UnsupportedMediaType) };
    };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    if body.is_empty() || essence.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        Ok(())
    } else {
        Err(Problem::UnsupportedMediaType)
    }
}

/// A value that has a parser in the domain.
pub(super) fn parse<T, E: Display>(
    field: &str,
    text: &str,
    parser: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Syntax> {
    parser(text).map_err(|error| Syntax::field(field, error.to_string()))
}

/// A key, by id or alias.
pub(super) fn key(field: &str, text: &str) -> Result<KeyRef, Syntax> {
    parse(field, text, KeyRef::parse)
}

/// A key that may be left out.
pub(super) fn optional_key(field: &str, text: Option<&str>) -> Result<Option<KeyRef>, Syntax> {
    text.map(|text| key(field, text)).transpose()
}

/// An alias.
pub(super) fn alias(field: &str, text: &str) -> Result<AliasName, Syntax> {
    parse(field, text, AliasName::parse)
}

/// A version that may be left out.
pub(super) fn optional_version(
    field: &str,
    number: Option<u32>,
) -> Result<Option<VersionNo>, Syntax> {
    let version = |number| {
        VersionNo::new(number).ok_or_else(|| Syntax::field(field, "expected a number from 1"))
    };
    number.map(version).transpose()
}

/// A key spec that this server can serve.
pub(super) fn spec(field: &str, spec: KeySpec) -> Result<MaterialSpec, Syntax> {
    let material = spec_in(spec);
    if material.is_supported() {
        return Ok(material);
    }
    let supported = KeySpec::ALL.iter().filter(|spec| spec_in(**spec).is_supported());
    Err(Syntax {
        field: Some(field.to_owned()),
        message: "this server was built without it; expected one of the allowed values".into(),
        allowed: supported.map(|spec| spec.as_str().to_owned()).collect(),
    })
}

/// An encryption context: a map or bytes, never both.
pub(super) fn context(
    field: &str,
    map: Option<&StringMap>,
    raw: Option<&Base64Bytes>,
) -> Result<EncryptionContext, Syntax> {
    match (map, raw) {
        (None, None) => Ok(EncryptionContext::none()),
        (Some(map), None) => EncryptionContext::from_pairs(&map.0),
        (None, Some(raw)) => EncryptionContext::from_raw(&raw.0),
        (Some(_), Some(_)) => {
            return Err(Syntax::field(field, "expected a map or raw bytes, not both"));
        }
    }
    .map_err(|error| Syntax::field(field, error.to_string()))
}

/// A length in bytes, from 1 to `most`.
pub(super) fn length(field: &str, bytes: u32, most: usize) -> Result<usize, Syntax> {
    usize::try_from(bytes)
        .ok()
        .filter(|len| (1..=most).contains(len))
        .ok_or_else(|| Syntax::field(field, format!("expected a number from 1 to {most}")))
}

/// The length of a page.
pub(super) fn page_len(limit: Option<u32>) -> Result<usize, Syntax> {
    limit.map_or(Ok(DEFAULT_PAGE_LEN), |limit| length("limit", limit, MAX_PAGE_LEN))
}

const DEFAULT_PAGE_LEN: usize = 100;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_json_is_taken_for_a_body() {
        let check = |content: Option<&'static str>, body: &[u8]| {
            let mut headers = HeaderMap::new();
            if let Some(content) = content {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
            }
            check_content_type(&headers, body).is_ok()
        };
        for good in ["application/json", "Application/JSON", "application/json; charset=utf-8"] {
            assert!(check(Some(good), b"{}"), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert!(!check(Some(bad), b"{}"), "{bad}");
        }
        assert!(!check(None, b"{}") && check(None, b"") && check(Some("text/plain"), b""));
    }

    #[test]
    fn a_context_is_a_map_or_bytes_and_never_both() {
        let map: StringMap = [("a".to_owned(), "b".to_owned())].into_iter().collect();
        let raw = Base64Bytes(vec![1, 2]);
        assert!(context("context", None, None).unwrap().is_none());
        let of_map = context("context", Some(&map), None).unwrap();
        assert_eq!(of_map.pairs().collect::<Vec<_>>(), [("a", "b")]);
        assert_eq!(context("context", None, Some(&raw)).unwrap().raw(), Some(&[1, 2][..]));
        assert!(context("context", Some(&map), Some(&raw)).is_err());
        let long = Base64Bytes(vec![0; 8_192]);
        let refused = context("to_context", None, Some(&long)).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("to_context"));
    }

    #[test]
    fn pages_are_1_to_1000_long() {
        assert_eq!(page_len(None).unwrap(), 100);
        assert_eq!(page_len(Some(1_000)).unwrap(), 1_000);
        assert!(page_len(Some(0)).is_err() && page_len(Some(1_001)).is_err());
    }
}
