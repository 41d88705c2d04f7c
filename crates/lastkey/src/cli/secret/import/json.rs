//! JSON: a tree of secrets, exports of Vault KV version 2 and of AWS Secrets Manager.
//!
//! Room      `lastkey`.
//! Source    Vault: `GET /v1/MOUNT/data/PATH`, as `vault kv get -format=json` prints it. AWS:
//!           `GetSecretValue` and `BatchGetSecretValue` of 2017-10-17.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use lastkey_secret::SecretVec;
use serde_json::{Map, Value};

use super::{Found, FoundValue};

/// The documents of a text, one after the other.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    let all = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    // What the reader says has line and column, and never the text itself.
    all.map(|one| {
        one.map_err(|e| format!("line {}, column {}: expected JSON", e.line(), e.column()))
    })
    .collect()
}

/// An object of scalars is a secret with fields; an object of objects is a path.
pub(super) fn tree(text: &str) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for document in documents(text)? {
        let Value::Object(object) = document else {
            return Err("expected an object".to_owned());
        };
        walk(object, String::new(), &mut found)?;
    }
    if found.is_empty() { Err("holds no fields".to_owned()) } else { Ok(found) }
}

/// Levels of paths that are followed; names have at most 16 segments.
const MAX_LEVELS: usize = 16;

fn walk(object: Map<String, Value>, path: String, found: &mut Vec<Found>) -> Result<(), String> {
    if path.matches('/').count() >= MAX_LEVELS {
        return Err(format!("{path:?} is too deep"));
    }
    let is_path = |value: &Value| value.is_object();
    if !object.is_empty() && object.values().all(is_path) {
        for (name, below) in object {
            let Value::Object(below) = below else { continue };
            let (name, sep) = (name.trim_matches('/'), if path.is_empty() { "" } else { "/" });
            walk(below, format!("{path}{sep}{name}"), found)?;
        }
        return Ok(());
    }
    let at = if path.is_empty() { "the object".to_owned() } else { format!("{path:?}") };
    let fields = fields(object).map_err(|field| format!("{at}: {field}"))?;
    found.push(Found::fields((!path.is_empty()).then_some(path), fields));
    Ok(())
}

/// Scalars as fields.
fn fields(object: Map<String, Value>) -> Result<BTreeMap<String, SecretVec>, String> {
    if object.is_empty() {
        return Err("holds nothing".to_owned());
    }
    if let Some((name, _)) = object.iter().find(|(_, value)| !is_exact(value)) {
        return Err(format!("{name:?} is or has a number too long to be kept; make it a text"));
    }
    let field = |(name, value): (String, Value)| {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            // As a whole, so that nothing is lost.
            nested @ (Value::Array(_) | Value::Object(_)) => nested.to_string(),
            Value::Null => String::new(),
        };
        (name, SecretVec::take_text(text))
    };
    Ok(object.into_iter().map(field).collect())
}

/// Whether every number is as it stood there: longer ones have lost digits by now.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            !number.is_f64() || number.as_f64().is_some_and(|real| real.abs() < MOST_EXACT)
        }
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// From 2^53 on not every whole number is a `f64`.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// What `vault kv get -format=json` printed, once or several times.
pub(super) fn vault_kv2(text: &str) -> Result<Vec<Found>, String> {
    let read = |mut document: Value| {
        let expected = || "expected `data.data`, as KV version 2 has it".to_owned();
        let data = document.pointer_mut("/data/data").map(Value::take);
        let Some(Value::Object(object)) = data else { return Err(expected()) };
        // Some exporters add the path; Vault itself does not.
        let path = document.get("path").and_then(Value::as_str).map(str::to_owned);
        Ok(Found::fields(path, fields(object)?))
    };
    let found: Vec<_> = documents(text)?.into_iter().map(read).collect::<Result<_, _>>()?;
    if found.is_empty() { Err("holds nothing".to_owned()) } else { Ok(found) }
}

/// What `aws secretsmanager` printed.
pub(super) fn aws(text: &str) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for mut document in documents(text)? {
        let many = document.get_mut("SecretValues").map(Value::take).unwrap_or(document);
        let all = if let Value::Array(all) = many { all } else { vec![many] };
        for one in all {
            found.push(aws_entry(one)?);
        }
    }
    if found.is_empty() { Err("holds nothing".to_owned()) } else { Ok(found) }
}

