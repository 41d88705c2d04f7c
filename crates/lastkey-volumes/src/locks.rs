//! One call at a time for a volume or a name.
//!
//! Room      `volumes`.
//! Holds     What the driver does by itself makes no call fail: the call waits for it a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::fault::{Fault, Kind};

/// So long a call waits for what the driver does by itself. Only a disk or a key service that hangs
/// takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who works on something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    /// A call: whoever repeats it is told so at once.
    Call,
    /// The driver, by itself.
    Round,
}

/// What is worked on, and a bell for when it is not any more.
type Taken = (Mutex<BTreeMap<String, Worker>>, Condvar);

/// What is worked on.
#[derive(Debug, Default)]
pub(crate) struct Locks(Arc<Taken>);

/// Until it is dropped, nobody else works on it.
#[derive(Debug)]
pub(crate) struct Held {
    locks: Arc<Taken>,
    what: String,
}

impl Locks {
    /// Takes a lock for a call, or says at once that another call has it.
    pub(crate) fn take(&self, what: &str) -> Result<Held, Fault> {
        self.take_within(what, PATIENCE)
    }

    /// Takes a lock for what the driver does by itself, or says at once that somebody has it.
    pub(crate) fn take_for_round(&self, what: &str) -> Result<Held, Fault> {
        let mut taken = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.contains_key(what) {
            return Err(busy(what));
        }
        taken.insert(what.to_owned(), Worker::Round);
        Ok(self.held(what))
    }

    /// Whether somebody works on it now.
    pub(crate) fn is_taken(&self, what: &str) -> bool {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(what)
    }

    fn take_within(&self, what: &str, patience: Duration) -> Result<Held, Fault> {
        let (taken, freed) = &*self.0;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_waited_for =
            |taken: &mut BTreeMap<String, Worker>| taken.get(what) == Some(&Worker::Round);
        let waited = freed.wait_timeout_while(taken, patience, is_waited_for);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if taken.contains_key(what) {
            return Err(busy(what));
        }
        taken.insert(what.to_owned(), Worker::Call);
        Ok(self.held(what))
    }

    fn held(&self, what: &str) -> Held {
        Held { locks: Arc::clone(&self.0), what: what.to_owned() }
    }
}

fn busy(what: &str) -> Fault {
    Fault::new(Kind::Busy, format!("another call works on {what:.64}; try again"))
}

impl Drop for Held {
    fn drop(&mut self) {
        let (taken, freed) = &*self.locks;
        taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.what);
        freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::Locks;

    #[test]
    fn second_call_is_refused_until_the_first_ends() {
        let locks = Locks::default();
        let held = locks.take("a").unwrap();
        assert!(locks.take("a").is_err() && locks.take_for_round("a").is_err());
        assert!(locks.take("b").is_ok());
        drop(held);
        assert!(locks.take("a").is_ok());
    }

    #[test]
    fn call_waits_for_what_the_driver_does_by_itself_and_not_for_ever() {
        let locks = Locks::default();
        let round = locks.take_for_round("a").unwrap();
        assert!(locks.take_for_round("a").is_err());
        assert!(locks.take_within("a", Duration::from_millis(1)).is_err());
        thread::scope(|scope| {
            let call = scope.spawn(|| locks.take_within("a", Duration::MAX).map(drop));
            drop(round);
            call.join().unwrap().unwrap();
        });
    }
}
