//! Backups for people.
//!
//! Room      `lastkey`.

use lastkey_core::time::Timestamp;
use lastkey_wire::native::backups::{BackupView, ListBackupsReply};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::failure::Failure;
use crate::cli::table::{Fields, Show, grid};

impl Show for BackupView {
    fn table(&self) -> String {
        Fields::new()
            .with("Backup", &self.id)
            .with("State", state(self))
            .with_some("Problem", self.problem.as_ref())
            .with("Place", place(self))
            .with("Name", &self.name)
            .with("Begun", &self.begun_at)
            .with_some("Proven", self.proven_at.as_ref())
            .with_some("Bytes", self.bytes)
            .with_some("Records", self.records)
            .with_some("Audit records", self.audit_records)
            .table()
    }
}

impl Show for ListBackupsReply {
    fn table(&self) -> String {
        if !self.backups.iter().any(|backup| backup.state == "proven") {
            let none = "there is no backup: none was restored on trial and found equal\n";
            return if self.backups.is_empty() {
                none.to_owned()
            } else {
                none.to_owned() + &rows(self)
            };
        }
        rows(self)
    }
}

fn rows(reply: &ListBackupsReply) -> String {
    let row = |backup: &BackupView| {
        let records = backup.records.map_or_else(|| "-".to_owned(), |count| count.to_string());
        vec![
            backup.id.clone(),
            backup.begun_at.clone(),
            backup.state.clone(),
            records,
            place(backup),
            backup.problem.clone().unwrap_or_default(),
        ]
    };
    grid(
        &["BACKUP", "BEGUN", "STATE", "RECORDS", "PLACE", "PROBLEM"],
        reply.backups.iter().map(row),
    )
}

fn place(backup: &BackupView) -> String {
    backup.directory.clone().unwrap_or_else(|| "as configured".to_owned())
}

fn state(backup: &BackupView) -> String {
    match backup.state.as_str() {
        "proven" => "proven: it was restored on trial and found equal".to_owned(),
        "failed" | "interrupted" => format!("{}: this is no backup", backup.state),
        other => other.to_owned(),
    }
}

/// Backups that were checked here.
#[derive(Debug, Serialize)]
pub(super) struct CheckedBackups {
    pub(super) backups: Vec<CheckedBackup>,
}

/// A backup that was checked here.
#[derive(Debug, Serialize)]
pub(super) struct CheckedBackup {
    pub(super) name: String,
    pub(super) valid: bool,
    pub(super) instance: Option<String>,
    pub(super) begun_at: Option<String>,
    pub(super) bytes: Option<u64>,
    /// What can open it.
    pub(super) seals: Option<String>,
    /// How much was checked: `bytes`, `bytes and signature`, or `everything`.
    pub(super) checked: &'static str,
    pub(super) records: Option<u64>,
    pub(super) audit_records: Option<u64>,
    pub(super) problem: Option<String>,
}

impl CheckedBackup {
    pub(super) fn failed(name: String, failure: Failure) -> Self {
        Self {
            name,
            valid: false,
            instance: None,
            begun_at: None,
            bytes: None,
            seals: None,
            checked: "nothing",
            records: None,
            audit_records: None,
            problem: Some(chain(&failure)),
        }
    }
}

/// A failure and its causes.
fn chain(failure: &Failure) -> String {
    let first: &dyn std::error::Error = failure;
    let links = std::iter::successors(Some(first), |error| error.source());
    links.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Show for CheckedBackups {
    fn table(&self) -> String {
        let row = |backup: &CheckedBackup| {
            let result = match &backup.problem {
                Some(problem) => format!("FAILED: {problem}"),
                None => format!("good: {} checked", backup.checked),
            };
            let begun = backup.begun_at.clone().unwrap_or_else(|| "-".to_owned());
            vec![backup.name.clone(), begun, backup.seals.clone().unwrap_or_default(), result]
        };
        grid(&["BACKUP", "BEGUN", "SEALS", "RESULT"], self.backups.iter().map(row))
    }
}

/// What was restored.
#[derive(Debug, Serialize)]
pub(super) struct RestoredView {
    pub(super) instance: String,
    pub(super) backup: String,
    pub(super) begun_at: String,
    pub(super) records: u64,
    pub(super) audit_records: Option<u64>,
    /// Keys and versions that were destroyed since, and were destroyed again.
    pub(super) destroyed_again: usize,
    /// The last destruction that the list knows of: what was destroyed later has come back.
    pub(super) last_destroyed_at: Option<String>,
    pub(super) data: String,
}

impl Show for RestoredView {
    fn table(&self) -> String {
        let fields = Fields::new()
            .with("Restored", &self.data)
            .with("Instance", &self.instance)
            .with("State of", &self.begun_at)
            .with("Records", self.records)
            .with_some("Audit records", self.audit_records)
            .with("Destroyed again", self.destroyed_again)
            .with_some("Last destruction known", self.last_destroyed_at.as_ref())
            .table();
        let data = &self.data;
        format!(
            "{fields}\nNext:\n  lastkey server --data {data}\n  lastkey unseal\n\
             Nodes that knew a newer state refuse this one. When it takes the place of that, start \
             it once by:\n  lastkey server --data {data} --accept-rollback\n"
        )
    }
}

/// A moment for people and programs.
pub(super) fn date(at: Timestamp) -> String {
    let seconds = i64::try_from(at.0).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| at.0.to_string())
}
