//! Assignments: a name that says secret, an operator, and a value that looks like one.
//!
//! Room      `checks`, inside `scan`. Called at each word that names of secrets have; written by
//!           hand because an expression for it is the slowest of all.
//! Holds     Looks at no more than a few hundred bytes on each side of the word.

mod name;
mod value;

use self::{
    name::Name,
    value::{Form, Value},
};
use super::rules::Assignment;

/// Words in names of secrets, in lower case.
pub(super) const WORDS: &[&str] = &[PASS, "pwd", "secret", "token", "key", "credential", "auth"];

/// The word that stands in names of passwords, and in many other words.
const PASS: &str = "pass";

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
    let before = text.get(..word_start)?;
    let head = before.iter().rev().take(MAX_NAME_LEN).take_while(|byte| is_name_byte(**byte));
    let name_start = word_start.saturating_sub(head.count());
    let name = text.get(name_start..name_end)?;
    let mut cursor = Cursor { text, at: name_end };
    cursor.skip_closing();
    let operator = cursor.operator(name.starts_with(b"--"))?;
    let (start, end, form) = cursor.value(operator)?;
    let value = Value { text: text.get(start..end)?, form };
    if !value.is_worth_a_look() {
        return None;
    }
    let is_verdict = name == b"PASS" && text.get(name_end) == Some(&b':');
    let name = Name::of(name);
    let kind = name.kind?;
    let is_verb = name.is_verb && (operator == Operator::Weak || is_verdict);
    let word = text.get(word_start..word_end)?;
    if is_verb || kind == Assignment::Secret && word.eq_ignore_ascii_case(PASS.as_bytes()) {
        return None;
    }
    let is_secret = match (kind, form) {
        (Assignment::Password, Form::Bare | Form::Quoted) => value.is_password(),
        (Assignment::Password, Form::Argument) => value.is_secret(false),
        (Assignment::Secret, _) => value.is_secret(name.is_strong),
    };
    is_secret.then_some(Found { kind, start, end })
}

