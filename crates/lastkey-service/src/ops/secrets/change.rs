//! Use cases: change a secret, its stages and its life. Values are not touched, but destroyed.
//!
//! Room      `service`.
//! Holds     a plan sees the secret as it is stored now, and everything it does is one commit. A
//!           deleted secret is used by nobody until it is restored, and destroyed when its window
//!           has passed.

use std::sync::Arc;

use lastkey_core::ids::VersionNo;
use lastkey_core::key::{DeletionWindow, Description, Destruction};
use lastkey_core::permit::{
    Action, DeleteSecret, DestroySecret, ExpireSecret, RestoreSecret, UpdateSecret,
};
use lastkey_core::ports::{Expected, Revision, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::secret_item::{
    SecretDue, SecretDueWhat, SecretItem, SecretName, SecretVersion, Stage,
};
use lastkey_core::time::{ClockRecord, Elapsed, Timestamp};

use super::put::check_keep;
use super::{ATTEMPTS, SecretView, Stored, removed, rewritten, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::sealing::detached;

/// What is to be done to a secret.
#[derive(Clone, Debug)]
pub enum SecretChange {
    /// Other metadata.
    Update {
        /// Free text; as before when it is left out.
        description: Option<Description>,
        /// Tags to set.
        tags: Vec<(String, String)>,
        /// Tags to remove.
        remove_tags: Vec<String>,
        /// How many versions are kept, 1 to 100.
        keep: Option<u32>,
    },
    /// A version stands at a stage.
    Place(Stage, VersionNo),
    /// No version stands at a stage any more.
    Unplace(Stage),
    /// Deleted; can be restored until the window ends.
    Delete(DeletionWindow),
    /// Not deleted after all.
    Restore,
    /// The value of a version is gone, its entry stays.
    DestroyVersion(VersionNo),
    /// The secret is gone, with all its versions; its name is free.
    Destroy,
    /// As `Destroy`, if that is due now.
    Expire(Elapsed),
}

/// A secret under change.
struct Draft {
    item: SecretItem,
    revision: Revision,
    before: SecretItem,
    clock: ClockRecord,
    writes: Vec<Write>,
    /// The secret itself goes.
    ends: bool,
}

impl Draft {
    fn of(Stored { item, revision }: Stored, clock: ClockRecord) -> Self {
        Self { before: item.clone(), item, revision, clock, writes: Vec::new(), ends: false }
    }

    fn into_batch(mut self) -> Vec<Write> {
        if self.ends {
            let path = RecordPath::secret(&self.before.name);
            self.writes.push(Write { path, expected: Expected::At(self.revision), record: None });
        } else if self.item != self.before || !self.writes.is_empty() {
            // INVARIANT: what is written beside the secret was planned by the secret as it was read.
            self.writes.push(rewritten(&self.item, self.revision));
        }
        self.writes
    }
}

impl Engine {
    /// Changes a secret.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a version that there is not, the removal of `current`, or limits;
    /// [`Error::SecretState`] when the secret is deleted, or to be restored and not deleted;
    /// [`Error::Denied`], [`Error::Conflict`], [`Error::LimitExceeded`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn change_secret(
        self: &Arc<Self>,
        call: &Call,
        name: SecretName,
        change: SecretChange,
    ) -> Result<SecretView, Error> {
        match &change {
            SecretChange::Update { .. } | SecretChange::Place(..) | SecretChange::Unplace(_) => {
                self.changed_secret::<UpdateSecret>(call, name, change).await
            }
            SecretChange::Delete(_) => {
                self.changed_secret::<DeleteSecret>(call, name, change).await
            }
            SecretChange::Restore => self.changed_secret::<RestoreSecret>(call, name, change).await,
            SecretChange::DestroyVersion(_) | SecretChange::Destroy => {
                self.changed_secret::<DestroySecret>(call, name, change).await
            }
            SecretChange::Expire(_) => {
                self.changed_secret::<ExpireSecret>(call, name, change).await
            }
        }
    }

    async fn changed_secret<A: Action>(
        self: &Arc<Self>,
        call: &Call,
        name: SecretName,
        change: SecretChange,
    ) -> Result<SecretView, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<A>(&engine, &call);
            trail.target = Some(target(&name, change.version()));
            let outcome = engine.try_change_secret::<A>(&mut trail, &name, &change).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_change_secret<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        name: &SecretName,
        change: &SecretChange,
    ) -> Result<SecretView, Error> {
        for _ in 0..ATTEMPTS {
            let (_, stored) = self.permit_secret::<A>(trail, name).await?;
            let mut draft = Draft::of(stored, self.clock.observe());
            self.apply_to_secret(&mut draft, change).await?;
            trail.call().go_on()?;
            trail.intend(self).await?;
            let view = SecretView::of(draft.item.clone(), &draft.clock);
            match self.store.commit(draft.into_batch()).await.map_err(Error::from) {
                Err(Error::Conflict) => {}
                committed => return committed.map(|_| view),
            }
        }
        Err(Error::Conflict)
    }

    async fn apply_to_secret(&self, draft: &mut Draft, change: &SecretChange) -> Result<(), Error> {
        let is_deleted = draft.item.deletion.is_some();
        match change {
            SecretChange::Restore => return draft.restore(),
            SecretChange::Expire(at) => return self.expire(draft, *at).await,
            SecretChange::Destroy => return self.end(draft).await,
            _of_a_secret_in_use if is_deleted => {
                return Err(Error::SecretState { state: "deleted" });
            }
            SecretChange::Update { description, tags, remove_tags, keep } => {
                check_keep(*keep)?;
                let item = &mut draft.item;
                item.description = description.clone().unwrap_or_else(|| item.description.clone());
                let left = item.tags.without(remove_tags.iter().map(String::as_str));
                item.tags = left.with(tags.iter().cloned())?;
                item.keep = keep.unwrap_or(item.keep);
                let gone = item.prune();
                let writes = self.forget_versions(&draft.item, &gone).await?;
                draft.writes.extend(writes);
            }
            SecretChange::Place(stage, number) => {
                self.refuse_destroyed(&draft.item, *number).await?;
                draft.item.place(stage.clone(), *number)?;
            }
            SecretChange::Unplace(stage) => draft.item.unplace(stage)?,
            SecretChange::Delete(window) => draft.delete(*window),
            SecretChange::DestroyVersion(number) => self.destroy_version(draft, *number).await?,
        }
        Ok(())
    }

    async fn refuse_destroyed(&self, item: &SecretItem, number: VersionNo) -> Result<(), Error> {
        match self.secret_version(item, number).await? {
            Some((version, _)) if version.destroyed_at.is_some() => {
                Err(Error::SecretState { state: "destroyed" })
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn destroy_version(&self, draft: &mut Draft, number: VersionNo) -> Result<(), Error> {
        if draft.item.current() == Some(number) {
            let problem = "the current version is in use; make another one current first";
            return Err(Error::invalid("version", problem));
        }
        let Some((version, revision)) = self.secret_version(&draft.item, number).await? else {
            return Err(lastkey_core::secret_item::BadStage::NoSuchVersion.into());
        };
        let at = draft.clock.last.wall;
        draft.writes.extend(let_go(&mut draft.item, (version, revision), at));
        Ok(())
    }

    /// Plans the end of a secret with all that belongs to it.
    async fn end(&self, draft: &mut Draft) -> Result<(), Error> {
        let kept = draft.item.kept.clone();
        let writes = self.forget_versions(&draft.item, &kept).await?;
        draft.writes.extend(writes);
        draft.writes.extend(self.end_of_rotation(draft.item.id).await?);
        draft.move_due(None);
        draft.ends = true;
        Ok(())
    }

    async fn expire(&self, draft: &mut Draft, at: Elapsed) -> Result<(), Error> {
        match draft.item.deletion {
            Some(deletion) if deletion.due == at && draft.clock.hold.is_some() => {
                Err(Error::ClockHeld)
            }
            Some(deletion) if deletion.due == at => self.end(draft).await,
            // Restored, and perhaps deleted anew: what is due now is an old entry.
            Some(_) | None => Err(Error::Denied),
        }
    }

    /// The kept versions of a secret, with the revisions of their records.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(super) async fn kept_versions(
        &self,
        item: &SecretItem,
    ) -> Result<Vec<(SecretVersion, Revision)>, Error> {
        let mut versions = Vec::with_capacity(item.kept.len());
        for number in &item.kept {
            versions.extend(self.secret_version(item, *number).await?);
        }
        Ok(versions)
    }
}

/// The writes that destroy the value of a version, and the secret without its stages. Nothing when
/// it is destroyed already.
pub(super) fn let_go(
    item: &mut SecretItem,
    (version, revision): (SecretVersion, Revision),
    at: Timestamp,
) -> Vec<Write> {
    if version.destroyed_at.is_some() {
        return Vec::new();
    }
    let number = version.number;
    item.stages.retain(|_, at| *at != number);
    let version = SecretVersion { data_key_blob: None, destroyed_at: Some(at), ..version };
    let (path, record) =
        (RecordPath::secret_version(item.id, number), Some(Record::SecretVersion(version)));
    let rewritten = Write { path, expected: Expected::At(revision), record };
    vec![rewritten, removed(RecordPath::secret_value(item.id, number))]
}

impl SecretChange {
    /// The version that it is about.
    const fn version(&self) -> Option<VersionNo> {
        match self {
            Self::Place(_, number) | Self::DestroyVersion(number) => Some(*number),
            Self::Update { .. }
            | Self::Unplace(_)
            | Self::Delete(_)
            | Self::Restore
            | Self::Destroy
            | Self::Expire(_) => None,
        }
    }
}

impl Draft {
    fn delete(&mut self, window: DeletionWindow) {
        let due = self
            .clock
            .elapsed
            .after(std::time::Duration::from_secs(u64::from(window.days()).saturating_mul(86_400)));
        self.move_due(Some(Destruction { due, scheduled_at: self.clock.last.wall, window }));
    }

    fn restore(&mut self) -> Result<(), Error> {
        if self.item.deletion.is_none() {
            return Err(Error::SecretState { state: "not deleted" });
        }
        self.move_due(None);
        Ok(())
    }

    /// Sets the destruction, and moves what is due for it.
    fn move_due(&mut self, new: Option<Destruction>) {
        let due = |destruction: Destruction| SecretDue {
            at: destruction.due,
            what: SecretDueWhat::Destroy,
            name: self.before.name.clone(),
        };
        let (old, fresh) = (self.before.deletion.map(due), new.map(due));
        self.writes.extend(old.map(|due| removed(RecordPath::secret_due(&due))));
        self.writes.extend(fresh.map(|due| Write {
            path: RecordPath::secret_due(&due),
            expected: Expected::Absent,
            record: Some(Record::SecretDue(due)),
        }));
        self.item.deletion = new;
    }
}
