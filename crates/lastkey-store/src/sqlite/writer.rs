//! The one writer: takes every batch that is waiting and commits them together.
//!
//! Room      `store`.
//! Holds     a batch is answered after the commit that holds it returned, in the order of
//!           commits; a batch in conflict leaves its neighbours alone; when the commit fails,
//!           every batch of the group is told so. While a group commits the next one collects.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lastkey_core::ports::CommitSeq;
use rusqlite::{Connection, params};
use tokio::sync::{Semaphore, oneshot};

use super::directory::OpenError;
use super::failure::Failure;
use crate::answers::{self, Answering, Answers, Ends};
use crate::backend::{BackendError, RawExchange, RawWrite};
use crate::gather::{Gather, patience};
use crate::watch::Hub;

/// Callers who may wait for the writer; more wait for them.
const MAX_WAITING: usize = 1_024;

/// Batches in one group at most, so that the first of them does not wait for ever more.
const MAX_GROUP_LEN: usize = 256;

/// Values that are exchanged before it is looked whether anybody waits (about 1 ms).
const EXCHANGED_IN_A_TURN: usize = 128;

/// The writer thread is gone: it panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the writer of the store has ended")]
struct WriterEnded;

/// Another process keeps an old state of the database open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be emptied while another process reads the database")]
struct JournalHeld;

/// How a batch ended, for its caller.
type End = Result<CommitSeq, BackendError>;

type Answer = oneshot::Sender<End>;

enum Job {
    Commit(Waiting),
    Exchange(Vec<RawExchange>, Answer),
    EraseResidue(Answer),
}

struct Waiting {
    batch: Vec<RawWrite>,
    answer: Answer,
}

/// Handle of the writer thread. Dropping it waits until what was queued is committed.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Gather<Job>>,
    seats: Semaphore,
    answering: Answering<Ends<End>>,
    last: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        database: &Path,
        hub: Hub,
    ) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Database { path: database.to_owned(), source };
        let last = last_commit(&connection).map_err(failed)?;
        let queue = Arc::new(Gather::new());
        let jobs = Queue(Arc::clone(&queue));
        let (answers, answering) = answers::channel();
        let told = Arc::new(AtomicU64::new(last.0));
        let mut state = Writing {
            connection,
            database: database.to_owned(),
            hub,
            last,
            told: Arc::clone(&told),
            has_residue: true,
            answers,
        };
        let thread = thread::Builder::new()
            .name("lastkey-store".to_owned())
            .spawn(move || state.run(&jobs.0))
            .map_err(|source| OpenError::Io {
                doing: "start a thread for",
                path: database.to_owned(),
                source,
            })?;
        let seats = Semaphore::new(MAX_WAITING);
        Ok(Self { queue, seats, answering, last: told, thread: Some(thread) })
    }

    pub(super) fn last_commit(&self) -> CommitSeq {
        CommitSeq(self.last.load(Ordering::Acquire))
    }

    pub(super) async fn commit(&self, batch: Vec<RawWrite>) -> Result<CommitSeq, BackendError> {
        self.ask(|answer| Job::Commit(Waiting { batch, answer })).await
    }

    pub(super) async fn exchange(&self, values: Vec<RawExchange>) -> Result<(), BackendError> {
        self.ask(|answer| Job::Exchange(values, answer)).await.map(|_| ())
    }

    pub(super) async fn erase_residue(&self) -> Result<CommitSeq, BackendError> {
        self.ask(Job::EraseResidue).await
    }

    async fn ask(&self, job: impl FnOnce(Answer) -> Job) -> Result<CommitSeq, BackendError> {
        let (answer, answered) = oneshot::channel();
        let ended = || BackendError::Failed(WriterEnded.into());
        let _seat = self.seats.acquire().await.map_err(|_| ended())?;
        self.answering.start();
        self.queue.put(job(answer)).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its panic hook; nobody waits any more.
            let _ = thread.join();
        }
    }
}

/// The thread's side of the queue. With the thread it ends for those who wait, too.
struct Queue(Arc<Gather<Job>>);

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.close();
        // Dropped jobs tell their callers that the writer has ended.
        drop(self.0.take(0, Duration::ZERO));
    }
}

