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
    /// socket; `mariadb://HOST[:PORT]/NAME`, or `mariadb:///NAME?socket=/FILE`; the same with `mysql:`.
    /// TLS, unless it is on loopback and has no `authority`, or on a socket.
    pub address: String,
    /// Whose certificate it shows, in PEM, also on loopback; without it those that the machine knows
    /// count.
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

/// `PUT /v1/database-roles/{name}`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDatabaseRoleRequest {
    /// The database, by its name here.
    pub database: String,
    /// The role there that every account is a member of and acts as; it owns what they make.
    pub group: String,
    /// What else is done to a new account, in SQL; `{{user}}` and `{{group}}` stand for the names,
    /// quoted. At most 16, of 4,096 bytes each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<String>,
    /// Life of a lease between two renewals, in seconds, 300 to 2,592,000; 3,600 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 300, max = 2_592_000))]
    pub ttl_seconds: Option<u64>,
    /// Longest life of a lease with all renewals, in seconds; 86,400 or one life when it is left
    /// out. Leases of pods end with their pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 31_622_400))]
    pub max_ttl_seconds: Option<u64>,
    /// Leases at a time, 1 to 10,000; 1,000 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_leases: Option<u32>,
}

/// What accounts of a database are made like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseRoleView {
    /// Its name.
    pub name: String,
    /// The database.
    pub database: String,
    /// The role there that every account is a member of.
    pub group: String,
    /// What else is done to a new account.
    pub statements: Vec<String>,
    /// Life of a lease between two renewals, in seconds.
    pub ttl_seconds: u64,
    /// Longest life of a lease with all renewals, in seconds.
    pub max_ttl_seconds: u64,
    /// Leases at a time.
    pub max_leases: u32,
    /// When it was made (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
}

/// Answer to `GET /v1/database-roles`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListDatabaseRolesReply {
    /// One page, sorted by name.
    pub roles: Vec<DatabaseRoleView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// Answer to `POST /v1/database-roles/{name}/credentials`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseCredentialsReply {
    /// The lease.
    pub lease: LeaseView,
    /// Where the database is, as the operator wrote it.
    pub address: String,
    /// The password of the account.
    pub password: SecretText,
}

/// An account of a database that was made for one caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseView {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// The role that it was made by.
    pub role: String,
    /// The database.
    pub database: String,
    /// Its account there.
    pub username: String,
    /// Who asked for it.
    pub holder: String,
    /// The pod that it ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `making`, `in_use` or `ending`.
    pub state: String,
    /// When it was made (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// When it ends unless it is renewed (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
    /// How long it lives from now on, in seconds.
    pub expires_in: u64,
    /// After how many seconds its pod asks again, so that it is renewed in time.
    pub renew_in: u64,
    /// Why something could not be done with it, when that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Answer to `GET /v1/database-roles/{name}/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListLeasesReply {
    /// One page, sorted by id.
    pub leases: Vec<LeaseView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// `DELETE /v1/database-roles/{name}/leases/{lease}`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndLeaseRequest {
    /// Leave the account to whoever runs the database: for one that is gone for good.
    #[serde(default, skip_serializing_if = "is_off")]
    pub forget: bool,
}

/// Answer to `POST /v1/databases/{name}/mend`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MendReply {
    /// Accounts without a lease, which were dropped.
    pub dropped: Vec<String>,
    /// Leases whose accounts were gone, and were made again.
    pub made_again: Vec<String>,
    /// Leases whose accounts were gone, and which were ended.
    pub ended: Vec<String>,
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
