//! Backups: make one, list them, take one away.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /v1/sys/backups`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBackupRequest {
    /// An absolute path of the server's machine, or `s3://BUCKET/FOLDER`; where the configuration
    /// says when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// `DELETE /v1/sys/backups/{backup}`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveBackupRequest {
    /// Forget it also when it lies where the server does not go: nothing is left of it there.
    #[serde(default, skip_serializing_if = "crate::native::is_off")]
    pub forget: bool,
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackupView {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// `writing`, `proving` (it is restored aside), `proven`, `failed` or `interrupted`. Only a
    /// proven one is a backup.
    pub state: String,
    /// The directory of the server's machine, or the folder of a bucket, that it lies in; left out
    /// for the configured place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Name of the file or object.
    pub name: String,
    /// When it was begun (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub begun_at: String,
    /// When it was restored aside and found equal (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub proven_at: Option<String>,
    /// Bytes of the file, once it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Records in it, once it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Records of the audit log in it, once it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_records: Option<u64>,
    /// Why it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Answer to `GET /v1/sys/backups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListBackupsReply {
    /// The backups, newest first.
    pub backups: Vec<BackupView>,
}

/// Whether there is a backup, in the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackupStatus {
    /// Backups that were restored aside and found equal. Others count for nothing.
    pub proven: u64,
    /// When the newest of them was begun (RFC 3339); left out when there is no backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub newest: Option<String>,
    /// Whether the last attempt gave none; the list of backups says why.
    #[serde(default, skip_serializing_if = "crate::native::is_off")]
    pub last_failed: bool,
}
