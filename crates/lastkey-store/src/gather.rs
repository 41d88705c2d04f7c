//! A queue from which one thread takes everything at once, after a moment in which more may come.
//!
//! Room      `store`.
//! Holds     what was put in is taken out, in its order, or dropped with the queue; after the
//!           queue was closed nothing more is put in.
//!
//! To make something durable costs as much for many as for one, so it pays to wait for those who
//! are about to come, and not to wake the thread for each of them.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long it pays to wait for those who are thought to come soon, when the last group took
/// `last`: as long as serving them takes, or as another group would.
pub(crate) fn patience(expected: usize, last: Duration) -> Duration {
    let each = u32::try_from(expected).map_or(LONGEST, |expected| EACH.saturating_mul(expected));
    each.max(last).min(LONGEST)
}

/// What one caller takes from his answer to his next question, on a busy core.
const EACH: Duration = Duration::from_micros(10);
/// Nobody waits longer than this for others.
const LONGEST: Duration = Duration::from_millis(1);

/// The queue.
pub(crate) struct Gather<T> {
    waiting: Mutex<Waiting<T>>,
    news: Condvar,
}

impl<T> fmt::Debug for Gather<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gather(..)")
    }
}

struct Waiting<T> {
    items: Vec<T>,
    /// The thread is to be woken when so many are there; 0 when it is busy.
    wake_at: usize,
    closed: bool,
}

impl<T> Gather<T> {
    /// An empty queue.
    pub(crate) const fn new() -> Self {
        let waiting = Waiting { items: Vec::new(), wake_at: 0, closed: false };
        Self { waiting: Mutex::new(waiting), news: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one in; gives it back when the queue is closed.
    ///
    /// # Errors
    /// The item.
    pub(crate) fn put(&self, item: T) -> Result<(), T> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(item);
        }
        waiting.items.push(item);
        let wake = waiting.wake_at != 0 && waiting.items.len() >= waiting.wake_at;
        if wake {
            waiting.wake_at = 0;
        }
        drop(waiting);
        if wake {
            self.news.notify_one();
        }
        Ok(())
    }

    /// Waits for the first, then at most so long for so many, and takes all; `None` when the
    /// queue is closed and empty.
    pub(crate) fn take(&self, expected: usize, patience: Duration) -> Option<Vec<T>> {
        let mut waiting = self.lock();
        while waiting.items.is_empty() && !waiting.closed {
            waiting.wake_at = 1;
            waiting = self.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + patience;
        while waiting.items.len() < expected && !waiting.closed {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            waiting.wake_at = expected;
            let waited = self.news.wait_timeout(waiting, left);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.wake_at = 0;
        let items = std::mem::take(&mut waiting.items);
        (!items.is_empty()).then_some(items)
    }

    /// How many are there now.
    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Takes nothing more in; the thread ends when it has taken what is there.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn those_who_are_expected_are_taken_together() {
        let queue = Arc::new(Gather::new());
        let taker = Arc::clone(&queue);
        let taker = thread::spawn(move || taker.take(3, LONG));
        (0..3).for_each(|n| queue.put(n).unwrap());
        assert_eq!(taker.join().unwrap(), Some(vec![0, 1, 2]));
    }

    #[test]
    fn those_who_do_not_come_are_not_waited_for() {
        let queue = Gather::new();
        queue.put(7).unwrap();
        assert_eq!(queue.take(3, Duration::from_millis(1)), Some(vec![7]));
    }

    #[test]
    fn closed_queue_gives_out_what_it_has_and_takes_nothing_in() {
        let queue = Gather::new();
        queue.put(7).unwrap();
        queue.close();
        assert_eq!(queue.put(8), Err(8));
        assert_eq!(queue.take(3, LONG), Some(vec![7]));
        assert_eq!(queue.take(3, LONG), None);
    }

    #[test]
    fn patience_grows_with_those_who_are_expected_and_ends() {
        let last = Duration::from_micros(200);
        assert_eq!(patience(1, Duration::ZERO), Duration::from_micros(10));
        assert_eq!(patience(16, last), last);
        assert_eq!(patience(64, last), Duration::from_micros(640));
        assert_eq!(patience(usize::MAX, last), Duration::from_millis(1));
        assert_eq!(patience(1, Duration::from_secs(1)), Duration::from_millis(1));
    }
}
