//! Nodes: machines that agents run on, how they join, and their certificates.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SecretText;

/// `PUT /v1/sys/nodes/{name}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetNodeRequest {
    /// The cluster that it is a node of.
    pub cluster: String,
}

/// Answer to `PUT /v1/sys/nodes/{name}`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenReply {
    /// The node.
    pub node: NodeView,
    /// The token that it joins with, once. It is shown nowhere else.
    pub join_token: SecretText,
    /// How long that is good, in seconds.
    pub expires_in: u64,
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

/// `POST /v1/nodes/join`. Needs no other credential than the token, or than the certificate of the
/// node's kubelet on the connection.
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
