//! Databases and their root accounts.
//!
//! Room      `core`. Passwords are here as they are kept, wrapped.

use lastkey_secret::SecretVec;

use crate::ids::Name;
use crate::time::Timestamp;
use crate::version::WrappedKey;

/// Longest address, in bytes.
pub const MAX_ADDRESS_LEN: usize = 2_048;

/// What a database speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// PostgreSQL, 10 and later.
    PostgreSql,
    /// MariaDB, 10.4 and later, or MySQL, 8.0 and later: which one, the server says.
    MariaDb,
}

impl DatabaseKind {
    /// What an address speaks, and what follows that in it.
    #[must_use]
    pub fn of_address(address: &str) -> Option<(Self, &str)> {
        let (scheme, rest) = address.split_once("://")?;
        match scheme {
            "postgresql" | "postgres" => Some((Self::PostgreSql, rest)),
            "mariadb" | "mysql" => Some((Self::MariaDb, rest)),
            _ => None,
        }
    }
}

/// A database that the service manages accounts of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its name here.
    pub name: Name,
    /// What it speaks.
    pub kind: DatabaseKind,
    /// Where it is, as an operator writes it (`docs/rotation.md`, "Addresses").
    pub address: String,
    /// Whose certificate it shows, in PEM; without it those that the machine knows count.
    pub authority: Option<String>,
    /// The account by which others are managed.
    pub root: String,
    /// The password of that account.
    pub root_password: WrappedKey,
    /// The next one, while it is being set: one of the two opens.
    pub next_root_password: Option<WrappedKey>,
    /// When the root password was drawn by the service, by the wall clock. From then on nobody else
    /// knows it.
    pub root_rotated_at: Option<Timestamp>,
    /// When it was made known, by the wall clock.
    pub created_at: Timestamp,
}

/// Where a database is, and how it is recognised.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// What it speaks.
    pub kind: DatabaseKind,
    /// Where it is.
    pub address: &'a str,
    /// Whose certificate it shows, in PEM.
    pub authority: Option<&'a str>,
}

/// An account and its password.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The account.
    pub account: &'a str,
    /// Its password.
    pub password: &'a SecretVec,
}
