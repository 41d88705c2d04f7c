//! What was found and is accepted: baselines of old findings, and suppressions with a reason.
//!
//! Room      `checks`. The files are read by the caller; the day is an argument.
//! Source    docs/scan.md, "Accepting a finding".
//! Holds     A finding is accepted by its fingerprint or by rule and place, never by a line
//!           number. A suppression has a reason, an owner and a last day, and is a finding of
//!           its own when that day is over.

use std::{collections::BTreeSet, fmt};

use serde::Deserialize;

use crate::{
    finding::{Finding, Fingerprint, Fingerprinter, Location, Severity},
    report::{Accepted, RuleInfo},
};

/// Id of the finding that a suppression's last day is over.
pub const EXPIRED_RULE: &str = "suppression-expired";

/// About [`EXPIRED_RULE`], for reports.
#[must_use]
pub fn expired_rule() -> RuleInfo {
    RuleInfo {
        id: EXPIRED_RULE.to_owned(),
        title: "A suppression has run out".to_owned(),
        severity: Severity::Medium,
        why: "what was accepted for a time is still there".to_owned(),
        fix: "mend what it covers and remove it, or decide anew with a new last day".to_owned(),
        mappings: Vec::new(),
    }
}

/// A calendar day. Orders as time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    year: u16,
    month: u8,
    day: u8,
}

impl Day {
    /// A day of the proleptic Gregorian calendar; `None` for a month or day that no year has.
    #[must_use]
    pub const fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        if month >= 1 && month <= 12 && day >= 1 && day <= 31 {
            Some(Self { year, month, day })
        } else {
            None
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Why a baseline or a file of suppressions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line of a baseline that is no entry.
    #[error("line {0} of the baseline is no entry: expected FINGERPRINT RULE")]
    Baseline(usize),
    /// The file of suppressions is no TOML of the right shape.
    #[error("the suppressions cannot be read: {0}")]
    Toml(String),
    /// A suppression that lacks something, counted from 1.
    #[error("suppression {number}: {fault}")]
    Suppression {
        /// Its place in the file, from 1.
        number: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
}

/// Fingerprints of findings that were there when the baseline was made.
///
/// One entry a line, sorted, without line numbers or times: two branches that each add entries
/// merge by line (`merge=union`). Order and repetitions do not matter to the reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    known: BTreeSet<Fingerprint>,
}

const BASELINE_HEADER: &str = "# lastkey baseline v1: known findings, FINGERPRINT RULE, sorted\n";

impl Baseline {
    /// Reads a baseline. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`Error::Baseline`] with the number of the first line that is no entry.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut known = BTreeSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fingerprint = line.split_whitespace().next().and_then(Fingerprint::parse);
            known.insert(fingerprint.ok_or(Error::Baseline(number))?);
        }
        Ok(Self { known })
    }

    /// The text of a baseline of these findings.
    #[must_use]
    pub fn render<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> String {
        let lines: BTreeSet<String> = findings
            .into_iter()
            .map(|finding| format!("{} {}\n", finding.fingerprint, finding.rule))
            .collect();
        std::iter::once(BASELINE_HEADER.to_owned()).chain(lines).collect()
    }

    /// Whether a finding was there before.
    #[must_use]
    pub fn knows(&self, finding: &Finding) -> bool {
        self.known.contains(&finding.fingerprint)
    }
}

/// Decisions of people to live with findings.
#[derive(Clone, Debug, Default)]
pub struct Suppressions {
    /// Where the file lies, for findings about itself.
    path: String,
    list: Vec<Suppression>,
}

