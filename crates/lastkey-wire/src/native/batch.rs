//! Many operations of one kind in one request.
//!
//! Room      `wire`. `POST /v1/batch/{encrypt|decrypt|reencrypt|data-key|`
//!           `data-key-without-plaintext}`. Each item has a result of its own, in the same place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{DryRun, ErrorDetail};

/// Body of a batch; the items are requests of the operation.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest<T> {
    /// 1 to 256 items.
    #[schemars(length(min = 1, max = 256))]
    pub items: Vec<T>,
}

/// Answer to a batch; the status is 200 even when items failed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchReply<T> {
    /// One result for each item, in the same order.
    pub results: Vec<BatchResult<T>>,
}

/// What became of one item.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchResult<T> {
    /// Done; the answer of the operation.
    Ok(T),
    /// Not done.
    Error(ErrorDetail),
    /// Answer to a dry run.
    DryRun(DryRun),
}
