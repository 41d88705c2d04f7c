//! One call at a time for a volume or a name.
//!
//! Room      `volumes`.
//! Holds     A call waits for what is done beside the calls, which waits for nothing; for another
//!           call it does not wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::fault::{Fault, Kind};

/// How long a call waits: a data key is wrapped anew by a handful of calls of the key service.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who works on something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Call,
    /// What is done beside the calls.
    Round,
}

/// What is worked on.
#[derive(Debug, Default)]
pub(crate) struct Locks(Arc<Taken>);

#[derive(Debug, Default)]
struct Taken {
    by: Mutex<BTreeMap<String, Holder>>,
    freed: Condvar,
}

/// Until it is dropped, nobody else works on it.
#[derive(Debug)]
pub(crate) struct Held {
    taken: Arc<Taken>,
    what: String,
}

impl Locks {
    /// Takes a lock for a call, or says that another call has it.
    pub(crate) fn take(&self, what: &str) -> Result<Held, Fault> {
        self.take_within(what, PATIENCE)
    }

    fn take_within(&self, what: &str, patience: Duration) -> Result<Held, Fault> {
        let by = self.0.by.lock().unwrap_or_else(PoisonError::into_inner);
        let is_passing = |by: &mut BTreeMap<String, Holder>| by.get(what) == Some(&Holder::Round);
        let waited = self.0.freed.wait_timeout_while(by, patience, is_passing);
        let (mut by, _) = waited.unwrap_or_else(PoisonError::into_inner);
        self.hold(&mut by, what, Holder::Call)
    }

    /// Takes a lock for what is done beside the calls, or says at once that somebody has it.
    pub(crate) fn take_beside(&self, what: &str) -> Result<Held, Fault> {
        let mut by = self.0.by.lock().unwrap_or_else(PoisonError::into_inner);
        self.hold(&mut by, what, Holder::Round)
    }

    fn hold(
        &self,
        by: &mut BTreeMap<String, Holder>,
        what: &str,
        holder: Holder,
    ) -> Result<Held, Fault> {
        if by.contains_key(what) {
            let message = format!("another call works on {what:.64}; try again");
            return Err(Fault::new(Kind::Busy, message));
        }
        by.insert(what.to_owned(), holder);
        Ok(Held { taken: Arc::clone(&self.0), what: what.to_owned() })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.taken.by.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.what);
        self.taken.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn second_call_is_refused_until_the_first_ends() {
        let locks = Locks::default();
        let held = locks.take("a").unwrap();
        assert!(locks.take("a").is_err());
        assert!(locks.take_beside("a").is_err());
        assert!(locks.take("b").is_ok());
        drop(held);
        assert!(locks.take("a").is_ok());
    }

    #[test]
    fn call_waits_for_what_is_done_beside_it_and_not_for_ever() {
        let locks = Locks::default();
        let held = locks.take_beside("a").unwrap();
        assert!(locks.take_beside("a").is_err());
        assert!(locks.take_within("a", Duration::ZERO).is_err());
        thread::scope(|scope| {
            let call = scope.spawn(|| locks.take("a").map(drop));
            drop(held);
            call.join().unwrap().unwrap();
        });
    }
}
