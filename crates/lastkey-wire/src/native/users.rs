//! People.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SecretText;

/// `POST /v1/iam/users`
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddUserRequest {
    /// His name: 1 to 128 letters, digits, `.`, `_`, `@` and `-`.
    pub name: String,
    /// His groups, at most 64; those of the administrator roles are named as the roles are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// `PATCH /v1/iam/users/{name}`. His sessions end when groups change or he is kept out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUserRequest {
    /// His groups, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Whether he is kept out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserView {
    /// His name.
    pub name: String,
    /// His groups.
    pub groups: Vec<String>,
    /// Whether he has set password and second factor.
    pub enrolled: bool,
    /// Whether he is kept out.
    pub disabled: bool,
    /// When he was made known (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
}

/// A person and the code with which he enrols, shown once.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct EnrolmentReply {
    /// The person.
    pub user: UserView,
    /// The code for `POST /v1/sts/enrol`.
    pub enrolment_code: SecretText,
    /// How long it is good, in seconds.
    pub expires_in: u64,
}

/// Answer to `GET /v1/iam/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListUsersReply {
    /// One page, sorted by name.
    pub users: Vec<UserView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}
