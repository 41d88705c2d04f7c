//! Filling a new store with values that another one had, revisions and all.
//!
//! Room      `store`.
//! Source    `docs/formats/record.md`, "Data directory".
//! Holds     until [`finish_restore`] a mark lies in the directory with which it does not open, so
//!           a restore that was cut short never passes for a store.

use std::fs;
use std::path::{Path, PathBuf};

use lastkey_core::ports::CommitSeq;
use rusqlite::{Connection, params};

use super::connection::open_writer;
use super::directory::{self, Claim, OpenError, RESTORING};

/// Values in one transaction, so that the journal stays short.
const VALUES_AT_ONCE: u64 = 20_000;

/// A store that is being filled.
#[derive(Debug)]
pub struct Load {
    dir: PathBuf,
    database: PathBuf,
    connection: Connection,
    loaded: u64,
    // INVARIANT: dropped last.
    _claim: Claim,
}

impl Load {
    /// Begins in a directory that is empty or not there.
    ///
    /// # Errors
    /// [`OpenError::NotEmpty`]; others.
    pub fn begin(dir: &Path) -> Result<Self, OpenError> {
        let is_taken = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
        if is_taken {
            return Err(OpenError::NotEmpty(dir.to_owned()));
        }
        let claim = directory::claim(dir)?;
        directory::create_private(&dir.join(RESTORING))?;
        directory::sync(dir)?;
        let database = dir.join(directory::DATABASE);
        directory::create_private(&database)?;
        let connection = open_writer(&database, true)?;
        let load = Self { dir: dir.to_owned(), database, connection, loaded: 0, _claim: claim };
        load.execute("BEGIN IMMEDIATE")?;
        Ok(load)
    }

    /// Puts a value at its path, in its revision.
    ///
    /// # Errors
    /// [`OpenError::Database`], also when the path is there already.
    pub fn put(&mut self, path: &str, revision: u64, value: &[u8]) -> Result<(), OpenError> {
        let insert = "INSERT INTO records (path, revision, value) VALUES (?1, ?2, ?3)";
        let put = self.connection.prepare_cached(insert);
        let put = put.and_then(|mut insert| insert.execute(params![path, revision, value]));
        put.map_err(self.failed())?;
        self.loaded = self.loaded.saturating_add(1);
        if self.loaded.is_multiple_of(VALUES_AT_ONCE) {
            self.execute("COMMIT")?;
            self.execute("BEGIN IMMEDIATE")?;
        }
        Ok(())
    }

    /// Commits what is left and makes all of it durable.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn finish(self, last_commit: CommitSeq) -> Result<(), OpenError> {
        let last = "UPDATE commits SET last = ?1 WHERE id = 1";
        self.connection.execute(last, [last_commit.0]).map_err(self.failed())?;
        self.execute("COMMIT")?;
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")?;
        directory::finish_new(&self.dir)
    }

    fn execute(&self, sql: &str) -> Result<(), OpenError> {
        self.connection.execute_batch(sql).map_err(self.failed())
    }

    fn failed(&self) -> impl FnOnce(rusqlite::Error) -> OpenError + use<> {
        let path = self.database.clone();
        move |source| OpenError::Database { path, source }
    }
}

/// Takes the mark away: from now on the directory opens.
///
/// # Errors
/// [`OpenError::Io`].
pub fn finish_restore(dir: &Path) -> Result<(), OpenError> {
    directory::remove(&dir.join(RESTORING))?;
    directory::sync(dir)
}
