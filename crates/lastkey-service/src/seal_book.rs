//! What is remembered of seals: when each one opened, and what was accepted of them.
//!
//! Room      `service`.
//! Holds     the book lies under the root key: nobody else can make a seal look proven.

use lastkey_core::ports::{Expected, Revision, Store, StoreError, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::seal_record::SealBook;

use crate::error::Error;

/// The book of an unsealed server.
pub(crate) struct Book {
    kept: tokio::sync::Mutex<(SealBook, Option<Revision>)>,
    /// Epoch and writes as they were when it was read.
    counted: (u32, u64),
}

impl Book {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, Error> {
        let Some(stored) = store.get(&RecordPath::seal_book()).await? else {
            return Ok(Self { kept: tokio::sync::Mutex::default(), counted: (0, 0) });
        };
        let Record::SealBook(book) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        let counted = (book.epoch, book.writes);
        let kept = (book, Some(stored.revision));
        Ok(Self { kept: tokio::sync::Mutex::new(kept), counted })
    }

    /// Writes of an epoch, of which the store has counted those since it was opened.
    pub(crate) const fn writes(&self, epoch: u32, since_opened: u64) -> u64 {
        let before = if self.counted.0 == epoch { self.counted.1 } else { 0 };
        before.saturating_add(since_opened)
    }

    /// What is in it.
    pub(crate) async fn read(&self) -> SealBook {
        self.kept.lock().await.0.clone()
    }

    /// Changes it, durably.
    ///
    /// # Errors
    /// [`StoreError`]; it then stays as it was.
    pub(crate) async fn change(
        &self,
        store: &dyn Store,
        change: impl FnOnce(&mut SealBook) + Send,
    ) -> Result<(), StoreError> {
        let mut kept = self.kept.lock().await;
        let mut book = kept.0.clone();
        change(&mut book);
        if book == kept.0 {
            return Ok(());
        }
        let expected = kept.1.map_or(Expected::Absent, Expected::At);
        let record = Some(Record::SealBook(book.clone()));
        store.commit(vec![Write { path: RecordPath::seal_book(), expected, record }]).await?;
        let revision = kept.1.map_or(1, |Revision(n)| n.saturating_add(1));
        *kept = (book, Some(Revision(revision)));
        Ok(())
    }
}
