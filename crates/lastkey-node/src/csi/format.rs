//! Fields of a secret as one file: JSON, YAML, dotenv, properties.
//!
//! Room      `node`.
//! Source    RFC 8259; YAML 1.2.2, whose double-quoted scalars hold those of JSON; systemd's and
//!           docker's reading of environment files; `java.util.Properties`.
//! Holds     Whatever stands in a value, it is read back as that value and opens no other line.

use std::collections::BTreeMap;

use lastkey_secret::SecretVec;
use serde_json::{Map, Value};

use super::plan::Format;

/// Why fields cannot be written so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("field {0} is not text (UTF-8)")]
    Binary(String),
    #[error("field {0} cannot be the name of a variable")]
    Variable(String),
    #[error("its value is bytes, not fields, and no JSON object")]
    Whole,
}

/// The fields as JSON texts.
pub(super) fn as_json(fields: &BTreeMap<String, SecretVec>) -> Result<Value, FormatError> {
    let mut map = Map::new();
    for (name, value) in fields {
        let text = value.expose(|bytes| std::str::from_utf8(bytes).map(str::to_owned));
        let text = text.map_err(|_| FormatError::Binary(name.clone()))?;
        map.insert(name.clone(), Value::String(text));
    }
    Ok(Value::Object(map))
}

/// A JSON object in one of the formats.
pub(super) fn write(fields: &Map<String, Value>, format: Format) -> Result<Vec<u8>, FormatError> {
    let mut text = String::new();
    match format {
        // A key store is made of fields as they are, and never of their JSON.
        Format::Raw | Format::Json | Format::Pkcs12 => {
            text = Value::Object(fields.clone()).to_string()
        }
        Format::Yaml => {
            for (name, value) in fields {
                text.push_str(&format!("{}: {value}\n", Value::from(name.as_str())));
            }
        }
        Format::Dotenv => {
            for (name, value) in fields {
                if !is_variable(name) {
                    return Err(FormatError::Variable(name.clone()));
                }
                text.push_str(&format!("{name}=\"{}\"\n", quoted(&plain(value))));
            }
        }
        Format::Properties => {
            for (name, value) in fields {
                let line = format!("{}={}\n", escaped(name, true), escaped(&plain(value), false));
                text.push_str(&line);
            }
        }
    }
    Ok(text.into_bytes())
}

/// A text as it is, anything else as JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Inside double quotes of a shell or of an environment file.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' | '`' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted
}

fn escaped(text: &str, is_name: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (index, c) in text.chars().enumerate() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            ' ' if is_name || index == 0 => escaped.push_str("\\ "),
            '=' | ':' | '#' | '!' => escaped.extend(['\\', c]),
            ' '..='~' => escaped.push(c),
            other => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    escaped.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use lastkey_checks::snapshot::yaml;
    use serde_json::json;

    use super::*;

    fn written(value: &Value, format: Format) -> String {
        String::from_utf8(write(value.as_object().unwrap(), format).unwrap()).unwrap()
    }

    #[test]
    fn values_open_no_other_line_in_any_format() {
        let hostile = json!({ "a": "x\"\ny: $(z) `w` \\ #é=\u{1F511}", "b": 5 });
        assert_eq!(
            written(&hostile, Format::Dotenv),
            "a=\"x\\\"\\ny: \\$(z) \\`w\\` \\\\ #é=\u{1F511}\"\nb=\"5\"\n"
        );
        assert_eq!(
            written(&hostile, Format::Properties),
            "a=x\"\\ny\\: $(z) `w` \\\\ \\#\\u00e9\\=\\ud83d\\udd11\nb=5\n"
        );
        let yaml = yaml::parse(&written(&hostile, Format::Yaml), 1).unwrap();
        assert_eq!(yaml.get("a").text(), hostile["a"].as_str());
        assert_eq!(yaml.get("b").int(), Some(5));
        let json: Value = serde_json::from_str(&written(&hostile, Format::Json)).unwrap();
        assert_eq!(json, hostile);
    }

    #[test]
    fn names_that_are_no_variables_and_values_that_are_no_text_are_refused() {
        let odd = json!({ "a-b": "x" });
        let refused = write(odd.as_object().unwrap(), Format::Dotenv);
        assert_eq!(refused, Err(FormatError::Variable("a-b".to_owned())));
        let bytes = [("k".to_owned(), SecretVec::copy_of(&[0xFF]))].into();
        assert_eq!(as_json(&bytes), Err(FormatError::Binary("k".to_owned())));
    }
}
