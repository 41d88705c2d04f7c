//! A report as one HTML page that needs nothing else.
//!
//! Room      `checks`.
//! Holds     The page runs no script and loads nothing: its own policy forbids both.

use std::io::{self, Write};

use super::{Report, escaped};
use crate::finding::Finding;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>"#;

const STYLE: &str = "</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1b1f24; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
article { border: 1px solid #d4d9de; border-left-width: 6px; border-radius: 4px; margin: 0.8rem 0; padding: 0.6rem 1rem }
.critical { border-left-color: #8b0020 } .high { border-left-color: #c93a00 } .medium { border-left-color: #b58100 }
.low { border-left-color: #3a6fb0 } .info { border-left-color: #8a949e }
code, pre { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap }
dl { display: grid; grid-template-columns: 5rem 1fr; gap: 0.1rem 0.8rem; margin: 0.4rem 0 } dt { color: #59636e } dd { margin: 0 }
table { border-collapse: collapse } td, th { border-bottom: 1px solid #d4d9de; padding: 0.2rem 0.8rem 0.2rem 0; text-align: left; vertical-align: top }
@media (prefers-color-scheme: dark) { body { color: #e3e7eb; background: #14181c } article { border-color: #39424b } dt { color: #98a3ae } }
</style>
</head>
<body>
";

/// Writes the report as one self-contained HTML page.
///
/// # Errors
/// What the writer says.
pub fn html(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let name = escaped(&report.tool);
    writeln!(out, "{HEAD}{name}{STYLE}<h1>{name}</h1>")?;
    writeln!(out, "<p>Found: <strong>{}</strong>.", escaped(&report.counts()))?;
    for figure in &report.figures {
        writeln!(out, "{}: {}.", escaped(&figure.name), figure.value)?;
    }
    writeln!(out, "</p>")?;
    for finding in &report.findings {
        write_finding(out, finding)?;
    }
    if !report.not_checked.is_empty() {
        let rows = report.not_checked.iter().map(|gap| {
            [gap.rule.clone().unwrap_or_default(), gap.subject.clone(), gap.reason.clone()]
        });
        write_table(out, "Not checked", ["Rule", "What", "Why"], rows)?;
    }
    if !report.accepted.is_empty() {
        let rows = report.accepted.iter().map(|accepted| {
            let finding = &accepted.finding;
            [finding.rule.clone(), finding.location.to_string(), accepted.reason.clone()]
        });
        write_table(out, "Accepted", ["Rule", "Where", "Reason"], rows)?;
    }
    writeln!(out, "<p>{name} {}</p>\n</body>\n</html>", escaped(&report.version))
}

fn write_finding(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    let severity = finding.severity;
    writeln!(out, "<article class=\"{severity}\" id=\"{}\">", finding.fingerprint)?;
    let title = escaped(&finding.title);
    writeln!(out, "<strong>{severity}</strong> {title}\n<dl>")?;
    let place = finding.location.to_string();
    let items: Vec<String> = finding.mappings.iter().map(ToString::to_string).collect();
    for (name, value) in [
        ("where", place.as_str()),
        ("about", finding.subject.as_deref().unwrap_or_default()),
        ("found", finding.evidence.as_str()),
        ("why", &finding.why),
        ("fix", &finding.fix),
        ("see", items.join(", ").as_str()),
        ("rule", finding.rule.as_str()),
        ("id", finding.fingerprint.as_str()),
    ] {
        if !value.is_empty() {
            writeln!(out, "<dt>{name}</dt><dd><code>{}</code></dd>", escaped(value))?;
        }
    }
    writeln!(out, "</dl>\n</article>")
}

fn write_table(
    out: &mut dyn Write,
    title: &str,
    heads: [&str; 3],
    rows: impl Iterator<Item = [String; 3]>,
) -> io::Result<()> {
    let cells = |tag: &str, texts: &[String; 3]| -> String {
        texts.iter().map(|text| format!("<{tag}>{}</{tag}>", escaped(text))).collect()
    };
    writeln!(out, "<h2>{title}</h2>\n<table>")?;
    writeln!(out, "<tr>{}</tr>", cells("th", &heads.map(ToOwned::to_owned)))?;
    for row in rows {
        writeln!(out, "<tr>{}</tr>", cells("td", &row))?;
    }
    writeln!(out, "</table>")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{example_report, shown};
    use super::html;

    #[test]
    fn html_shows_all_parts_and_runs_nothing() {
        let page = shown(&example_report(), html);
        for part in ["<h2>Not checked</h2>", "<h2>Accepted</h2>", "broken.zip", "CWE 798"] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<article ").count(), 2);
        for forbidden in ["<script", "src=\"", "http:", "https:", "<x>", "\u{1b}"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
