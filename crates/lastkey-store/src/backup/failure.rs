//! What lower parts say, as an error of backups.
//!
//! Room      `store`.

use std::io;
use std::path::Path;

use lastkey_core::backup::BackupError;
use lastkey_core::ports::Cause;
use lastkey_crypto::envelope::EnvelopeError;
use lastkey_crypto::stream::StreamError;

use crate::sqlite::{OpenError, is_full};

/// A failure with its cause.
pub(super) fn failed(
    doing: &'static str,
    what: impl Into<String>,
) -> impl FnOnce(Cause) -> BackupError {
    let what = what.into();
    move |cause| BackupError::Failed { doing, what, cause }
}

/// An error of the operating system; a full disk has a name of its own.
pub(super) fn io_error(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.display().to_string();
    move |error| of_io(error, doing, path)
}

pub(super) fn of_io(error: io::Error, doing: &'static str, what: String) -> BackupError {
    let is_full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    if is_full {
        return BackupError::Full(what);
    }
    // Our own errors travel through readers and writers in an I/O error.
    match error.downcast::<BackupError>() {
        Ok(own) => own,
        Err(error) => BackupError::Failed { doing, what, cause: error.into() },
    }
}

/// Why the stream of a backup ended early.
pub(super) fn of_stream(error: StreamError, name: &str) -> BackupError {
    match error {
        StreamError::Read(error) => of_io(error, "read", name.to_owned()),
        StreamError::Write(error) => of_io(error, "write", name.to_owned()),
        StreamError::Changed => damaged(name, "it changed while it was read"),
        StreamError::Envelope(error) => of_envelope(error, name),
    }
}

fn of_envelope(error: EnvelopeError, name: &str) -> BackupError {
    match error {
        EnvelopeError::UnsupportedVersion | EnvelopeError::UnsupportedSuite => {
            BackupError::Newer(name.to_owned())
        }
        EnvelopeError::Malformed
        | EnvelopeError::TooManyRecipients
        | EnvelopeError::PassphraseCost
        | EnvelopeError::NoRecipient
        | EnvelopeError::NoSlot
        | EnvelopeError::Options
        | EnvelopeError::RecipientsTooLong
        | EnvelopeError::Undecryptable
        | EnvelopeError::Truncated
        | EnvelopeError::TooManySegments
        | EnvelopeError::WrongSegment
        | EnvelopeError::Entropy
        | EnvelopeError::Failed => damaged(name, error.to_string()),
    }
}

/// An error of a store that is read or filled.
pub(super) fn of_store(error: OpenError, dir: &Path) -> BackupError {
    match error {
        OpenError::Database { source, .. } if is_full(&source) => {
            BackupError::Full(dir.display().to_string())
        }
        OpenError::Io { doing, path, source } => of_io(source, doing, path.display().to_string()),
        OpenError::NotEmpty(_) | OpenError::HalfRestored(_) | OpenError::InUse(_) => {
            BackupError::Refused(error.to_string())
        }
        OpenError::Newer(_) | OpenError::Damaged(_) | OpenError::Database { .. } => {
            BackupError::Failed {
                doing: "use the store in",
                what: dir.display().to_string(),
                cause: error.into(),
            }
        }
    }
}

pub(super) fn damaged(name: &str, what: impl Into<String>) -> BackupError {
    BackupError::Damaged { name: name.to_owned(), what: what.into() }
}
