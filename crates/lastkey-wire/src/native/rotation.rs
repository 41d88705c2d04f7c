//! Rotation of managed secrets.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_off;
use crate::SecretText;

/// `PUT /v1/secrets/{secret}/rotation`: one of the strategies, and when.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecretRotationRequest {
    /// The server draws the new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<GeneratedStrategy>,
    /// Two accounts of a database take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStrategy>,
    /// A program of yours makes, sets and tests the new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStrategy>,
    /// How often, in seconds, 3,600 to 315,360,000; up to a twentieth of it earlier. Without it and
    /// `cron`: on demand alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3600, max = 315_360_000))]
    pub period_seconds: Option<u64>,
    /// Times of the calendar in UTC, five fields. Never together with `period_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// With `cron`: it begins at a random moment of so many seconds from then on, and at no other
    /// time; at most 86,400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub window_seconds: Option<u32>,
    /// How long the old version counts, in seconds, before it is revoked, at most 7,776,000. When
    /// it is left out: a day for a database, else the old version is kept like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 7_776_000))]
    pub overlap_seconds: Option<u64>,
}

/// What the server draws.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeneratedStrategy {
    /// Characters, 8 to 1,024; 32 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8, max = 1024))]
    pub length: Option<u32>,
    /// The characters that it is made of, each once; letters and digits when it is left out. One
    /// at least of each class that is there (small, capital, digit, other) is in every value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alphabet: Option<String>,
    /// The field that takes it; the whole value when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Two accounts that take turns. The secret has the fields `username` and `password`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseStrategy {
    /// The database, by its name here.
    pub name: String,
    /// The accounts, which must be there.
    #[schemars(length(equal = 2))]
    pub accounts: Vec<String>,
}

/// A program that is called in four steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookStrategy {
    /// Where it listens: https, or http on loopback.
    pub url: String,
    /// Whose certificate it shows, in PEM; without it those that the machine knows count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// What is drawn when it makes no value of its own.
    #[serde(default)]
    pub generated: GeneratedStrategy,
}

/// Answer to `PUT /v1/secrets/{secret}/rotation`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct SetSecretRotationReply {
    /// How the secret rotates.
    pub rotation: SecretRotationView,
    /// What calls of the program are signed with, once. It is shown nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<SecretText>,
}

/// How a secret rotates, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRotationView {
    /// The secret.
    pub name: String,
    /// The server draws the new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<GeneratedStrategy>,
    /// Two accounts of a database take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStrategy>,
    /// A program makes, sets and tests the new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStrategy>,
    /// How often, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<u64>,
    /// Times of the calendar in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Length of a window, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u32>,
    /// How long the old version counts, in seconds; left out when it is kept like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_seconds: Option<u64>,
    /// When it is due next (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub due_at: Option<String>,
    /// The one that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<UnderWayView>,
    /// The old version, while it still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<OverlapView>,
    /// How many have failed since the last one that did not.
    pub failures: u32,
    /// How the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRotationView>,
}

/// A rotation that has begun and has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnderWayView {
    /// The new version.
    pub version: u32,
    /// The last step that was done: `created`, `set` or `tested`.
    pub step: String,
    /// When it began (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub began_at: String,
}

/// An old version that still counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OverlapView {
    /// The version.
    pub version: u32,
    /// When it is revoked, or looked at again (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub ends_at: String,
    /// Whether it is revoked only when no consumer holds it any more.
    pub waits_for_consumers: bool,
    /// Who holds it still, as far as that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<String>,
}

/// How the last rotation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastRotationView {
    /// When (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// The version that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What went wrong; left out when all went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `POST /v1/secrets/{secret}/rotate`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateSecretRequest {
    /// Revoke the old version when no consumer holds it any more, and not before.
    #[serde(default, skip_serializing_if = "is_off")]
    pub wait_for_consumers: bool,
    /// Revoke the version before, if it still counts, now.
    #[serde(default, skip_serializing_if = "is_off")]
    pub end_overlap: bool,
}
