//! Use cases of databases: their root accounts, and what is done by them.
//!
//! Room      `service`. Behind the port `core::outside::Databases`.
//! Source    `docs/rotation.md`.
//! Holds     the password of a root account leaves the service for its database alone.

mod root;
mod set;

pub(crate) use self::root::{Root, RootTurns};
pub use self::set::DatabaseRequest;
