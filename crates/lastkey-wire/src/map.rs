//! A JSON object of strings, in which each name stands once.
//!
//! Room      `wire`. For encryption contexts and tags.
//! Holds     an object that names a field twice is refused, because readers would disagree
//!           about which of the two counts.

use core::fmt;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Names and values, sorted by the bytes of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StringMap(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StringMapVisitor)
    }
}

impl FromIterator<(String, String)> for StringMap {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl JsonSchema for StringMap {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StringMap".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

struct StringMapVisitor;

impl<'de> Visitor<'de> for StringMapVisitor {
    type Value = StringMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object whose values are strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<StringMap, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some((name, value)) = object.next_entry::<String, String>()? {
            if pairs.insert(name, value).is_some() {
                return Err(A::Error::custom("expected each name once"));
            }
        }
        Ok(StringMap(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_comes_back_sorted() {
        let map: StringMap = serde_json::from_str(r#"{"b":"2","a":"1"}"#).unwrap();
        assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"a":"1","b":"2"}"#);
    }

    #[test]
    fn map_refuses_a_name_that_stands_twice() {
        assert!(serde_json::from_str::<StringMap>(r#"{"a":"1","a":"1"}"#).is_err());
        assert!(serde_json::from_str::<StringMap>(r#"{"a":"1","\u0061":"2"}"#).is_err());
    }

    #[test]
    fn map_refuses_values_that_are_not_strings() {
        for bad in [r#"{"a":1}"#, r#"{"a":null}"#, r#"["a"]"#] {
            assert!(serde_json::from_str::<StringMap>(bad).is_err(), "{bad}");
        }
    }
}
