//! Use cases: search the audit log, prove what it says, read its files.
//!
//! Room      `service`. Who reads the log leaves a record in it, like everybody.

use std::time::Duration;

use lastkey_core::audit::archive::{Filter, Found, LogState, Search};
use lastkey_core::audit::receipt::Receipt;
use lastkey_core::audit::tile::TileName;
use lastkey_core::ids::RequestId;
use lastkey_core::limits::MAX_PAGE_LEN;
use lastkey_core::permit::{Action as _, ReadAudit, Resource};
use lastkey_core::ports::AuditArchive;
use tokio::time::Instant;

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;

/// How a record is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordName {
    /// By its number.
    Index(u64),
    /// By the request that it tells of; the newest one of it.
    Request(RequestId),
}

/// A record and the proof that it is in the log.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The record, as it was hashed.
    pub record: Vec<u8>,
    /// The proof.
    pub receipt: Receipt,
}

/// A signed checkpoint, and where the log stands.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The checkpoint, with the signatures of witnesses that are known for it.
    pub checkpoint: String,
    /// Where the log stands.
    pub state: LogState,
}

/// Longest wait for new records.
pub const MAX_WAIT: Duration = Duration::from_secs(20);
/// How often it is looked whether there are some.
const LOOK: Duration = Duration::from_millis(100);

impl Engine {
    /// Reads records. With a `wait`, it waits so long for new ones; records of reading the log are
    /// then left out, or reading would never end.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit outside 1 to 1,000; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`].
    pub async fn search_audit(
        &self,
        call: &Call,
        search: Search,
        wait: Option<Duration>,
    ) -> Result<Found, Error> {
        let mut trail = Trail::of::<ReadAudit>(self, call);
        let outcome = self.try_search(&mut trail, search, wait).await;
        trail.close(self, outcome).await
    }

    async fn try_search(
        &self,
        trail: &mut Trail<'_>,
        mut search: Search,
        wait: Option<Duration>,
    ) -> Result<Found, Error> {
        if !(1..=MAX_PAGE_LEN).contains(&search.limit) {
            return Err(Error::invalid("limit", "a page has 1 to 1000 records"));
        }
        self.permit::<ReadAudit>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        let archive = self.archive()?;
        let Some(wait) = wait else {
            return archive.search(search).await.map_err(Error::Unavailable);
        };
        let until = Instant::now() + wait.min(MAX_WAIT);
        loop {
            let mut found = archive.search(search.clone()).await.map_err(Error::Unavailable)?;
            let of_reading = |action: Option<&str>| action == Some(ReadAudit::NAME);
            found.entries.retain(|entry| !of_reading(entry.record.text("action")));
            if !found.entries.is_empty() || found.next.is_some() || Instant::now() >= until {
                return Ok(found);
            }
            search.from = Some(found.end);
            while archive.state().durable <= found.end && Instant::now() < until {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// A record with the proof that it is in the log; `None` when there is no such record.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`].
    pub async fn audit_receipt(
        &self,
        call: &Call,
        name: RecordName,
    ) -> Result<Option<Proven>, Error> {
        let mut trail = Trail::of::<ReadAudit>(self, call);
        let outcome = self.try_receipt(&mut trail, name).await;
        trail.close(self, outcome).await
    }

    async fn try_receipt(
        &self,
        trail: &mut Trail<'_>,
        name: RecordName,
    ) -> Result<Option<Proven>, Error> {
        self.permit::<ReadAudit>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        let archive = self.archive()?;
        let index = match name {
            RecordName::Index(index) => Some(index),
            RecordName::Request(request) => newest_of(archive, request).await?,
        };
        let Some(index) = index else { return Ok(None) };
        let proven = archive.receipt(index).await.map_err(Error::Unavailable)?;
        Ok(proven.map(|(record, receipt)| Proven { record, receipt }))
    }

    /// A signed checkpoint of everything that is durable now.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`].
    pub async fn audit_checkpoint(&self, call: &Call) -> Result<Signed, Error> {
        let mut trail = Trail::of::<ReadAudit>(self, call);
        let outcome = self.try_checkpoint(&mut trail).await;
        trail.close(self, outcome).await
    }

    async fn try_checkpoint(&self, trail: &mut Trail<'_>) -> Result<Signed, Error> {
        self.permit::<ReadAudit>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        let archive = self.archive()?;
        let checkpoint = archive.checkpoint().await.map_err(Error::Unavailable)?;
        Ok(Signed { checkpoint, state: archive.state() })
    }

    /// A tile or bundle of the log; `None` when it is not there.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`].
    pub async fn audit_tile(&self, call: &Call, name: TileName) -> Result<Option<Vec<u8>>, Error> {
        let mut trail = Trail::of::<ReadAudit>(self, call);
        let outcome = self.try_tile(&mut trail, name).await;
        trail.close(self, outcome).await
    }

    async fn try_tile(
        &self,
        trail: &mut Trail<'_>,
        name: TileName,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.permit::<ReadAudit>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        self.archive()?.tile(name).await.map_err(Error::Unavailable)
    }

    pub(crate) fn archive(&self) -> Result<&dyn AuditArchive, Error> {
        let none = || Error::Unavailable("this audit log cannot be read".into());
        self.ports.audit.archive().ok_or_else(none)
    }
}

/// The number of the newest record of a request.
async fn newest_of(archive: &dyn AuditArchive, request: RequestId) -> Result<Option<u64>, Error> {
    let filter = Filter { request: Some(request.to_string()), ..Filter::default() };
    let mut search = Search { from: None, limit: 1, newest_first: true, filter };
    loop {
        let found = archive.search(search.clone()).await.map_err(Error::Unavailable)?;
        match (found.entries.first(), found.next) {
            (Some(entry), _) => return Ok(Some(entry.index)),
            (None, None) => return Ok(None),
            (None, next) => search.from = next,
        }
    }
}
