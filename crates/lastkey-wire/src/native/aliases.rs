//! Aliases: second names of keys.
//!
//! Room      `wire`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `PUT /v1/aliases/{alias}`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAliasRequest {
    /// The key it shall name: id or another alias.
    pub key: String,
}

/// Answer to `GET /v1/aliases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListAliasesReply {
    /// One page, sorted by name.
    pub aliases: Vec<AliasView>,
    /// Marker of the next page; left out on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_marker: Option<String>,
}

/// One alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AliasView {
    /// Its name, with the prefix `alias/`.
    pub alias: String,
    /// Id of the key it names.
    pub key: String,
}
