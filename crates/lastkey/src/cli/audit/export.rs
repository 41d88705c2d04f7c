//! `audit export`: records in the forms that other systems read.
//!
//! Room      `lastkey`. The cursor lies with whoever exports: a slow reader holds up nobody.
//! Source    RFC 5424 (syslog); OCSF 1.x, class API Activity (6003); OTLP/JSON logs 1.x.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lastkey_client::file::{PendingFile, Replace};
use lastkey_wire::native::audit::{AuditField, AuditQuery, AuditRecord};
use serde_json::{Value, json};

use super::read::{FilterArgs, PAGE_LEN, Reader, at, rfc3339, text};
use crate::cli::{failure::Failure, session::Session};

/// A form of export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One JSON object a line, as in the log, and its index
    Jsonl,
    /// OpenTelemetry: one export request in JSON a line
    Otlp,
    /// RFC 5424, a line each
    Syslog,
    /// OCSF API Activity, one JSON object a line
    Ocsf,
}

/// Arguments of `audit export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// In which form
    #[arg(long, value_enum, value_name = "FORM")]
    format: Form,
    #[command(flatten)]
    filter: FilterArgs,
    /// Begin with this record; the oldest one when left out
    #[arg(long, value_name = "INDEX", conflicts_with = "cursor")]
    from: Option<u64>,
    /// Begin where this file says, and write there how far the export got
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,
    /// Go on with records as they come
    #[arg(short, long, conflicts_with = "offline")]
    follow: bool,
    /// Read this directory and ask no server
    #[arg(long, value_name = "DIR")]
    offline: Option<PathBuf>,
}

/// Writes records to standard output. The cursor moves only after what it covers was written.
pub(crate) async fn export(args: ExportArgs, session: &Session) -> Result<(), Failure> {
    let mut from = match &args.cursor {
        Some(path) => read_cursor(path)?,
        None => args.from,
    };
    let reader = Reader::open(args.offline, session)?;
    loop {
        let query = AuditQuery {
            from,
            limit: Some(PAGE_LEN),
            wait_seconds: args.follow.then_some(20),
            ..args.filter.query()
        };
        let page = reader.page(&query).await?;
        write(&page.records, args.format)?;
        let next = page.next.unwrap_or(page.end);
        from = Some(next);
        if let Some(path) = &args.cursor {
            write_cursor(path, next)?;
        }
        if page.next.is_none() && !args.follow {
            return Ok(());
        }
    }
}

fn read_cursor(path: &Path) -> Result<Option<u64>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let number = text.trim_end().parse();
            let bad = |_| Failure::Input(format!("{} holds no cursor", path.display()));
            number.map(Some).map_err(bad)
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Failure::io(format!("read {}", path.display()), cause)),
    }
}

fn write_cursor(path: &Path, next: u64) -> Result<(), Failure> {
    let pending = PendingFile::create(path, Replace::Allow)?;
    writeln!(pending.handle()?, "{next}")
        .map_err(|cause| Failure::io(format!("write {}", path.display()), cause))?;
    Ok(pending.keep(None)?)
}

fn write(records: &[AuditRecord], form: Form) -> Result<(), Failure> {
    let mut out = String::new();
    match form {
        Form::Otlp if records.is_empty() => {}
        Form::Otlp => out = format!("{}\n", otlp(records)),
        Form::Jsonl | Form::Syslog | Form::Ocsf => {
            for record in records {
                let line = match form {
                    Form::Syslog => syslog(record),
                    Form::Ocsf => ocsf(record).to_string(),
                    Form::Jsonl | Form::Otlp => jsonl(record).to_string(),
                };
                out.push_str(&line);
                out.push('\n');
            }
        }
    }
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(out.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|cause| Failure::io("write to standard output", cause))
}

/// The record's own fields, and its index.
fn jsonl(record: &AuditRecord) -> Value {
    let mut value = json!(record.record);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("index".to_owned(), json!(record.index));
    }
    value
}

fn is_ok(record: &AuditRecord) -> bool {
    matches!(text(record, "result"), Some("ok" | "pending"))
}

/// Facility 13 (log audit), severity notice when it was refused and informational else.
fn syslog(record: &AuditRecord) -> String {
    let severity = if is_ok(record) { 6 } else { 5 };
    let action = text(record, "action").unwrap_or("-").replace(':', ".");
    format!(
        "<{}>1 {} - lastkey - {} [audit@32473 index=\"{}\"] {}",
        13 * 8 + severity,
        rfc3339(at(record)),
        action.chars().filter(char::is_ascii_graphic).take(32).collect::<String>(),
        record.index,
        jsonl(record),
    )
}

