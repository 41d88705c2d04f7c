//! The list of calls that fakes share, so that a test can assert an order across ports.
//!
//! Room      `testkit`.

use std::sync::{Arc, Mutex, PoisonError};

use lastkey_core::audit::Phase;
use lastkey_core::record::RecordPath;

/// One call of a fake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `Store::get`.
    Get(RecordPath),
    /// `Store::scan`, by prefix.
    Scan(String),
    /// `Store::commit`: the paths of the batch.
    Commit(Vec<RecordPath>),
    /// `Store::erase_residue`.
    EraseResidue,
    /// `Audit::append` or `Audit::append_durably`.
    Audit {
        /// The action.
        action: &'static str,
        /// The part of the operation.
        phase: Phase,
        /// How it ended.
        result: &'static str,
        /// Whether the caller waited until it was durable.
        durable: bool,
    },
}

/// Calls in the order in which they came. A clone is the same list.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    /// Adds a call.
    pub fn push(&self, call: Call) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    /// Takes the calls so far and leaves an empty list.
    #[must_use]
    pub fn take(&self) -> Vec<Call> {
        core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
