//! Seats for calls that wait.
//!
//! Room      `service`.
//! Holds     there are no more calls than seats. Who has many gets none of the last ones, so that
//!           nobody keeps all others from waiting; the pods of one account are one caller.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The seats.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By caller; one with none is not in it.
    by_caller: HashMap<String, usize>,
}

/// A seat; it is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    seats: &'a Seats,
    caller: String,
}

/// The last of so many parts of the seats is for those who have fewer than are left of it.
const SHARED: usize = 8;

impl Seats {
    /// So many.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// A seat, if this caller gets one.
    pub(crate) fn take(&self, caller: &str) -> Option<Seat<'_>> {
        let mut taken = self.lock();
        let own = taken.by_caller.get(caller).copied().unwrap_or_default();
        let left = self.most.saturating_sub(taken.all);
        let is_for_others = left <= self.most / SHARED && own >= left;
        if left == 0 || is_for_others {
            return None;
        }
        taken.all += 1;
        taken.by_caller.insert(caller.to_owned(), own + 1);
        Some(Seat { seats: self, caller: caller.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all = taken.all.saturating_sub(1);
        let own = taken.by_caller.remove(&self.caller).unwrap_or_default().saturating_sub(1);
        if own > 0 {
            taken.by_caller.insert(core::mem::take(&mut self.caller), own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_leaves_the_last_seats_to_others_and_gives_his_back() {
        let seats = Seats::new(32);
        let take = |caller: &str| -> Vec<_> { std::iter::from_fn(|| seats.take(caller)).collect() };
        let first = take("a");
        let others = ["b", "c", "d", "e"].map(take);
        let counts = others.each_ref().map(Vec::len);
        assert_eq!((first.len(), counts), (28, [2, 1, 1, 0]));
        drop(others);
        assert!(seats.take("a").is_none());
        drop(first);
        assert_eq!(take("b").len(), 28);
        assert!(seats.lock().all == 0 && seats.lock().by_caller.is_empty());
    }
}
