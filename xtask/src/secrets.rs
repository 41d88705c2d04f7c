//! `xtask secrets`: owned secret bytes that are not in a secret type.
//!
//! Room      `xtask`.
//! Source    docs/adr/0001-rooms.md; CONTRIBUTING.md, "Secrets are types".
//! Holds     A field, parameter, binding or tuple struct of the product whose name says secret
//!           and whose type owns plain bytes or text is a fault. A line may be excused by
//!           `// secrets: allow, REASON` on it or above it; the reason is not optional.

use std::path::Path;

use anyhow::Result;

use crate::report;
use crate::source::{self, SourceFile, code_of};

/// A name is secret when it is one of these or ends with one after an underscore.
const SECRET_NAMES: &[&str] = &[
    "data_key",
    "ikm",
    "kek",
    "key_bytes",
    "key_material",
    "material",
    "passphrase",
    "password",
    "plaintext",
    "private_key",
    "prk",
    "root_key",
    "secret",
    "secret_key",
    "token",
    "wrap_key",
];

/// Types that own bytes or text without wiping them.
const PLAIN_TYPES: &[&str] =
    &["Bytes", "BytesMut", "String", "Vec<u8>", "Box<str>", "Box<[u8]>", "Arc<str>", "[u8;"];

const EXCUSE: &str = "// secrets: allow, ";

/// Scans the product code of every room.
///
/// # Errors
/// When there is a fault, or a file cannot be read.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = source::read_all(root)?;
    let product = files.iter().filter(|file| !file.is_test() && !file.path.starts_with("xtask/"));
    let faults: Vec<String> = product.flat_map(scan).collect();
    report::finish("secrets", &faults, "use SecretArray or SecretVec (room `secret`)")
}

fn scan(file: &SourceFile) -> Vec<String> {
    let product = file.product_lines();
    let mut faults = Vec::new();
    let mut above = "";
    for (number, (line, keep)) in (1..).zip(file.lines.iter().zip(product)) {
        let excused = [above, line.as_str()].iter().any(|line| line.contains(EXCUSE));
        above = line;
        if let Some(name) = plain_secret(&code_of(line)).filter(|_| keep && !excused) {
            faults.push(format!("{}:{number}: `{name}` owns a secret in plain", file.path));
        }
    }
    faults
}

/// The first secret name on this line that is given a plain owned type.
fn plain_secret(code: &str) -> Option<String> {
    typed_names(code)
        .chain(tuple_struct(code))
        .chain(returning(code))
        .find_map(|(name, kind)| (is_secret_name(&name) && is_plain_type(kind)).then_some(name))
}

/// Each `name: Type` of the line, the type reaching to the end of its field or parameter.
fn typed_names(code: &str) -> impl Iterator<Item = (String, &str)> {
    code.match_indices(": ").filter_map(move |(at, separator)| {
        let (before, after) = code.split_at_checked(at)?;
        let name = before.rsplit(|c: char| !is_name_char(c)).next()?;
        let kind = after.strip_prefix(separator)?;
        Some((name.to_owned(), until_end_of_type(kind)))
    })
}

/// `struct Token(String);` as the name `token` with the type `String`.
fn tuple_struct(code: &str) -> Option<(String, &str)> {
    let (_, after) = code.split_once("struct ")?;
    let (name, fields) = after.split_once('(')?;
    Some((snake_case(name), fields))
}

/// `fn password(..) -> String` as the name `password` with the type `String`.
fn returning(code: &str) -> Option<(String, &str)> {
    let (_, after) = code.split_once("fn ")?;
    let name = after.split(|c: char| !is_name_char(c)).next()?;
    let (_, kind) = after.rsplit_once("-> ")?;
    Some((name.to_owned(), kind))
}

fn until_end_of_type(kind: &str) -> &str {
    let mut depth = 0_i32;
    for (at, character) in kind.char_indices() {
        match character {
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth < 0 || (depth == 0 && matches!(character, ',' | '=' | '{')) {
            return kind.get(..at).unwrap_or(kind);
        }
    }
    kind
}

fn is_secret_name(name: &str) -> bool {
    SECRET_NAMES.iter().any(|secret| {
        name.strip_suffix(secret).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
    })
}

/// A borrowed type is a loan, and a path such as `String::new()` is a value, not a type.
fn is_plain_type(kind: &str) -> bool {
    !kind.trim_start().starts_with('&') && PLAIN_TYPES.iter().any(|plain| names_type(kind, plain))
}

fn names_type(kind: &str, plain: &str) -> bool {
    kind.match_indices(plain).any(|(at, found)| {
        let (before, rest) = kind.split_at_checked(at).unwrap_or((kind, ""));
        let after = rest.strip_prefix(found).unwrap_or(rest);
        let starts = !before.ends_with(|c: char| is_name_char(c) || c == '&');
        let ends = found.ends_with(';') || !after.starts_with(|c: char| is_name_char(c));
        starts && ends && !after.starts_with("::") && !after.starts_with('(')
    })
}

fn is_name_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::scan;
    use crate::source::SourceFile;

    fn faults(text: &str) -> usize {
        scan(&SourceFile::new("crates/x/src/lib.rs", text)).len()
    }

    #[test]
    fn secrets_refuse_owned_plain_bytes_under_a_secret_name() {
        for line in [
            "    pub plaintext: Vec<u8>,",
            "    token: Option<String>,",
            "fn open(key_material: [u8; 32]) {}",
            "fn open(a: &str, root_key: Box<[u8]>) {}",
            "pub struct AdminToken(String);",
            "fn passphrase(&self) -> Result<String, Error> {",
            "    let old_password: Vec<u8> = Vec::new();",
            "    secret: Bytes,",
        ] {
            assert_eq!(faults(line), 1, "{line}");
        }
    }

    #[test]
    fn secrets_accept_loans_secret_types_public_names_and_values() {
        for line in [
            "    plaintext: SecretVec,",
            "fn encrypt(plaintext: &[u8], token: &str) {}",
            "fn read(secret: &mut [u8; 32]) {}",
            "    token_hash: [u8; 32],",
            "    let m = Import { token: String::new() };",
            "    ciphertext: Vec<u8>,",
            "    secret: SecretString,",
            "fn open(root_key: &SecretArray<32>, name: String) {}",
            "    // token: String",
            "pub struct TokenId(String);",
        ] {
            assert_eq!(faults(line), 0, "{line}");
        }
    }

    #[test]
    fn secrets_excuse_a_line_only_with_a_reason() {
        let excused = "    // secrets: allow, base64 text that serde owns\n    token: String,\n";
        assert_eq!(faults(excused), 0);
        assert_eq!(faults("    // secrets: allow\n    token: String,\n"), 1);
    }

    #[test]
    fn secrets_do_not_look_into_test_modules() {
        assert_eq!(faults("#[cfg(test)]\nmod tests {\n    token: String,\n}\n"), 0);
    }
}