fn aws_entry(mut secret: Value) -> Result<Found, String> {
    let name = secret.get("Name").and_then(Value::as_str).map(str::to_owned);
    let name = name.ok_or_else(|| "a secret has no `Name`".to_owned())?;
    let mut take = |field| secret.get_mut(field).map(Value::take);
    let value = match (take("SecretString"), take("SecretBinary")) {
        (Some(Value::String(text)), _) => aws_text(text),
        (_, Some(Value::String(text))) => {
            let bytes = STANDARD.decode(text.as_bytes());
            let bytes = bytes.map_err(|_| format!("`SecretBinary` of {name:?} is not base64"))?;
            FoundValue::Bytes(SecretVec::take(bytes))
        }
        _neither => return Err(format!("{name:?} has neither `SecretString` nor `SecretBinary`")),
    };
    Ok(Found { name: Some(name), value, tags: BTreeMap::new() })
}

/// Key and value pairs are what the console of AWS writes: an object of texts.
fn aws_text(text: String) -> FoundValue {
    match serde_json::from_str::<BTreeMap<String, String>>(&text) {
        Ok(pairs) if !pairs.is_empty() => FoundValue::Fields(
            pairs.into_iter().map(|(name, value)| (name, SecretVec::take_text(value))).collect(),
        ),
        Ok(_) | Err(_) => FoundValue::Bytes(SecretVec::take_text(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(found: &[Found]) -> Vec<&str> {
        found.iter().map(|one| one.name.as_deref().unwrap_or("-")).collect()
    }

    fn field(found: &Found, name: &str) -> String {
        let FoundValue::Fields(fields) = &found.value else { panic!("no fields") };
        fields[name].expose(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_tree_of_objects_is_a_tree_of_paths() {
        // In the order of names: the parser may keep that of the text or not.
        let found = tree(r#"{"prod":{"api":{"on":true},"db":{"user":"a","port":5432}}}"#).unwrap();
        assert_eq!(named(&found), ["prod/api", "prod/db"]);
        assert_eq!(
            (field(&found[1], "port"), field(&found[0], "on")),
            ("5432".into(), "true".into())
        );
        assert_eq!(named(&tree(r#"{"user":"a"}"#).unwrap()), ["-"]);
    }

    #[test]
    fn vault_and_aws_are_read_as_they_print() {
        let vault = r#"{"request_id":"r","data":{"data":{"user":"a"},"metadata":{"version":3}}}"#;
        assert_eq!(field(&vault_kv2(vault).unwrap()[0], "user"), "a");
        let text = r#"{"SecretValues":[{"Name":"prod/db","SecretString":"{\"user\":\"a\"}"},
            {"Name":"raw","SecretString":"[1]"},{"Name":"bin","SecretBinary":"AP8="}],"Errors":[]}"#;
        let found = aws(text).unwrap();
        assert_eq!(named(&found), ["prod/db", "raw", "bin"]);
        assert_eq!(field(&found[0], "user"), "a");
        for (one, bytes) in [(&found[1], &b"[1]"[..]), (&found[2], b"\x00\xff")] {
            let FoundValue::Bytes(value) = &one.value else { panic!("fields") };
            assert!(value.expose(|value| value == bytes));
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_a_value() {
        type Read = fn(&str) -> Result<Vec<Found>, String>;
        let cases: [(Read, &str, &str); 8] = [
            (tree, r#"{"a":"hunter2""#, "line 1"),
            (tree, r#"{"pin":123456789012345678901}"#, "too long"),
            (vault_kv2, r#"{"data":{"data":{"a":[{"b":-18446744073709551616}]}}}"#, "too long"),
            (tree, r#"["hunter2"]"#, "object"),
            (tree, "{}", "nothing"),
            (vault_kv2, r#"{"data":{"pw":"hunter2"}}"#, "data.data"),
            (aws, r#"{"SecretString":"hunter2"}"#, "Name"),
            (aws, r#"{"Name":"a","SecretBinary":"hunter2!"}"#, "base64"),
        ];
        for (read, text, part) in cases {
            let told = read(text).err().unwrap();
            assert!(told.contains(part) && !told.contains("hunter2"), "{text}: {told}");
        }
    }
}
