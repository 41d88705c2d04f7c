//! A report as JUnit XML, for build servers that show tests.
//!
//! Room      `checks`.
//! Source    the schema of Jenkins' xUnit plugin, junit-10.xsd.
//! Holds     One test case for each finding, and one that passes for each rule that found
//!           nothing; what could not be checked is `skipped`.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{Report, RuleInfo, escaped};
use crate::finding::Finding;

/// The report as JUnit XML.
#[must_use]
pub fn junit(report: &Report) -> String {
    let failing: BTreeSet<&str> =
        report.findings.iter().map(|finding| finding.rule.as_str()).collect();
    let passing: Vec<&RuleInfo> =
        report.rules.iter().filter(|rule| !failing.contains(rule.id.as_str())).collect();
    let skipped = report.accepted.len() + report.not_checked.len();
    let tests = report.findings.len() + passing.len() + skipped;
    let failures = report.findings.len();
    let name = escaped(&report.tool);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\"");
    let _ = writeln!(out, "<testsuites name=\"{name}\" {counts}>");
    let _ = writeln!(out, "  <testsuite name=\"{name}\" {counts} skipped=\"{skipped}\">");
    for finding in &report.findings {
        push_failure(&mut out, finding);
    }
    for rule in passing {
        let (id, title) = (escaped(&rule.id), escaped(&rule.title));
        let _ = writeln!(out, "    <testcase classname=\"{id}\" name=\"{title}\"/>");
    }
    for accepted in &report.accepted {
        let place = accepted.finding.location.to_string();
        push_skipped(&mut out, &accepted.finding.rule, &place, &accepted.reason);
    }
    for gap in &report.not_checked {
        let rule = gap.rule.as_deref().unwrap_or("input");
        push_skipped(&mut out, rule, &gap.subject, &gap.reason);
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn push_failure(out: &mut String, finding: &Finding) {
    let place = escaped(&finding.location.to_string());
    let rule = escaped(&finding.rule);
    let (title, kind) = (escaped(&finding.title), finding.severity);
    let _ = writeln!(out, "    <testcase classname=\"{rule}\" name=\"{place}\">");
    let _ = writeln!(out, "      <failure message=\"{title}\" type=\"{kind}\">");
    let subject = finding.subject.as_deref().unwrap_or_default();
    for (name, value) in [
        ("about", subject),
        ("found", finding.evidence.as_str()),
        ("why", finding.why.as_str()),
        ("fix", finding.fix.as_str()),
        ("id", finding.fingerprint.as_str()),
    ] {
        if !value.is_empty() {
            let _ = writeln!(out, "{name}: {}", escaped(value));
        }
    }
    out.push_str("      </failure>\n    </testcase>\n");
}

fn push_skipped(out: &mut String, rule: &str, place: &str, reason: &str) {
    let (rule, place, reason) = (escaped(rule), escaped(place), escaped(reason));
    let _ = writeln!(out, "    <testcase classname=\"{rule}\" name=\"{place}\">");
    let _ = writeln!(out, "      <skipped message=\"{reason}\"/>\n    </testcase>");
}

#[cfg(test)]
mod tests {
    use super::super::tests::example_report;
    use super::junit;

    #[test]
    fn junit_counts_what_it_lists() {
        let xml = junit(&example_report());
        assert!(xml.contains("tests=\"4\" failures=\"2\" errors=\"0\" skipped=\"2\""), "{xml}");
        assert_eq!(xml.matches("<testcase ").count(), 4);
        assert_eq!(xml.matches("<failure ").count(), 2);
        assert_eq!(xml.matches("<skipped ").count(), 2);
        assert!(xml.contains("message=\"Example &lt;credential&gt; &amp; more\""));
        assert!(!xml.contains('\u{1b}'));
    }

    #[test]
    fn junit_passes_a_rule_that_found_nothing() {
        let mut report = example_report();
        report.findings.clear();
        let xml = junit(&report);
        assert!(xml.contains("<testcase classname=\"example-rule\" name=\"Example\"/>"), "{xml}");
    }
}