/// What the thread owns.
struct Writing {
    connection: Connection,
    database: PathBuf,
    hub: Hub,
    last: CommitSeq,
    /// The same, for others.
    told: Arc<AtomicU64>,
    /// Whether anything may have been deleted or replaced since the residue was last erased.
    has_residue: bool,
    answers: Answers<Ends<End>>,
}

/// How a batch of a group that was committed ended.
type Verdict = Option<CommitSeq>;

impl Writing {
    fn run(&mut self, jobs: &Gather<Job>) {
        let (mut expected, mut last) = (0, Duration::ZERO);
        while let Some(taken) = jobs.take(expected, patience(expected, last)) {
            let (began, count) = (Instant::now(), taken.len());
            self.serve(taken, jobs);
            // Those who were answered come again, and some have come already.
            expected = (count + jobs.len()).min(MAX_GROUP_LEN);
            last = began.elapsed();
        }
    }

    /// Does what was taken; exchanges last, since they wait for whoever comes meanwhile.
    fn serve(&mut self, taken: Vec<Job>, jobs: &Gather<Job>) {
        let (mut group, mut exchanges) = (Vec::new(), Vec::new());
        for job in taken {
            match job {
                Job::Commit(waiting) => group.push(waiting),
                Job::Exchange(values, answer) => exchanges.push((values, answer)),
                Job::EraseResidue(answer) => {
                    self.commit_group(&mut group);
                    answers::reply(answer, self.erase_residue());
                }
            }
            if group.len() == MAX_GROUP_LEN {
                self.commit_group(&mut group);
            }
        }
        self.commit_group(&mut group);
        for (values, answer) in exchanges {
            answers::reply(answer, self.exchange(&values, jobs));
        }
    }

    fn commit_group(&mut self, group: &mut Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        self.has_residue |= group.iter().flat_map(|w| &w.batch).any(|w| w.expected.is_some());
        match self.write_group(group) {
            Ok(verdicts) => {
                self.last = verdicts.iter().flatten().max().copied().unwrap_or(self.last);
                self.told.store(self.last.0, Ordering::Release);
                let ends = group.drain(..).zip(verdicts).map(|(waiting, verdict)| {
                    if let Some(commit) = verdict {
                        self.hub.publish(commit, &waiting.batch);
                    }
                    (waiting.answer, verdict.ok_or(BackendError::Conflict))
                });
                self.answers.give(Ends(ends.collect()));
            }
            Err(failure) => {
                let failure = Arc::new(failure);
                self.roll_back();
                let failed = |w: Waiting| (w.answer, Err(BackendError::from(&failure)));
                self.answers.give(Ends(group.drain(..).map(failed).collect()));
            }
        }
    }

    /// Writes and commits; afterwards no transaction is open unless it failed.
    fn write_group(&self, group: &[Waiting]) -> Result<Vec<Verdict>, Failure> {
        self.execute("BEGIN IMMEDIATE").map_err(Failure::of("begin a commit"))?;
        let mut last = self.last;
        let mut verdicts = Vec::with_capacity(group.len());
        for waiting in group {
            let written = self.write_batch(&waiting.batch).map_err(Failure::of("write records"))?;
            verdicts.push(written.then(|| {
                last = CommitSeq(last.0.saturating_add(1));
                last
            }));
        }
        if last == self.last {
            self.execute("ROLLBACK").map_err(Failure::of("end a commit"))?;
        } else {
            self.set_last(last).map_err(Failure::of("number a commit"))?;
            self.execute("COMMIT").map_err(Failure::of("commit"))?;
        }
        Ok(verdicts)
    }

    /// Exchanges values in commits of their own, which have no number: one when nobody else wants
    /// to write. Whoever does is served between two of them.
    fn exchange(
        &mut self,
        values: &[RawExchange],
        jobs: &Gather<Job>,
    ) -> Result<CommitSeq, BackendError> {
        let mut left = values;
        while !left.is_empty() {
            // Who was served in between may have erased what was left until then.
            self.has_residue = true;
            let done = self.try_exchange(left, jobs);
            if done.is_err() {
                self.roll_back();
            }
            let done = done.map_err(Failure::of("exchange records"))?;
            left = left.get(done..).unwrap_or_default();
            if jobs.len() > 0
                && let Some(waiting) = jobs.take(0, Duration::ZERO)
            {
                self.serve(waiting, jobs);
            }
        }
        Ok(self.last)
    }

