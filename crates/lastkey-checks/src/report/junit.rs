//! A report as JUnit XML, for build servers that show tests.
//!
//! Room      `checks`.
//! Source    the schema of Jenkins' xUnit plugin, junit-10.xsd.
//! Holds     One test case for each finding, and one that passes for each rule that found
//!           nothing; what could not be checked is `skipped`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use super::{Report, RuleInfo, escaped};
use crate::finding::Finding;

/// Writes the report as JUnit XML.
///
/// # Errors
/// What the writer says.
pub fn junit(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let failing: BTreeSet<&str> =
        report.findings.iter().map(|finding| finding.rule.as_str()).collect();
    let passing: Vec<&RuleInfo> =
        report.rules.iter().filter(|rule| !failing.contains(rule.id.as_str())).collect();
    let skipped = report.accepted.len() + report.not_checked.len();
    let tests = report.findings.len() + passing.len() + skipped;
    let failures = report.findings.len();
    let name = escaped(&report.tool);
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\"");
    writeln!(out, "<testsuites name=\"{name}\" {counts}>")?;
    writeln!(out, "  <testsuite name=\"{name}\" {counts} skipped=\"{skipped}\">")?;
    for finding in &report.findings {
        write_failure(out, finding)?;
    }
    for rule in passing {
        let (id, title) = (escaped(&rule.id), escaped(&rule.title));
        writeln!(out, "    <testcase classname=\"{id}\" name=\"{title}\"/>")?;
    }
    for accepted in &report.accepted {
        let place = accepted.finding.location.to_string();
        write_skipped(out, &accepted.finding.rule, &place, &accepted.reason)?;
    }
    for gap in &report.not_checked {
        let rule = gap.rule.as_deref().unwrap_or("input");
        write_skipped(out, rule, &gap.subject, &gap.reason)?;
    }
    writeln!(out, "  </testsuite>\n</testsuites>")
}

fn write_failure(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    let place = escaped(&finding.location.to_string());
    let rule = escaped(&finding.rule);
    let (title, kind) = (escaped(&finding.title), finding.severity);
    writeln!(out, "    <testcase classname=\"{rule}\" name=\"{place}\">")?;
    writeln!(out, "      <failure message=\"{title}\" type=\"{kind}\">")?;
    let subject = finding.subject.as_deref().unwrap_or_default();
    for (name, value) in [
        ("about", subject),
        ("found", finding.evidence.as_str()),
        ("why", &finding.why),
        ("fix", &finding.fix),
        ("id", finding.fingerprint.as_str()),
    ] {
        if !value.is_empty() {
            writeln!(out, "{name}: {}", escaped(value))?;
        }
    }
    writeln!(out, "      </failure>\n    </testcase>")
}

fn write_skipped(out: &mut dyn Write, rule: &str, place: &str, reason: &str) -> io::Result<()> {
    let (rule, place, reason) = (escaped(rule), escaped(place), escaped(reason));
    writeln!(out, "    <testcase classname=\"{rule}\" name=\"{place}\">")?;
    writeln!(out, "      <skipped message=\"{reason}\"/>\n    </testcase>")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{example_report, shown};
    use super::junit;

    #[test]
    fn junit_counts_what_it_lists() {
        let xml = shown(&example_report(), junit);
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
        let xml = shown(&report, junit);
        assert!(xml.contains("<testcase classname=\"example-rule\" name=\"Example\"/>"), "{xml}");
    }
}
