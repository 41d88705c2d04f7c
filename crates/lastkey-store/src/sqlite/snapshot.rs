//! All values at one moment: read in one transaction, while the writer goes on.
//!
//! Room      `store`.
//! Source    <https://www.sqlite.org/isolation.html>, "snapshot isolation in WAL mode".
//! Holds     every value is that of one commit. While a snapshot is held the journal cannot be
//!           taken back whole into the database, so it is held no longer than needed.

use std::path::Path;

use lastkey_core::ports::CommitSeq;
use rusqlite::{Connection, OptionalExtension as _, Rows, Statement};

use super::connection::open_reader;
use super::directory::OpenError;
use crate::backend::RawStored;

const ALL: &str = "SELECT path, revision, value FROM records ORDER BY path";

/// The values of one commit.
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
    last: CommitSeq,
}

impl Snapshot {
    pub(super) fn begin(database: &Path) -> Result<Self, OpenError> {
        let connection = open_reader(database)?;
        let failed = |source| OpenError::Database { path: database.to_owned(), source };
        connection.execute_batch("BEGIN").map_err(failed)?;
        // The transaction begins with its first read.
        let last = "SELECT last FROM commits WHERE id = 1";
        let last = connection.query_row(last, [], |row| row.get(0)).map_err(failed)?;
        Ok(Self { connection, last: CommitSeq(last) })
    }

    /// The last commit in it.
    #[must_use]
    pub const fn last_commit(&self) -> CommitSeq {
        self.last
    }

    /// One value.
    pub(crate) fn get(&self, path: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        let one = "SELECT value FROM records WHERE path = ?1";
        self.connection.query_row(one, [path], |row| row.get(0)).optional()
    }

    /// Reads all values in the order of their paths, one after the other.
    pub(crate) fn values(&self) -> rusqlite::Result<Statement<'_>> {
        self.connection.prepare(ALL)
    }
}

/// The next value of a query by [`Snapshot::values`].
pub(crate) fn next_value(rows: &mut Rows<'_>) -> rusqlite::Result<Option<RawStored>> {
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(RawStored { path: row.get(0)?, revision: row.get(1)?, value: row.get(2)? }))
}
