//! Assignments: a name that says secret, an operator, and a value that looks like one.
//!
//! Room      `checks`, inside `scan`. Called at each word that names of secrets have; written by
//!           hand because an expression for it is the slowest of all.
//! Holds     Looks at no more than a few hundred bytes on each side of the word.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::{
    entropy::{shannon, wordiness},
    placeholder::is_placeholder,
    rules::Assignment,
    structure::is_url_password,
};

/// Words in names of secrets, in lower case.
pub(super) const WORDS: &[&str] =
    &["passw", "passphrase", "pwd", "secret", "token", "key", "credential", "auth"];

const MAX_NAME_LEN: usize = 64;
const MAX_VALUE_LEN: usize = 256;

/// A value that looks like a secret: where it lies in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Assignment,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The secret that is assigned to the name around the word at `word_start..word_end`.
pub(super) fn find(text: &[u8], word_start: usize, word_end: usize) -> Option<Found> {
    let name_end = word_end + leading(text.get(word_end..)?, MAX_NAME_LEN, is_name_byte);
    let mut cursor = Cursor { text, at: name_end };
    cursor.skip_closing();
    let operator = cursor.operator()?;
    let (start, end, quoted) = cursor.value(operator)?;
    let before = text.get(..word_start)?;
    let head = before.iter().rev().take(MAX_NAME_LEN).take_while(|byte| is_name_byte(**byte));
    let name_start = word_start.saturating_sub(head.count());
    let value = Value { text: text.get(start..end)?, quoted };
    if !value.is_worth_a_look() {
        return None;
    }
    let name = Name::of(text.get(name_start..name_end)?);
    let kind = name.kind?;
    let is_secret = match kind {
        Assignment::Password => value.is_password(),
        Assignment::Secret => value.is_secret(name.is_strong),
    };
    is_secret.then_some(Found { kind, start, end })
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn leading(text: &[u8], limit: usize, is_part: impl Fn(u8) -> bool) -> usize {
    text.iter().take(limit).take_while(|byte| is_part(**byte)).count()
}

struct Cursor<'t> {
    text: &'t [u8],
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Assign,
    /// The next argument, or text inside an element: only a quoted or closed value counts.
    Weak,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip(&mut self, limit: usize, is_part: impl Fn(u8) -> bool) -> usize {
        let count = leading(self.text.get(self.at..).unwrap_or_default(), limit, is_part);
        self.at += count;
        count
    }

    /// What ends a quoted or indexed name.
    fn skip_closing(&mut self) {
        self.skip(3, |byte| matches!(byte, b'"' | b'\'' | b'`' | b']' | b'\\'));
    }

    fn operator(&mut self) -> Option<Operator> {
        self.skip(8, |byte| matches!(byte, b' ' | b'\t'));
        let found = match self.peek()? {
            b'=' | b':' => {
                self.skip(3, |byte| matches!(byte, b'=' | b':' | b'>' | b'~'));
                Operator::Assign
            }
            b'?' | b'|' if self.text.get(self.at + 1) == Some(&b'=') => {
                self.at += 2;
                Operator::Assign
            }
            b',' | b'(' | b'>' => {
                self.at += 1;
                Operator::Weak
            }
            _ => return None,
        };
        self.skip(8, |byte| matches!(byte, b' ' | b'\t'));
        Some(found)
    }

    /// Start and end of the value, and whether quotes stand around it.
    fn value(&mut self, operator: Operator) -> Option<(usize, usize, bool)> {
        if self.peek()? == b'(' {
            self.at += 1;
        }
        // Prefixes of strings: b"", f'', L"", @"".
        if matches!(self.text.get(self.at + 1), Some(b'"' | b'\''))
            && matches!(self.peek()?, b'b' | b'f' | b'r' | b'u' | b'L' | b'@' | b'$' | b'\\')
        {
            self.at += 1;
        }
        let quote = self.peek()?;
        if matches!(quote, b'"' | b'\'' | b'`') {
            let start = self.at + 1;
            let is_inside = |byte: u8| byte != quote && !matches!(byte, b'\n' | b'\r');
            let len = leading(self.text.get(start..)?, MAX_VALUE_LEN, is_inside);
            let len = match self.text.get(start..start + len)? {
                // A quote that is itself written inside a string.
                [head @ .., b'\\'] => head.len(),
                whole => whole.len(),
            };
            let is_closed =
                self.text.get(start + len).is_some_and(|end| !matches!(end, b'\n' | b'\r'));
            return is_closed.then_some((start, start + len, true));
        }
        if let Some(found) = self.typed_value(quote) {
            return Some(found);
        }
        let len = leading(self.text.get(self.at..)?, MAX_VALUE_LEN, is_bare_byte);
        let end = self.at + len;
        let is_ended = match operator {
            // A type with a lifetime, not text before a tag.
            _ if self.text.get(end..end + 2) == Some(b"<'") => false,
            Operator::Assign => self.text.get(end).is_none_or(|byte| {
                matches!(
                    byte,
                    b'\n' | b'\r' | b' ' | b'\t' | b';' | b'"' | b'\'' | b'\\' | b'#' | b'<' | b'&'
                )
            }),
            Operator::Weak => self.text.get(end) == Some(&b'<'),
        };
        is_ended.then_some((self.at, end, false))
    }

    /// `name: Type = "value"`.
    fn typed_value(&self, first: u8) -> Option<(usize, usize, bool)> {
        const MAX_TYPE_LEN: usize = 40;
        if !first.is_ascii_alphabetic() && first != b'&' {
            return None;
        }
        let rest = self.text.get(self.at..)?;
        let is_type = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'&' | b'\'' | b' ' | b'<' | b'>' | b':' | b'_' | b'[' | b']')
        };
        let len = leading(rest, MAX_TYPE_LEN, is_type);
        let mut inner = Cursor { text: self.text, at: self.at + len };
        if inner.peek()? != b'=' || inner.operator()? != Operator::Assign {
            return None;
        }
        matches!(inner.peek()?, b'"' | b'\'').then(|| inner.value(Operator::Assign)).flatten()
    }
}

