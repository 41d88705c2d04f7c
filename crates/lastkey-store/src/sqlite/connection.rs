//! Connections to the database: settings, schema, and the way from an older schema.
//!
//! Room      `store`.
//! Source    `docs/formats/record.md`, "Database"; <https://www.sqlite.org/pragma.html>.
//! Holds     a commit of the writer's connection is on the disk when it returns (WAL,
//!           `synchronous=FULL`), and deleted bytes are overwritten (`secure_delete`).

use core::time::Duration;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::directory::OpenError;

/// "LKEY": marks the file as ours.
const APPLICATION_ID: u32 = 0x4c4b_4559;

/// Each step makes the schema of its place in the list, counted from 1, out of the one before.
const SCHEMA_STEPS: [&str; 2] = [FIRST_SCHEMA, VALUES_APART];

const FIRST_SCHEMA: &str = "
    CREATE TABLE records (
        path TEXT NOT NULL PRIMARY KEY,
        revision INTEGER NOT NULL,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE commits (
        id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
        last INTEGER NOT NULL,
        merkle_root BLOB
    ) STRICT;
    INSERT INTO commits (id, last, merkle_root) VALUES (1, 0, NULL);
";

/// Values in the order in which they came, and an index of their paths. Paths hold random ids: in
/// one tree by path each new value had a page of its own to be read, split and written, now those
/// of one commit share pages, and the index is small enough to stay in memory.
const VALUES_APART: &str = "
    ALTER TABLE records RENAME TO records_by_path;
    CREATE TABLE records (
        id INTEGER NOT NULL PRIMARY KEY,
        path TEXT NOT NULL UNIQUE,
        revision INTEGER NOT NULL,
        value BLOB NOT NULL
    ) STRICT;
    INSERT INTO records (path, revision, value)
        SELECT path, revision, value FROM records_by_path ORDER BY path;
    DROP TABLE records_by_path;
";

/// Statements that a connection keeps prepared.
const PREPARED: usize = 16;

/// Nobody else should have the database open; if somebody has (a backup, a curious operator),
/// wait for him so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// 20,000 pages of journal before they move into the database (80 MB; fewer would make the
/// slowest commits slower), of which 32 MiB stay allocated afterwards.
const WRITER_SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA wal_autocheckpoint = 20000;
    PRAGMA journal_size_limit = 33554432;
    PRAGMA cache_size = -2000;
";

const SETTINGS: &str = "
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -1000;
";

/// Opens the one connection that writes, and brings the schema up to date. An empty database is
/// damage unless the store is new.
pub(super) fn open_writer(path: &Path, is_new: bool) -> Result<Connection, OpenError> {
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let found = found_schema(&connection, path)?;
    if found == 0 && !is_new {
        return Err(OpenError::Damaged(path.to_owned()));
    }
    connection.execute_batch(WRITER_SETTINGS).map_err(database(path))?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .map_err(database(path))?;
    if mode != "wal" {
        // Without shared memory (some network file systems) there is no safe way to go on.
        return Err(OpenError::Damaged(path.to_owned()));
    }
    migrate(&mut connection, found).map_err(database(path))?;
    Ok(connection)
}

/// Opens a connection that reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn open(path: &Path, access: OpenFlags) -> Result<Connection, OpenError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(database(path))?;
    connection.busy_timeout(PATIENCE).map_err(database(path))?;
    connection.execute_batch(SETTINGS).map_err(database(path))?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(connection)
}

/// How many steps of the schema were done; 0 for an empty file.
fn found_schema(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let number = |pragma| connection.query_row(pragma, [], |row| row.get::<_, u32>(0));
    let version = number("PRAGMA user_version").map_err(database(path))?;
    let application = number("PRAGMA application_id").map_err(database(path))?;
    let tables = number("SELECT count(*) FROM sqlite_schema").map_err(database(path))?;
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    match (done, application) {
        (0, 0) if tables == 0 => Ok(0),
        (1..=usize::MAX, APPLICATION_ID) if done <= SCHEMA_STEPS.len() => Ok(done),
        (1..=usize::MAX, APPLICATION_ID) => Err(OpenError::Newer(path.to_owned())),
        (_, _) => Err(OpenError::Damaged(path.to_owned())),
    }
}

fn migrate(connection: &mut Connection, done: usize) -> rusqlite::Result<()> {
    let missing = SCHEMA_STEPS.get(done..).unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_STEPS.len())?;
    transaction.commit()
}

/// Bytes that are no database are damage; the rest is told as it is.
fn database(path: &Path) -> impl FnOnce(rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged(path),
        Some(_) | None => OpenError::Database { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_of_the_first_schema_keeps_its_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(FIRST_SCHEMA).unwrap();
        let insert = "INSERT INTO records VALUES (?1, ?2, ?3)";
        for (place, revision) in [("key/b", 7), ("key/a", 1), ("version/a", 3)] {
            old.execute(insert, (place, revision, place.as_bytes())).unwrap();
        }
        old.execute("UPDATE commits SET last = 11", []).unwrap();
        old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        let migrated = open_writer(&path, false).unwrap();
        let mut all = migrated.prepare("SELECT path, revision, value FROM records ORDER BY path");
        let rows = all.as_mut().unwrap().query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get::<_, Vec<u8>>(2)?))
        });
        let rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
        let row = |place: &str, revision| (place.to_owned(), revision, place.into());
        assert_eq!(rows, [row("key/a", 1), row("key/b", 7), row("version/a", 3)]);
        let last = |sql| migrated.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
        assert_eq!(last("SELECT last FROM commits"), 11);
        assert_eq!(last("PRAGMA user_version"), 2);
        assert_eq!(last("SELECT count(*) FROM sqlite_schema WHERE name = 'records_by_path'"), 0);
        let again = "INSERT INTO records (path, revision, value) VALUES ('key/a', 1, x'')";
        assert!(migrated.execute(again, []).is_err());
    }
}