/// Whether a text that no name announces looks like a password.
pub(super) fn is_password(text: &[u8]) -> bool {
    let value = Value { text, form: Form::Bare };
    value.is_worth_a_look() && value.is_password()
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

    /// What stands between name and value; behind an option of a command that may be a space.
    fn operator(&mut self, is_option: bool) -> Option<Operator> {
        let spaces = self.skip(8, |byte| matches!(byte, b' ' | b'\t'));
        let found = match self.peek()? {
            // A path, not a value.
            b':' if self.text.get(self.at + 1) == Some(&b':') => return None,
            b'=' | b':' => {
                self.skip(3, |byte| matches!(byte, b'=' | b':' | b'>' | b'~'));
                Operator::Assign
            }
            b'?' | b'|' | b'!' if self.text.get(self.at + 1) == Some(&b'=') => {
                self.skip(3, |byte| matches!(byte, b'?' | b'|' | b'!' | b'='));
                Operator::Assign
            }
            b',' | b'(' | b'>' => {
                self.at += 1;
                Operator::Weak
            }
            _ if is_option && spaces > 0 => Operator::Assign,
            _ => return None,
        };
        self.skip(8, |byte| matches!(byte, b' ' | b'\t'));
        Some(found)
    }

    /// Start and end of the value, and how it is written.
    fn value(&mut self, operator: Operator) -> Option<(usize, usize, Form)> {
        if self.peek()? == b'(' {
            self.at += 1;
        }
        // Prefixes of strings: b"", f'', L"", @"".
        if matches!(self.text.get(self.at + 1), Some(b'"' | b'\''))
            && matches!(self.peek()?, b'b' | b'f' | b'r' | b'u' | b'L' | b'@' | b'$' | b'\\')
        {
            self.at += 1;
        }
        let first = self.peek()?;
        if matches!(first, b'"' | b'\'' | b'`') {
            let (start, end) = self.quoted(first)?;
            return Some((start, end, Form::Quoted));
        }
        if let Some(found) = self.typed_value(first).or_else(|| self.argument(first)) {
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
        is_ended.then_some((self.at, end, Form::Bare))
    }

    /// Start and end of what stands between here and the next quote of the same kind.
    fn quoted(&self, quote: u8) -> Option<(usize, usize)> {
        let start = self.at + 1;
        let is_inside = |byte: u8| byte != quote && !matches!(byte, b'\n' | b'\r');
        let len = leading(self.text.get(start..)?, MAX_VALUE_LEN, is_inside);
        let len = match self.text.get(start..start + len)? {
            // A quote that is itself written inside a string.
            [head @ .., b'\\'] => head.len(),
            whole => whole.len(),
        };
        let is_closed = self.text.get(start + len).is_some_and(|end| !matches!(end, b'\n' | b'\r'));
        is_closed.then_some((start, start + len))
    }

    /// `call("value")`: what turns a text into a key, or points at it.
    fn argument(&self, first: u8) -> Option<(usize, usize, Form)> {
        const MAX_CALL_LEN: usize = 40;
        if !first.is_ascii_alphabetic() && first != b'[' {
            return None;
        }
        let is_call = |byte: u8| is_name_byte(byte) || matches!(byte, b'[' | b']' | b':');
        let len = leading(self.text.get(self.at..)?, MAX_CALL_LEN, is_call);
        let inner = Cursor { text: self.text, at: self.at + len + 1 };
        let quote = inner.peek().filter(|byte| matches!(byte, b'"' | b'\''))?;
        if self.text.get(self.at + len) != Some(&b'(') {
            return None;
        }
        let (start, end) = inner.quoted(quote)?;
        let is_argument = matches!(self.text.get(end + 1), Some(b')' | b','));
        is_argument.then_some((start, end, Form::Argument))
    }

    /// `name: Type = "value"`.
    fn typed_value(&self, first: u8) -> Option<(usize, usize, Form)> {
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
        if inner.peek()? != b'=' || inner.operator(false)? != Operator::Assign {
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
            ("run --password Zx81-spectrum! -v", "Zx81-spectrum!"),
            ("run --db-password 'h4rdT0Guess'", "h4rdT0Guess"),
            ("PASSWORD=Bnqd_93kx", "Bnqd_93kx"),
            ("PASSWORD=K0dah5iv", "K0dah5iv"),
            ("if user.Password != \"h4rdT0Guess\" {", "h4rdT0Guess"),
            ("password: 'Vx7kq9}'", "Vx7kq9}"),
            ("password = \"qhvtwkzgxr\"", "qhvtwkzgxr"),
            ("password: qhvtwkzgxrmjb", "qhvtwkzgxrmjb"),
        ] {
            let found = secret_of(line, "passw");
            assert_eq!(found, Some((Assignment::Password, secret.to_owned())), "{line}");
        }
    }

    #[test]
    fn pass_is_a_password_where_one_can_stand() {
        for (line, secret) in [
            ("pass: 'h4rdT0Guess'", Some("h4rdT0Guess")),
            ("DB_PASS=h4rdT0Guess", Some("h4rdT0Guess")),
            ("smtpPass = \"h4rdT0Guess\"", Some("h4rdT0Guess")),
            ("judge.pass(\"API-01-b7\")", None),
            ("--- PASS: TestVet/5-all", None),
            ("bypass = \"h4rdT0Guess\"", None),
            ("passes: h4rdT0Guess", None),
        ] {
            let found = secret_of(line, "pass").map(|(_, text)| text);
            assert_eq!(found.as_deref(), secret, "{line}");
        }
    }

    #[test]
    fn argument_of_a_call_is_a_secret_when_a_machine_made_it() {
        let noise = "kT9vQ2xLmZ7wRb4NpY3c";
        for (line, is_found) in [
            (format!("secret: aws.String(\"{noise}\"),"), true),
            (format!("setSecret(Base64.decode('{noise}'));"), true),
            (format!("secret = []byte(\"{noise}\")"), true),
            ("secret = os.Getenv(\"APP_2_WORD_OF_PASSING\")".to_owned(), false),
            ("secret = text(\"page2.labels.login_word3\")".to_owned(), false),
            (format!("createSecretKey(Buffer.from('{noise}', 'hex'))"), true),
            (format!("secret = read(\"{noise}\" + name)"), false),
        ] {
            assert_eq!(secret_of(&line, "secret").is_some(), is_found, "{line}");
        }
    }

    #[test]
    fn short_and_odd_secrets_need_a_name_that_says_so() {
        for (line, word, is_found) in [
            ("token: 'pq4wd7fg3r37vth8'", "token", true),
            ("consumer_secret: 'e83mo9x01sim'", "secret", true),
            ("secret = 'K+TuL-pf$-%@2Ao8'", "secret", true),
            ("secret = K+TuL-pf$-%@2Ao8", "secret", false),
            ("key = 'e83mo9x01sim'", "key", false),
            ("secret-key: kQkGBxSznWdDWcpPcHmjaLjpLmzkgHbh", "secret", true),
            ("secret = \"gzhqwvtkcxrpmbfs\"", "secret", true),
            ("secretKey: applicationConfigurationPropertiesKey", "secret", false),
            ("token = nextNonTrivialSyntaxElement", "token", false),
            ("token.FLOAT, \"0x1.ffffp+1023\"", "token", false),
            ("token: 'step1then2last'", "token", false),
        ] {
            assert_eq!(secret_of(line, word).is_some(), is_found, "{line}");
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
            ("password = \"benutzerkennung\"", "passw"),
            ("password = passwdstrnxt", "passw"),
            ("password = \"pre-${DB_4}\"", "passw"),
            ("run --password $DB_PASSWORD_2", "passw"),
            ("run --password-file ab12cd34ef", "passw"),
            ("NoteKey::parse(\"kT9vQ2xLmZ7wRb4NpY3c\")", "key"),
            ("Sec-WebSocket-Key: kT9vQ2xLmZ7wRb4NpY3c", "key"),
            ("credential_id = kT9vQ2xLmZ7wRb4NpY3c", "credential"),
            ("auth_key: AAAAC3NzaC1lZDI1NTE5AAAAIKt9vQ2xLmZ7", "auth"),
        ] {
            assert_eq!(secret_of(line, word), None, "{line}");
        }
    }

    #[test]
    fn broken_ends_are_no_reason_to_fall() {
        for line in ["secret", "secret=", "secret=\"", "secret='\\", "secret:(", "secret\"]"] {
            assert_eq!(secret_of(line, "secret"), None, "{line}");
        }
    }
}
