//! A finding: one thing that is wrong, where it is, why it matters and how to mend it.
//!
//! Room      `checks`. Shared by the scanner and the posture checks.
//! Holds     [`Finding::evidence`] is masked before it gets here: a finding may be printed,
//!           stored and sent anywhere. A fingerprint does not change when lines move.

use std::{borrow::Cow, fmt};

use aws_lc_rs::{digest, hmac};
use serde::{Deserialize, Serialize};

/// How bad it is. Ordered: [`Severity::Critical`] is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// Weakens a defence that others stand behind.
    Low,
    /// Opens something to somebody who already got in elsewhere.
    Medium,
    /// Opens something valuable.
    High,
    /// Opens everything, now.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Its name in reports and options, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// As it was given or walked; members of archives follow their archive after `!/`, objects
    /// of git history are `COMMIT:PATH`.
    pub path: String,
    /// From 1; 0 when the finding is about the file as a whole.
    pub line: u64,
    /// From 1, in Unicode code points; 0 when the finding is about whole lines.
    pub column: u64,
    /// Line on which it ends, from 1; 0 as [`Location::line`].
    pub end_line: u64,
    /// One past the last code point; 0 as [`Location::column`].
    pub end_column: u64,
}

impl Location {
    /// A file as a whole.
    #[must_use]
    pub fn file(path: impl Into<String>) -> Self {
        Self { path: path.into(), line: 0, column: 0, end_line: 0, end_column: 0 }
    }

    /// One whole line, from 1.
    #[must_use]
    pub fn line(path: impl Into<String>, line: u64) -> Self {
        Self { path: path.into(), line, column: 0, end_line: line, end_column: 0 }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        Ok(())
    }
}

/// An item of a published list that a finding answers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Mapping {
    /// The list, such as `CIS Kubernetes 1.12`, `PSS`, `CWE`.
    pub list: Cow<'static, str>,
    /// The item in it, such as `1.2.27`, `baseline`, `798`.
    pub item: Cow<'static, str>,
}

impl Mapping {
    /// An item of a list.
    #[must_use]
    pub fn new(list: impl Into<Cow<'static, str>>, item: impl Into<Cow<'static, str>>) -> Self {
        Self { list: list.into(), item: item.into() }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.list, self.item)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable id of the rule, in lower case with hyphens.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// One line: what was found.
    pub title: String,
    /// What it is about when that is no file: `Kind/namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was seen, with every secret masked.
    pub evidence: String,
    /// Where.
    pub location: Location,
    /// Names the finding in baselines and suppressions.
    pub fingerprint: Fingerprint,
    /// Why it matters here.
    pub why: Cow<'static, str>,
    /// What to do; a patch where there is one.
    pub fix: Cow<'static, str>,
    /// Items of published lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<Mapping>,
}

/// Names a finding over time: 128 bits in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Digits of the text form.
    pub const LEN: usize = 32;

    /// Reads the text form; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_whole = text.len() == Self::LEN && text.bytes().all(is_hex);
        is_whole.then(|| Self(text.to_owned()))
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes fingerprints: SHA-256 over the framed parts, or HMAC-SHA-256 under a key of the
/// user's, cut to 128 bits.
///
/// Without a key, whoever has a fingerprint of a guessable password can try guesses against it.
pub struct Fingerprinter {
    key: Option<hmac::Key>,
}

/// First part of what is hashed: no other use of SHA-256 gives the same value.
const DOMAIN: &[u8] = b"lastkey finding v1";

impl Fingerprinter {
    /// Without a key: the same on every machine.
    #[must_use]
    pub const fn unkeyed() -> Self {
        Self { key: None }
    }

    /// Under a key: comparable only among those who have it.
    #[must_use]
    pub fn keyed(key: &[u8]) -> Self {
        Self { key: Some(hmac::Key::new(hmac::HMAC_SHA256, key)) }
    }

    /// Fingerprint of the parts that make a finding what it is: the rule first, then the object
    /// or the secret; never a line number.
    #[must_use]
    pub fn of(&self, parts: &[&[u8]]) -> Fingerprint {
        let framed = std::iter::once(&DOMAIN).chain(parts);
        let tag = match &self.key {
            None => {
                let mut hash = digest::Context::new(&digest::SHA256);
                for part in framed {
                    hash.update(&(part.len() as u64).to_be_bytes());
                    hash.update(part);
                }
                hex(hash.finish().as_ref())
            }
            Some(key) => {
                let mut hash = hmac::Context::with_key(key);
                for part in framed {
                    hash.update(&(part.len() as u64).to_be_bytes());
                    hash.update(part);
                }
                hex(hash.sign().as_ref())
            }
        };
        Fingerprint(tag.chars().take(Fingerprint::LEN).collect())
    }
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprinter {{ keyed: {} }}", self.key.is_some())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A secret as evidence may show it: at most four characters at each end and never more than a
/// quarter in all, and how long it is.
///
/// Line ends and control characters are shown as spaces, so that the result is one line.
#[must_use]
pub fn mask(secret: &[u8]) -> String {
    let text = String::from_utf8_lossy(secret);
    let clean: Vec<char> =
        text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let shown = (clean.len() / 8).min(4);
    let head: String = clean.iter().take(shown).collect();
    let tail: String = clean.iter().skip(clean.len() - shown).collect();
    format!("{head}…{tail} ({} characters)", clean.len())
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, Fingerprinter, Location, Severity, mask};

    #[test]
    fn fingerprint_tells_parts_apart_that_are_cut_elsewhere() {
        let make = Fingerprinter::unkeyed();
        assert_ne!(make.of(&[b"ab", b"c"]), make.of(&[b"a", b"bc"]));
        assert_eq!(make.of(&[b"ab", b"c"]), make.of(&[b"ab", b"c"]));
    }

    #[test]
    fn fingerprint_under_a_key_is_another() {
        let plain = Fingerprinter::unkeyed().of(&[b"rule", b"value"]);
        let keyed = Fingerprinter::keyed(b"0123456789abcdef").of(&[b"rule", b"value"]);
        assert_ne!(plain, keyed);
        assert_eq!(keyed, Fingerprinter::keyed(b"0123456789abcdef").of(&[b"rule", b"value"]));
    }

    #[test]
    fn fingerprint_reads_only_its_own_form() {
        let text = Fingerprinter::unkeyed().of(&[b"x"]).to_string();
        assert_eq!(Fingerprint::parse(&text).unwrap().as_str(), text);
        for wrong in ["", "00", &text.to_uppercase(), &format!("{text}0")] {
            assert!(Fingerprint::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn mask_shows_at_most_a_quarter() {
        assert_eq!(mask(b"short"), "… (5 characters)");
        assert_eq!(mask(b"eight888"), "e…8 (8 characters)");
        assert_eq!(mask(&[b'a'; 100]), "aaaa…aaaa (100 characters)");
        assert_eq!(mask(b"-----BEGIN\n\x1b[31m----"), "--…-- (20 characters)");
    }

    #[test]
    fn location_shows_what_it_knows() {
        assert_eq!(Location::file("a").to_string(), "a");
        assert_eq!(Location::line("a", 3).to_string(), "a:3");
        assert!(Severity::Critical > Severity::High);
    }
}
