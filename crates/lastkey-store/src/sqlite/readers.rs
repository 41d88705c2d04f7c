//! Connections that read. SQLite lets them read the last commit while the writer writes.
//!
//! Room      `store`.
//! Holds     a connection is held for one statement and never across `.await`; ranges have a
//!           connection of their own, so a long one does not stand in the way of point reads.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use lastkey_core::ports::Arrival;
use lastkey_core::record::{PathRange, RecordPath};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::connection::open_reader;
use super::directory::OpenError;
use super::failure::Failure;
use crate::backend::{BackendError, RawStored};

const GET: &str = "SELECT path, revision, value FROM records WHERE path = ?1";
const FROM: &str =
    "SELECT path, revision, value FROM records WHERE path >= ?1 ORDER BY path LIMIT ?2";
const AFTER: &str =
    "SELECT path, revision, value FROM records WHERE path > ?1 ORDER BY path LIMIT ?2";

const WALK: &str =
    "SELECT path, revision, value, id FROM records WHERE id > ?1 ORDER BY id LIMIT ?2";

/// The connections.
#[derive(Debug)]
pub(super) struct Readers {
    points: [Mutex<Connection>; 2],
    ranges: Mutex<Connection>,
    turn: AtomicUsize,
}

impl Readers {
    pub(super) fn open(database: &Path) -> Result<Self, OpenError> {
        let reader = || open_reader(database).map(Mutex::new);
        Ok(Self { points: [reader()?, reader()?], ranges: reader()?, turn: AtomicUsize::new(0) })
    }

    pub(super) fn get(&self, path: &str) -> Result<Option<RawStored>, BackendError> {
        let connection = self.point();
        let read = || {
            let mut statement = connection.prepare_cached(GET)?;
            statement.query_row([path], raw_stored).optional()
        };
        read().map_err(Failure::of("read a record")).map_err(BackendError::from)
    }

    pub(super) fn scan(&self, range: &PathRange) -> Result<Vec<RawStored>, BackendError> {
        let connection = lock(&self.ranges);
        let read = || read_range(&connection, range);
        read().map_err(Failure::of("read a range of records")).map_err(BackendError::from)
    }

    pub(super) fn walk(
        &self,
        after: Option<Arrival>,
        limit: usize,
    ) -> Result<Vec<(Arrival, RawStored)>, BackendError> {
        let connection = lock(&self.ranges);
        let (after, limit) = (after.map_or(0, |place| place.0), i64::try_from(limit));
        let read = || {
            let mut statement = connection.prepare_cached(WALK)?;
            let placed = |row: &Row<'_>| Ok((Arrival(row.get(3)?), raw_stored(row)?));
            let rows = statement.query_map((after, limit.unwrap_or(i64::MAX)), placed)?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(Failure::of("walk through records")).map_err(BackendError::from)
    }

    /// A connection that is free, or else the one whose turn it is.
    fn point(&self) -> MutexGuard<'_, Connection> {
        let [first, second] = &self.points;
        let odd = self.turn.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        let (mine, other) = if odd { (second, first) } else { (first, second) };
        match mine.try_lock() {
            Ok(connection) => connection,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => lock(other),
        }
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A panic while reading leaves nothing behind but a statement, which was reset.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_range(connection: &Connection, range: &PathRange) -> rusqlite::Result<Vec<RawStored>> {
    let prefix = range.prefix.as_str();
    let (sql, start) = match range.after.as_ref().map(RecordPath::as_str) {
        Some(after) if after >= prefix => (AFTER, after),
        Some(_) | None => (FROM, prefix),
    };
    let limit = i64::try_from(range.limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((start, limit), raw_stored)?;
    let inside = |row: &rusqlite::Result<RawStored>| {
        row.as_ref().map_or(true, |stored| stored.path.starts_with(prefix))
    };
    rows.take_while(inside).collect()
}

fn raw_stored(row: &Row<'_>) -> rusqlite::Result<RawStored> {
    Ok(RawStored { path: row.get(0)?, revision: row.get(1)?, value: row.get(2)? })
}
