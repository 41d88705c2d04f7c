//! Errors, and what a dry run answers.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words::ErrorCode;

/// Body of every answer with a status of 400 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// One error, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDetail {
    /// Stable code; see [`ErrorCode`]. Text, because a newer server may know more of them.
    #[schemars(with = "ErrorCode")]
    pub code: String,
    /// For people; may change.
    pub message: String,
    /// The field that is wrong, as a path such as `items[3].context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What may stand there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Identity of the request, as in the header `x-request-id`.
    pub request_id: String,
}

/// Answer to a call with `dry_run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DryRunReply {
    /// What would happen.
    pub dry_run: DryRun,
}

/// Whether a call would be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DryRun {
    /// Whether it would be done.
    pub allowed: bool,
    /// Why not: an error code. Only for callers who may explain decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
