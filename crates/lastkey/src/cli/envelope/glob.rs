//! Patterns for file names: `*`, `**`, `?` and `[a-z]`, as shells and gitignore have them.
//!
//! Room      `lastkey`.
//! Holds     A pattern without `/` is for the last name of a path, one with `/` for the whole
//!           path below the folder. Takes time in proportion to path times pattern.

use std::{os::unix::ffi::OsStrExt, path::Path, str::FromStr};

use crate::cli::args::BadValue;

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    parts: Vec<Part>,
    is_for_path: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Byte(u8),
    /// Any byte but `/`.
    Any,
    /// One of these ranges, or none of them.
    Class {
        ranges: Vec<(u8, u8)>,
        negated: bool,
    },
    /// Any number of bytes, without `/`.
    Star,
    /// Any number of bytes.
    DoubleStar,
}

impl FromStr for Glob {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let trimmed = text.strip_prefix('/').unwrap_or(text);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return Err(BadValue("an empty pattern matches nothing"));
        }
        let mut parts = Vec::new();
        let mut rest = trimmed.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            parts.push(match first {
                b'*' if rest.first() == Some(&b'*') => {
                    rest = rest.get(1..).unwrap_or_default();
                    // `a/**/b` is for `a/b` as well.
                    rest = rest.strip_prefix(b"/").unwrap_or(rest);
                    Part::DoubleStar
                }
                b'*' => Part::Star,
                b'?' => Part::Any,
                b'[' => class(&mut rest).ok_or(BadValue("a [ without its ]"))?,
                b'\\' => {
                    let (literal, after) =
                        rest.split_first().ok_or(BadValue("nothing behind the last \\"))?;
                    rest = after;
                    Part::Byte(*literal)
                }
                byte => Part::Byte(*byte),
            });
        }
        Ok(Self { parts, is_for_path: text.trim_end_matches('/').contains('/') })
    }
}

/// What stands between `[` and `]`; `]` itself when it comes first.
fn class(rest: &mut &[u8]) -> Option<Part> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let mut body = rest.get(usize::from(negated)..)?;
    let mut ranges = Vec::new();
    loop {
        let (first, after) = body.split_first()?;
        body = after;
        if *first == b']' && !ranges.is_empty() {
            *rest = body;
            return Some(Part::Class { ranges, negated });
        }
        match body {
            [b'-', last, after @ ..] if *last != b']' => {
                ranges.push((*first, *last));
                body = after;
            }
            _ => ranges.push((*first, *first)),
        }
    }
}

impl Glob {
    /// Whether this is a pattern for the path, which is relative to the folder.
    pub(super) fn is_match(&self, path: &Path) -> bool {
        let text = match path.file_name() {
            Some(name) if !self.is_for_path => name.as_bytes(),
            Some(_) | None => path.as_os_str().as_bytes(),
        };
        matches(&self.parts, text)
    }
}

/// All states at once: `reached` holds after how many parts the text so far may have ended.
fn matches(parts: &[Part], text: &[u8]) -> bool {
    let mut reached = vec![false; parts.len() + 1];
    reached.first_mut().into_iter().for_each(|start| *start = true);
    pass_stars(parts, &mut reached);
    for byte in text {
        let mut next = vec![false; parts.len() + 1];
        for (at, part) in parts.iter().enumerate() {
            if reached.get(at) != Some(&true) {
                continue;
            }
            let (stays, goes) = part.take(*byte);
            next.get_mut(at).into_iter().for_each(|state| *state |= stays);
            next.get_mut(at + 1).into_iter().for_each(|state| *state |= goes);
        }
        pass_stars(parts, &mut next);
        reached = next;
    }
    reached.last() == Some(&true)
}

/// A star may stand for nothing.
fn pass_stars(parts: &[Part], reached: &mut [bool]) {
    for (at, part) in parts.iter().enumerate() {
        if matches!(part, Part::Star | Part::DoubleStar) && reached.get(at) == Some(&true) {
            reached.get_mut(at + 1).into_iter().for_each(|state| *state = true);
        }
    }
}

impl Part {
    /// Whether a byte may stand here with more to come, and whether it may be the last here.
    fn take(&self, byte: u8) -> (bool, bool) {
        match self {
            Self::Byte(own) => (false, byte == *own),
            Self::Any => (false, byte != b'/'),
            Self::Class { ranges, negated } => {
                let inside = ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte));
                (false, byte != b'/' && inside != *negated)
            }
            Self::Star => (byte != b'/', false),
            Self::DoubleStar => (true, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Glob;

    #[test]
    fn patterns_match_what_shells_and_gitignore_match() {
        for (pattern, path, matches) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "deep/down/a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("/*.txt", "a.txt", true),
            ("/*.txt", "deep/a.txt", false),
            ("deep/*.txt", "deep/a.txt", true),
            ("deep/*.txt", "deep/down/a.txt", false),
            ("deep/**", "deep/down/a.txt", true),
            ("**/a.txt", "a.txt", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[]]x", "]x", true),
            ("[a-]x", "-x", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("node_modules/", "x/node_modules", true),
            ("*", "anything", true),
            ("a*b*c", "a--b--b-c", true),
            ("a*b*c", "a--b--b-", false),
        ] {
            let glob: Glob = pattern.parse().unwrap();
            assert_eq!(glob.is_match(Path::new(path)), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_that_are_unfinished_are_refused() {
        for pattern in ["", "/", "[abc", "[", "[]", "x\\"] {
            assert!(pattern.parse::<Glob>().is_err(), "{pattern}");
        }
    }

    #[test]
    fn pattern_of_many_stars_does_not_take_forever() {
        let glob: Glob = "*a*a*a*a*a*a*a*a*a*a*a*a*b".parse().unwrap();
        assert!(!glob.is_match(Path::new(&"a".repeat(2_000))));
    }
}
