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
        let kept = read(store).await?;
        let counted = (kept.0.epoch, kept.0.writes);
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
    /// [`StoreError`]; it is then what the store says, changed or not.
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
        let write = Write { path: RecordPath::seal_book(), expected, record };
        if let Err(error) = store.commit(vec![write]).await {
            // Whether it was written is not known until it is read. If that fails too, the next
            // change ends here again.
            if let Ok(stored) = read(store).await {
                *kept = stored;
            }
            return Err(error);
        }
        let revision = kept.1.map_or(1, |Revision(n)| n.saturating_add(1));
        *kept = (book, Some(Revision(revision)));
        Ok(())
    }
}

async fn read(store: &dyn Store) -> Result<(SealBook, Option<Revision>), StoreError> {
    let Some(stored) = store.get(&RecordPath::seal_book()).await? else {
        return Ok((SealBook::default(), None));
    };
    let Record::SealBook(book) = stored.record else {
        return Err(StoreError::Corrupt(stored.path));
    };
    Ok((book, Some(stored.revision)))
}

#[cfg(test)]
mod tests {
    use lastkey_core::time::Timestamp;
    use lastkey_testkit::fakes::{FakeStore, Fault};

    use super::*;

    #[tokio::test]
    async fn the_book_changes_again_after_a_write_of_unknown_outcome() {
        let store = FakeStore::default();
        let book = Book::load(&store).await.unwrap();
        for (fault, seal) in [(Fault::After, 1), (Fault::Before, 2)] {
            store.fail_next(fault);
            let opened = |book: &mut SealBook| book.opened([seal; 16], Timestamp(5));
            assert!(book.change(&store, opened).await.is_err());
            let is_known = book.read().await.proof(&[seal; 16]).is_some();
            assert_eq!(is_known, fault == Fault::After);
            book.change(&store, |book| book.writes += 1).await.unwrap();
        }
    }
}
