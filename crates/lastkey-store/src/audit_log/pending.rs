//! What waits for the writer, and who waits for it.
//!
//! Room      `store`. One buffer under one lock; a record costs no task, channel or wake of its
//!           own.
//! Holds     records have the numbers of the order in which they came; nothing that was taken is
//!           dropped.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use lastkey_core::audit::Event;
use lastkey_core::audit::record::{SALT_LEN, write_record};
use lastkey_core::audit::tile::MAX_RECORD_LEN;
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};

use super::wal::ROOM;
use crate::answers::{self, Answering, Answers, Wakers};
use crate::gather::patience;

/// Why an event was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The log cannot be written. It is tried again and again.
    #[error("the audit log cannot be written: {0}")]
    Failing(String),
    /// Space is so short that only sealing and unsealing are recorded.
    #[error("the audit log takes no records: {0}")]
    Full(String),
    /// The files of the log are not what was written. Nothing is taken until the server is started
    /// again.
    #[error("the audit log was tampered with: {0}")]
    Tampered(String),
    /// More events are waiting than memory is kept for.
    #[error("the audit log is too far behind")]
    Behind,
    /// No randomness could be had for the record.
    #[error("no randomness for the audit log")]
    NoEntropy,
    /// A part of the log has ended by a fault of its own. Nothing is taken until the server is
    /// started again.
    #[error("the audit log has stopped by a fault of its own; start the server again")]
    Stopped,
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
}

/// Most bytes that wait for the writer.
const MAX_PENDING_LEN: usize = 4 << 20;
/// Most bytes of records that are durable and not in the tree yet; one group may exceed it.
const MAX_BUILDING_LEN: usize = 64 << 20;
/// How often the writer looks whether it still has to wait for the builder.
const LOOK: Duration = Duration::from_millis(500);
/// Longest buffer that is kept for the next group, in bytes.
const MAX_SPARE_LEN: usize = 1 << 20;
/// How long the writer lets a group grow when nobody waits for it.
const QUIET_LINGER: Duration = Duration::from_millis(5);

/// Why records are refused, by part of the log that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Troubles {
    /// Writing a group fails.
    pub(super) failing: Option<String>,
    /// There is too little space.
    pub(super) full: Option<String>,
    /// The files are not what was written.
    pub(super) tampered: Option<String>,
    /// One of its threads has ended before the log was closed.
    pub(super) stopped: bool,
}

impl Troubles {
    /// The gravest, as an error.
    pub(super) fn error(&self) -> Option<AuditError> {
        let tampered = self.tampered.clone().map(AuditError::Tampered);
        let stopped = self.stopped.then_some(AuditError::Stopped);
        let failing = || self.failing.clone().map(AuditError::Failing);
        tampered.or(stopped).or_else(failing).or_else(|| self.full.clone().map(AuditError::Full))
    }

    const fn any(&self) -> bool {
        self.failing.is_some() || self.full.is_some() || self.tampered.is_some() || self.stopped
    }
}

#[derive(Default)]
struct Pending {
    /// Room for the header of a group, and records, each after its length.
    framed: Vec<u8>,
    /// A buffer that was used before, empty.
    spare: Vec<u8>,
    /// How many records there are.
    count: u64,
    /// Number of the next record.
    next: u64,
    salts: Salts,
    /// Those who wait, with the number of their record.
    waiting: Vec<(u64, Waker)>,
    /// The writer is to be woken when so many records are there; 0 when it is busy.
    wake_at: u64,
    /// The writer is to be woken when somebody waits.
    wake_for_waiter: bool,
    troubles: Troubles,
    closed: bool,
}

/// The buffer between those who record and the writer.
pub(super) struct Buffer {
    pending: Mutex<Pending>,
    news: Condvar,
    /// Bytes of records on their way into the tree.
    building: Mutex<usize>,
    built: Condvar,
    /// Number of the record after the last one that is durable.
    durable: AtomicU64,
    answers: Answers<Wakers>,
    answering: Answering<Wakers>,
}

/// Records that are to be written together.
pub(super) struct Batch {
    /// Number of the first.
    pub(super) first: u64,
    /// The records, each after its length, behind room for the header of a group.
    pub(super) framed: Vec<u8>,
    /// Whether the log is being closed.
    pub(super) closed: bool,
}

