//! Holdings: what a place outside the service was last reported to hold under a key.
//!
//! Room      `core`.
//! Holds     a holding is what somebody reported, not what is: it may keep a key from being
//!           destroyed, and never lets anything be used.

use crate::ids::{KeyId, Name, VersionNo};
use crate::time::Timestamp;

/// Most places that report about one key.
pub const MAX_PLACES: usize = 256;
/// Most versions of a key in one report.
pub const MAX_HELD_VERSIONS: usize = 4_096;
/// Most things that one report names.
pub const MAX_THINGS: usize = 1_000;
/// Longest list of things, all texts together, in bytes.
pub const MAX_THINGS_LEN: usize = 512 * 1_024;
/// Most words about one thing.
const MAX_WORDS: usize = 16;
/// Longest name of a thing or of a word about it, in bytes.
const MAX_THING_NAME_LEN: usize = 128;
/// Longest word about a thing, in bytes.
const MAX_WORD_LEN: usize = 512;
/// Longest reason for an override, in bytes.
pub const MAX_REASON_LEN: usize = 512;

/// What kind of things a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldWhat {
    /// Objects of a Kubernetes cluster in etcd, or in a snapshot of it.
    EtcdObjects,
    /// Encrypted volumes of a node, and snapshots of them.
    Volumes,
}

impl HeldWhat {
    /// Many of them, as a sentence names them.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::EtcdObjects => "objects",
            Self::Volumes => "volumes",
        }
    }
}

/// The last report of one place about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The key.
    pub key: KeyId,
    /// The place, as its reporter names it.
    pub place: Name,
    /// What it holds.
    pub what: HeldWhat,
    /// How many are under each version, by rising version; a version that is not here has none.
    pub versions: Vec<(VersionNo, u64)>,
    /// When it was reported, by the wall clock of the service.
    pub reported_at: Timestamp,
    /// By whom.
    pub reported_by: String,
    /// Set when the key's destruction was scheduled in spite of it; gone with the schedule.
    pub overridden: bool,
}

impl Holding {
    /// How many are under a version; under any, when none is named.
    #[must_use]
    pub fn count(&self, version: Option<VersionNo>) -> u64 {
        let counted = self.versions.iter().filter(|(one, _)| version.is_none_or(|v| v == *one));
        counted.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// One thing that a place names, such as a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldThing {
    /// Its name, once among those of its place.
    pub name: String,
    /// The version that it is under.
    pub version: VersionNo,
    /// What the place says about it, by rising name.
    pub about: Vec<(String, String)>,
}

/// What a place holds under a key, by name: as many as its [`Holding`] counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The key.
    pub key: KeyId,
    /// The place, as its reporter names it.
    pub place: Name,
    /// The things, by rising name.
    pub things: Vec<HeldThing>,
}

/// Why a report is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHolding {
    /// Versions in disorder, twice, or with a count of nothing.
    #[error("each version stands once, by rising number, with a count from 1")]
    Versions,
    /// More than [`MAX_HELD_VERSIONS`].
    #[error("a report has at most 4096 versions of a key")]
    TooManyVersions,
    /// More than [`MAX_THINGS`], or longer than [`MAX_THINGS_LEN`].
    #[error("a report names at most 1000 things, in 512 KiB of text")]
    TooManyThings,
    /// In disorder, twice, with other characters than text, or others than were counted.
    #[error(
        "each thing stands once, by rising name, with text about it by rising name, and the versions count the things"
    )]
    Things,
}

/// Checks the versions of a report.
///
/// # Errors
/// [`BadHolding`].
pub fn check_versions(versions: &[(VersionNo, u64)]) -> Result<(), BadHolding> {
    if versions.len() > MAX_HELD_VERSIONS {
        return Err(BadHolding::TooManyVersions);
    }
    let is_rising = versions.is_sorted_by(|(a, _), (b, _)| a < b);
    let is_counted = versions.iter().all(|(_, count)| *count > 0);
    if is_rising && is_counted { Ok(()) } else { Err(BadHolding::Versions) }
}

/// Checks the things of a report against its versions.
///
/// # Errors
/// [`BadHolding`].
pub fn check_things(things: &[HeldThing], versions: &[(VersionNo, u64)]) -> Result<(), BadHolding> {
    let len: usize = things.iter().map(HeldThing::len).sum();
    if things.len() > MAX_THINGS || len > MAX_THINGS_LEN {
        return Err(BadHolding::TooManyThings);
    }
    let count = |version| things.iter().filter(|thing| thing.version == version).count();
    let is_counted = versions.iter().all(|(version, counted)| {
        u64::try_from(count(*version)).is_ok_and(|count| count == *counted)
    });
    let all: u64 = versions.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count));
    let is_whole = u64::try_from(things.len()).is_ok_and(|len| len == all);
    let is_rising = things.is_sorted_by(|a, b| a.name < b.name);
    if is_counted && is_whole && is_rising && things.iter().all(HeldThing::is_text) {
        Ok(())
    } else {
        Err(BadHolding::Things)
    }
}

