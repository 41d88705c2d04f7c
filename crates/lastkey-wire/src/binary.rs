//! Bytes in JSON: padded standard base64 (RFC 4648, section 4).
//!
//! Room      `wire`.
//! Source    RFC 4648, section 4; canonical form only, no line breaks.
//! Holds     a secret is decoded straight into memory that wipes itself, and encoded straight
//!           into the answer; buffers of the JSON library are not ours.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_secret::SecretVec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are no secret: ciphertext, signatures, public keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64Bytes(pub Vec<u8>);

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Decoder(Self))
    }
}

impl JsonSchema for Base64Bytes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Base64Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentEncoding": "base64" })
    }
}

/// Bytes that are a secret: plaintext, key material, messages. Prints nothing, wiped on drop.
pub struct SecretBase64(pub SecretVec);

impl fmt::Debug for SecretBase64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBase64(..)")
    }
}

impl Serialize for SecretBase64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = encode_secret(&self.0).ok_or_else(|| S::Error::custom("too long"))?;
        text.expose(|text| match core::str::from_utf8(text) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Err(S::Error::custom("not text")),
        })
    }
}

/// The base64 text of a secret, in memory that wipes itself.
fn encode_secret(secret: &SecretVec) -> Option<SecretVec> {
    let len = base64::encoded_len(secret.len(), true)?;
    let encode = |text: &mut [u8]| secret.expose(|bytes| STANDARD.encode_slice(bytes, text));
    SecretVec::try_fill(len, |text| encode(text).map(|_| ())).ok()
}

impl<'de> Deserialize<'de> for SecretBase64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Decoder(|bytes| Self(SecretVec::take(bytes))))
    }
}

impl JsonSchema for SecretBase64 {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretBase64".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentEncoding": "base64", "format": "password" })
    }
}

/// Decodes a JSON string and gives the bytes to their owner.
struct Decoder<F>(F);

impl<T, F: FnOnce(Vec<u8>) -> T> Visitor<'_> for Decoder<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        let mut bytes = vec![0; base64::decoded_len_estimate(text.len())];
        match STANDARD.decode_slice(text, &mut bytes) {
            Ok(len) => {
                bytes.truncate(len);
                Ok((self.0)(bytes))
            }
            Err(_) => {
                // What was decoded so far may be half of a secret.
                drop(SecretVec::take(bytes));
                Err(E::custom(EXPECTED))
            }
        }
    }
}

const EXPECTED: &str = "expected padded standard base64 in a string";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_padded_standard_base64() {
        for (bytes, json) in [
            (&b""[..], "\"\""),
            (b"f", "\"Zg==\""),
            (b"fo", "\"Zm8=\""),
            (b"foo", "\"Zm9v\""),
            (b"\xfb\xff\xbf", "\"+/+/\""),
        ] {
            let wire = Base64Bytes(bytes.to_vec());
            assert_eq!(serde_json::to_string(&wire).unwrap(), json);
            assert_eq!(serde_json::from_str::<Base64Bytes>(json).unwrap(), wire);
            let secret: SecretBase64 = serde_json::from_str(json).unwrap();
            assert!(secret.0.ct_eq(&SecretVec::copy_of(bytes)));
            assert_eq!(serde_json::to_string(&secret).unwrap(), json);
        }
    }

    #[test]
    fn bytes_of_every_length_come_back() {
        for len in 0..200_usize {
            let wire = Base64Bytes((0..len).map(|i| i as u8).collect());
            let json = serde_json::to_vec(&wire).unwrap();
            assert_eq!(serde_json::from_slice::<Base64Bytes>(&json).unwrap(), wire);
        }
    }

    #[test]
    fn other_alphabets_missing_padding_and_line_breaks_are_refused() {
        for bad in ["\"Zg\"", "\"Zg=\"", "\"-_-_\"", "\"Zm9v\\n\"", "\" Zm9v\"", "\"Zh==\""] {
            assert!(serde_json::from_str::<Base64Bytes>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_what_was_sent() {
        let error = serde_json::from_str::<SecretBase64>("\"hunter2 hunter2\"").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_secret_prints_nothing() {
        let secret: SecretBase64 = serde_json::from_str("\"Zm9v\"").unwrap();
        assert_eq!(format!("{secret:?}"), "SecretBase64(..)");
    }
}