impl Buffer {
    /// An empty buffer of a log of `next` records.
    pub(super) fn new(next: u64) -> Self {
        let pending = Pending { next, ..Pending::default() };
        let (pending, news) = (Mutex::new(pending), Condvar::new());
        let (answers, answering) = answers::channel();
        let (building, built) = (Mutex::default(), Condvar::new());
        let durable = AtomicU64::new(next);
        Self { pending, news, building, built, durable, answers, answering }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of the record after the last one that is durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Changes what stands in the way of records; those who wait learn of it.
    pub(super) fn trouble(&self, change: impl FnOnce(&mut Troubles)) {
        let mut pending = self.lock();
        let before = pending.troubles.clone();
        change(&mut pending.troubles);
        if pending.troubles == before {
            return;
        }
        let wake =
            if pending.troubles.any() { std::mem::take(&mut pending.waiting) } else { Vec::new() };
        drop(pending);
        wake.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// What stands in the way of records.
    pub(super) fn troubles(&self) -> Troubles {
        self.lock().troubles.clone()
    }

    /// Takes no more records; the writer ends when it has written what is there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }

    /// Whether no more records are taken.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes an event; the number of its record.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(super) fn push(&self, event: &Event<'_>) -> Result<u64, AuditError> {
        self.add(event, None).map(|(number, _)| number)
    }

    /// Takes an event, and waits until it is durable. One that must not be lost while the log
    /// cannot be written is taken all the same, and written when it can be.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(super) async fn push_durably(&self, event: &Event<'_>) -> Result<(), AuditError> {
        self.answering.start();
        let mut number = None;
        poll_fn(|context| match number {
            Some(number) => self.poll_durable(number, event.is_essential(), context),
            None => match self.add(event, Some(context)) {
                Ok((taken, is_waiting)) => {
                    number = Some(taken);
                    if is_waiting { Poll::Pending } else { Poll::Ready(Ok(())) }
                }
                Err(error) => Poll::Ready(Err(error)),
            },
        })
        .await
    }

    fn add(
        &self,
        event: &Event<'_>,
        waiter: Option<&Context<'_>>,
    ) -> Result<(u64, bool), AuditError> {
        let mut pending = self.lock();
        let is_troubled = pending.check(event.is_essential())?;
        pending.write(event)?;
        let number = pending.next;
        pending.next += 1;
        pending.count += 1;
        let is_waiting = waiter.is_some() && !is_troubled;
        if let Some(context) = waiter.filter(|_| is_waiting) {
            pending.waiting.push((number, context.waker().clone()));
        }
        let wake = (pending.wake_at != 0 && pending.count >= pending.wake_at)
            || (is_waiting && pending.wake_for_waiter);
        if wake {
            pending.wake_at = 0;
            pending.wake_for_waiter = false;
        }
        drop(pending);
        if wake {
            self.news.notify_all();
        }
        Ok((number, is_waiting))
    }

