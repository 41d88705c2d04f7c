//! Seats for calls that wait.
//!
//! Room      `service`.
//! Holds     there are no more calls than seats, and one caller has half of them at most, so that
//!           nobody keeps all others from waiting.

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

impl Seats {
    /// So many.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// A seat, if this caller gets one.
    pub(crate) fn take(&self, caller: &str) -> Option<Seat<'_>> {
        let mut taken = self.lock();
        let own = taken.by_caller.get(caller).copied().unwrap_or_default();
        if taken.all >= self.most || own >= self.most / 2 {
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
    fn one_caller_has_half_of_the_seats_and_gives_them_back() {
        let seats = Seats::new(4);
        let (first, second) = (seats.take("a").unwrap(), seats.take("a").unwrap());
        assert!(seats.take("a").is_none());
        let others = ["b", "c"].map(|caller| seats.take(caller).unwrap());
        assert!(seats.take("d").is_none());
        drop(first);
        let again = seats.take("a").unwrap();
        drop((second, again, others));
        assert!(seats.lock().all == 0 && seats.lock().by_caller.is_empty());
    }
}