const fn is_bare_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'+' | b'/'
                | b'='
                | b'_'
                | b'.'
                | b'-'
                | b'~'
                | b'!'
                | b'@'
                | b'^'
                | b'*'
                | b'%'
                | b'$'
                | b':'
        )
}

struct Name {
    kind: Option<Assignment>,
    /// Says secret by itself, and not only key or auth.
    is_strong: bool,
}

/// Names that have a word of [`WORDS`] in them and hold no secret, in lower case.
const HARMLESS: &[&str] = &[
    "author",
    "keyboard",
    "keyword",
    "monkey",
    "keyframe",
    "publickey",
    "public_key",
    "public-key",
    "keyid",
    "key_id",
    "key-id",
    "keyname",
    "key_name",
    "key-name",
    "primary_key",
    "primarykey",
    "foreign_key",
    "foreignkey",
    "partition",
    "sort_key",
    "hash_key",
    "cache_key",
    "cachekey",
    "cache-key",
    "tokenize",
    "token_type",
    "tokentype",
    "token_url",
    "tokenurl",
    "token_uri",
    "token_endpoint",
    "authorization_endpoint",
    "auth_url",
    "auth_uri",
    "authenticat",
    "authority",
    "secret_name",
    "secretname",
    "secret-name",
    "secretref",
    "secret_ref",
    "secretkeyref",
    "secretarn",
    "secret_arn",
    "password_field",
    "passwordfield",
    "password_hash",
    "passwordhash",
    "hashed",
    "checksum",
    "fingerprint",
    "digest",
    "keycode",
    "key_code",
    "keypath",
    "key_path",
    "key_file",
    "keyfile",
    "key-file",
    "passwordfile",
    "password_file",
    "password-file",
    "secret_file",
    "secretfile",
    "token_file",
    "tokenfile",
    "csrf",
    "nonce",
    "keyspace",
    "hotkey",
    "turkey",
    "keysize",
    "key_size",
    "keylen",
    "key_len",
    "keytype",
    "key_type",
    "keyring",
    "idempotency",
    "integrity",
    "resolved",
    "commit",
    "sitekey",
    "site_key",
    "site-key",
    "publishable",
    "keyalgo",
    "secretid",
    "secret_id",
    "keyalias",
    "key_alias",
    "tokencount",
    "max_tokens",
    "maxtokens",
    "next_token",
    "nexttoken",
    "page_token",
    "pagetoken",
    "continuation",
    "deprecat",
    "keystone",
    "keystroke",
    "keymap",
    "keypress",
    "keydown",
    "keyup",
    "passwordless",
    "oauth_version",
    "author_id",
    "auth_type",
    "auth_method",
    "authmode",
    "host_key",
    "hostkey",
    "known_host",
    "encryptedkey",
    "encrypted_key",
    "wrapped",
    "license_key_url",
    "keyserver",
    "apt-key",
    "gpgkey",
    "gpg_key",
    "gpg-key",
    "key_usage",
    "keyusage",
    "key-usage",
    "go.sum",
    "translation",
    "pubkey",
];

