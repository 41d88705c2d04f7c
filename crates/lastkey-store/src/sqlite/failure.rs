//! What SQLite says, as an error of a backend.
//!
//! Room      `store`.

use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};

use crate::backend::BackendError;

/// A refusal of SQLite and what was being done.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub(super) struct Failure {
    pub(super) doing: &'static str,
    pub(super) source: rusqlite::Error,
}

impl Failure {
    pub(super) fn of(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self { doing, source }
    }
}

/// Whether SQLite found no space.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    // On a full disk the shared-memory index of the journal is the second thing that cannot grow;
    // SQLite has a code of its own for that.
    error.sqlite_error().is_some_and(|e| {
        e.code == ErrorCode::DiskFull || e.extended_code == ffi::SQLITE_IOERR_SHMSIZE
    })
}

impl From<Failure> for BackendError {
    fn from(failure: Failure) -> Self {
        Self::from(&Arc::new(failure))
    }
}

/// One failure that is answered to many.
impl From<&Arc<Failure>> for BackendError {
    fn from(failure: &Arc<Failure>) -> Self {
        if is_full(&failure.source) { Self::Full } else { Self::Failed(Arc::clone(failure).into()) }
    }
}
