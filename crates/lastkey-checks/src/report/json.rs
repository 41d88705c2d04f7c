//! A report for programs, in JSON of our own.
//!
//! Room      `checks`.
//! Source    docs/scan.md, "The JSON report".
//! Holds     Fields are added, never renamed or removed, while `report_version` is 1.

use serde::Serialize;

use super::Report;

#[derive(Serialize)]
struct Versioned<'r> {
    report_version: u32,
    #[serde(flatten)]
    report: &'r Report,
}

/// The report as one JSON object, ended by a newline.
#[must_use]
pub fn json(report: &Report) -> String {
    // INVARIANT: a report holds strings, numbers and lists alone, which always serialize.
    let mut text =
        serde_json::to_string_pretty(&Versioned { report_version: 1, report }).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::example_report;
    use super::json;

    #[test]
    fn json_has_every_part() {
        let value: Value = serde_json::from_str(&json(&example_report())).unwrap();
        assert_eq!(value["report_version"], 1);
        assert_eq!(value["findings"][1]["location"]["line"], 1);
        assert_eq!(value["findings"][0]["severity"], "high");
        assert_eq!(value["accepted"][0]["finding"]["rule"], "example-rule");
        assert_eq!(value["not_checked"][0]["subject"], "broken.zip");
        assert_eq!(value["figures"][0]["value"], 3);
    }
}