/// One decision.
#[derive(Clone, Debug)]
struct Suppression {
    fingerprint: Option<Fingerprint>,
    rule: Option<String>,
    path: Option<Pattern>,
    subject: Option<Pattern>,
    reason: String,
    owner: String,
    expires: Day,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuppressionsFile {
    #[serde(default)]
    suppress: Vec<SuppressionEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuppressionEntry {
    fingerprint: Option<String>,
    rule: Option<String>,
    path: Option<String>,
    subject: Option<String>,
    reason: String,
    owner: String,
    expires: toml::value::Datetime,
}

impl Suppressions {
    /// Reads a file of `[[suppress]]` tables; `path` is where it lies.
    ///
    /// # Errors
    /// [`Error::Toml`] when it has another shape; [`Error::Suppression`] when an entry covers
    /// nothing in particular, or has no reason, no owner or no last day.
    pub fn parse(path: &str, text: &str) -> Result<Self, Error> {
        let file: SuppressionsFile =
            toml::from_str(text).map_err(|error| Error::Toml(error.to_string()))?;
        let read = |(number, entry): (usize, SuppressionEntry)| {
            entry.resolve().map_err(|fault| Error::Suppression { number, fault })
        };
        let list = (1..).zip(file.suppress).map(read).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), list })
    }

    /// The decision that covers a finding and has not run out, if there is one.
    fn covering(&self, finding: &Finding, today: Day) -> Option<&Suppression> {
        self.list.iter().find(|entry| entry.expires >= today && entry.covers(finding))
    }

    /// Findings about decisions that have run out.
    fn expired(&self, today: Day) -> Vec<Finding> {
        let over = self.list.iter().filter(|entry| entry.expires < today);
        over.map(|entry| entry.expired_finding(&self.path)).collect()
    }
}

impl SuppressionEntry {
    fn resolve(self) -> Result<Suppression, &'static str> {
        let date = self.expires.date.ok_or("`expires` is no day; write 2027-01-31")?;
        let expires = Day::new(date.year, date.month, date.day).ok_or("`expires` is no day")?;
        if self.reason.trim().is_empty() || self.owner.trim().is_empty() {
            return Err("`reason` and `owner` must say something");
        }
        let fingerprint = match self.fingerprint.as_deref().map(Fingerprint::parse) {
            Some(None) => return Err("`fingerprint` is not 32 hex digits"),
            Some(known) => known,
            None => None,
        };
        let place = self.path.is_some() || self.subject.is_some();
        if fingerprint.is_none() && !(self.rule.is_some() && place) {
            return Err("it needs a fingerprint, or a rule with a path or subject");
        }
        Ok(Suppression {
            fingerprint,
            rule: self.rule,
            path: self.path.map(Pattern),
            subject: self.subject.map(Pattern),
            reason: self.reason,
            owner: self.owner,
            expires,
        })
    }
}

impl Suppression {
    fn covers(&self, finding: &Finding) -> bool {
        let subject = finding.subject.as_deref().unwrap_or_default();
        self.fingerprint.as_ref().is_none_or(|known| *known == finding.fingerprint)
            && self.rule.as_ref().is_none_or(|rule| *rule == finding.rule)
            && self.path.as_ref().is_none_or(|path| path.matches(&finding.location.path))
            && self.subject.as_ref().is_none_or(|pattern| pattern.matches(subject))
    }

    fn justification(&self) -> String {
        format!("{} ({}, until {})", self.reason, self.owner, self.expires)
    }

    fn expired_finding(&self, path: &str) -> Finding {
        let what = match (&self.fingerprint, &self.rule) {
            (Some(fingerprint), _) => fingerprint.to_string(),
            (None, Some(rule)) => rule.clone(),
            (None, None) => String::new(),
        };
        let day = self.expires.to_string();
        let about = expired_rule();
        Finding {
            rule: about.id,
            severity: about.severity,
            title: about.title,
            subject: None,
            evidence: format!("{what}: {}", self.justification()),
            location: Location::file(path),
            fingerprint: Fingerprinter::unkeyed().of(&[
                EXPIRED_RULE.as_bytes(),
                what.as_bytes(),
                day.as_bytes(),
            ]),
            why: about.why.into(),
            fix: about.fix.into(),
            mappings: about.mappings,
        }
    }
}

/// `*` stands for any run of characters, everything else for itself.
#[derive(Clone, Debug)]
struct Pattern(String);

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }
}

