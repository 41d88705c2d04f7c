//! Databases whose accounts the server manages.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_off;
use crate::SecretText;

/// `PUT /v1/databases/{name}`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDatabaseRequest {
    /// Where it is: `postgresql://HOST[:PORT]/NAME`, or `postgresql:///NAME?host=/FOLDER` for a
    /// socket. TLS, unless it is on loopback or a socket.
    pub address: String,
    /// Whose certificate it shows, in PEM; without it those that the machine knows count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// The account by which others are managed.
    pub user: String,
    /// The password of that account. The server sets another one, which nobody else knows.
    pub password: SecretText,
    /// Leave that password as it is.
    #[serde(default, skip_serializing_if = "is_off")]
    pub keep_password: bool,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseView {
    /// Its name here.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// Whose certificate it shows, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// The account by which others are managed.
    pub user: String,
    /// When the server drew the password of that account (RFC 3339); left out while it is the one
    /// that came with the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub root_rotated_at: Option<String>,
    /// When it was made known (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
}

/// Answer to `GET /v1/databases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListDatabasesReply {
    /// One page, sorted by name.
    pub databases: Vec<DatabaseView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}
