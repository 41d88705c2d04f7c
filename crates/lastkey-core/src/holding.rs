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
/// Longest reason for an override, in bytes.
pub const MAX_REASON_LEN: usize = 512;

/// What kind of things a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldWhat {
    /// Objects of a Kubernetes cluster in etcd, or in a snapshot of it.
    EtcdObjects,
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

/// Why a report is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHolding {
    /// Versions in disorder, twice, or with a count of nothing.
    #[error("each version stands once, by rising number, with a count from 1")]
    Versions,
    /// More than [`MAX_HELD_VERSIONS`].
    #[error("a report has at most 4096 versions of a key")]
    TooManyVersions,
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

    #[test]
    fn a_reason_is_text_and_not_empty() {
        assert_eq!(Reason::parse(" gone \n").unwrap().as_str(), "gone");
        for bad in ["", "  ", "a\nb", "a\u{1b}[2J", &"r".repeat(513)] {
            assert_eq!(Reason::parse(bad), Err(BadReason), "{bad:?}");
        }
    }
}
