//! Health, status, unseal, seal, clock.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backups::BackupStatus;
use crate::words::Standing;
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
    /// What the audit log suffers from: `refusing` (it takes no records, so nothing is done),
    /// `tiles-behind` (its disk did not take tiles, which are written again) or `space-short`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_problem: Option<String>,
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

/// `POST /v1/sys/continuity`. Needs no credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContinuityRequest {
    /// What the caller was told to remember last; left out the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered: Option<RememberedState>,
}

/// What a node remembers of an installation, to know an older state of it. A later version may
/// remember more, and is understood nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RememberedState {
    /// A signed checkpoint of its audit log.
    pub checkpoint: String,
    /// The last commit of its store.
    pub commits: u64,
    /// Number of the last rollback that was accepted; 0 before there was one.
    pub rollback: u64,
}

/// Answer to `POST /v1/sys/continuity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContinuityReply {
    /// How the state of the server stands to what the caller remembers.
    pub standing: Standing,
    /// What the caller remembers more than there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to remember from now on, when the state continues or was accepted.
    pub state: RememberedState,
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
