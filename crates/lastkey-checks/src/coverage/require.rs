//! What has to hold: `clear=0,stale=0`.
//!
//! Room      `checks`.

use std::{fmt, str::FromStr};

use super::CoverageReport;

/// One thing that is counted, and how many of it are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    what: What,
    most: u64,
}

/// A requirement that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no requirement; write clear, other, old, stale, damaged, unopened or residue, = and a number, such as clear=0"
)]
pub struct BadRequirement(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Clear,
    Other,
    Old,
    Stale,
    Damaged,
    Unopened,
    Residue,
}

impl FromStr for Requirement {
    type Err = BadRequirement;

    fn from_str(text: &str) -> Result<Self, BadRequirement> {
        let bad = || BadRequirement(text.to_owned());
        let (what, most) = text.split_once('=').ok_or_else(bad)?;
        let what = match what {
            "clear" => What::Clear,
            "other" => What::Other,
            "old" => What::Old,
            "stale" => What::Stale,
            "damaged" => What::Damaged,
            "unopened" => What::Unopened,
            "residue" => What::Residue,
            _ => return Err(bad()),
        };
        Ok(Self { what, most: most.parse().map_err(|_| bad())? })
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.what.name(), self.most)
    }
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Other => "other",
            Self::Old => "old",
            Self::Stale => "stale",
            Self::Damaged => "damaged",
            Self::Unopened => "unopened",
            Self::Residue => "residue",
        }
    }

    /// How many there are; none when nobody looked.
    fn of(self, report: &CoverageReport) -> Option<u64> {
        let totals = &report.totals;
        match self {
            Self::Clear => Some(totals.clear),
            Self::Other => Some(totals.other),
            Self::Old => Some(totals.old),
            Self::Stale => Some(totals.stale()),
            Self::Damaged => Some(totals.damaged),
            Self::Unopened => totals.unopened,
            Self::Residue => report.residue.map(|residue| residue.count()),
        }
    }
}

impl Requirement {
    /// Whether it can only be judged after seeds were unwrapped.
    #[must_use]
    pub fn needs_plugin(&self) -> bool {
        self.what == What::Unopened
    }

    /// Whether it can only be judged after the disk was searched.
    #[must_use]
    pub fn needs_residue(&self) -> bool {
        self.what == What::Residue
    }

    /// Why it does not hold, in words; none when it does.
    #[must_use]
    pub fn broken(&self, report: &CoverageReport) -> Option<String> {
        match self.what.of(report) {
            Some(count) if count <= self.most => None,
            Some(count) => Some(format!("{self} does not hold: there are {count}")),
            None => Some(format!("{self} does not hold: nobody looked")),
        }
    }
}