/// OCSF's numbers for what an API was used to do.
fn activity(action: &str) -> (u8, &'static str) {
    let verb = action.split_once(':').map_or(action, |(_, verb)| verb);
    let starts = |words: &[&str]| words.iter().any(|word| verb.starts_with(word));
    match verb {
        _ if starts(&["Create", "Generate", "Import"]) => (1, "Create"),
        _ if starts(&["Describe", "List", "Get", "Read", "Verify"]) => (2, "Read"),
        _ if starts(&["Destroy", "Delete", "Schedule", "Revoke"]) => (4, "Delete"),
        _ if starts(&["Update", "Rotate", "Enable", "Disable", "Tag", "Mark", "Cancel", "Set"]) => {
            (3, "Update")
        }
        _ => (99, "Other"),
    }
}

fn ocsf(record: &AuditRecord) -> Value {
    let action = text(record, "action").unwrap_or_default();
    let (activity_id, activity_name) = activity(action);
    let part = |name| text(record, name);
    let ok = is_ok(record);
    json!({
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": 6003,
        "class_name": "API Activity",
        "activity_id": activity_id,
        "activity_name": activity_name,
        "type_uid": 600_300 + u32::from(activity_id),
        "time": at(record).saturating_mul(1_000),
        "severity_id": if ok { 1 } else { 2 },
        "status_id": if ok { 1 } else { 2 },
        "status_code": part("result"),
        "status_detail": part("reason"),
        "actor": {
            "user": { "name": part("who") },
            "session": { "uid": part("session") },
        },
        "api": { "operation": action, "request": { "uid": part("request") } },
        "resources": [{ "uid": part("key").or_else(|| part("target")) }],
        "src_endpoint": { "ip": part("from") },
        "metadata": {
            "version": "1.6.0",
            "product": { "name": "Lastkey", "vendor_name": "Lastkey" },
            "uid": record.index.to_string(),
        },
        "unmapped": record.record,
    })
}

/// One request to export logs, for all these records.
fn otlp(records: &[AuditRecord]) -> Value {
    let value = |field: &AuditField| match field {
        AuditField::Number(number) => json!({ "intValue": number.to_string() }),
        AuditField::Flag(flag) => json!({ "boolValue": flag }),
        AuditField::Text(text) => json!({ "stringValue": text }),
        AuditField::List(texts) => {
            let values: Vec<_> = texts.iter().map(|text| json!({ "stringValue": text })).collect();
            json!({ "arrayValue": { "values": values } })
        }
    };
    let one = |record: &AuditRecord| {
        let fields = record.record.iter();
        let attributes = fields.map(|(name, field)| {
            json!({ "key": format!("lastkey.audit.{name}"), "value": value(field) })
        });
        let index = json!({
            "key": "lastkey.audit.index",
            "value": { "intValue": record.index.to_string() },
        });
        let (number, word) = if is_ok(record) { (9, "INFO") } else { (13, "WARN") };
        json!({
            "timeUnixNano": (u128::from(at(record)) * 1_000_000_000).to_string(),
            "severityNumber": number,
            "severityText": word,
            "body": { "stringValue": text(record, "action").unwrap_or_default() },
            "attributes": attributes.chain([index]).collect::<Vec<_>>(),
        })
    };
    json!({ "resourceLogs": [{
        "resource": { "attributes": [
            { "key": "service.name", "value": { "stringValue": "lastkey" } },
        ] },
        "scopeLogs": [{
            "scope": { "name": "lastkey.audit" },
            "logRecords": records.iter().map(one).collect::<Vec<_>>(),
        }],
    }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AuditRecord {
        let record = r#"{"action":"kms:Decrypt","at":1795000000,"key":"k","result":"AccessDenied","who":"a\nb"}"#;
        AuditRecord { index: 7, record: serde_json::from_str(record).unwrap() }
    }

    #[test]
    fn a_syslog_line_is_one_line_with_its_index() {
        let line = syslog(&record());
        let head =
            "<109>1 2026-11-18T11:06:40Z - lastkey - kms.Decrypt [audit@32473 index=\"7\"] {";
        assert!(line.starts_with(head) && !line.contains('\n'), "{line}");
    }

    #[test]
    fn ocsf_names_class_type_and_outcome() {
        let event = ocsf(&record());
        assert_eq!(event["class_uid"], 6003);
        assert_eq!(event["type_uid"], 600_399);
        assert_eq!(
            (&event["status_id"], &event["time"]),
            (&json!(2), &json!(1_795_000_000_000_u64))
        );
        assert_eq!(event["actor"]["user"]["name"], "a\nb");
        assert_eq!(activity("kms:CreateKey").0, 1);
        assert_eq!(activity("kms:ScheduleKeyDeletion").0, 4);
    }

    #[test]
    fn otlp_writes_whole_numbers_as_text() {
        let request = otlp(&[record()]);
        let log = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(log["timeUnixNano"], "1795000000000000000");
        let attributes = log["attributes"].as_array().unwrap();
        let index = attributes.iter().find(|a| a["key"] == "lastkey.audit.index").unwrap();
        assert_eq!(index["value"]["intValue"], "7");
    }
}
