//! What places outside hold under a key, and what depends on it.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::StringMap;
use crate::words::{HeldWhat, KeyState};

/// `PUT /v1/keys/{key}/holdings/{place}`: takes the place of the report before.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportHoldingRequest {
    /// What the place holds.
    pub what: HeldWhat,
    /// How many under each version, by rising version, at most 4,096; a version that is left out
    /// has none.
    pub versions: Vec<HeldVersion>,
    /// The things by name, by rising name, at most 1,000: as many as `versions` counts, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub things: Vec<HeldThing>,
}

/// One thing under a key, such as a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldThing {
    /// Its name, once in a report.
    pub name: String,
    /// Number of the version that it is under, from 1.
    pub version: u32,
    /// What its place says about it, at most 16 names and values.
    #[serde(default)]
    pub about: StringMap,
}

/// How many things are under one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldVersion {
    /// Number of the version, from 1.
    pub version: u32,
    /// How many, from 1.
    pub count: u64,
}

/// `DELETE /v1/keys/{key}/holdings/{place}`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetHoldingRequest {
    /// Why, for the audit log: 1 to 512 bytes.
    pub reason: String,
}

/// `POST /v1/keys/{key}/versions/{version}/destroy`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DestroyVersionRequest {
    /// Why it is destroyed in spite of what places hold under it, for the audit log; refused
    /// without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_spite_of_reports: Option<String>,
}

/// Answer to `GET /v1/keys/{key}/impact`: what depends on a key, as far as the server knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImpactReply {
    /// Id of the key.
    pub key: String,
    /// Where it is in its life.
    pub state: KeyState,
    /// The version that protects new data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_version: Option<u32>,
    /// Last use of any version (RFC 3339); left out before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_used_at: Option<String>,
    /// What places outside were last reported to hold, by place.
    pub holdings: Vec<HoldingView>,
    /// Managed secrets that have a value under it.
    pub secrets: u64,
    /// Values of managed secrets under it.
    pub secret_versions: u64,
}

/// The last report of one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HoldingView {
    /// The place.
    pub place: String,
    /// What it holds.
    pub what: HeldWhat,
    /// How many under any version.
    pub count: u64,
    /// How many under each version that has any.
    pub versions: Vec<HeldVersion>,
    /// The things by name, where the place names them. Told by `/impact` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub things: Vec<HeldThing>,
    /// When it was reported (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub reported_at: String,
    /// By whom.
    pub reported_by: String,
    /// Whether the scheduled destruction goes on in spite of it.
    pub overridden: bool,
}