/// Parts findings into those to act on and those that are accepted; adds what ran out.
#[must_use]
pub fn sort_out(
    findings: Vec<Finding>,
    baseline: &Baseline,
    suppressions: &Suppressions,
    today: Day,
) -> (Vec<Finding>, Vec<Accepted>) {
    let mut open = suppressions.expired(today);
    let mut accepted = Vec::new();
    for finding in findings {
        let reason = match suppressions.covering(&finding, today) {
            Some(entry) => Some(entry.justification()),
            None if baseline.knows(&finding) => Some("known: it stands in the baseline".to_owned()),
            None => None,
        };
        match reason {
            Some(reason) => accepted.push(Accepted { finding, reason }),
            None => open.push(finding),
        }
    }
    (open, accepted)
}

#[cfg(test)]
mod tests {
    use super::{Baseline, Day, EXPIRED_RULE, Pattern, Suppressions, sort_out};
    use crate::report::example_finding;

    const TODAY: (u16, u8, u8) = (2026, 11, 23);

    fn today() -> Day {
        Day::new(TODAY.0, TODAY.1, TODAY.2).unwrap()
    }

    fn suppression(extra: &str) -> String {
        format!(
            "[[suppress]]\nreason = \"test data\"\nowner = \"web team\"\nexpires = 2027-01-31\n{extra}\n"
        )
    }

    #[test]
    fn baseline_accepts_what_it_was_made_of() {
        let finding = example_finding("a.txt", 3);
        let text = Baseline::render([&finding, &finding]);
        assert_eq!(text.lines().count(), 2);
        let baseline = Baseline::parse(&text).unwrap();
        let (open, accepted) =
            sort_out(vec![finding], &baseline, &Suppressions::default(), today());
        assert!(open.is_empty());
        assert_eq!(accepted.len(), 1);
    }

    #[test]
    fn baseline_of_two_branches_reads_as_one() {
        let a = Baseline::render([&example_finding("a", 1)]);
        let b = Baseline::render([&example_finding("b", 1)]);
        let merged = Baseline::parse(&format!("{b}{a}{b}")).unwrap();
        assert!(merged.knows(&example_finding("a", 9)));
        assert!(merged.knows(&example_finding("b", 9)));
    }

    #[test]
    fn baseline_with_a_broken_line_is_refused() {
        let error = Baseline::parse("# x\n\n<<<<<<< HEAD\n").unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[test]
    fn suppression_covers_by_rule_and_place_until_its_last_day() {
        let text = suppression("rule = \"example-rule\"\npath = \"tests/*.txt\"");
        let list = Suppressions::parse("s.toml", &text).unwrap();
        let findings = vec![example_finding("tests/a.txt", 1), example_finding("src/a.txt", 1)];
        let (open, accepted) =
            sort_out(findings, &Baseline::default(), &list, Day::new(2027, 1, 31).unwrap());
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].location.path, "src/a.txt");
        assert_eq!(accepted[0].reason, "test data (web team, until 2027-01-31)");
    }

    #[test]
    fn suppression_that_ran_out_covers_nothing_and_is_found() {
        let text = suppression("rule = \"example-rule\"\npath = \"*\"");
        let list = Suppressions::parse("s.toml", &text).unwrap();
        let findings = vec![example_finding("a", 1)];
        let (open, accepted) =
            sort_out(findings, &Baseline::default(), &list, Day::new(2027, 2, 1).unwrap());
        assert!(accepted.is_empty());
        let rules: Vec<&str> = open.iter().map(|finding| finding.rule.as_str()).collect();
        assert_eq!(rules, [EXPIRED_RULE, "example-rule"]);
    }

    #[test]
    fn suppression_that_says_too_little_is_refused() {
        for extra in ["", "rule = \"r\"", "path = \"*\"", "fingerprint = \"12\"", "line = 3"] {
            assert!(Suppressions::parse("s", &suppression(extra)).is_err(), "{extra}");
        }
        let unowned = suppression("rule = \"r\"\npath = \"p\"").replace("web team", " ");
        assert!(Suppressions::parse("s", &unowned).is_err());
    }

    #[test]
    fn pattern_matches_whole_texts() {
        for (pattern, text, matches) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "ac", false),
            ("Secret/*/db", "Secret/prod/db", true),
        ] {
            assert_eq!(Pattern(pattern.to_owned()).matches(text), matches, "{pattern} {text}");
        }
    }
}
