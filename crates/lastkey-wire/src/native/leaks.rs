//! What scanners claim to have seen of managed values.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Base64Bytes;
use crate::words::LeakVerdict;

/// `POST /v1/confirm/leaks`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmLeaksRequest {
    /// Key of the proofs: 32 random bytes, drawn for this question.
    pub proof_key: Base64Bytes,
    /// What was seen, 1 to 64.
    pub claims: Vec<LeakClaim>,
}

/// Something that was seen, and nothing of it in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeakClaim {
    /// Identity of the secret, as the scan pack has it: 32 hexadecimal digits.
    pub id: String,
    /// Its version.
    #[schemars(range(min = 1))]
    pub version: u32,
    /// 32 bytes that prove it.
    pub proof: Base64Bytes,
}

/// Answer to `POST /v1/confirm/leaks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfirmLeaksReply {
    /// One for each claim, in the same order.
    pub verdicts: Vec<LeakVerdictView>,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeakVerdictView {
    /// Whether it is right.
    pub verdict: LeakVerdict,
    /// Name of the secret; only of a confirmed one, and only to who may describe it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Stages of that version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<String>,
}
