//! The discovery document of an issuer.
//!
//! Room      `trust`, inside.
//! Source    OpenID Connect Discovery 1.0, sections 3 and 4.3; RFC 8414.
//! Holds     The document speaks for the issuer that was asked and for no other; every address
//!           in it is https and carries no user and no fragment.

use serde_json::{Map, Value};

use crate::strict_json;

/// Longest document that is read, in bytes.
const MAX_DOCUMENT_LEN: usize = 65_536;
const MAX_ADDRESS_LEN: usize = 2_048;

/// The addresses of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The issuer, as it was asked for.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Where a person logs in.
    pub authorization_endpoint: Option<String>,
    /// Where a code is redeemed.
    pub token_endpoint: Option<String>,
    /// Where a device asks for a code.
    pub device_authorization_endpoint: Option<String>,
    /// Whether its callbacks name the issuer (RFC 9207).
    pub names_issuer_in_callback: bool,
}

/// Why a document was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Longer than 64 KiB, not an object, or a member named twice.
    #[error("the discovery document is malformed")]
    Malformed,
    /// It speaks for another issuer.
    #[error("the discovery document is of another issuer")]
    OtherIssuer,
    /// An address is missing or not plain https.
    #[error("the discovery document has no usable {0}")]
    BadAddress(&'static str),
}

impl Discovery {
    /// Where the document of an issuer lies; `None` when the issuer is not plain https.
    #[must_use]
    pub fn address_of(issuer: &str) -> Option<String> {
        let is_bare = !issuer.contains('?');
        (is_https(issuer) && is_bare)
            .then(|| format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))
    }

    /// Parses the document that was found where `issuer` says.
    ///
    /// # Errors
    /// [`DiscoveryError`] by variant.
    pub fn parse(document: &[u8], issuer: &str) -> Result<Self, DiscoveryError> {
        if document.len() > MAX_DOCUMENT_LEN {
            return Err(DiscoveryError::Malformed);
        }
        let members = strict_json::parse_object(document).ok_or(DiscoveryError::Malformed)?;
        if members.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(DiscoveryError::OtherIssuer);
        }
        let names_issuer = members.get("authorization_response_iss_parameter_supported");
        Ok(Self {
            issuer: issuer.to_owned(),
            jwks_uri: address(&members, "jwks_uri")?
                .ok_or(DiscoveryError::BadAddress("jwks_uri"))?,
            authorization_endpoint: address(&members, "authorization_endpoint")?,
            token_endpoint: address(&members, "token_endpoint")?,
            device_authorization_endpoint: address(&members, "device_authorization_endpoint")?,
            names_issuer_in_callback: names_issuer == Some(&Value::Bool(true)),
        })
    }
}

fn address(
    members: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<String>, DiscoveryError> {
    let Some(value) = members.get(name) else {
        return Ok(None);
    };
    let text = value.as_str().filter(|text| is_https(text));
    text.map(|text| Some(text.to_owned())).ok_or(DiscoveryError::BadAddress(name))
}

/// Plain https: a host, no user, no fragment, nothing invisible.
pub(super) fn is_https(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://") else {
        return false;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    text.len() <= MAX_ADDRESS_LEN
        && !host.is_empty()
        && !host.contains('@')
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\')
}

#[cfg(test)]
mod tests {
    use super::{Discovery, DiscoveryError};

    const ISSUER: &str = "https://id.example/realm";

    fn document(extra: &str) -> Vec<u8> {
        format!(r#"{{"issuer":"{ISSUER}","jwks_uri":"https://id.example/keys"{extra}}}"#).into()
    }

    #[test]
    fn document_of_the_issuer_gives_its_addresses() {
        let extra = r#","token_endpoint":"https://id.example/token","x":1"#;
        let found = Discovery::parse(&document(extra), ISSUER).unwrap();
        assert_eq!(found.jwks_uri, "https://id.example/keys");
        assert_eq!(found.token_endpoint.as_deref(), Some("https://id.example/token"));
        assert_eq!(found.authorization_endpoint, None);
    }

    #[test]
    fn document_of_another_issuer_is_refused() {
        for other in ["https://id.example", "https://id.example/realm/", "https://ID.example/realm"]
        {
            let refused = Discovery::parse(&document(""), other).err();
            assert_eq!(refused, Some(DiscoveryError::OtherIssuer), "{other}");
        }
    }

    #[test]
    fn document_with_an_address_that_is_not_plain_https_is_refused() {
        for bad in [
            "http://id.example/token",
            "https://",
            "https:///x",
            "https://user@id.example/",
            "https://id.example/#x",
            "https://id.example/a b",
            "file:///etc/passwd",
        ] {
            let refused =
                Discovery::parse(&document(&format!(r#","token_endpoint":"{bad}""#)), ISSUER);
            assert_eq!(refused.err(), Some(DiscoveryError::BadAddress("token_endpoint")), "{bad}");
        }
    }

    #[test]
    fn document_that_is_double_or_too_long_is_refused() {
        let double = document(r#","jwks_uri":"https://evil.example/keys""#);
        assert_eq!(Discovery::parse(&double, ISSUER).err(), Some(DiscoveryError::Malformed));
        let long = document(&format!(r#","x":"{}""#, "x".repeat(65_536)));
        assert_eq!(Discovery::parse(&long, ISSUER).err(), Some(DiscoveryError::Malformed));
    }

    #[test]
    fn address_of_the_document_is_below_the_issuer() {
        let expected = "https://id.example/realm/.well-known/openid-configuration";
        assert_eq!(Discovery::address_of(ISSUER).as_deref(), Some(expected));
        assert_eq!(Discovery::address_of("http://id.example"), None);
    }
}