/// Parts of names of passwords.
const PASSWORD_PARTS: &[&str] = &["passw", "passphrase", "pwd"];

/// Parts of names that say secret by themselves.
const STRONG_PARTS: &[&str] = &[
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "accesskey",
    "access_key",
    "access-key",
    "private",
    "encryption",
    "signing",
    "master",
    "auth_key",
    "authkey",
    "auth-key",
    "app_key",
    "appkey",
    "client_key",
    "account_key",
    "accountkey",
    "shared_key",
    "sharedkey",
    "shared_access_key",
];

/// All three lists, to be looked for at once.
static PARTS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let parts = HARMLESS.iter().chain(PASSWORD_PARTS).chain(STRONG_PARTS);
    AhoCorasick::builder().ascii_case_insensitive(true).build(parts).ok()
});

impl Name {
    fn of(name: &[u8]) -> Self {
        let (mut is_password, mut is_strong) = (false, false);
        // The member `auth` of a Docker configuration has a rule of its own.
        let mut is_harmless = name.eq_ignore_ascii_case(b"auth");
        for found in PARTS.iter().flat_map(|parts| parts.find_overlapping_iter(name)) {
            let place = found.pattern().as_usize();
            is_harmless |= place < HARMLESS.len();
            is_strong |= place >= HARMLESS.len() + PASSWORD_PARTS.len();
            is_password |= (HARMLESS.len()..HARMLESS.len() + PASSWORD_PARTS.len()).contains(&place);
        }
        let kind = if is_password { Assignment::Password } else { Assignment::Secret };
        Self { kind: (!is_harmless).then_some(kind), is_strong }
    }
}

struct Value<'t> {
    text: &'t [u8],
    quoted: bool,
}

