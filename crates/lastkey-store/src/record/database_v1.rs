//! Version 1 of the records of databases.
//!
//! Room      `store`. What is here never changes; a change of fields is a version 2 beside it.
//! Source    `docs/formats/record.md`, "Version 1".

use lastkey_core::database::Database;
use lastkey_core::ids::Name;
use lastkey_core::time::Timestamp;
use minicbor::{Decode, Encode};

use super::v1::WrappedV1;
use super::{DecodeError, codes};

#[derive(Encode, Decode)]
pub(super) struct DatabaseV1<'a> {
    #[b(0)]
    name: &'a str,
    #[n(1)]
    kind: u8,
    #[b(2)]
    address: &'a str,
    #[b(3)]
    authority: Option<&'a str>,
    #[b(4)]
    root: &'a str,
    #[b(5)]
    root_password: WrappedV1<'a>,
    #[b(6)]
    next_root_password: Option<WrappedV1<'a>>,
    #[n(7)]
    root_rotated_at: Option<u64>,
    #[n(8)]
    created_at: u64,
}

impl<'a> From<&'a Database> for DatabaseV1<'a> {
    fn from(database: &'a Database) -> Self {
        Self {
            name: database.name.as_str(),
            kind: codes::database_code(database.kind),
            address: &database.address,
            authority: database.authority.as_deref(),
            root: &database.root,
            root_password: WrappedV1::from(&database.root_password),
            next_root_password: database.next_root_password.as_ref().map(WrappedV1::from),
            root_rotated_at: database.root_rotated_at.map(|at| at.0),
            created_at: database.created_at.0,
        }
    }
}

impl TryFrom<DatabaseV1<'_>> for Database {
    type Error = DecodeError;

    fn try_from(database: DatabaseV1<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: Name::parse(database.name).or(Err(DecodeError::Malformed))?,
            kind: codes::database(database.kind)?,
            address: database.address.to_owned(),
            authority: database.authority.map(str::to_owned),
            root: database.root.to_owned(),
            root_password: database.root_password.into(),
            next_root_password: database.next_root_password.map(Into::into),
            root_rotated_at: database.root_rotated_at.map(Timestamp),
            created_at: Timestamp(database.created_at),
        })
    }
}
