//! Nodes: machines that agents run on, how they join, and their certificates.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Base64Bytes, SecretText};

/// `PUT /v1/sys/nodes/{name}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetNodeRequest {
    /// The cluster that it is a node of.
    pub cluster: String,
    /// Instead of a token: the attestation key of its TPM by which it joins, whenever it has to, as
    /// `sha256:` and hexadecimal. `lastkey node tpm-key` prints it on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm_key: Option<String>,
}

/// Answer to `PUT /v1/sys/nodes/{name}`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenReply {
    /// The node.
    pub node: NodeView,
    /// The token that it joins with, once. It is shown nowhere else. Left out for a node that joins
    /// by its TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token: Option<SecretText>,
    /// With `join_token`: how long that is good, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// The cluster that it is a node of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// SHA-256 of its certificate, as `sha256:` and hexadecimal; left out before it joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// When that certificate was signed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub issued_at: Option<String>,
    /// When that certificate ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
    /// Whether it has a token that it has not joined with.
    pub may_join: bool,
    /// The attestation key of the TPM by which it joins, as `sha256:` and hexadecimal; not after it
    /// was revoked, until the key is named again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm_key: Option<String>,
    /// When it was made known (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
}

/// Answer to `GET /v1/sys/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListNodesReply {
    /// One page, sorted by name.
    pub nodes: Vec<NodeView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// Answer to `POST /v1/sys/node-authority/rotate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeAuthorityView {
    /// What signs certificates of nodes now: SHA-256 of its own certificate, as `sha256:` and
    /// hexadecimal.
    pub authority: String,
    /// When it was made (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// The one before it, whose certificates are good until they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// With `previous`: when the last of these certificates has ended (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub previous_until: Option<String>,
}

/// `POST /v1/nodes/challenge`. Needs no credential.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// The node's name.
    pub name: String,
}

/// Answer to `POST /v1/nodes/challenge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChallengeReply {
    /// What the node's TPM has to sign, together with the request for a certificate.
    pub challenge: Base64Bytes,
    /// How long it is good, in seconds.
    pub expires_in: u64,
}

/// What the TPM of a node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TpmEvidence {
    /// The challenge that it was given.
    pub challenge: Base64Bytes,
    /// The public area of its attestation key (`TPMT_PUBLIC`).
    pub public: Base64Bytes,
    /// What it has signed (`TPMS_ATTEST`).
    pub attestation: Base64Bytes,
    /// The signature (`TPMT_SIGNATURE`).
    pub signature: Base64Bytes,
}

/// `POST /v1/nodes/join`. Needs no other credential than the token, the evidence of the node's TPM,
/// or the certificate of its kubelet on the connection.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The node's name.
    pub name: String,
    /// Its one-time token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretText>,
    /// Instead of `token`: the cluster whose kubelet's certificate is on the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Instead of `token`: what the node's TPM says about `csr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmEvidence>,
    /// A request for a certificate (PKCS #10, PEM) for a key on P-256. Of what it asks for, only
    /// the key is looked at.
    pub csr: String,
}

/// `POST /v1/nodes/renew`. Needs the node's certificate on the connection, and no other
/// credential.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// A request for a certificate, as when joining; better for a new key.
    pub csr: String,
}

/// Answer to `POST /v1/nodes/join` and `POST /v1/nodes/renew`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeCertificateReply {
    /// The node's name.
    pub name: String,
    /// The SPIFFE id in the certificate.
    pub spiffe_id: String,
    /// The certificate (PEM). Every earlier one of this node is void, after a
    /// renewal as soon as this one is shown.
    pub certificate: String,
    /// When it ends (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
}