impl Value<'_> {
    fn has(&self, is_part: impl Fn(u8) -> bool) -> bool {
        self.text.iter().any(|byte| is_part(*byte))
    }

    fn count(&self, is_part: impl Fn(u8) -> bool) -> usize {
        self.text.iter().filter(|byte| is_part(**byte)).count()
    }

    /// What the checks below refuse soonest, and most values of programs are.
    fn is_worth_a_look(&self) -> bool {
        let digits = self.count(|byte| byte.is_ascii_digit());
        let others = self.count(|byte| !byte.is_ascii_alphanumeric());
        self.text.len() >= 6 && (digits > 0 || self.quoted && others >= 2)
    }

    /// A password that a person chose or a generator made: letters and something else, no words.
    fn is_password(&self) -> bool {
        let len = self.text.len();
        let letters = self.count(|byte| byte.is_ascii_alphabetic());
        let digits = self.count(|byte| byte.is_ascii_digit());
        let others = len - letters - digits;
        if !(6..=100).contains(&len) || letters == 0 || digits + others == 0 {
            return false;
        }
        if self.has(|byte| byte.is_ascii_whitespace() || !(0x21..0x7f).contains(&byte)) {
            return false;
        }
        if self.is_reference() || !is_url_password(self.text) || is_placeholder(self.text) {
            return false;
        }
        if self.says_what_it_is() {
            return false;
        }
        if digits == 0 {
            // Letters and punctuation: a name, a path or a format, unless it is far from words.
            return others >= 2 && self.quoted && self.is_noise(2.8, 0.34) && !self.is_name_like();
        }
        if !self.quoted && self.is_name_like() {
            let has_parts = self.has(|byte| matches!(byte, b'.' | b'_' | b':'));
            if has_parts || wordiness(self.text).is_some_and(|share| share > 0.65) {
                return false;
            }
        }
        shannon(self.text) > 2.2 && !self.is_path_like()
    }

    /// A key or token that a machine made.
    fn is_secret(&self, is_strong: bool) -> bool {
        let shortest = if is_strong { 12 } else { 16 };
        let len = self.text.len();
        let (digits, letters) = (
            self.count(|byte| byte.is_ascii_digit()),
            self.count(|byte| byte.is_ascii_alphabetic()),
        );
        let is_token_byte = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'+' | b'/' | b'=' | b'_' | b'-' | b'.' | b'~' | b'!' | b'@' | b'^' | b'*'
                )
        };
        if len < shortest || digits < 2 || letters < 2 || self.has(|byte| !is_token_byte(byte)) {
            return false;
        }
        if self.is_reference() || is_placeholder(self.text) || self.is_path_like() {
            return false;
        }
        if self.says_what_it_is() || self.is_version_like() {
            return false;
        }
        let is_hex = self.text.iter().all(u8::is_ascii_hexdigit);
        if is_hex {
            return is_strong && matches!(len, 24..=128) && shannon(self.text) > 3.0;
        }
        if self.is_uuid() {
            return is_strong;
        }
        let (bits, share) = if is_strong { (3.2, 0.42) } else { (3.6, 0.36) };
        self.is_noise(bits, share)
    }

    fn is_noise(&self, bits: f64, share: f64) -> bool {
        shannon(self.text) > bits && wordiness(self.text).is_none_or(|words| words < share)
    }

    /// A variable, a template, a call, or what another tool encrypted.
    fn is_reference(&self) -> bool {
        let starts = |part: &str| self.text.starts_with(part.as_bytes());
        [
            "$",
            "${",
            "{{",
            "<",
            "%",
            "&",
            "ENC[",
            "vault:",
            "AgA",
            "AgB",
            "arn:",
            "ref+",
            "op://",
            "secret://",
            "sm://",
            "env:",
            "file:",
            "process.",
            "os.",
            "self.",
            "this.",
            "var.",
            "data.",
            "local.",
            "module.",
            "config.",
            "settings.",
            "http:",
            "https:",
            "sha256-",
            "sha512-",
            "sha384-",
            "sha256:",
            "$2a$",
            "$2b$",
            "$2y$",
            "$argon2",
            "$6$",
            "ssh-",
            "ecdsa-",
            "age1",
            "0x0",
        ]
        .iter()
        .any(|part| starts(part))
            || memchr::memmem::find(self.text, b"://").is_some()
    }

    fn is_name_like(&self) -> bool {
        self.text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b':'))
    }

    fn is_path_like(&self) -> bool {
        let slashes = self.count(|byte| byte == b'/');
        matches!(self.text, [b'/' | b'.' | b'~', ..])
            || slashes >= 2 && wordiness(self.text).is_some_and(|share| share > 0.35)
            || self.count(|byte| byte == b'.') >= 2
                && wordiness(self.text).is_some_and(|share| share > 0.35)
    }

    /// `password_v2`, `api-token-3`: the value repeats what the name says.
    fn says_what_it_is(&self) -> bool {
        let lower = self.text.to_ascii_lowercase();
        ["password", "passwd", "secret", "token", "apikey", "api_key", "api-key", "credential"]
            .iter()
            .any(|word| memchr::memmem::find(&lower, word.as_bytes()).is_some())
    }

    fn is_version_like(&self) -> bool {
        self.text.iter().all(|byte| {
            byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'v' | b'T' | b'Z' | b':')
        })
    }

    fn is_uuid(&self) -> bool {
        self.text.len() == 36
            && self.count(|byte| byte == b'-') == 4
            && self.text.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')
    }
}

