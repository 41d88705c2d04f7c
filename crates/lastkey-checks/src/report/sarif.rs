//! A report as SARIF, for code hosting and editors.
//!
//! Room      `checks`.
//! Source    SARIF 2.1.0 (OASIS, 2020-03-27), with the properties that code hosting reads:
//!           `security-severity`, `tags`, `partialFingerprints`.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{NotChecked, Report, RuleInfo};
use crate::finding::{Finding, Location, Mapping, Severity};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Writes the report as a SARIF 2.1.0 log with one run.
///
/// # Errors
/// What the writer says.
pub fn sarif(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let log = Log { schema: SCHEMA, version: "2.1.0", runs: [Run::of(report)] };
    serde_json::to_writer_pretty(&mut *out, &log)?;
    writeln!(out)
}

#[derive(Serialize)]
struct Log<'r> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'r>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'r> {
    tool: Value,
    column_kind: &'static str,
    invocations: Value,
    results: Results<'r>,
}

impl<'r> Run<'r> {
    fn of(report: &'r Report) -> Self {
        Self {
            tool: json!({ "driver": {
                "name": report.tool,
                "version": report.version,
                "rules": report.rules.iter().map(rule).collect::<Vec<_>>(),
            }}),
            column_kind: "unicodeCodePoints",
            invocations: json!([{
                "executionSuccessful": true,
                "toolExecutionNotifications":
                    report.not_checked.iter().map(notification).collect::<Vec<_>>(),
            }]),
            results: Results(report),
        }
    }
}

/// Made one by one while they are written: there may be tens of thousands.
struct Results<'r>(&'r Report);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(report) = self;
        let index: BTreeMap<&str, usize> =
            report.rules.iter().enumerate().map(|(at, rule)| (rule.id.as_str(), at)).collect();
        let open = report.findings.iter().map(|finding| (finding, None));
        let accepted = report.accepted.iter().map(|one| (&one.finding, Some(one.reason.as_str())));
        let all = open.chain(accepted);
        serializer.collect_seq(all.map(|(finding, reason)| result(finding, reason, &index)))
    }
}

fn rule(rule: &RuleInfo) -> Value {
    let tags: Vec<String> = std::iter::once("security".to_owned())
        .chain(rule.mappings.iter().map(ToString::to_string))
        .collect();
    json!({
        "id": rule.id,
        "shortDescription": { "text": rule.title },
        "fullDescription": { "text": rule.why },
        "help": { "text": rule.fix },
        "defaultConfiguration": { "level": level(rule.severity) },
        "properties": { "security-severity": score(rule.severity), "tags": tags },
    })
}

fn result(finding: &Finding, accepted: Option<&str>, index: &BTreeMap<&str, usize>) -> Value {
    let mut result = json!({
        "ruleId": finding.rule,
        "level": level(finding.severity),
        "message": { "text": message(finding) },
        "locations": [location(&finding.location, finding.subject.as_deref())],
        "partialFingerprints": { "lastkeyFinding/v1": finding.fingerprint },
        "properties": {
            "severity": finding.severity,
            "why": finding.why,
            "fix": finding.fix,
            "mappings": finding.mappings.iter().map(Mapping::to_string).collect::<Vec<_>>(),
        },
    });
    if let Some(fields) = result.as_object_mut() {
        if let Some(at) = index.get(finding.rule.as_str()) {
            fields.insert("ruleIndex".to_owned(), json!(at));
        }
        let suppressions = accepted.map(
            |reason| json!({ "kind": "external", "status": "accepted", "justification": reason }),
        );
        fields.insert("suppressions".to_owned(), suppressions.into_iter().collect());
    }
    result
}

fn message(finding: &Finding) -> String {
    format!("{}: {}. {}", finding.title, finding.evidence, finding.fix)
}

fn location(at: &Location, subject: Option<&str>) -> Value {
    let mut region = Map::new();
    for (name, value) in [
        ("startLine", at.line),
        ("startColumn", at.column),
        ("endLine", at.end_line),
        ("endColumn", at.end_column),
    ] {
        if value > 0 {
            region.insert(name.to_owned(), json!(value));
        }
    }
    let mut physical = json!({ "artifactLocation": { "uri": uri(&at.path) } });
    if let Some(fields) = physical.as_object_mut()
        && !region.is_empty()
    {
        fields.insert("region".to_owned(), Value::Object(region));
    }
    match subject {
        None => json!({ "physicalLocation": physical }),
        Some(name) => json!({
            "physicalLocation": physical,
            "logicalLocations": [{ "fullyQualifiedName": name, "kind": "resource" }],
        }),
    }
}

fn notification(gap: &NotChecked) -> Value {
    let mut text = format!("not checked: {}: {}", gap.subject, gap.reason);
    if let Some(rule) = &gap.rule {
        text = format!("{rule}: {text}");
    }
    json!({ "level": "warning", "message": { "text": text } })
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Info => "note",
    }
}

/// On the scale of 0.0 to 10.0 by which code hosting sorts alerts.
const fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::High => "8.0",
        Severity::Medium => "5.5",
        Severity::Low => "3.0",
        Severity::Info => "0.0",
    }
}

/// A path as a URI reference: absolute ones with a scheme, relative ones as they are, everything
/// that a URI cannot hold in percent form.
fn uri(path: &str) -> String {
    let mut out = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' | b'!' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::{example_report, shown};
    use super::{sarif, uri};

    #[test]
    fn sarif_has_what_code_hosting_reads() {
        let log: Value = serde_json::from_str(&shown(&example_report(), sarif)).unwrap();
        let run = &log["runs"][0];
        assert_eq!(log["version"], "2.1.0");
        assert_eq!(run["results"].as_array().unwrap().len(), 3);
        let result = &run["results"][1];
        assert_eq!(result["ruleIndex"], 0);
        assert_eq!(result["level"], "error");
        assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 1);
        assert_eq!(result["suppressions"].as_array().unwrap().len(), 0);
        assert_eq!(run["results"][2]["suppressions"][0]["kind"], "external");
        assert_eq!(result["partialFingerprints"]["lastkeyFinding/v1"].as_str().unwrap().len(), 32);
        let notes = &run["invocations"][0]["toolExecutionNotifications"];
        assert_eq!(notes.as_array().unwrap().len(), 1);
    }

    #[test]
    fn uri_holds_only_what_a_uri_may() {
        assert_eq!(uri("a b/ü.rs"), "a%20b/%C3%BC.rs");
        assert_eq!(uri("/etc/x"), "file:///etc/x");
        assert_eq!(uri("abc:d"), "abc%3Ad");
        assert_eq!(uri("l.tar!/etc/x"), "l.tar!/etc/x");
    }
}
