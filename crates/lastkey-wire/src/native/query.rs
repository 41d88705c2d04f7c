//! Query strings.
//!
//! Room      `wire`. Values are plain text; unknown names are refused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_off;

/// Query of routes that take a dry run and nothing else.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DryRunQuery {
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Query of lists.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Most entries in the answer, 1 to 1,000; 100 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_marker` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Query of routes about one version of a key.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionQuery {
    /// The version; the primary one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<u32>,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}
