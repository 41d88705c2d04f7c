//! The audit log: records, receipts, checkpoints, witnesses.
//!
//! Room      `wire`. What is in a record is docs/formats/audit-log.md.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_off;

/// Query of `GET /v1/audit/records`. What is left out matches every record; `who` and `action` may
/// end in `*`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Records from this number on; before it with `newest_first`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Most records in the answer, 1 to 1,000; 100 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// From the newest to the oldest.
    #[serde(default, skip_serializing_if = "is_off")]
    pub newest_first: bool,
    /// Id of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Name of a principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// An action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `ok`, `pending`, or the code of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Identity of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Not before this second since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Before this second since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Wait so many seconds for new records, at most 20; records of reading the log are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 20))]
    pub wait_seconds: Option<u64>,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `GET /v1/audit/records`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRecordsReply {
    /// The records.
    pub records: Vec<AuditRecord>,
    /// `from` of the next page; left out when everything there is was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Records in the log; new ones come from this number on.
    pub end: u64,
}

/// One record and its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRecord {
    /// Its number, from 0.
    pub index: u64,
    /// Its fields, by name.
    pub record: BTreeMap<String, AuditField>,
}

/// The value of a field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AuditField {
    /// A whole number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// A text.
    Text(String),
    /// Texts.
    List(Vec<String>),
}

/// Answer to `GET /v1/audit/records/{record}/receipt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditReceiptReply {
    /// Number of the record.
    pub index: u64,
    /// The record, byte by byte as it was hashed.
    pub record: String,
    /// The proof that it is in the log (C2SP tlog-proof).
    pub receipt: String,
}

/// Answer to `GET /v1/audit/checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditCheckpointReply {
    /// The signed checkpoint (C2SP tlog-checkpoint).
    pub checkpoint: String,
    /// The key that signs checkpoints, as C2SP signed-note writes it. Keep it elsewhere.
    pub public_key: String,
    /// The key that cosigns the checkpoints of other logs.
    pub witness_key: String,
    /// Records that the checkpoint covers.
    pub size: u64,
    /// Number of the oldest record that is kept.
    pub first: u64,
}

/// Answer to the routes under `/v1/audit/witnesses`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WitnessesReply {
    /// Those who are asked to cosign this log.
    pub witnesses: Vec<WitnessView>,
    /// Keys of the logs that are cosigned here.
    pub logs: Vec<String>,
}

/// One who is asked to cosign this log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WitnessView {
    /// Its key, as C2SP signed-note writes it.
    pub key: String,
    /// Where `add-checkpoint` is found.
    pub url: String,
    /// Fingerprint of its CA (`sha256:` and 64 hexadecimal digits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_fingerprint: Option<String>,
}

/// `POST /v1/audit/witnesses`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddWitnessRequest {
    /// The key of a witness, or, without a `url`, of a log to be cosigned here.
    pub key: String,
    /// Where the witness takes `add-checkpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Fingerprint of its CA (`sha256:` and 64 hexadecimal digits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_fingerprint: Option<String>,
}

/// `DELETE /v1/audit/witnesses`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveWitnessRequest {
    /// The key of a witness or log.
    pub key: String,
}
