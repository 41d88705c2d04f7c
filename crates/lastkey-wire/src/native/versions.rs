//! Key versions.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words::{Origin, VersionState};

/// Answer to `GET /v1/keys/{key}/versions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListVersionsReply {
    /// One page, from the oldest on.
    pub versions: Vec<VersionView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionView {
    /// Its number, from 1.
    pub version: u32,
    /// Its state.
    pub state: VersionState,
    /// Whether it protects new data.
    pub primary: bool,
    /// Activation generation of the key when this version last became primary; 0 before.
    pub activation: u32,
    /// Where its material comes from.
    pub origin: Origin,
    /// When it was created (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// When it was destroyed, that is unusable from then on (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub destroyed_at: Option<String>,
    /// When the last copy of its wrapped material had expired everywhere (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub erased_at: Option<String>,
    /// How it was used.
    pub usage: VersionUsage,
}

/// How a version was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionUsage {
    /// Uses that protected data.
    pub protected: u64,
    /// Uses that processed protected data.
    pub processed: u64,
    /// Uses refused because the version is shadow-disabled.
    pub refused: u64,
    /// Last use (RFC 3339); left out before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_used_at: Option<String>,
}
