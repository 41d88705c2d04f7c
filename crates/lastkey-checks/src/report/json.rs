//! A report for programs, in JSON of our own.
//!
//! Room      `checks`.
//! Source    docs/scan.md, "The JSON report".
//! Holds     Fields are added, never renamed or removed, while `report_version` is 1.

use std::io::{self, Write};

use serde::Serialize;

use super::Report;

#[derive(Serialize)]
struct Versioned<'r, M> {
    report_version: u32,
    #[serde(flatten)]
    report: &'r Report,
    #[serde(flatten)]
    more: M,
}

/// Writes the report as one JSON object with more fields behind its own; `()` for none.
///
/// # Errors
/// What the writer says.
pub fn json<M: Serialize>(report: &Report, more: M, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &Versioned { report_version: 1, report, more })?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json as value};

    use super::super::tests::{example_report, shown};
    use super::json;

    #[test]
    fn json_has_every_part() {
        let text = shown(&example_report(), |report, out| json(report, (), out));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["report_version"], 1);
        assert_eq!(value["findings"][1]["location"]["line"], 1);
        assert_eq!(value["findings"][0]["severity"], "high");
        assert_eq!(value["accepted"][0]["finding"]["rule"], "example-rule");
        assert_eq!(value["not_checked"][0]["subject"], "broken.zip");
        assert_eq!(value["figures"][0]["value"], 3);
    }

    #[test]
    fn json_takes_more_fields() {
        let more = value!({ "checks": { "ENC-01": "pass" } });
        let text = shown(&example_report(), |report, out| json(report, &more, out));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["checks"], &value["tool"]), (&more["checks"], &"lastkey scan".into()));
    }
}
