//! Use cases of managed secrets: write, read, list, change, delete, copy and move.
//!
//! Room      `service`. What protects the values is in `secret_box.rs`.
//! Holds     a secret that is not there, and one that the caller may not touch, are refused alike.

mod change;
mod confirm;
mod consumers;
mod due;
mod list;
mod put;
mod read;
mod rotation;
mod transfer;
mod watch;

use lastkey_core::ids::VersionNo;
use lastkey_core::key::Tags;
use lastkey_core::permit::{Action, KeyFacts, Permit, Resource};
use lastkey_core::ports::{Expected, Revision, StoreError, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::secret_item::{SecretItem, SecretName, SecretVersion};
use lastkey_core::time::{ClockRecord, Timestamp};

pub use self::change::SecretChange;
pub use self::confirm::{Leaked, Verdict};
pub use self::list::{Listed, Search, SecretPage};
pub use self::put::PutRequest;
pub use self::read::{SecretValue, Which};
pub use self::rotation::{
    Begin, RotationRequest, RotationSet, RotationTotals, RotationView, StrategyRequest,
};
pub(crate) use self::rotation::{Turns, check_place, run as run_rotations};
pub use self::transfer::Transfer;
pub use self::watch::{MAX_WATCHED, News, Seen};
pub(crate) use self::watch::{NODES_AT_ONCE, WATCHES_AT_ONCE};
use crate::audited::Trail;
use crate::engine::Engine;
use crate::error::Error;
pub use crate::holders::{Consumer, Consumers, Holder, MAX_HOLDERS, Statement};
pub use crate::secret_box::{DEFAULT_KEY_ALIAS, Value};

/// How often a change is made anew when somebody else was faster.
const ATTEMPTS: usize = 8;

/// A secret, with its destruction told by the wall clock.
#[derive(Clone, Debug)]
pub struct SecretView {
    /// The secret.
    pub item: SecretItem,
    /// When it is destroyed.
    pub deletion_at: Option<Timestamp>,
}

impl SecretView {
    fn of(item: SecretItem, clock: &ClockRecord) -> Self {
        let deletion_at = item.deletion.map(|deletion| clock.wall_at(deletion.due));
        Self { item, deletion_at }
    }
}

/// A secret as it is stored.
pub(crate) struct Stored {
    pub(crate) item: SecretItem,
    pub(crate) revision: Revision,
}

impl Stored {
    /// The secret, if nothing forbids its use.
    fn in_use(self) -> Result<Self, Error> {
        match self.item.deletion {
            Some(_) => Err(Error::SecretState { state: "deleted" }),
            None => Ok(self),
        }
    }
}

impl Engine {
    /// Asks policy about a secret that is there.
    ///
    /// # Errors
    /// [`Error::Denied`] when there is none or policy says no; [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub(crate) async fn permit_secret<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
    ) -> Result<(Permit<A>, Stored), Error> {
        let stored = self.stored_secret(name).await?;
        let tags = stored.as_ref().map(|stored| &stored.item.tags);
        let permit = self.permit_named_secret::<A>(trail, name, tags)?;
        let stored = stored.ok_or_else(|| {
            trail.reason = "no such secret".into();
            Error::Denied
        })?;
        Ok((permit, stored))
    }

    /// Asks policy about a secret, there or not.
    ///
    /// # Errors
    /// [`Error::Denied`].
    fn permit_named_secret<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
        tags: Option<&Tags>,
    ) -> Result<Permit<A>, Error> {
        let facts = tags.map(|tags| KeyFacts { aliases: &[], tags });
        self.permit_knowing(trail, Resource::Secret(name.clone()), facts)
    }

    /// A secret, as it is stored now.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn stored_secret(&self, name: &SecretName) -> Result<Option<Stored>, Error> {
        let Some(stored) = self.store.get(&RecordPath::secret(name)).await? else {
            return Ok(None);
        };
        let Record::Secret(item) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        Ok(Some(Stored { item, revision: stored.revision }))
    }

    /// One version of a secret, with the revision of its record; `None` when it is not kept.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn secret_version(
        &self,
        item: &SecretItem,
        number: VersionNo,
    ) -> Result<Option<(SecretVersion, Revision)>, Error> {
        let Some(stored) = self.store.get(&RecordPath::secret_version(item.id, number)).await?
        else {
            return Ok(None);
        };
        let Record::SecretVersion(version) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        Ok(Some((version, stored.revision)))
    }
}

/// What the audit log calls a secret, or a version of it.
fn target(name: &SecretName, number: Option<VersionNo>) -> String {
    match number {
        Some(number) => format!("secret/{name}#{number}"),
        None => format!("secret/{name}"),
    }
}

/// The write of a changed secret.
fn rewritten(item: &SecretItem, revision: Revision) -> Write {
    let record = Some(Record::Secret(item.clone()));
    Write { path: RecordPath::secret(&item.name), expected: Expected::At(revision), record }
}

/// A write that takes a record away which is written once.
fn removed(path: RecordPath) -> Write {
    Write { path, expected: Expected::At(Revision(1)), record: None }
}
