//! Cryptographic operations.
//!
//! Room      `wire`. All are `POST`; each takes `dry_run`, and then the answer is
//!           [`super::error::DryRunReply`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_off;
use crate::words::{DataKeySpec, KeySpec, MessageType, SigningAlgorithm};
use crate::{Base64Bytes, SecretBase64, StringMap};

/// `POST /v1/encrypt`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptRequest {
    /// The key: id or alias.
    pub key: String,
    /// What to protect, at most 65,536 bytes.
    pub plaintext: SecretBase64,
    /// Encryption context: names and values that decryption must repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<StringMap>,
    /// Encryption context as bytes; never together with `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_raw: Option<Base64Bytes>,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/encrypt` and `POST /v1/data-key-without-plaintext`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EncryptReply {
    /// The ciphertext; it names its key and version itself.
    pub ciphertext: Base64Bytes,
    /// Id of the key.
    pub key: String,
    /// The key version.
    pub version: u32,
}

/// `POST /v1/decrypt`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecryptRequest {
    /// The ciphertext.
    pub ciphertext: Base64Bytes,
    /// Encryption context, as it was given to encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<StringMap>,
    /// Encryption context as bytes; never together with `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_raw: Option<Base64Bytes>,
    /// The key it must have been protected under; RSA ciphertexts need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key version; RSA ciphertexts only, the primary one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/decrypt`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct DecryptReply {
    /// What was protected.
    pub plaintext: SecretBase64,
    /// Id of the key.
    pub key: String,
    /// The key version.
    pub version: u32,
}

/// `POST /v1/reencrypt`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReencryptRequest {
    /// The ciphertext.
    pub ciphertext: Base64Bytes,
    /// Encryption context, as it was given to encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<StringMap>,
    /// Encryption context as bytes; never together with `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_raw: Option<Base64Bytes>,
    /// The key it must have been protected under; RSA ciphertexts need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_key: Option<String>,
    /// The key version; RSA ciphertexts only, the primary one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_version: Option<u32>,
    /// The key to protect it under: id or alias.
    pub to_key: String,
    /// Encryption context of the new ciphertext; none when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_context: Option<StringMap>,
    /// The same as bytes; never together with `to_context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_context_raw: Option<Base64Bytes>,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/reencrypt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReencryptReply {
    /// The new ciphertext.
    pub ciphertext: Base64Bytes,
    /// Id of its key.
    pub key: String,
    /// Its key version.
    pub version: u32,
    /// Id of the key of the old ciphertext.
    pub source_key: String,
    /// The version of that.
    pub source_version: u32,
}

/// `POST /v1/data-key` and `POST /v1/data-key-without-plaintext`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataKeyRequest {
    /// The key that protects the data key: id or alias.
    pub key: String,
    /// Length by name; `AES_256` when neither this nor `bytes` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<DataKeySpec>,
    /// Length in bytes, 1 to 1,024; never together with `spec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub bytes: Option<u32>,
    /// Encryption context: names and values that decryption must repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<StringMap>,
    /// Encryption context as bytes; never together with `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_raw: Option<Base64Bytes>,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/data-key`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct DataKeyReply {
    /// The data key.
    pub plaintext: SecretBase64,
    /// The data key, protected.
    pub ciphertext: Base64Bytes,
    /// Id of the key that protects it.
    pub key: String,
    /// The key version.
    pub version: u32,
}

/// `POST /v1/data-key-pair`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataKeyPairRequest {
    /// The key that protects the private half: id or alias.
    pub key: String,
    /// What the pair is: an asymmetric key spec.
    pub pair_spec: KeySpec,
    /// Encryption context: names and values that decryption must repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<StringMap>,
    /// Encryption context as bytes; never together with `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_raw: Option<Base64Bytes>,
    /// Leave the private half out of the answer; its protected form is there.
    #[serde(default, skip_serializing_if = "is_off")]
    pub without_private: bool,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/data-key-pair`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct DataKeyPairReply {
    /// The private half, PKCS#8 in DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<SecretBase64>,
    /// The private half, protected.
    pub private_key_ciphertext: Base64Bytes,
    /// The public half, SubjectPublicKeyInfo in DER.
    pub public_key: Base64Bytes,
    /// What the pair is.
    pub pair_spec: KeySpec,
    /// Id of the key that protects it.
    pub key: String,
    /// The key version.
    pub version: u32,
}

/// `POST /v1/random`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomRequest {
    /// How many bytes, 1 to 65,536.
    #[schemars(range(min = 1, max = 65536))]
    pub bytes: u32,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/random`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct RandomReply {
    /// The bytes.
    pub bytes: SecretBase64,
}

/// `POST /v1/sign`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignRequest {
    /// The key: id or alias.
    pub key: String,
    /// The key version; the primary one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The message, at most 65,536 bytes, or its digest.
    pub message: SecretBase64,
    /// What `message` is; `RAW` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_type: Option<MessageType>,
    /// How to sign; the usual way of the key's spec when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<SigningAlgorithm>,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/sign`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignReply {
    /// The signature; ECDSA as DER (RFC 3279, section 2.2.3).
    pub signature: Base64Bytes,
    /// How it was signed.
    pub algorithm: SigningAlgorithm,
    /// Id of the key.
    pub key: String,
    /// The key version.
    pub version: u32,
}

/// `POST /v1/verify`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// The key: id or alias.
    pub key: String,
    /// The key version; the primary one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The message, at most 65,536 bytes, or its digest.
    pub message: SecretBase64,
    /// What `message` is; `RAW` when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_type: Option<MessageType>,
    /// How it was signed; the usual way of the key's spec when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<SigningAlgorithm>,
    /// The signature.
    pub signature: Base64Bytes,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyReply {
    /// Whether the signature is good.
    pub valid: bool,
    /// How it was verified.
    pub algorithm: SigningAlgorithm,
    /// Id of the key.
    pub key: String,
    /// The key version.
    pub version: u32,
}

/// `POST /v1/mac`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MacRequest {
    /// The key: id or alias.
    pub key: String,
    /// The key version; the primary one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The message, at most 65,536 bytes.
    pub message: SecretBase64,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/mac`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MacReply {
    /// The MAC: 32, 48 or 64 bytes.
    pub mac: Base64Bytes,
    /// Id of the key.
    pub key: String,
    /// The key version.
    pub version: u32,
}

/// `POST /v1/verify-mac`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyMacRequest {
    /// The key: id or alias.
    pub key: String,
    /// The key version; the primary one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The message, at most 65,536 bytes.
    pub message: SecretBase64,
    /// The MAC.
    pub mac: Base64Bytes,
    /// Answer whether the call would be done; do nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub dry_run: bool,
}

/// Answer to `POST /v1/verify-mac`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyMacReply {
    /// Whether the MAC is good.
    pub valid: bool,
    /// Id of the key.
    pub key: String,
    /// The key version.
    pub version: u32,
}
