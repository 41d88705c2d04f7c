//! Secret text in JSON: passphrases and tokens.
//!
//! Room      `wire`.

use core::fmt;

use lastkey_secret::SecretVec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// UTF-8 text that is a secret. Prints nothing, wiped on drop.
pub struct SecretText(pub SecretVec);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.expose(|bytes| match core::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Err(S::Error::custom("secret text is not UTF-8")),
        })
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SecretTextVisitor)
    }
}

impl JsonSchema for SecretText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "password" })
    }
}

struct SecretTextVisitor;

impl Visitor<'_> for SecretTextVisitor {
    type Value = SecretText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SecretText, E> {
        Ok(SecretText(SecretVec::copy_of(text.as_bytes())))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<SecretText, E> {
        Ok(SecretText(SecretVec::take_text(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_text_travels_as_a_string_and_prints_nothing() {
        let text: SecretText = serde_json::from_str("\"a \\\"b\\\" \\u00e9\"").unwrap();
        assert!(text.0.ct_eq(&SecretVec::copy_of("a \"b\" \u{e9}".as_bytes())));
        assert_eq!(serde_json::to_string(&text).unwrap(), "\"a \\\"b\\\" \u{e9}\"");
        assert_eq!(format!("{text:?}"), "SecretText(..)");
    }

    #[test]
    fn secret_text_that_is_not_utf8_is_not_sent() {
        assert!(serde_json::to_string(&SecretText(SecretVec::copy_of(&[0xff]))).is_err());
    }
}