impl HeldThing {
    /// Length of all its text, in bytes.
    fn len(&self) -> usize {
        let words = self.about.iter().map(|(name, word)| name.len().saturating_add(word.len()));
        self.name.len().saturating_add(words.sum())
    }

    fn is_text(&self) -> bool {
        let is_name = |text: &str| {
            (1..=MAX_THING_NAME_LEN).contains(&text.len()) && !text.contains(char::is_control)
        };
        let is_word = |text: &str| text.len() <= MAX_WORD_LEN && !text.contains(char::is_control);
        is_name(&self.name)
            && self.about.len() <= MAX_WORDS
            && self.about.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.about.iter().all(|(name, word)| is_name(name) && is_word(word))
    }
}

/// Why somebody overrides what was reported: text for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

/// No reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reason is 1 to 512 bytes of text without control characters")]
pub struct BadReason;

impl Reason {
    /// Parses a reason.
    ///
    /// # Errors
    /// [`BadReason`].
    pub fn parse(text: &str) -> Result<Self, BadReason> {
        let text = text.trim();
        let is_text = !text.contains(char::is_control);
        if is_text && (1..=MAX_REASON_LEN).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadReason)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32) -> VersionNo {
        VersionNo::new(number).unwrap()
    }

    #[test]
    fn versions_stand_once_and_in_order() {
        let good = [(version(1), 3), (version(2), 1)];
        assert_eq!(check_versions(&good), Ok(()));
        assert_eq!(check_versions(&[]), Ok(()));
        let bad = [
            vec![(version(2), 1), (version(1), 1)],
            vec![(version(1), 1), (version(1), 1)],
            vec![(version(1), 0)],
        ];
        for versions in bad {
            assert_eq!(check_versions(&versions), Err(BadHolding::Versions), "{versions:?}");
        }
        let many: Vec<_> = (1..=4_097).map(|number| (version(number), 1)).collect();
        assert_eq!(check_versions(&many), Err(BadHolding::TooManyVersions));
    }

    fn thing(name: &str, number: u32) -> HeldThing {
        let about = vec![("claim".to_owned(), "shop/data".to_owned())];
        HeldThing { name: name.to_owned(), version: version(number), about }
    }

    #[test]
    fn things_are_those_that_were_counted() {
        let versions = [(version(1), 2), (version(3), 1)];
        let good = [thing("a", 1), thing("b", 3), thing("c", 1)];
        assert_eq!(check_things(&good, &versions), Ok(()));
        assert_eq!(check_things(&[], &[]), Ok(()));
        let words = |names: &[&str]| HeldThing {
            about: names.iter().map(|name| ((*name).to_owned(), String::new())).collect(),
            ..thing("c", 1)
        };
        let bad = [
            vec![thing("a", 1), thing("b", 3)],
            vec![thing("a", 1), thing("b", 3), thing("c", 3)],
            vec![thing("a", 1), thing("b", 3), thing("c", 2)],
            vec![thing("a", 1), thing("c", 1), thing("b", 3)],
            vec![thing("a", 1), thing("a", 1), thing("b", 3)],
            vec![thing("", 1), thing("b", 3), thing("c", 1)],
            vec![thing("a\n", 1), thing("b", 3), thing("c", 1)],
            vec![thing("a", 1), thing("b", 3), words(&["y", "x"])],
            vec![thing("a", 1), thing("b", 3), words(&["x", "x"])],
            vec![thing("a", 1), thing("b", 3), words(&[&"x".repeat(129)])],
        ];
        for things in bad {
            assert_eq!(check_things(&things, &versions), Err(BadHolding::Things), "{things:?}");
        }
        let many: Vec<_> = (0..1_001).map(|n| thing(&format!("{n:04}"), 1)).collect();
        assert_eq!(check_things(&many, &[(version(1), 1_001)]), Err(BadHolding::TooManyThings));
    }

    #[test]
    fn a_reason_is_text_and_not_empty() {
        assert_eq!(Reason::parse(" gone \n").unwrap().as_str(), "gone");
        for bad in ["", "  ", "a\nb", "a\u{1b}[2J", &"r".repeat(513)] {
            assert_eq!(Reason::parse(bad), Err(BadReason), "{bad:?}");
        }
    }
}