    /// How many were exchanged: all, or those before it was seen that somebody waits.
    fn try_exchange(&self, values: &[RawExchange], jobs: &Gather<Job>) -> rusqlite::Result<usize> {
        self.execute("BEGIN IMMEDIATE")?;
        let mut done = 0_usize;
        for turn in values.chunks(EXCHANGED_IN_A_TURN) {
            for RawExchange { place, before, after } in turn {
                self.change(EXCHANGE, params![place.0, before, after])?;
            }
            done = done.saturating_add(turn.len());
            if jobs.len() > 0 {
                break;
            }
        }
        self.execute("COMMIT")?;
        Ok(done)
    }

    /// Writes one batch inside the group's transaction; false, and nothing written, when an
    /// expectation does not hold.
    fn write_batch(&self, batch: &[RawWrite]) -> rusqlite::Result<bool> {
        if let [only] = batch {
            return self.write(only);
        }
        self.execute("SAVEPOINT batch")?;
        for write in batch {
            if !self.write(write)? {
                self.execute("ROLLBACK TO batch")?;
                self.execute("RELEASE batch")?;
                return Ok(false);
            }
        }
        self.execute("RELEASE batch")?;
        Ok(true)
    }

    fn write(&self, write: &RawWrite) -> rusqlite::Result<bool> {
        let path = write.path.as_str();
        match (write.expected, write.value.as_deref()) {
            (None, Some(value)) => self.change(INSERT, params![path, value]),
            (Some(revision), Some(value)) => self.change(UPDATE, params![path, revision, value]),
            (Some(revision), None) => self.change(DELETE, params![path, revision]),
            (None, None) => Ok(!self.connection.prepare_cached(EXISTS)?.exists(params![path])?),
        }
    }

    fn change(&self, sql: &str, parameters: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<bool> {
        Ok(self.connection.prepare_cached(sql)?.execute(parameters)? == 1)
    }

    fn set_last(&self, last: CommitSeq) -> rusqlite::Result<bool> {
        self.change("UPDATE commits SET last = ?1 WHERE id = 1", params![last.0])
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    /// After a failure SQLite may have rolled back by itself, or not.
    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(error = %error, "a failed commit cannot be rolled back");
        }
    }

    /// Rewrites the database and cuts the journal to nothing, durably.
    fn erase_residue(&mut self) -> Result<CommitSeq, BackendError> {
        if self.has_residue {
            // While a backup holds an old state, and with it the journal, a rewrite would only add
            // the whole database to that, each time it is tried.
            self.empty_journal()?;
            self.rewrite().map_err(Failure::of("rewrite the database"))?;
        }
        self.empty_journal()?;
        self.sync_journal().map_err(|error| BackendError::Failed(error.into()))?;
        self.has_residue = false;
        Ok(self.last)
    }

    fn empty_journal(&self) -> Result<(), BackendError> {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: bool = self
            .connection
            .query_row(checkpoint, [], |row| row.get(0))
            .map_err(Failure::of("empty the journal"))?;
        if busy { Err(BackendError::Failed(JournalHeld.into())) } else { Ok(()) }
    }

    /// `secure_delete` overwrites what is deleted where it lies, but not the copies that stay in
    /// the free part of a page when SQLite moves a value to another page to make room
    /// (`rebuildPage` in its source). Only a rewrite of all pages is rid of those.
    fn rewrite(&self) -> rusqlite::Result<()> {
        // The copy of the database that is made on the way may be too big for memory, and a
        // hardened host may have no other directory to write to: a nameless file, beside it.
        if let Some(dir) = self.database.parent().and_then(Path::to_str) {
            self.connection.pragma_update(None, "temp_store_directory", dir)?;
        }
        let rewrite = "PRAGMA temp_store = FILE; VACUUM; PRAGMA temp_store = MEMORY;";
        self.connection.execute_batch(rewrite)
    }

