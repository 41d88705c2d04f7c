//! Fields of a secret as one file: JSON, YAML, dotenv, properties.
//!
//! Room      `node`.
//! Source    RFC 8259; YAML 1.1 and 1.2.2, whose double-quoted scalars hold those of JSON, apart from
//!           characters that are escaped here; Docker Compose's reading of environment files, which
//!           that of shells and of systemd is but for line breaks; `java.util.Properties`.
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
                let line = format!("{}: {value}\n", Value::from(name.as_str()));
                line.chars().for_each(|letter| push_yaml(&mut text, letter));
            }
        }
        Format::Dotenv => {
            for (name, value) in fields {
                if !is_variable(name) {
                    return Err(FormatError::Variable(name.clone()));
                }
                text.push_str(&format!("{name}={}\n", in_quotes(&plain(value))));
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

/// JSON lets these characters stand in a text as they are. In YAML they are not allowed or, by
/// version 1.1, end a line.
fn push_yaml(text: &mut String, letter: char) {
    match letter {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
            text.push_str(&format!("\\u{:04x}", u32::from(letter)));
        }
        other => text.push(other),
    }
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

/// In single quotes where all readers take those as they are, which spares escapes that some readers
/// of double quotes do not know; else in double ones.
fn in_quotes(text: &str) -> String {
    let is_plain = text.chars().all(|letter| !matches!(letter, '\'' | '\\' | '\n' | '\r'));
    if is_plain && text.contains(['"', '$', '`']) {
        format!("'{text}'")
    } else {
        format!("\"{}\"", quoted(text))
    }
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
    fn characters_that_end_a_line_in_yaml_alone_are_escaped() {
        let hostile =
            json!({ "k\u{85}": "a\u{85} b\u{2028}c\u{2029}d\u{7f}\u{9f}\u{feff}\u{a0}é" });
        let text = written(&hostile, Format::Yaml);
        assert_eq!(
            text,
            "\"k\\u0085\": \"a\\u0085 b\\u2028c\\u2029d\\u007f\\u009f\\ufeff\u{a0}é\"\n"
        );
        let yaml = yaml::parse(&text, 1).unwrap();
        assert_eq!(yaml.get("k\u{85}").text(), hostile["k\u{85}"].as_str());
    }

    /// Texts of one line that break out of quotes, lines or escapes where they can.
    const HOSTILE: [&str; 12] = [
        "a$b ${HOME} $(id)",
        "a`id`",
        "say \"x\"",
        "it's $5",
        "back\\",
        "\\n",
        " # no comment ",
        "A=\"1\"; B='2'",
        "'",
        "\u{feff}\u{85}\u{2028}",
        "\u{7f}\t\u{9f}",
        "\u{e9}\u{1F511}",
    ];

    fn hostile() -> Value {
        let named = HOSTILE.iter().enumerate().map(|(at, text)| (format!("V{at}"), json!(text)));
        Value::Object(named.collect())
    }

    #[test]
    fn shell_reads_back_what_stands_in_a_dotenv_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("env");
        std::fs::write(&file, written(&hostile(), Format::Dotenv)).unwrap();
        for (at, text) in HOSTILE.iter().enumerate() {
            let script = format!(". \"$1\"; printf %s \"$V{at}\"");
            let mut shell = std::process::Command::new("sh");
            let read = shell.args(["-c", &script, "sh"]).arg(&file).output().unwrap();
            assert_eq!(String::from_utf8(read.stdout).unwrap(), *text, "V{at}");
        }
    }

    #[test]
    fn pyyaml_reads_back_what_stands_in_a_yaml_file() {
        let python = |interpreter: &&str| {
            let probe =
                std::process::Command::new(interpreter).args(["-c", "import yaml"]).output();
            probe.is_ok_and(|probe| probe.status.success())
        };
        let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(python) else {
            let said =
                b"\nSKIPPED pyyaml_reads_back_what_stands_in_a_yaml_file: needs python3-yaml\n";
            std::io::Write::write_all(&mut std::io::stderr(), said).unwrap();
            return;
        };
        let mut fields = hostile();
        fields["two\nlines\u{85}"] = json!("a\nb\r\nc");
        fields["more"] = json!({ "a": ["\u{2029}", 5, null, true] });
        let folder = tempfile::tempdir().unwrap();
        let (yaml, json) = (folder.path().join("yaml"), folder.path().join("json"));
        std::fs::write(&yaml, written(&fields, Format::Yaml)).unwrap();
        std::fs::write(&json, fields.to_string()).unwrap();
        let script = "import json, sys, yaml\n\
                      read = [open(path, encoding='utf-8') for path in sys.argv[1:]]\n\
                      sys.exit(yaml.safe_load(read[0]) != json.load(read[1]))";
        let mut python = std::process::Command::new(python);
        let run = python.args(["-c", script]).arg(yaml).arg(json).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
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
