//! Use case: make a version primary again, shadow-disable, reinstate or destroy it.
//!
//! Room      `service`.
//! Holds     a version is destroyed only after it was shadow-disabled or marked as compromised,
//!           and never while it is primary: the table of states refuses. What a place was last
//!           reported to hold under it keeps it too.

use std::sync::Arc;

use lastkey_core::holding::Reason;
use lastkey_core::ids::{KeyRef, VersionNo};
use lastkey_core::permit::{DestroyKeyVersion, MarkCompromised, RotateKey, UpdateKeyVersion};
use lastkey_core::ports::Expected;
use lastkey_core::record::{Due, DueWhat, Record, RecordPath};
use lastkey_core::state::{Purpose, State, VersionEvent};
use lastkey_core::time::{Elapsed, Timestamp};
use lastkey_core::version::KeyVersion;

use crate::call::Call;
use crate::change::{Draft, Plan, VersionChange};
use crate::engine::Engine;
use crate::error::Error;
use crate::view::{KeyView, VersionView};

impl Engine {
    /// Changes one version of a key.
    ///
    /// # Errors
    /// [`Error::KeyState`] when a table of states refuses; [`Error::Denied`] also for a version
    /// that there is not; [`Error::DeletionProtected`], [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn change_version(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        number: VersionNo,
        change: VersionChange,
    ) -> Result<VersionView, Error> {
        let plan = Plan::Version(number, change, None);
        let changed: KeyView = match change {
            VersionChange::MakePrimary => self.change::<RotateKey>(call, key, plan).await?,
            VersionChange::ShadowDisable | VersionChange::Reinstate => {
                self.change::<UpdateKeyVersion>(call, key, plan).await?
            }
            VersionChange::MarkCompromised => {
                self.change::<MarkCompromised>(call, key, plan).await?
            }
            VersionChange::Destroy => {
                return self.destroy_key_version(call, key, number, None).await;
            }
        };
        self.changed_version(&changed.key, number).await
    }

    /// Lets the material of a version go; with a reason in spite of what places were reported to
    /// hold under it.
    ///
    /// # Errors
    /// [`Error::KeyNeeded`], and those of [`Engine::change_version`].
    pub async fn destroy_key_version(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        number: VersionNo,
        in_spite: Option<Reason>,
    ) -> Result<VersionView, Error> {
        let plan = Plan::Version(number, VersionChange::Destroy, in_spite);
        let changed = self.change::<DestroyKeyVersion>(call, key, plan).await?;
        self.changed_version(&changed.key, number).await
    }

    pub(crate) async fn plan_version_change(
        &self,
        draft: &mut Draft,
        number: VersionNo,
        change: VersionChange,
        in_spite: Option<&Reason>,
    ) -> Result<(), Error> {
        let stored = self.read_version(draft.key.id, number).await?;
        let (mut version, revision) = stored.ok_or(Error::Denied)?;
        draft.version = Some(number);
        if draft.key.destruction.is_some() {
            return Err(Error::KeyState { state: "pending deletion" });
        }
        if change == VersionChange::Destroy && draft.key.deletion_protection {
            return Err(Error::DeletionProtected);
        }
        let event = match change {
            VersionChange::MakePrimary => {
                return self.plan_promotion(draft, version, revision).await;
            }
            VersionChange::ShadowDisable => VersionEvent::ShadowDisable,
            VersionChange::Reinstate => VersionEvent::Reinstate,
            VersionChange::MarkCompromised => VersionEvent::MarkCompromised,
            VersionChange::Destroy => VersionEvent::Destroy,
        };
        happen(&mut version, event, draft.clock.last.wall)?;
        if version.state == State::Destroyed {
            self.check_needed(draft, Some(number), in_spite).await?;
            self.bury(draft, Some(&version)).await?;
            self.plan_erasure_later(draft).await?;
        }
        draft.put_version(version, Expected::At(revision));
        Ok(())
    }

    async fn plan_promotion(
        &self,
        draft: &mut Draft,
        mut version: KeyVersion,
        revision: lastkey_core::ports::Revision,
    ) -> Result<(), Error> {
        if !draft.key.phase().permits(Purpose::Protect) {
            return Err(Error::state(draft.key.state));
        }
        happen(&mut version, VersionEvent::Promote, draft.clock.last.wall)?;
        self.supersede_primary(draft).await?;
        draft.key.activation = draft.key.activation.saturating_add(1);
        draft.key.primary = Some(version.number);
        version.activation = draft.key.activation;
        draft.put_version(version, Expected::At(revision));
        Ok(())
    }

    /// Has the journals rewritten soon, so that nothing is left of what is destroyed now. All
    /// that is destroyed within a round shares one rewriting, for which writers have to wait.
    pub(crate) async fn plan_erasure_later(&self, draft: &mut Draft) -> Result<(), Error> {
        let at = erasure_after(draft.clock.elapsed);
        let due = Due { at, what: DueWhat::Erase, key: draft.key.id };
        let path = RecordPath::due(due);
        if self.store.get(&path).await?.is_none() {
            draft.write(path, Expected::Absent, Some(Record::Due(due)));
        }
        Ok(())
    }
}

/// When what is destroyed now is looked for in the journals.
pub(crate) fn erasure_after(now: Elapsed) -> Elapsed {
    let round = now.0 / ERASURE_ROUND_SECONDS;
    Elapsed(round.saturating_add(1).saturating_mul(ERASURE_ROUND_SECONDS))
}

/// Journals are rewritten at most this often.
const ERASURE_ROUND_SECONDS: u64 = 600;

/// Lets an event happen to a version, if the table of states allows it.
///
/// # Errors
/// [`Error::KeyState`].
pub(crate) fn happen(
    version: &mut KeyVersion,
    event: VersionEvent,
    now: Timestamp,
) -> Result<(), Error> {
    let before = version.state;
    version.state = before.after(event).map_err(Error::refused(before))?;
    if version.state == State::Destroyed {
        version.material = None;
        version.destroyed_at = Some(now);
    }
    Ok(())
}
