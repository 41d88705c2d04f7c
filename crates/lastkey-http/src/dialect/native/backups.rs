//! Backups: decode, one use case, encode.
//!
//! Room      `http`.

use lastkey_core::ids::RequestId;
use lastkey_service::ops::backups::{BackupReport, BackupStanding};
use lastkey_wire::native::Empty;
use lastkey_wire::native::backups::{
    BackupStatus, BackupView, CreateBackupRequest, ListBackupsReply, RemoveBackupRequest,
};
use lastkey_wire::native::query::DryRunQuery;

use super::decode::{Ask, RequestBody};
use super::encode::rfc3339;
use crate::problem::{Problem, Syntax};

impl RequestBody for CreateBackupRequest {}
impl RequestBody for RemoveBackupRequest {}

/// `POST /v1/sys/backups`
pub(super) async fn create(ask: &Ask, body: CreateBackupRequest) -> Result<BackupView, Problem> {
    Ok(view(ask.gate().start_backup(ask.call(), body.directory).await?))
}

/// `GET /v1/sys/backups`
pub(super) async fn list(ask: &Ask, _: DryRunQuery) -> Result<ListBackupsReply, Problem> {
    let backups = ask.gate().list_backups(ask.call()).await?;
    Ok(ListBackupsReply { backups: backups.into_iter().map(view).collect() })
}

/// `GET /v1/sys/backups/{backup}`
pub(super) async fn describe(ask: &Ask, _: DryRunQuery) -> Result<BackupView, Problem> {
    Ok(view(ask.gate().describe_backup(ask.call(), backup_of(ask)?).await?))
}

/// `DELETE /v1/sys/backups/{backup}`
pub(super) async fn remove(ask: &Ask, body: RemoveBackupRequest) -> Result<Empty, Problem> {
    ask.gate().remove_backup(ask.call(), backup_of(ask)?, body.forget).await?;
    Ok(Empty {})
}

fn backup_of(ask: &Ask) -> Result<RequestId, Syntax> {
    let text = ask.text("backup")?;
    let bad = || Syntax::field("backup", "expected the id of a backup, 32 hexadecimal digits");
    let is_id = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = is_id.then(|| u128::from_str_radix(&text, 16).ok()).flatten();
    number.map(|number| RequestId(number.to_be_bytes())).ok_or_else(bad)
}

fn view(BackupReport { record, state }: BackupReport) -> BackupView {
    let written = record.written.as_ref();
    BackupView {
        id: record.id.to_string(),
        state: state.as_str().to_owned(),
        name: record.place.name,
        begun_at: rfc3339(record.begun_at),
        proven_at: record.proven_at.map(rfc3339),
        bytes: written.map(|written| written.len),
        records: written.map(|written| written.records),
        audit_records: written.and_then(|w| w.audit.as_ref()).map(|audit| audit.size),
        directory: record.place.directory,
        problem: record.problem,
    }
}

/// Whether there is a backup.
pub(crate) fn standing(standing: BackupStanding) -> BackupStatus {
    BackupStatus {
        proven: standing.proven as u64,
        newest: standing.newest.map(rfc3339),
        // Everybody may read the status, and a reason may name a directory.
        last_failed: standing.problem.is_some(),
    }
}