    /// Without this a power failure could bring the journal's old length back.
    fn sync_journal(&self) -> std::io::Result<()> {
        let mut path = self.database.clone().into_os_string();
        path.push("-wal");
        File::open(path)?.sync_all()
    }
}

const INSERT: &str =
    "INSERT INTO records (path, revision, value) VALUES (?1, 1, ?2) ON CONFLICT DO NOTHING";
const UPDATE: &str =
    "UPDATE records SET revision = revision + 1, value = ?3 WHERE path = ?1 AND revision = ?2";
const EXCHANGE: &str = "UPDATE records SET value = ?3 WHERE id = ?1 AND value = ?2";
const DELETE: &str = "DELETE FROM records WHERE path = ?1 AND revision = ?2";
const EXISTS: &str = "SELECT 1 FROM records WHERE path = ?1";

fn last_commit(connection: &Connection) -> rusqlite::Result<CommitSeq> {
    connection
        .query_row("SELECT last FROM commits WHERE id = 1", [], |row| row.get(0))
        .map(CommitSeq)
}

#[cfg(test)]
mod tests {
    use lastkey_core::ports::Arrival;

    use super::super::{connection, directory};
    use super::*;

    fn writing(dir: &Path) -> Writing {
        let database = dir.join(directory::DATABASE);
        directory::create_private(&database).unwrap();
        let connection = connection::open_writer(&database, true).unwrap();
        let (hub, last, has_residue) = (Hub::new(), CommitSeq(0), false);
        // Nobody carries the answers, so the writer gives them out itself.
        let (answers, _) = answers::channel();
        let told = Arc::default();
        Writing { connection, database, hub, last, told, has_residue, answers }
    }

    fn put(path: &str, len: usize) -> RawWrite {
        RawWrite { path: path.to_owned(), expected: None, value: Some(vec![7; len]) }
    }

    /// Queues batches, lets the writer take them all, and answers how each one ended.
    fn run(
        state: &mut Writing,
        batches: Vec<Vec<RawWrite>>,
    ) -> Vec<Result<CommitSeq, BackendError>> {
        let queue = Gather::new();
        let wait = |batch| {
            let (answer, answered) = oneshot::channel();
            assert!(queue.put(Job::Commit(Waiting { batch, answer })).is_ok());
            answered
        };
        let mut answers: Vec<_> = batches.into_iter().map(wait).collect();
        queue.close();
        state.run(&queue);
        answers.iter_mut().map(|answer| answer.try_recv().unwrap()).collect()
    }

