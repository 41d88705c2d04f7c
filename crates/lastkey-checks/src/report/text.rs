//! A report for people at a terminal.
//!
//! Room      `checks`. May change from release to release; programs read the JSON.

use std::fmt::Write as _;

use super::{Report, printable};
use crate::finding::Finding;

/// Text for people: findings worst first, then what could not be checked, then the sum.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        push_finding(&mut out, finding);
    }
    for gap in &report.not_checked {
        let rule = gap.rule.as_deref().map(|rule| format!(" ({rule})")).unwrap_or_default();
        let (subject, reason) = (printable(&gap.subject), printable(&gap.reason));
        let _ = writeln!(out, "not checked  {subject}{}: {reason}", printable(&rule));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = write!(out, "found: {}", report.counts());
    if !report.accepted.is_empty() {
        let _ = write!(out, "; accepted: {}", report.accepted.len());
    }
    if !report.not_checked.is_empty() {
        let _ = write!(out, "; not checked: {}", report.not_checked.len());
    }
    for figure in &report.figures {
        let _ = write!(out, "; {}: {}", printable(&figure.name), figure.value);
    }
    out.push('\n');
    out
}

fn push_finding(out: &mut String, finding: &Finding) {
    let place = printable(&finding.location.to_string());
    let _ = writeln!(out, "{:8}  {}  {place}", finding.severity, printable(&finding.rule));
    let subject = finding.subject.as_deref().map(|subject| format!("{subject}: "));
    let subject = printable(&subject.unwrap_or_default());
    let _ = writeln!(out, "          {}{}", subject, printable(&finding.title));
    for (name, value) in
        [("found", &finding.evidence), ("why", &finding.why), ("fix", &finding.fix)]
    {
        let mut lines = value.lines();
        let _ = writeln!(out, "          {name}: {}", printable(lines.next().unwrap_or_default()));
        for line in lines {
            let _ = writeln!(out, "            {}", printable(line));
        }
    }
    if !finding.mappings.is_empty() {
        let items: Vec<String> = finding.mappings.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "          see: {}", printable(&items.join(", ")));
    }
    let _ = writeln!(out, "          id: {}", finding.fingerprint);
}

#[cfg(test)]
mod tests {
    use super::super::tests::example_report;
    use super::text;

    #[test]
    fn text_says_everything_in_lines() {
        let shown = text(&example_report());
        for part in [
            "high      example-rule  z:1:5",
            "found: ab…yz (40 characters)",
            "fix: revoke it\n            then store it elsewhere",
            "not checked  broken.zip: it ends too early",
            "found: 2 high; accepted: 1; not checked: 1; files: 3\n",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'));
    }
}
