//! Values of assignments: which of them look like a password that somebody uses, or like a key
//! that a machine made.
//!
//! Room      `checks`, inside `scan`.

use crate::scan::{
    entropy::{shannon, wordiness, wordiness_of_runs},
    placeholder::is_placeholder,
    structure::is_url_password,
};

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Without quotes, as in files of configuration; or it is the name of something else.
    Bare,
    Quoted,
    /// A text in quotes that is given to a call.
    Argument,
}

/// Secrets shorter than this, in bytes, cannot have the entropy of longer ones.
const SHORT: usize = 16;

/// What is assigned.
pub(super) struct Value<'t> {
    pub(super) text: &'t [u8],
    pub(super) form: Form,
}

impl Value<'_> {
    fn has(&self, is_part: impl Fn(u8) -> bool) -> bool {
        self.text.iter().any(|byte| is_part(*byte))
    }

    fn count(&self, is_part: impl Fn(u8) -> bool) -> usize {
        self.text.iter().filter(|byte| is_part(**byte)).count()
    }

    const fn is_bare(&self) -> bool {
        matches!(self.form, Form::Bare)
    }

    /// What the checks below refuse soonest, and most values of programs are.
    pub(super) fn is_worth_a_look(&self) -> bool {
        let digits = self.count(|byte| byte.is_ascii_digit());
        let others = self.count(|byte| !byte.is_ascii_alphanumeric());
        let may_be_a_password = match others {
            0 => self.are_many_letters(),
            1 => false,
            _ => !self.is_bare(),
        };
        self.text.len() >= 6 && (digits > 0 || may_be_a_password)
    }

    /// A password that a person chose or a generator made: letters and something else, no words.
    pub(super) fn is_password(&self) -> bool {
        let len = self.text.len();
        let letters = self.count(|byte| byte.is_ascii_alphabetic());
        let digits = self.count(|byte| byte.is_ascii_digit());
        let others = len - letters - digits;
        if !(6..=100).contains(&len) || letters == 0 {
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
        if digits == 0 && others == 0 {
            return self.are_many_letters() && self.is_noise(2.5, 0.3);
        }
        if digits == 0 {
            // Letters and punctuation: a name, a path or a format, unless it is far from words.
            return others >= 2
                && !self.is_bare()
                && self.is_noise(2.8, 0.34)
                && !self.is_name_like();
        }
        if self.is_bare() && self.is_name_like() {
            let has_parts = self.has(|byte| matches!(byte, b'.' | b':'));
            let most = if self.has(|byte| byte == b'_') { 0.34 } else { 0.65 };
            if has_parts || self.words().is_some_and(|share| share > most) {
                return false;
            }
        }
        shannon(self.text) > 2.2 && !self.is_path_like()
    }

    /// A key or token that a machine made.
    pub(super) fn is_secret(&self, is_strong: bool) -> bool {
        let shortest = if is_strong { 12 } else { 16 };
        let len = self.text.len();
        let (digits, letters) = (
            self.count(|byte| byte.is_ascii_digit()),
            self.count(|byte| byte.is_ascii_alphabetic()),
        );
        let is_apart = is_strong && self.form == Form::Quoted;
        if digits == 0 && letters == len {
            return is_strong && self.are_many_letters() && self.are_letters_of_a_machine();
        }
        let is_token_byte = |byte: u8| match byte {
            b'+' | b'/' | b'=' | b'_' | b'-' | b'.' | b'~' | b'!' | b'@' | b'^' | b'*' => true,
            b'$' | b'%' | b'&' | b'#' | b'?' | b';' | b':' | b'[' | b']' => is_apart,
            _ => byte.is_ascii_alphanumeric(),
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
        if len < SHORT && self.has(|byte| byte == b'.') {
            // A number or a name with parts.
            return false;
        }
        let is_hex = self.text.iter().all(u8::is_ascii_hexdigit);
        if is_hex {
            return is_strong && matches!(len, 20..=128) && shannon(self.text) > 3.0;
        }
        if self.is_uuid() {
            return is_strong;
        }
        let (bits, share) = match is_strong {
            true if len < SHORT => (2.85, 0.42),
            true => (3.2, 0.42),
            false => (3.6, 0.36),
        };
        self.is_noise(bits, share)
    }

    /// Enough letters to tell words from noise. Without quotes they are of one case, or more yet,
    /// because names in programs are shorter or have humps.
    fn are_many_letters(&self) -> bool {
        let least = match self.form {
            Form::Quoted | Form::Argument => 8,
            Form::Bare if self.is_of_one_case() => 12,
            Form::Bare => 24,
        };
        self.text.len() >= least
    }

    fn is_of_one_case(&self) -> bool {
        self.text.iter().all(u8::is_ascii_lowercase) || self.text.iter().all(u8::is_ascii_uppercase)
    }

    /// Letters alone may be a key if they are many and far from words.
    fn are_letters_of_a_machine(&self) -> bool {
        self.text.len() >= SHORT
            && self.is_noise(3.2, 0.25)
            && !self.is_reference()
            && !is_placeholder(self.text)
            && !self.says_what_it_is()
    }

    /// Varies by more than so many bits a character, and has few of the pairs of letters that
    /// words have.
    fn is_noise(&self, bits: f64, share: f64) -> bool {
        shannon(self.text) > bits && self.words().is_none_or(|words| words < share)
    }

    /// Share of the pairs of letters that words have. Among many digits a few letters say nothing
    /// about words.
    fn words(&self) -> Option<f64> {
        const SHORTEST_WORD: usize = 4;
        let digits = self.count(|byte| byte.is_ascii_digit());
        let is_mixed =
            digits * 4 >= self.text.len() && self.text.iter().all(u8::is_ascii_alphanumeric);
        let shortest = if is_mixed { SHORTEST_WORD } else { 2 };
        wordiness_of_runs(self.text, shortest)
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
            "AAAAB3NzaC1",
            "AAAAC3NzaC1",
            "AAAAE2VjZHNh",
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
