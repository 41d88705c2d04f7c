//! A report for people at a terminal.
//!
//! Room      `checks`. May change from release to release; programs read the JSON.

use std::io::{self, Write};

use super::{Report, printable};
use crate::finding::Finding;

/// Writes text for people: findings worst first, then what could not be checked, then the sum.
///
/// # Errors
/// What the writer says.
pub fn text(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for finding in &report.findings {
        write_finding(out, finding)?;
    }
    for gap in &report.not_checked {
        let rule = gap.rule.as_deref().map(|rule| format!(" ({rule})")).unwrap_or_default();
        let (subject, reason) = (printable(&gap.subject), printable(&gap.reason));
        writeln!(out, "not checked  {subject}{}: {reason}", printable(&rule))?;
    }
    if !(report.findings.is_empty() && report.not_checked.is_empty()) {
        writeln!(out)?;
    }
    write!(out, "found: {}", report.counts())?;
    if !report.accepted.is_empty() {
        write!(out, "; accepted: {}", report.accepted.len())?;
    }
    if !report.not_checked.is_empty() {
        write!(out, "; not checked: {}", report.not_checked.len())?;
    }
    for figure in &report.figures {
        write!(out, "; {}: {}", printable(&figure.name), figure.value)?;
    }
    writeln!(out)
}

fn write_finding(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    let place = printable(&finding.location.to_string());
    writeln!(out, "{:8}  {}  {place}", finding.severity, printable(&finding.rule))?;
    let subject = finding.subject.as_deref().map(|subject| format!("{subject}: "));
    let subject = printable(&subject.unwrap_or_default());
    writeln!(out, "          {}{}", subject, printable(&finding.title))?;
    for (name, value) in
        [("found", finding.evidence.as_str()), ("why", &finding.why), ("fix", &finding.fix)]
    {
        let mut lines = value.lines();
        writeln!(out, "          {name}: {}", printable(lines.next().unwrap_or_default()))?;
        for line in lines {
            writeln!(out, "            {}", printable(line))?;
        }
    }
    if !finding.mappings.is_empty() {
        let items: Vec<String> = finding.mappings.iter().map(ToString::to_string).collect();
        writeln!(out, "          see: {}", printable(&items.join(", ")))?;
    }
    writeln!(out, "          id: {}", finding.fingerprint)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{example_report, shown};
    use super::text;

    #[test]
    fn text_says_everything_in_lines() {
        let shown = shown(&example_report(), text);
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
