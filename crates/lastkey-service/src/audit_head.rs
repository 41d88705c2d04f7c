//! Where the audit log stood, remembered outside it: so that its removal is noticed.
//!
//! Room      `service`.
//! Holds     a log that is shorter than was remembered, or whose tree is another one, opens
//!           nothing, unless whoever starts the server says that the loss is known; that is then
//!           recorded in the log that begins.

use lastkey_core::audit::archive::LogHead;
use lastkey_core::audit::checkpoint::Checkpoint;
use lastkey_core::audit::merkle::verify_consistency;
use lastkey_core::audit::note::split;
use lastkey_core::ports::{AuditArchive, Expected, Store, StoreError, Write};
use lastkey_core::record::{Record, RecordPath};

use crate::error::Error;

/// What is remembered, and the write that it expects.
async fn remembered(store: &dyn Store) -> Result<(Option<LogHead>, Expected), Error> {
    match store.get(&RecordPath::audit_head()).await? {
        None => Ok((None, Expected::Absent)),
        Some(stored) => {
            let Record::AuditHead(head) = stored.record else {
                return Err(StoreError::Corrupt(stored.path).into());
            };
            Ok((Some(head), Expected::At(stored.revision)))
        }
    }
}

/// Whether the log continues what is remembered. Asked before it signs anything, and so of the log
/// as it is, not of what was signed.
///
/// # Errors
/// [`Error::Invalid`] when it is another one; [`Error::Unavailable`], [`Error::Internal`].
pub(crate) async fn check(archive: &dyn AuditArchive, store: &dyn Store) -> Result<(), Error> {
    let (Some(head), _) = remembered(store).await? else { return Ok(()) };
    let now = archive.head().await.map_err(Error::Unavailable)?;
    if head.size > now.size {
        return Err(lost(&format!("it has {} of {} records", now.size, head.size)));
    }
    let proof = archive.consistency(head.size, now.size).await.map_err(Error::Unavailable)?;
    if verify_consistency(&proof, (head.size, &head.root), (now.size, &now.root)) {
        Ok(())
    } else {
        Err(lost(&format!("its first {} records are others", head.size)))
    }
}

/// Remembers where the log stands now.
///
/// # Errors
/// [`Error::Conflict`] when somebody else does the same; [`Error::Unavailable`],
/// [`Error::Internal`].
pub(crate) async fn remember(archive: &dyn AuditArchive, store: &dyn Store) -> Result<(), Error> {
    let (before, expected) = remembered(store).await?;
    let now = head_of(archive).await?;
    if now.is_none() || before == now {
        return Ok(());
    }
    let (path, record) = (RecordPath::audit_head(), now.map(Record::AuditHead));
    store.commit(vec![Write { path, expected, record }]).await?;
    Ok(())
}

/// Where the log stands; `None` when it has no record yet, and so nothing is signed.
async fn head_of(archive: &dyn AuditArchive) -> Result<Option<LogHead>, Error> {
    let note = archive.checkpoint().await.map_err(Error::Unavailable)?;
    if note.is_empty() {
        return Ok(None);
    }
    let (text, _) = split(&note).map_err(|error| Error::Internal(error.into()))?;
    let signed = Checkpoint::parse(text).map_err(|error| Error::Internal(error.into()))?;
    Ok(Some(LogHead { size: signed.size, root: signed.root }))
}

fn lost(what: &str) -> Error {
    let message = format!(
        "the audit log was removed, cut or replaced while the server was down: {what}; restore it \
         from a copy, or start the server with --accept-audit-loss"
    );
    tracing::error!(message);
    Error::invalid("audit", message)
}