    #[test]
    fn batches_that_wait_share_one_commit() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = writing(dir.path());
        let before = state.connection.total_changes();
        let batches = (0..10).map(|n| vec![put(&format!("key/{n}"), 10)]).collect();
        let numbers: Vec<_> = run(&mut state, batches).into_iter().map(|r| r.unwrap().0).collect();
        assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
        // Ten records, and the number of the last commit once.
        assert_eq!(state.connection.total_changes() - before, 11);
    }

    #[test]
    fn batch_in_conflict_leaves_the_others_of_its_group_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = writing(dir.path());
        let batches = vec![
            vec![put("key/a", 10)],
            vec![put("key/b", 10), put("key/a", 20)],
            vec![put("key/a", 30)],
            vec![put("key/b", 40), put("key/c", 40)],
        ];
        let ends = run(&mut state, batches);
        assert!(matches!(
            ends[..],
            [
                Ok(CommitSeq(1)),
                Err(BackendError::Conflict),
                Err(BackendError::Conflict),
                Ok(CommitSeq(2))
            ]
        ));
        let sum = "SELECT sum(length(value)) FROM records";
        assert_eq!(state.connection.query_row(sum, [], |row| row.get::<_, u64>(0)).unwrap(), 90);
        assert_eq!(last_commit(&state.connection).unwrap(), CommitSeq(2));
    }

    #[test]
    fn whoever_wants_to_write_is_served_between_exchanges() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = writing(dir.path());
        let paths: Vec<_> = (0..3 * EXCHANGED_IN_A_TURN).map(|n| format!("key/{n:04}")).collect();
        run(&mut state, vec![paths.iter().map(|path| put(path, 10)).collect()]);
        let exchange =
            |place| RawExchange { place: Arrival(place), before: vec![7; 10], after: vec![8] };
        let exchanges: Vec<_> = (1..=paths.len() as u64).map(exchange).collect();
        let (answer, mut exchanged) = oneshot::channel();
        let (waiting, mut committed) = oneshot::channel();
        let queue = Gather::new();
        let last = paths.last().unwrap().clone();
        let batch = vec![RawWrite { path: last, expected: Some(1), value: Some(vec![9]) }];
        assert!(queue.put(Job::Commit(Waiting { batch, answer: waiting })).is_ok());
        let before = state.connection.total_changes();
        state.serve(vec![Job::Exchange(exchanges, answer)], &queue);
        assert!(committed.try_recv().unwrap().is_ok() && exchanged.try_recv().unwrap().is_ok());
        // The one that was written first was left alone; the number of the commit is a change too.
        let changes = state.connection.total_changes() - before;
        assert_eq!(usize::try_from(changes).unwrap(), paths.len() - 1 + 2);
        let sum = "SELECT sum(length(value)) FROM records";
        let sum: usize = state.connection.query_row(sum, [], |row| row.get(0)).unwrap();
        assert_eq!(sum, paths.len());
    }

    #[test]
    fn group_without_room_is_refused_whole_and_the_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = writing(dir.path());
        run(&mut state, vec![vec![put("key/a", 10)]]);
        state.connection.execute_batch("PRAGMA max_page_count = 20").unwrap();
        let ends = run(&mut state, vec![vec![put("key/b", 10)], vec![put("key/c", 200_000)]]);
        assert!(matches!(ends[..], [Err(BackendError::Full), Err(BackendError::Full)]), "{ends:?}");
        assert!(state.connection.is_autocommit());
        let ends = run(&mut state, vec![vec![put("key/b", 10)]]);
        assert!(matches!(ends[..], [Ok(CommitSeq(2))]), "{ends:?}");
    }

    #[test]
    fn group_that_cannot_be_committed_fails_whole_and_the_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = writing(dir.path());
        let mut watch = state.hub.watch("");
        state.connection.execute_batch("PRAGMA query_only = ON").unwrap();
        let ends = run(&mut state, vec![vec![put("key/a", 1)], vec![put("key/b", 1)]]);
        assert!(matches!(ends[..], [Err(BackendError::Failed(_)), Err(BackendError::Failed(_))]));
        state.connection.execute_batch("PRAGMA query_only = OFF").unwrap();
        assert!(matches!(run(&mut state, vec![vec![put("key/c", 1)]])[..], [Ok(CommitSeq(1))]));
        drop(state);
        // Nobody was told of what was not committed.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let told = runtime.block_on(watch.next());
        assert!(format!("{told:?}").contains("key/c"), "{told:?}");
        assert_eq!(runtime.block_on(watch.next()), None);
    }

    /// Whatever was to be erased while a backup was made put the whole database into the journal,
    /// again every ten minutes.
    #[test]
    fn erasing_while_somebody_holds_an_old_state_leaves_the_journal_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = writing(dir.path());
        run(&mut state, vec![vec![put("key/a", 100_000)]]);
        // The patience of a server only makes the test long.
        state.connection.busy_timeout(Duration::ZERO).unwrap();
        let reader = connection::open_reader(&state.database).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM records;").unwrap();
        run(&mut state, vec![vec![put("key/b", 10)]]);
        state.has_residue = true;
        let journal = || std::fs::metadata(dir.path().join("records.db-wal")).unwrap().len();
        let before = journal();
        assert!(matches!(state.erase_residue(), Err(BackendError::Failed(_))));
        assert_eq!(journal(), before);
        reader.execute_batch("COMMIT").unwrap();
        assert!(state.erase_residue().is_ok() && !state.has_residue);
        assert_eq!(journal(), 0);
    }

    #[test]
    fn commits_are_synchronous_and_deleted_bytes_are_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let state = writing(dir.path());
        for (pragma, expected) in [
            ("synchronous", 2),
            ("secure_delete", 1),
            ("trusted_schema", 0),
            ("cell_size_check", 1),
        ] {
            let found: i64 =
                state.connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
            assert_eq!(found, expected, "{pragma}");
        }
        let mode: String =
            state.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}
