//! What a volume is to hold: files, and what they are made of.
//!
//! Room      `node`. Made of a class by a dialect, filled by `render.rs`.
//! Holds     No two files have one path, no path leaves the volume, and every file has a mode.

use std::collections::BTreeSet;

use super::refusal::Refusal;
use crate::ports::Which;

/// Files that one volume may have; more are a mistake.
pub(super) const MAX_FILES: usize = 512;
/// Secrets that one volume may be made of, each version counted.
const MAX_SOURCES: usize = 512;
const MAX_PATH_LEN: usize = 4_096;
const MAX_SEGMENT_LEN: usize = 255;

/// A volume.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The role that the class names.
    pub(super) role: Option<String>,
    /// An audience that the class names.
    pub(super) audience: Option<String>,
    pub(super) files: Vec<Wanted>,
    /// What the class says and nobody heeds here, by name.
    pub(super) ignored: BTreeSet<String>,
}

/// A file, or one for each field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// How the class calls it, for messages.
    pub(super) object: String,
    /// Relative to the volume; for [`Content::Each`] what stands before each name.
    pub(super) path: String,
    pub(super) mode: u32,
    /// Left out when there is no such secret, version or field.
    pub(super) is_optional: bool,
    pub(super) content: Content,
    /// How the value is written in the secret.
    pub(super) encoding: Encoding,
}

/// What a file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A secret, or a part of it.
    One { source: Source, part: Part, format: Format },
    /// A file for each field of a secret.
    Each { source: Source },
    /// A text with places for secrets, each under a name.
    Template { text: String, sources: Vec<(String, Source)> },
}

impl Content {
    /// The secrets that it is made of.
    pub(super) fn sources(&self) -> Vec<&Source> {
        match self {
            Self::One { source, .. } | Self::Each { source } => vec![source],
            Self::Template { sources, .. } => sources.iter().map(|(_, source)| source).collect(),
        }
    }
}

/// A version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) which: Which,
}

/// Which part of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Field(String),
    /// A JMESPath expression over the fields, or over a value that is JSON.
    Query(String),
    /// All of it as Vault answers a read, version 2 of its key-value store.
    VaultReply,
    /// All of it as Vault answers a read of credentials.
    VaultLease,
}

/// How fields are written into one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// Bytes as they are; fields as JSON.
    #[default]
    Raw,
    Json,
    Yaml,
    Dotenv,
    Properties,
    /// A key store.
    Pkcs12,
}

/// How a value is written in its secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    #[default]
    Plain,
    Base64,
    Hex,
}

/// The current version of a secret.
pub(super) fn current(name: &str) -> Source {
    Source { name: name.to_owned(), which: Which::Stage("current".to_owned()) }
}

impl Plan {
    /// Judges the plan as a whole.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a path that is none, or one that two objects want.
    pub(super) fn checked(self) -> Result<Self, Refusal> {
        if self.files.len() > MAX_FILES {
            return Err(Refusal::Invalid(format!("the class has more than {MAX_FILES} objects")));
        }
        let sources: BTreeSet<_> =
            self.files.iter().flat_map(|file| file.content.sources()).collect();
        if sources.len() > MAX_SOURCES {
            return Err(Refusal::Invalid(format!(
                "the class names more than {MAX_SOURCES} secrets"
            )));
        }
        for file in &self.files {
            // What stands before names is judged with them.
            if !matches!(file.content, Content::Each { .. }) {
                check_path(&file.path, &file.object)?;
            }
        }
        let files = self.files.iter();
        let files = files.filter(|file| !matches!(file.content, Content::Each { .. }));
        check_apart(files.map(|file| (file.path.as_str(), file.object.as_str())))?;
        Ok(self)
    }
}

/// Refuses a path that a driver would not write, or that leaves the volume.
pub(super) fn check_path(path: &str, object: &str) -> Result<(), Refusal> {
    let is_good = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.len() <= MAX_SEGMENT_LEN
            && !segment.chars().any(char::is_control)
    };
    if path.len() <= MAX_PATH_LEN && !path.starts_with("..") && path.split('/').all(is_good) {
        return Ok(());
    }
    Err(Refusal::Invalid(format!(
        "object {object}: {path:?} is no path for a file: it must be relative, without `.`, `..` \
         and empty parts, and not begin with `..`"
    )))
}

/// Refuses two files at one path, and a file where another one has a folder.
pub(super) fn check_apart<'a>(
    files: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), Refusal> {
    let mut sorted: Vec<_> = files.collect();
    sorted.sort_unstable();
    for (index, (path, object)) in sorted.iter().enumerate() {
        let below = format!("{path}/");
        // Between a path and what lies below it may stand others, such as `a-b` before `a/b`.
        let clash = sorted.iter().skip(index + 1).take_while(|(other, _)| other.starts_with(path));
        let mut clash = clash.filter(|(other, _)| other == path || other.starts_with(&below));
        if let Some((other, second)) = clash.next() {
            return Err(Refusal::Invalid(format!(
                "objects {object} and {second} both want the file {other}; give one of them \
                 another path"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_volume_or_that_no_driver_writes_are_refused() {
        let long = "a".repeat(256);
        for bad in
            ["", "/a", "a/", "a//b", "./a", "a/./b", "..", "../a", "a/../b", "..data", "a\n", &long]
        {
            assert!(check_path(bad, "o").is_err(), "{bad:?}");
        }
        for good in ["a", "a/b.pem", ".env", "a..b", "nested/foo"] {
            check_path(good, "o").unwrap();
        }
    }

    #[test]
    fn two_files_at_one_path_are_refused_with_both_names() {
        let refused = |files: &[(&str, &str)]| check_apart(files.iter().copied()).is_err();
        assert!(refused(&[("a", "x"), ("a", "y")]));
        assert!(refused(&[("a", "x"), ("a-b", "z"), ("a/b", "y")]));
        assert!(!refused(&[("a/b", "x"), ("a/c", "y"), ("ab", "z")]));
        let said = check_apart([("a", "one"), ("a", "two")].into_iter()).unwrap_err().to_string();
        assert!(said.contains("one") && said.contains("two"), "{said}");
    }
}
