//! Reports: everything that one run has to say, and the forms in which it says it.
//!
//! Room      `checks`. One file for each form; all of them write the same [`Report`], finding by
//!           finding: a report is never in memory as text.
//! Holds     Output depends on the report alone: no time, no machine. What comes from foreign
//!           bytes cannot leave its place in any form: escaped in HTML and XML, free of control
//!           characters in text.

use serde::Serialize;

use crate::finding::{Finding, Mapping, Severity};

mod html;
mod json;
mod junit;
mod sarif;
mod text;

pub use self::{html::html, json::json, junit::junit, sarif::sarif, text::text};

/// All that one run has to say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What ran: `lastkey scan` or `lastkey check`.
    pub tool: String,
    /// Version of the product.
    pub version: String,
    /// The rules that were applied; every rule that a finding names is among them.
    pub rules: Vec<RuleInfo>,
    /// What is to be acted on.
    pub findings: Vec<Finding>,
    /// What was found and is accepted.
    pub accepted: Vec<Accepted>,
    /// What could not be judged.
    pub not_checked: Vec<NotChecked>,
    /// Counts of the run, such as files or bytes, in the order in which to show them.
    pub figures: Vec<Figure>,
}

/// A rule, as reports explain it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleInfo {
    /// As [`Finding::rule`].
    pub id: String,
    /// One line: what it finds.
    pub title: String,
    /// Of its findings, unless one says otherwise.
    pub severity: Severity,
    /// Why it matters.
    pub why: String,
    /// What to do.
    pub fix: String,
    /// Items of published lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<Mapping>,
}

/// A finding that somebody decided to live with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// The finding.
    pub finding: Finding,
    /// Why, by whom, until when.
    pub reason: String,
}

/// Something that could not be judged. It is not fine, and not a finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NotChecked {
    /// The rule that could not be applied; none when it is about all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What it would have been applied to: a path, an object, a cluster.
    pub subject: String,
    /// Why not.
    pub reason: String,
}

/// A count of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// What is counted, in lower case: `files`, `bytes`.
    pub name: String,
    /// How many.
    pub value: u64,
}

impl Figure {
    /// A count.
    #[must_use]
    pub fn new(name: impl Into<String>, value: u64) -> Self {
        Self { name: name.into(), value }
    }
}

impl Report {
    /// Puts findings, accepted ones and what was not checked into an order that does not depend
    /// on the run: worst first, then by place. Rules go by id, each once.
    pub fn sort(&mut self) {
        let order = |a: &Finding, b: &Finding| {
            b.severity
                .cmp(&a.severity)
                .then_with(|| a.location.cmp(&b.location))
                .then_with(|| a.rule.cmp(&b.rule))
                .then_with(|| a.subject.cmp(&b.subject))
                .then_with(|| a.fingerprint.cmp(&b.fingerprint))
        };
        self.findings.sort_by(order);
        self.accepted.sort_by(|a, b| order(&a.finding, &b.finding));
        self.not_checked.sort();
        self.rules.sort_by(|a, b| a.id.cmp(&b.id));
        self.rules.dedup_by(|a, b| a.id == b.id);
    }

    /// The worst finding that is not accepted.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// `2 critical, 1 low`; `nothing` when there is none.
    fn counts(&self) -> String {
        let parts: Vec<String> = Severity::ALL
            .iter()
            .rev()
            .map(|severity| (self.count(*severity), severity))
            .filter(|(count, _)| *count > 0)
            .map(|(count, severity)| format!("{count} {severity}"))
            .collect();
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }
}

/// Text without control characters: nothing in it can move a cursor or end a line.
fn printable(text: &str) -> String {
    let keep = |letter: char| !letter.is_control() && !is_invisible(letter);
    text.chars().map(|letter| if keep(letter) { letter } else { '\u{fffd}' }).collect()
}

/// Directions of writing and other marks that make text look like another text.
const fn is_invisible(letter: char) -> bool {
    matches!(
        letter,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

/// Text inside an element or a quoted attribute of HTML or XML 1.0. Characters that XML cannot
/// carry at all become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(letter),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            other if is_invisible(other) => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
pub(crate) use self::tests::example_finding;

#[cfg(test)]
mod tests {
    use super::{Accepted, Figure, NotChecked, Report, RuleInfo, escaped, printable};
    use crate::finding::{Finding, Fingerprinter, Location, Mapping, Severity};

    /// A finding of a rule `example-rule`, named by its path alone.
    pub(crate) fn example_finding(path: &str, line: u64) -> Finding {
        Finding {
            rule: "example-rule".to_owned(),
            severity: Severity::High,
            title: "Example <credential> & more".to_owned(),
            subject: Some("Secret/prod/db".to_owned()),
            evidence: "ab…yz (40 characters)".to_owned(),
            location: Location {
                path: path.to_owned(),
                line,
                column: 5,
                end_line: line,
                end_column: 45,
            },
            fingerprint: Fingerprinter::unkeyed().of(&[b"example-rule", path.as_bytes()]),
            why: "whoever reads the file can use it".into(),
            fix: "revoke it\nthen store it elsewhere".into(),
            mappings: vec![Mapping::new("CWE", "798")],
        }
    }

    /// A report as text.
    pub(crate) fn shown(
        report: &Report,
        form: impl FnOnce(&Report, &mut dyn std::io::Write) -> std::io::Result<()>,
    ) -> String {
        let mut bytes = Vec::new();
        form(report, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// A report with something in every part, some of it hostile.
    pub(crate) fn example_report() -> Report {
        let finding = example_finding("src/a b/<x>\u{1b}[31m.txt", 7);
        let mut report = Report {
            tool: "lastkey scan".to_owned(),
            version: "1.2.3".to_owned(),
            rules: vec![RuleInfo {
                id: finding.rule.clone(),
                title: "Example".to_owned(),
                severity: finding.severity,
                why: finding.why.to_string(),
                fix: finding.fix.to_string(),
                mappings: finding.mappings.clone(),
            }],
            findings: vec![example_finding("z", 1), finding],
            accepted: vec![Accepted {
                finding: example_finding("old", 2),
                reason: "test data (web team, until 2027-01-31)".to_owned(),
            }],
            not_checked: vec![NotChecked {
                rule: None,
                subject: "broken.zip".to_owned(),
                reason: "it ends too early".to_owned(),
            }],
            figures: vec![Figure::new("files", 3)],
        };
        report.sort();
        report
    }

    #[test]
    fn report_order_does_not_depend_on_the_run() {
        let mut report = example_report();
        let first = format!("{report:?}");
        report.findings.reverse();
        report.rules.extend(report.rules.clone());
        report.sort();
        assert_eq!(format!("{report:?}"), first);
        assert_eq!(report.worst(), Some(Severity::High));
        assert_eq!(report.counts(), "2 high");
        assert_eq!(Report::default().counts(), "nothing");
    }

    #[test]
    fn foreign_text_cannot_leave_its_place() {
        assert_eq!(printable("a\u{1b}[2J\r\n\u{202e}b"), "a\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}b");
        assert_eq!(
            escaped("<a href='\"&\u{0}\u{1b}\n"),
            "&lt;a href=&#39;&quot;&amp;\u{fffd}\u{fffd}\n"
        );
    }
}
