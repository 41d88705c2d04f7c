//! Seals: which there are, how they are added, changed, removed and proven.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Base64Bytes, SecretBase64, SecretText, StringMap};

/// All seals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SealsReply {
    /// The seals, oldest first.
    pub seals: Vec<SealReport>,
    /// Why one loss would cost everything; empty when none would.
    pub weaknesses: Vec<WeaknessView>,
    /// Who has accepted all of these, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<AcceptedView>,
    /// The newest epoch of the keyring.
    pub epoch: u32,
    /// No record is under an older epoch than this; less than `epoch` while records are renewed.
    pub records_from: u32,
    /// What to know about what was just done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// A seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SealReport {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// `passphrase`, `keyfile`, `shamir`, `pkcs11`, `tpm2` or `kms`.
    pub kind: String,
    /// `proven`: it opened the root key in the last 90 days, or in this drill. `stale`: it did,
    /// longer ago. `holder-needed`: it was never seen to open. `failed`: it does not open.
    pub health: String,
    /// When it last opened the root key (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub opened_at: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it was made (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// How many shares open it, for `shamir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u8>,
    /// Its shares, for `shamir`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ShareView>,
    /// Where its device is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<StringMap>,
}

/// A share of a seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShareView {
    /// Its number, from 1.
    pub number: u8,
    /// The public key that it was encrypted to; left out for one that was written in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// When its holder last showed it to the unsealed server (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub shown_at: Option<String>,
}

/// A reason why one loss would cost everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WeaknessView {
    /// `single-seal`, `one-machine`, `one-holder` or `shares-in-clear`.
    pub code: String,
    /// The same in a sentence.
    pub message: String,
    /// What to do about it.
    pub next: String,
}

/// Somebody meant it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcceptedView {
    /// Who.
    pub by: String,
    /// When (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

/// `POST /v1/sys/seals`, and `PUT /v1/sys/seals/{seal}` to put another in the place of one. One
/// of the three.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSealRequest {
    /// A passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<PassphraseSeal>,
    /// Shares, which the caller has made and handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shamir: Option<ShamirSeal>,
    /// A device that the server reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceSeal>,
}

/// A seal of a passphrase.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassphraseSeal {
    /// The passphrase, 12 to 4,096 bytes.
    pub passphrase: SecretText,
    /// Memory that Argon2id takes, in KiB: 1,024 to 1,048,576. 65,536 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_kib: Option<u32>,
    /// Passes over the memory: 1 to 16. 3 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passes: Option<u32>,
}

/// A seal of shares, as `docs/formats/share.md` has it. No share is in it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShamirSeal {
    /// Its id, 32 hexadecimal digits: the shares name it.
    pub id: String,
    /// How many shares open it.
    pub threshold: u8,
    /// Who holds the shares: share 1, share 2, and so on.
    pub holders: Vec<ShareHolderBody>,
    /// The public half of the seal, 32 bytes.
    pub public: Base64Bytes,
    /// The seed of the seal, wrapped under what the shares give, 72 bytes.
    pub wrapped_seed: Base64Bytes,
    /// What the seal shares with the server, 32 bytes.
    pub shared: SecretBase64,
}

/// The holder of a share.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareHolderBody {
    /// The public key that the share was encrypted to; left out for one in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// What the share is checked by, 32 bytes.
    pub check_value: Base64Bytes,
}

/// A seal of a device.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceSeal {
    /// `pkcs11`, `tpm2` or `kms`.
    pub kind: String,
    /// Where it is; no secrets.
    pub settings: StringMap,
}

/// `POST /v1/sys/seals/rotate`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateSealsRequest {
    /// Draw a new secret for records and key material as well, and renew the records.
    #[serde(default, skip_serializing_if = "crate::native::is_off")]
    pub keyring: bool,
}

/// `POST /v1/sys/seals/drill`
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// A passphrase to prove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<SecretText>,
    /// The content of a key file to prove. At most one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyfile: Option<SecretBase64>,
}
