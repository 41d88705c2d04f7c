//! One call at a time for a volume or a name.
//!
//! Room      `volumes`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::fault::{Fault, Kind};

/// What is worked on.
#[derive(Debug, Default)]
pub(crate) struct Locks(Arc<Mutex<BTreeSet<String>>>);

/// Until it is dropped, nobody else works on it.
#[derive(Debug)]
pub(crate) struct Held {
    locks: Arc<Mutex<BTreeSet<String>>>,
    what: String,
}

impl Locks {
    /// Takes a lock, or says at once that somebody has it.
    pub(crate) fn take(&self, what: &str) -> Result<Held, Fault> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.insert(what.to_owned()) {
            let message = format!("another call works on {what:.64}; try again");
            return Err(Fault::new(Kind::Busy, message));
        }
        Ok(Held { locks: Arc::clone(&self.0), what: what.to_owned() })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.what);
    }
}

#[cfg(test)]
mod tests {
    use super::Locks;

    #[test]
    fn second_call_is_refused_until_the_first_ends() {
        let locks = Locks::default();
        let held = locks.take("a").unwrap();
        assert!(locks.take("a").is_err());
        assert!(locks.take("b").is_ok());
        drop(held);
        assert!(locks.take("a").is_ok());
    }
}
