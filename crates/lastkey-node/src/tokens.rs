//! Tokens of a pod, as a kubelet hands them to a CSI driver that asked for them.
//!
//! Room      `node`.
//! Source    Kubernetes `CSIDriver.spec.tokenRequests`, KEP-1855 and KEP-5538.
//! Holds     The texts that they came in are wiped, and no error repeats one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_secret::SecretVec;
use serde_json::Value;
use zeroize::Zeroize;

/// Under which name they come: among the attributes of a volume, or from Kubernetes 1.35 on among its
/// secrets when the driver wants that.
pub const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Tokens of a pod, by audience.
#[derive(Debug, Default)]
pub struct PodTokens(BTreeMap<String, SecretVec>);

/// What should be tokens is something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tokens of the request are no JSON object")]
pub struct NoTokens;

impl PodTokens {
    /// Takes them out of the two places where they may be; those among the secrets count first. What
    /// else is among the secrets is wiped as well.
    ///
    /// # Errors
    /// [`NoTokens`].
    pub fn take(
        secrets: &mut BTreeMap<String, String>,
        attributes: &mut BTreeMap<String, String>,
    ) -> Result<Self, NoTokens> {
        let (first, mut second) = (secrets.remove(TOKENS), attributes.remove(TOKENS));
        secrets.values_mut().for_each(Zeroize::zeroize);
        if first.is_some() {
            second.iter_mut().for_each(Zeroize::zeroize);
        }
        first.or(second).map_or_else(|| Ok(Self::default()), Self::parse)
    }

    /// Reads `{"AUDIENCE": {"token": "...", "expirationTimestamp": "..."}}`.
    ///
    /// # Errors
    /// [`NoTokens`].
    pub fn parse(mut text: String) -> Result<Self, NoTokens> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let parsed = serde_json::from_str(&text);
        text.zeroize();
        let tokens = match parsed {
            Ok(Value::Object(tokens)) => tokens,
            Ok(Value::Null) => return Ok(Self::default()),
            Ok(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | Err(_) => {
                return Err(NoTokens);
            }
        };
        let mut found = BTreeMap::new();
        for (audience, mut one) in tokens {
            if let Some(Value::String(token)) = one.get_mut("token").map(Value::take) {
                found.insert(audience, SecretVec::take_text(token));
            }
        }
        Ok(Self(found))
    }

    /// The token of the first of these audiences for which there is one.
    #[must_use]
    pub fn first_of(&self, audiences: &[String]) -> Option<&SecretVec> {
        audiences.iter().find_map(|audience| self.0.get(audience))
    }

    /// The audiences, for messages.
    #[must_use]
    pub fn audiences(&self) -> String {
        let there: Vec<_> = self.0.keys().map(String::as_str).collect();
        if there.is_empty() { "none".to_owned() } else { there.join(", ") }
    }
}

/// What a token says. Nothing of it is believed before the service has accepted the token.
pub(crate) fn claims_of(token: &SecretVec) -> Option<Value> {
    token.expose(|token| {
        let claims = token.split(|byte| *byte == b'.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    })
}

/// Whether a token of Kubernetes says of itself that it is bound to no pod: for advice, since nobody
/// has verified it.
#[must_use]
pub fn says_no_pod(token: &SecretVec) -> bool {
    let claims = claims_of(token);
    claims
        .as_ref()
        .and_then(|claims| claims.get("kubernetes.io"))
        .is_some_and(|bound| bound.get("pod").is_none())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Option<&str>) -> BTreeMap<String, String> {
        let mut map: BTreeMap<_, _> = [("other".to_owned(), "hunter2".to_owned())].into();
        map.extend(value.map(|value| (TOKENS.to_owned(), value.to_owned())));
        map
    }

    fn of(audience: &str, token: &str) -> String {
        json!({ audience: { "token": token, "expirationTimestamp": "x" } }).to_string()
    }

    #[test]
    fn tokens_are_taken_out_of_both_places_and_those_among_secrets_count_first() {
        let (old, new) = (of("lastkey", "old"), of("lastkey", "new"));
        let audiences = ["vault".to_owned(), "lastkey".to_owned()];
        for (among_secrets, among_attributes, expected) in [
            (Some(new.as_str()), Some(old.as_str()), "new"),
            (None, Some(old.as_str()), "old"),
            (Some(new.as_str()), None, "new"),
        ] {
            let (mut secrets, mut attributes) = (map(among_secrets), map(among_attributes));
            let tokens = PodTokens::take(&mut secrets, &mut attributes).unwrap();
            let found = tokens.first_of(&audiences).unwrap();
            assert!(found.ct_eq(&SecretVec::copy_of(expected.as_bytes())), "{expected}");
            assert_eq!(tokens.audiences(), "lastkey");
            assert_eq!(secrets, [("other".to_owned(), String::new())].into());
            assert_eq!(attributes, map(None));
        }
        let none = PodTokens::take(&mut map(None), &mut map(None)).unwrap();
        assert!(none.first_of(&audiences).is_none());
        assert_eq!(none.audiences(), "none");
    }

    #[test]
    fn what_is_no_object_is_refused_without_repeating_it() {
        for bad in ["[1]", "\"hunter2\"", "{\"a\": \"hunter2\"", "7", "true"] {
            let said = PodTokens::parse(bad.to_owned()).unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
        for none in ["", "null", "{}", "{\"a\": \"hunter2\"}", "{\"a\": {\"token\": 7}}"] {
            assert_eq!(PodTokens::parse(none.to_owned()).unwrap().audiences(), "none", "{none}");
        }
    }

    #[test]
    fn token_that_says_nothing_of_pods_is_not_taken_for_one_without() {
        for (claims, expected) in [
            (json!({ "kubernetes.io": { "namespace": "n" } }), true),
            (json!({ "kubernetes.io": { "pod": { "uid": "u" } } }), false),
            (json!({ "sub": "x" }), false),
            (json!("x"), false),
        ] {
            let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims.to_string()));
            assert_eq!(says_no_pod(&SecretVec::take_text(token)), expected, "{claims}");
        }
        for none in ["", ".", "a.b.c", "hunter2"] {
            assert!(!says_no_pod(&SecretVec::copy_of(none.as_bytes())), "{none}");
        }
    }
}
