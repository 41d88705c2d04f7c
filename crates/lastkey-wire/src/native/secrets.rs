//! Managed secrets.
//!
//! Room      `wire`. A name is one path segment: each `/` in it is sent as `%2F`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_off;
use crate::{SecretBase64, StringMap};

/// `PUT /v1/secrets/{secret}`: a value, or fields with names.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutSecretRequest {
    /// The value, as bytes that mean nothing to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<SecretBase64>,
    /// The value, as fields with names. Never together with `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeMap<String, SecretBase64>>,
    /// The key that protects it: id or alias; the secret's own when it is left out, for a new one
    /// `alias/lastkey/secrets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Free text, at most 8,192 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Tags, all of them, at most 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<StringMap>,
    /// Write only if this is the newest version now (0: only if there is no such secret).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u32>,
    /// Where the new version stands; `current` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// How many versions are kept, 1 to 100; 20 when it was never said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub keep_versions: Option<u32>,
}

/// A secret, without its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretView {
    /// Its name.
    pub name: String,
    /// Its identity, which stays when it is moved.
    pub id: String,
    /// The key that protects new versions.
    pub key: String,
    /// Free text.
    pub description: String,
    /// Tags.
    pub tags: StringMap,
    /// The newest version.
    pub newest_version: u32,
    /// Which version stands at which stage.
    pub stages: BTreeMap<String, u32>,
    /// How many versions are kept.
    pub keep_versions: u32,
    /// When it was made (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// When a version was written last (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub written_at: String,
    /// Set while it is deleted: when it is destroyed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub destroyed_at: Option<String>,
}

/// Answer to `GET /v1/secrets/{secret}/value`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct SecretValueReply {
    /// The secret.
    pub name: String,
    /// The version.
    pub version: u32,
    /// Stages of that version.
    pub stages: Vec<String>,
    /// When it was written (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// The value, when it was written as bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<SecretBase64>,
    /// The value, when it was written as fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeMap<String, SecretBase64>>,
}

/// Query of `GET /v1/secrets/{secret}/value`: a version or a stage; `current` when both are left
/// out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretValueQuery {
    /// The version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<u32>,
    /// The stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Query of `GET /v1/secrets`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListSecretsQuery {
    /// The path, such as `prod/shop`; all of them when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Also what lies in paths below.
    #[serde(default, skip_serializing_if = "is_off")]
    pub recursive: bool,
    /// Only names that contain this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only secrets with this tag: `NAME` or `NAME=VALUE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only secrets to which nothing was written for so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than_seconds: Option<u64>,
    /// Only those that are deleted; without it, only those that are not.
    #[serde(default, skip_serializing_if = "is_off")]
    pub deleted: bool,
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

/// Answer to `GET /v1/secrets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListSecretsReply {
    /// One page, by name. It may be shorter than asked for, and even empty, while there are more.
    pub secrets: Vec<SecretView>,
    /// Paths with secrets in them, without `recursive`; each ends with `/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// One version of a secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretVersionView {
    /// Its number.
    pub version: u32,
    /// Its stages.
    pub stages: Vec<String>,
    /// Whether its value is fields with names.
    pub has_fields: bool,
    /// Length of the value, in bytes.
    pub length: u32,
    /// The key that protects it.
    pub key: String,
    /// When it was written (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// When it was destroyed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub destroyed_at: Option<String>,
}

/// Answer to `GET /v1/secrets/{secret}/versions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListSecretVersionsReply {
    /// The secret.
    pub name: String,
    /// The versions that are kept, the oldest first.
    pub versions: Vec<SecretVersionView>,
}

/// `PATCH /v1/secrets/{secret}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSecretRequest {
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Tags to set; others stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<StringMap>,
    /// Names of tags to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_tags: Vec<String>,
    /// How many versions are kept, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub keep_versions: Option<u32>,
}

/// `PUT /v1/secrets/{secret}/stages/{stage}`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceStageRequest {
    /// The version that stands there from now on.
    #[schemars(range(min = 1))]
    pub version: u32,
}

/// `DELETE /v1/secrets/{secret}`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteSecretRequest {
    /// Days in which it can be restored, 7 to 366; 30 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 7, max = 366))]
    pub window_days: Option<u32>,
}

/// `POST /v1/secrets/{secret}/copy` and `/move`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferSecretRequest {
    /// The name to come to; there must be no secret yet.
    pub to: String,
}

/// `POST /v1/watch/secrets`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchSecretsRequest {
    /// The secrets, 1 to 1,000, each with its current version as the caller knows it.
    pub secrets: Vec<SeenSecret>,
    /// How long to wait for a change, at most 20 seconds; not at all when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 20))]
    pub wait_seconds: Option<u32>,
    /// From the agent of a node: names its statement of who holds what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders_digest: Option<String>,
    /// From the agent of a node: that statement, whole, at most 8,192 holders; left out when the
    /// server has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<Vec<SecretHolder>>,
    /// From the agent of a node that has just started: pods may hold something of which it does
    /// not know yet, so what was said before is kept until it has said all.
    #[serde(default, skip_serializing_if = "is_off")]
    pub holders_incomplete: bool,
}

/// A pod that holds a version of a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretHolder {
    /// The secret.
    // secrets: allow, the name of one
    pub secret: String,
    /// The version.
    #[schemars(range(min = 1))]
    pub version: u32,
    /// Namespace of the pod.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
    /// It was given this by its node, out of memory, while no server answered.
    #[serde(default, skip_serializing_if = "is_off")]
    pub given_in_outage: bool,
}

/// Answer to `GET /v1/secrets/{secret}/consumers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretConsumersReply {
    /// The secret.
    pub name: String,
    /// Since when this server listens to nodes (RFC 3339): who was not heard of since is missing.
    #[schemars(extend("format" = "date-time"))]
    pub heard_since: String,
    /// The pods that hold a version, by node.
    pub consumers: Vec<SecretConsumer>,
}

/// A pod that holds a version of a secret, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretConsumer {
    /// The version.
    pub version: u32,
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
    /// Its service account.
    pub service_account: String,
    /// Its node.
    pub node: String,
    /// The cluster of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// When the node first said so (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// When the node was last heard of (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub heard_at: String,
}

/// A secret and its current version, as somebody knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenSecret {
    /// The secret.
    pub name: String,
    /// Its current version; left out when none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<u32>,
}

/// Answer to `POST /v1/watch/secrets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WatchSecretsReply {
    /// Those with another current version than was known, in the order of the question. Without a
    /// version: there is none, it is deleted, or the caller may not list it.
    pub changed: Vec<SeenSecret>,
    /// To the agent of a node: its statement is not known here, send it whole.
    #[serde(default, skip_serializing_if = "is_off")]
    pub holders_wanted: bool,
}
