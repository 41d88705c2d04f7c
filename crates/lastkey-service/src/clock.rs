//! The service's clock: readings of the machine turned into elapsed time that survives restarts.
//!
//! Room      `service`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lastkey_core::ports::{Clock, Expected, Revision, Store, StoreError, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::time::{ClockRecord, Timestamp};

/// The clock of an unsealed server.
pub(crate) struct ServiceClock {
    machine: Arc<dyn Clock>,
    record: Mutex<ClockRecord>,
    written: tokio::sync::Mutex<Option<Revision>>,
}

impl ServiceClock {
    /// Takes up the clock where it was left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn resume(
        machine: Arc<dyn Clock>,
        store: &dyn Store,
    ) -> Result<Self, StoreError> {
        let now = machine.read();
        let (record, revision) = match store.get(&RecordPath::clock()).await? {
            None => (ClockRecord::start(now), None),
            Some(stored) => {
                let Record::Clock(before) = stored.record else {
                    return Err(StoreError::Corrupt(stored.path));
                };
                (before.advance(now), Some(stored.revision))
            }
        };
        let clock = Self {
            machine,
            record: Mutex::new(record),
            written: tokio::sync::Mutex::new(revision),
        };
        clock.write_to(store).await?;
        Ok(clock)
    }

    /// The wall clock, for people.
    pub(crate) fn wall(&self) -> Timestamp {
        self.machine.wall()
    }

    /// The record as of now.
    pub(crate) fn observe(&self) -> ClockRecord {
        let mut record = self.lock();
        // Read under the lock: readings in another order would count a second twice.
        *record = record.advance(self.machine.read());
        *record
    }

    fn lock(&self) -> MutexGuard<'_, ClockRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a hold. It is durable before anybody acts on it.
    ///
    /// # Errors
    /// [`StoreError`]; the hold then stays.
    pub(crate) async fn confirm(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut written = self.written.lock().await;
        let confirmed = self.observe().confirm();
        Self::commit(store, &mut written, confirmed).await?;
        let mut record = self.lock();
        *record = record.confirm();
        Ok(())
    }

    /// Writes the record, so that a restart takes it up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn write_to(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut written = self.written.lock().await;
        let record = self.observe();
        Self::commit(store, &mut written, record).await
    }

    async fn commit(
        store: &dyn Store,
        written: &mut Option<Revision>,
        record: ClockRecord,
    ) -> Result<(), StoreError> {
        let expected = written.map_or(Expected::Absent, Expected::At);
        let record = Some(Record::Clock(record));
        store.commit(vec![Write { path: RecordPath::clock(), expected, record }]).await?;
        *written = Some(written.map_or(Revision(1), |Revision(n)| Revision(n.saturating_add(1))));
        Ok(())
    }
}
