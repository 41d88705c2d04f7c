//! What is wrong with a JSON body: which field, and what may stand there.
//!
//! Room      `http`.
//! Holds     no value that was sent is repeated, because it may be a secret in the wrong place.
//!           Runs only once a body has been refused.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::Syntax;

/// Explains why `body` is no `T`.
pub(super) fn explain<T: DeserializeOwned>(body: &[u8]) -> Syntax {
    let mut json = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(error) => match error.inner().classify() {
            Category::Data => misfit(&error.path().to_string(), &error.inner().to_string()),
            Category::Syntax | Category::Eof | Category::Io => not_json(error.inner()),
        },
        Ok(_) => match json.end() {
            Err(error) => not_json(&error),
            Ok(()) => general("the body cannot be read"),
        },
    }
}

fn not_json(error: &serde_json::Error) -> Syntax {
    let (line, column) = (error.line(), error.column());
    general(format!("the body is not JSON in UTF-8: line {line}, column {column}"))
}

fn general(message: impl Into<std::borrow::Cow<'static, str>>) -> Syntax {
    Syntax { field: None, message: message.into(), allowed: Vec::new() }
}

/// Takes field and expectation out of a message of serde, and nothing else.
fn misfit(path: &str, message: &str) -> Syntax {
    let path = if path == "." { "" } else { path };
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    if let Some(name) = quoted_after(message, "missing field `") {
        return at(&child(path, name), "this field is missing".into(), Vec::new());
    }
    if let Some(name) = quoted_after(message, "duplicate field `") {
        return at(&child(path, name), "this field is there twice".into(), Vec::new());
    }
    let expected = message.rsplit_once(", expected ").map(|(_, expected)| expected);
    let allowed = expected.map(quoted).unwrap_or_default();
    if let Some(name) = quoted_after(message, "unknown field `") {
        return at(&child(path, name), "there is no such field".into(), allowed);
    }
    if !allowed.is_empty() {
        return at(path, "expected one of the allowed values".into(), allowed);
    }
    let text = match (expected, message.starts_with("expected ")) {
        (Some(expected), _) => format!("expected {expected}"),
        (None, true) => message.to_owned(),
        (None, false) => "this value cannot stand here".to_owned(),
    };
    at(path, text, Vec::new())
}

fn at(field: &str, message: String, allowed: Vec<String>) -> Syntax {
    let field = (!field.is_empty()).then(|| field.chars().take(LONGEST_FIELD).collect());
    Syntax { field, message: message.into(), allowed }
}

/// Names of fields are repeated, up to this many characters.
const LONGEST_FIELD: usize = 128;

/// The path of a field in `parent`; serde gives it for some errors, for others its parent.
fn child(parent: &str, name: &str) -> String {
    let is_there = parent == name || parent.ends_with(&format!(".{name}"));
    match (is_there, parent.is_empty()) {
        (true, _) => parent.to_owned(),
        (false, true) => name.to_owned(),
        (false, false) => format!("{parent}.{name}"),
    }
}

/// What stands between `start`, which ends in a backtick, and the next backtick.
fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.split_once('`').map(|(name, _)| name)
}

/// Everything between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use lastkey_wire::native::batch::BatchRequest;
    use lastkey_wire::native::keys::CreateKeyRequest;
    use lastkey_wire::native::operations::EncryptRequest;
    use lastkey_wire::words::KeySpec;

    use super::*;

    fn of<T: DeserializeOwned>(body: &str) -> (String, String, Vec<String>) {
        assert!(serde_json::from_str::<T>(body).is_err(), "{body}");
        let syntax = explain::<T>(body.as_bytes());
        (syntax.field.unwrap_or_default(), syntax.message.into_owned(), syntax.allowed)
    }

    #[test]
    fn an_unknown_field_is_named_with_the_known_ones() {
        let (field, message, allowed) =
            of::<EncryptRequest>(r#"{"key":"alias/a","plaintext":"","contxt":{}}"#);
        assert_eq!((field.as_str(), message.as_str()), ("contxt", "there is no such field"));
        assert_eq!(allowed, ["key", "plaintext", "context", "context_raw", "dry_run"]);
    }

    #[test]
    fn a_missing_field_and_a_double_one_are_named() {
        let (field, message, _) = of::<EncryptRequest>(r#"{"key":"alias/a"}"#);
        assert_eq!((field.as_str(), message.as_str()), ("plaintext", "this field is missing"));
        let (field, message, _) = of::<EncryptRequest>(r#"{"key":"a","key":"b"}"#);
        assert_eq!((field.as_str(), message.as_str()), ("key", "this field is there twice"));
    }

    #[test]
    fn an_unknown_word_gets_the_allowed_ones_and_is_not_repeated() {
        let (field, message, allowed) = of::<CreateKeyRequest>(r#"{"spec":"hunter2"}"#);
        assert_eq!(field, "spec");
        assert_eq!(allowed, KeySpec::WORDS);
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_value_of_another_type_is_not_repeated() {
        for (body, field, message) in [
            (r#"{"key":{"hunter2":1}}"#, "key", "expected a string"),
            (r#"{"key":"a","dry_run":"hunter2, expected x"}"#, "dry_run", "expected a boolean"),
            (r#"{"key":"a","plaintext":"hunter2 "}"#, "plaintext", BASE64),
            (r#"{"key":"a","context":{"a":17}}"#, "context.a", "expected a string"),
            (r#"["hunter2"]"#, "[0]", ""),
        ] {
            let (named, said, _) = of::<EncryptRequest>(body);
            assert!(!said.contains("hunter2") && !said.contains("17"), "{said}");
            if !message.is_empty() {
                assert_eq!((named.as_str(), said.as_str()), (field, message), "{body}");
            }
        }
    }

    const BASE64: &str = "expected padded standard base64 in a string";

    #[test]
    fn an_item_of_a_batch_is_named_by_its_place() {
        let (field, _, _) = of::<BatchRequest<EncryptRequest>>(
            r#"{"items":[{"key":"a","plaintext":""},{"key":"a","plaintext":"?"}]}"#,
        );
        assert_eq!(field, "items[1].plaintext");
    }

    #[test]
    fn what_is_not_json_is_told_by_its_place() {
        for body in ["", "{", "{\"key\":}", "hunter2", "{\"key\":\"\u{1}\"}"] {
            let (field, message, _) = of::<EncryptRequest>(body);
            assert_eq!(field, "");
            assert!(message.starts_with("the body is not JSON in UTF-8: line 1"), "{message}");
        }
        let trailing = explain::<lastkey_wire::native::Empty>(b"{} x");
        assert!(trailing.message.starts_with("the body is not JSON"), "{trailing:?}");
        let bad_utf8 = explain::<EncryptRequest>(b"{\"key\":\"\xff\"}");
        assert!(bad_utf8.message.starts_with("the body is not JSON in UTF-8"), "{bad_utf8:?}");
    }
}
