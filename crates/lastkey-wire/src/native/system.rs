//! Health, status, unseal, seal, clock.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backups::BackupStatus;
use crate::{SecretBase64, SecretText};

/// Answer to `GET /healthz`: the process lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthReply {
    /// Always `ok`.
    pub status: String,
}

/// Answer to `GET /readyz`; status 503 when it is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReadyReply {
    /// Whether the server can serve.
    pub ready: bool,
    /// Why it cannot: `sealed`, `uninitialised`, `rolled-back` or `unavailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `GET /v1/sys/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusReply {
    /// Version of the server.
    pub server_version: String,
    /// Whether `init` was done.
    pub initialised: bool,
    /// Whether the server is sealed.
    pub sealed: bool,
    /// Identity of the installation, a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The ways to unseal it.
    pub seals: Vec<SealView>,
    /// Set while the clock is on hold: nothing expires and nothing is destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_hold: Option<ClockHold>,
    /// Whether there is a backup; left out while the server is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// Who knew a newer state of this installation. The server is not ready then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
}

/// One way to unseal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SealView {
    /// Identity of the seal, a UUID.
    pub id: String,
    /// `passphrase`, `keyfile`, `shamir`, `pkcs11`, `tpm2` or `kms`.
    pub kind: String,
    /// Shares that have been brought, for `shamir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_brought: Option<u8>,
    /// Shares that open it, for `shamir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_needed: Option<u8>,
    /// `proven`, `stale` or `holder-needed`; left out while the server is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// When it last opened the root key (RFC 3339); left out while the server is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub opened_at: Option<String>,
    /// Why its device did not open it at the last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A jump of the wall clock that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClockHold {
    /// When it was seen (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub seen_at: String,
    /// Its size in seconds; negative when the clock went back.
    pub jump_seconds: i64,
}

/// `POST /v1/sys/unseal`
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsealRequest {
    /// The passphrase, for a seal of kind `passphrase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<SecretText>,
    /// The content of the key file, for a seal of kind `keyfile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyfile: Option<SecretBase64>,
    /// One share, for a seal of kind `shamir`. One of the three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<SecretText>,
}

/// Answer to `POST /v1/sys/unseal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnsealReply {
    /// Whether the server is sealed now.
    pub sealed: bool,
    /// Identity of the attempt, as the audit log writes it.
    pub attempt: String,
    /// Kind of the seal that opened, or that waits for more shares.
    pub seal_kind: String,
    /// Shares that have been brought, when one was presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_brought: Option<u8>,
    /// Shares that open the seal, when one was presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_needed: Option<u8>,
}

/// Answer to `POST /v1/sys/seal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SealReply {
    /// Always true.
    pub sealed: bool,
}

/// Answer to `POST /v1/sys/clock/confirm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfirmClockReply {
    /// Always true.
    pub confirmed: bool,
}