#[cfg(test)]
mod tests {
    use super::find;
    use crate::scan::rules::Assignment;

    fn secret_of(line: &str, word: &str) -> Option<(Assignment, String)> {
        let start = line.to_ascii_lowercase().find(word).unwrap();
        let found = find(line.as_bytes(), start, start + word.len())?;
        Some((found.kind, line.get(found.start..found.end)?.to_owned()))
    }

    #[test]
    fn secrets_are_found_in_all_ways_to_assign() {
        const NOISE: &str = "kT9vQ2xLmZ7wRb4NpY3c";
        for line in [
            format!("secret = {NOISE}"),
            format!("SECRET_TOKEN=\"{NOISE}\""),
            format!("  secretToken: '{NOISE}'"),
            format!("{{\"client_secret\": \"{NOISE}\"}}"),
            format!("os.environ[\"APP_SECRET\"] = \"{NOISE}\""),
            format!("const secret: &str = \"{NOISE}\";"),
            format!("setSecret(\"{NOISE}\")"),
            format!("<secret>{NOISE}</secret>"),
            format!("secret := `{NOISE}`"),
            format!("'secret' => '{NOISE}',"),
            format!("echo '{{\\\"secret\\\":\\\"{NOISE}\\\"}}'"),
        ] {
            let found = secret_of(&line, "secret").map(|(_, text)| text);
            assert_eq!(found.as_deref(), Some(NOISE), "{line}");
        }
    }

    #[test]
    fn passwords_are_found() {
        for (line, secret) in [
            ("password = \"h4rdT0Guess\"", "h4rdT0Guess"),
            ("DB_PASSWORD=Zx81-spectrum!", "Zx81-spectrum!"),
            ("  password: tr0mbone9Lake", "tr0mbone9Lake"),
        ] {
            let found = secret_of(line, "passw");
            assert_eq!(found, Some((Assignment::Password, secret.to_owned())), "{line}");
        }
    }

    #[test]
    fn what_only_looks_like_a_secret_is_left() {
        for (line, word) in [
            ("password = getpass.getpass()", "passw"),
            ("password = \"changeme\"", "passw"),
            ("password: ${DB_PASSWORD}", "passw"),
            ("password: {{ .Values.password }}", "passw"),
            ("password = os.environ['DB_PASSWORD_2']", "passw"),
            ("password_hash = \"$2b$12$abcdefghijk1234567890\"", "passw"),
            ("token = parser.nextToken2()", "token"),
            ("secretName: my-app-credentials-v2", "secret"),
            ("key = \"user.profile.settings.page2\"", "key"),
            ("public_key = \"kT9vQ2xLmZ7wRb4NpY3c\"", "key"),
            ("key: 0123456789abcdef0123456789abcdef", "key"),
            ("author = \"kT9vQ2xLmZ7wRb4NpY3c\"", "auth"),
            ("tokenUrl = \"https://login.example.org/oauth2/v2/token\"", "token"),
            ("secret: AgBy3i4OJSWK+PiTySYZZA9rO43cGDEq", "secret"),
            ("token: 1.2.3-20240101T000000Z", "token"),
            ("password: str = None", "passw"),
            ("root_password: WrappedV1<'a>,", "passw"),
        ] {
            assert_eq!(secret_of(line, word), None, "{line}");
        }
    }

    #[test]
    fn parts_of_names_are_looked_for_at_once() {
        assert!(super::PARTS.is_some());
        for (name, kind, is_strong) in [
            ("DB_PASSWORD", Some(Assignment::Password), false),
            ("clientSecret", Some(Assignment::Secret), true),
            ("key", Some(Assignment::Secret), false),
            ("publicKey", None, false),
            ("AUTH", None, false),
        ] {
            let name = super::Name::of(name.as_bytes());
            assert_eq!((name.kind, name.is_strong), (kind, is_strong));
        }
    }

    #[test]
    fn broken_ends_are_no_reason_to_fall() {
        for line in ["secret", "secret=", "secret=\"", "secret='\\", "secret:(", "secret\"]"] {
            assert_eq!(secret_of(line, "secret"), None, "{line}");
        }
    }
}