    fn poll_durable(
        &self,
        number: u64,
        is_essential: bool,
        context: &Context<'_>,
    ) -> Poll<Result<(), AuditError>> {
        if self.durable() > number {
            return Poll::Ready(Ok(()));
        }
        let mut pending = self.lock();
        // Between the first look and the lock it may have become durable.
        if self.durable() > number {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = pending.troubles.error() {
            return Poll::Ready(if is_essential { Ok(()) } else { Err(error) });
        }
        pending.waiting.push((number, context.waker().clone()));
        Poll::Pending
    }

    /// Waits for records, lets them gather, and takes them all. `expected` is how many are thought
    /// to come soon, and `last` how long the last group took.
    pub(super) fn take(&self, expected: u64, last: Duration) -> Batch {
        let mut pending = self.lock();
        while pending.count == 0 && !pending.closed {
            pending.wake_at = 1;
            pending = self.news.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        if pending.waiting.is_empty() && !pending.closed {
            pending.wake_for_waiter = true;
            let quiet = |pending: &mut Pending| pending.waiting.is_empty() && !pending.closed;
            let waited = self.news.wait_timeout_while(pending, QUIET_LINGER, quiet);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
            pending.wake_for_waiter = false;
        }
        let many = usize::try_from(expected).unwrap_or(usize::MAX);
        let until = Instant::now() + patience(many, last);
        while pending.count < expected && !pending.closed {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            pending.wake_at = expected;
            pending =
                self.news.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        pending.wake_at = 0;
        let first = pending.next - pending.count;
        pending.count = 0;
        let room = std::mem::take(&mut pending.spare);
        let framed = std::mem::replace(&mut pending.framed, room);
        Batch { first, framed, closed: pending.closed }
    }

    /// Takes the buffer of a group back: the next group is often as long, and memory that is new
    /// each time costs more than what is written into it.
    pub(super) fn reuse(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= MAX_SPARE_LEN {
            buffer.clear();
            self.lock().spare = buffer;
        }
    }

    /// Waits until the builder has room for more records, unless it builds none any more. These are
    /// on their way to it from now on.
    pub(super) fn await_builder(&self, len: usize) {
        let mut building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        while self.is_behind(*building) {
            let waited = self.built.wait_timeout(building, LOOK);
            building = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *building = building.saturating_add(len);
    }

    fn is_behind(&self, building: usize) -> bool {
        building >= MAX_BUILDING_LEN && !self.is_closed() && !self.troubles().stopped
    }

    /// So many bytes of records are in the tree, or never will be.
    pub(super) fn built(&self, len: usize) {
        let mut building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        *building = building.saturating_sub(len);
        self.built.notify_one();
    }

    /// Records up to `durable` are durable: those who waited go on. Answers how many records are
    /// thought to come soon: from those who go on, and those who are waiting still.
    pub(super) fn settle(&self, durable: u64) -> u64 {
        self.durable.store(durable, Ordering::Release);
        let mut pending = self.lock();
        pending.troubles.failing = None;
        let all = pending.waiting.len() as u64;
        let done: Vec<_> =
            pending.waiting.extract_if(.., |(number, _)| *number < durable).collect();
        drop(pending);
        self.answers.give(Wakers(done.into_iter().map(|(_, waker)| waker).collect()));
        all
    }
}

impl Pending {
    /// Whether something stands in the way of records, which this one is taken in spite of.
    fn check(&self, is_essential: bool) -> Result<bool, AuditError> {
        if self.closed {
            return Err(AuditError::Closed);
        }
        if self.framed.len() > MAX_PENDING_LEN {
            return Err(AuditError::Behind);
        }
        match self.troubles.error() {
            Some(error) if !is_essential => Err(error),
            trouble => Ok(trouble.is_some()),
        }
    }

    /// Appends the record of an event, after its length.
    fn write(&mut self, event: &Event<'_>) -> Result<(), AuditError> {
        let salt = self.salts.draw()?;
        if self.framed.is_empty() {
            self.framed.extend_from_slice(&ROOM);
        }
        let start = self.framed.len();
        self.framed.extend_from_slice(&[0, 0]);
        write_record(&mut self.framed, event, &salt);
        let len = self.framed.len() - start - 2;
        let encoded = u16::try_from(len).ok().filter(|_| len <= MAX_RECORD_LEN);
        match (encoded, self.framed.get_mut(start..start + 2)) {
            (Some(len), Some(place)) => {
                place.copy_from_slice(&len.to_be_bytes());
                Ok(())
            }
            _ => {
                self.framed.truncate(start);
                Err(AuditError::Failing("a record is longer than 65535 bytes".to_owned()))
            }
        }
    }
}

/// Random bytes drawn ahead: to draw many costs hardly more than one.
#[derive(Default)]
struct Salts(Vec<[u8; SALT_LEN]>);

impl Salts {
    const DRAWN_AT_ONCE: usize = 64;

    fn draw(&mut self) -> Result<[u8; SALT_LEN], AuditError> {
        if self.0.is_empty() {
            let mut drawn = vec![[0; SALT_LEN]; Self::DRAWN_AT_ONCE];
            SystemEntropy.fill(drawn.as_flattened_mut()).map_err(|_| AuditError::NoEntropy)?;
            self.0 = drawn;
        }
        self.0.pop().ok_or(AuditError::NoEntropy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writer_waits_for_the_builder_when_it_is_far_behind_and_not_for_one_that_has_ended() {
        let buffer = Buffer::new(0);
        buffer.await_builder(MAX_BUILDING_LEN);
        let has_built = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                buffer.await_builder(1);
                assert_eq!(has_built.load(Ordering::SeqCst), 1);
            });
            has_built.store(1, Ordering::SeqCst);
            buffer.built(1);
        });
        let building = *buffer.building.lock().unwrap();
        assert_eq!(building, MAX_BUILDING_LEN);
        assert!(buffer.is_behind(building));
        buffer.trouble(|troubles| troubles.stopped = true);
        assert!(!buffer.is_behind(building));
    }

    #[test]
    fn no_two_salts_are_alike() {
        let mut salts = Salts::default();
        let drawn: std::collections::HashSet<_> =
            (0..3 * Salts::DRAWN_AT_ONCE).map(|_| salts.draw().unwrap()).collect();
        assert_eq!(drawn.len(), 3 * Salts::DRAWN_AT_ONCE);
        assert!(!drawn.contains(&[0; SALT_LEN]));
    }
}
