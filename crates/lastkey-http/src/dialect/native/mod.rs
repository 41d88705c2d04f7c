//! The native dialect: JSON under `/v1`.
//!
//! Room      `http`. `routes` is the table; `decode` and `encode` stand around each use case;
//!           `errors` turns problems into statuses.

mod access;
mod aliases;
mod audit;
mod backups;
mod busy;
mod databases;
mod decode;
mod encode;
pub(crate) mod errors;
mod holdings;
mod keys;
mod leaks;
mod leases;
pub(crate) mod nodes;
pub(crate) mod openapi;
mod operations;
mod query;
mod rotation;
pub(crate) mod routes;
mod seals;
mod secrets;
pub(crate) mod sessions;
mod syntax;
pub(crate) mod system;
pub(crate) mod users;
mod versions;
mod words;

pub(crate) use backups::standing;
pub(crate) use decode::{Input, check_content_type, json};
pub(crate) use encode::{rfc3339, to_json};
pub(crate) use seals::opened_at;
