//! Keys: creation, life, rotation, deletion, import, tags.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::holdings::HoldingView;
use super::is_off;
use crate::words::{ImportAlgorithm, KeySpec, KeyState, KeyUsage, Origin, SigningAlgorithm};
use crate::{Base64Bytes, SecretText, StringMap};

/// `POST /v1/keys`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKeyRequest {
    /// What the material is; `AES_256` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<KeySpec>,
    /// What the key is for; the usual use of its spec when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<KeyUsage>,
    /// Where the material comes from; `generated` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// First alias, for example `alias/app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Free text, at most 8,192 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// At most 50 tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<StringMap>,
    /// Refuse deletion until it is switched off.
    #[serde(default, skip_serializing_if = "is_off")]
    pub deletion_protection: bool,
    /// Rotate by itself, each 3,600 to 315,360,000 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_period_seconds: Option<u64>,
}

/// `PATCH /v1/keys/{key}`: fields that are left out stay as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateKeyRequest {
    /// Free text, at most 8,192 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Refuse deletion until it is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,
}

/// `PUT /v1/keys/{key}/rotation`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRotationRequest {
    /// How often, in seconds: 3,600 to 315,360,000.
    pub period_seconds: u64,
}

/// Answer of `/v1/keys/{key}/rotation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RotationReply {
    /// Id of the key.
    pub key: String,
    /// Automatic rotation; left out while it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationView>,
}

/// `POST /v1/keys/{key}/schedule-deletion`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleDeletionRequest {
    /// Days until destruction, 7 to 366; 30 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 7, max = 366))]
    pub window_days: Option<u32>,
    /// Why it is destroyed in spite of what places hold under it, for the audit log; refused
    /// without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_spite_of_reports: Option<String>,
}

/// `POST /v1/keys/{key}/import-parameters`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportParametersRequest {
    /// How the material will be wrapped.
    pub algorithm: ImportAlgorithm,
}

/// Answer to `POST /v1/keys/{key}/import-parameters`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImportParametersReply {
    /// Goes back with the material; good for 24 hours.
    pub token: SecretText,
    /// RSA-4096 public key to wrap with, SubjectPublicKeyInfo in DER.
    pub wrapping_key: Base64Bytes,
    /// How to wrap.
    pub algorithm: ImportAlgorithm,
    /// Until when the token is good (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
}

/// `POST /v1/keys/{key}/import`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// From the import parameters.
    pub token: SecretText,
    /// The material, wrapped as the parameters say.
    pub wrapped_material: Base64Bytes,
}

/// `PUT /v1/keys/{key}/tags`: sets these, keeps the others.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTagsRequest {
    /// Names and values.
    pub tags: StringMap,
}

/// `DELETE /v1/keys/{key}/tags`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveTagsRequest {
    /// Names of the tags to remove; those that are not there are left out of account.
    pub names: Vec<String>,
}

/// Answer to `GET /v1/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListKeysReply {
    /// One page, sorted by id.
    pub keys: Vec<KeyView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// Everything about a key but its versions and its material.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyView {
    /// Its identity, a UUID.
    pub id: String,
    /// What its material is.
    pub spec: KeySpec,
    /// What it is for.
    pub usage: KeyUsage,
    /// Where its material comes from.
    pub origin: Origin,
    /// Where it is in its life.
    pub state: KeyState,
    /// Free text.
    pub description: String,
    /// Tags.
    pub tags: StringMap,
    /// Aliases, sorted.
    pub aliases: Vec<String>,
    /// The version that protects new data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_version: Option<u32>,
    /// The newest version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_version: Option<u32>,
    /// Raised by each change of primary.
    pub activation: u32,
    /// When it was created (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// When it was destroyed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub destroyed_at: Option<String>,
    /// Whether deletion is refused.
    pub deletion_protection: bool,
    /// Its deletion, while one is scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<DeletionView>,
    /// Automatic rotation; left out while it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationView>,
    /// Last use of any version (RFC 3339); left out before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_used_at: Option<String>,
    /// What places outside were last reported to hold, by place. Told where one key is described.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holdings: Vec<HoldingView>,
}

/// A scheduled deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletionView {
    /// When the material goes (RFC 3339); later when the clock is on hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub at: Option<String>,
    /// When it was asked for (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub scheduled_at: String,
    /// The window, in days.
    pub window_days: u32,
}

/// Automatic rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RotationView {
    /// How often, in seconds.
    pub period_seconds: u64,
    /// When next (RFC 3339); later when the clock is on hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub next_at: Option<String>,
    /// When last (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_at: Option<String>,
}

/// Answer to `GET /v1/keys/{key}/public-key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PublicKeyReply {
    /// SubjectPublicKeyInfo in DER.
    pub public_key: Base64Bytes,
    /// What the key's material is.
    pub spec: KeySpec,
    /// What the key is for.
    pub usage: KeyUsage,
    /// How it can sign; empty for a key that does not sign.
    pub signing_algorithms: Vec<SigningAlgorithm>,
    /// Id of the key.
    pub key: String,
    /// The version.
    pub version: u32,
}
