//! Use cases: schedule the destruction of a key, call it off, carry it out, and note when nothing
//! is left of its material.
//!
//! Room      `service`.
//! Holds     destroyed means unusable at once; erased means that every journal was rewritten
//!           since. The two are never set together.

use std::sync::Arc;

use lastkey_core::backup::Tombstone;
use lastkey_core::holding::Reason;
use lastkey_core::ids::KeyRef;
use lastkey_core::key::{DeletionWindow, Destruction};
use lastkey_core::limits::MAX_PAGE_LEN;
use lastkey_core::permit::{CancelKeyDeletion, ScheduleKeyDeletion};
use lastkey_core::ports::Expected;
use lastkey_core::record::{DueWhat, PathRange, Record, RecordPath};
use lastkey_core::state::{KeyEvent, State, VersionEvent};
use lastkey_core::time::{Elapsed, Timestamp};
use lastkey_core::version::KeyVersion;

use super::change_version::happen;
use super::describe::corrupt;
use crate::call::Call;
use crate::change::{Draft, Plan};
use crate::engine::Engine;
use crate::error::Error;
use crate::view::KeyView;

const SECONDS_PER_DAY: u64 = 86_400;

impl Engine {
    /// Schedules the destruction of a key. From now on nothing may use it. With a reason it is
    /// done in spite of what places were reported to hold under it.
    ///
    /// # Errors
    /// [`Error::KeyNeeded`], [`Error::DeletionProtected`], [`Error::KeyState`], [`Error::Denied`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn schedule_deletion(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        window: DeletionWindow,
        in_spite: Option<Reason>,
    ) -> Result<KeyView, Error> {
        let plan = Plan::ScheduleDeletion(window, in_spite);
        self.change::<ScheduleKeyDeletion>(call, key, plan).await
    }

    /// Calls a scheduled destruction off. The key is disabled then.
    ///
    /// # Errors
    /// [`Error::KeyState`], and those of [`Engine::schedule_deletion`].
    pub async fn cancel_deletion(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
    ) -> Result<KeyView, Error> {
        self.change::<CancelKeyDeletion>(call, key, Plan::CancelDeletion).await
    }

    /// Destroys a key whose window has passed: all versions, aliases, import parameters.
    pub(crate) async fn plan_destruction(
        &self,
        draft: &mut Draft,
        at: Elapsed,
    ) -> Result<(), Error> {
        let due = draft.key.destruction.filter(|destruction| destruction.due == at);
        draft.move_due(DueWhat::Destroy, Some(at), None);
        if due.is_none() {
            return Ok(());
        }
        if draft.clock.hold.is_some() {
            return Err(Error::ClockHeld);
        }
        if self.put_off_if_needed(draft).await? {
            return Ok(());
        }
        draft.happen(KeyEvent::Destroy)?;
        let now = draft.clock.last.wall;
        draft.key.destroyed_at = Some(now);
        if let Some(rotation) = draft.key.rotation.take() {
            draft.move_due(DueWhat::Rotate, Some(rotation.due), None);
        }
        self.bury(draft, None).await?;
        self.destroy_versions(draft).await?;
        self.drop_aliases(draft).await?;
        self.drop_import(draft).await?;
        self.plan_erasure_later(draft).await
    }

    /// Notes for every later restore that the key, or a version of it, was destroyed. After a
    /// restore there may be a note of another version of the same number.
    pub(crate) async fn bury(
        &self,
        draft: &mut Draft,
        version: Option<&KeyVersion>,
    ) -> Result<(), Error> {
        let (key, number) = (draft.key.id, version.map(|version| version.number));
        let path = RecordPath::tombstone(key, number);
        let before = self.store.get(&path).await?;
        let expected = before.map_or(Expected::Absent, |stored| Expected::At(stored.revision));
        // The wall clock may have gone back since, and a restore compares the two.
        let created_at = version.map_or(Timestamp(0), |version| version.created_at);
        let destroyed_at = draft.clock.last.wall.max(created_at);
        let tombstone = Tombstone { key, version: number, destroyed_at };
        draft.write(path, expected, Some(Record::Tombstone(tombstone)));
        Ok(())
    }

    async fn destroy_versions(&self, draft: &mut Draft) -> Result<(), Error> {
        let range = PathRange::versions(draft.key.id, None, usize::MAX);
        for stored in self.store.scan(&range).await? {
            let Record::Version(mut version) = stored.record else {
                return Err(corrupt(stored.path));
            };
            if version.state != State::Destroyed {
                happen(&mut version, VersionEvent::DestroyWithKey, draft.clock.last.wall)?;
                draft.put_version(version, Expected::At(stored.revision));
            }
        }
        Ok(())
    }

    async fn drop_aliases(&self, draft: &mut Draft) -> Result<(), Error> {
        for alias in std::mem::take(&mut draft.key.aliases) {
            let path = RecordPath::alias(&alias);
            let stored = self.store.get(&path).await?;
            if let Some(stored) = stored.filter(|s| s.record == Record::Alias(draft.key.id)) {
                draft.write(path, Expected::At(stored.revision), None);
            }
        }
        Ok(())
    }

    /// Notes that nothing is left of destroyed material. The scheduler has had the journals
    /// rewritten after it read the due record that brings it here.
    pub(crate) async fn plan_erasure(
        &self,
        draft: &mut Draft,
        at: Elapsed,
        rewritten: Timestamp,
    ) -> Result<(), Error> {
        let now = draft.clock.last.wall;
        // What was destroyed after the rewriting has a due record of its own. What seems to be
        // destroyed later than now is older: the wall clock went back.
        let is_covered = |destroyed: Timestamp| destroyed < rewritten || destroyed > now;
        // Backups from before `at` are gone. One that was made since may hold what was destroyed
        // later still.
        let backups = self.backups().await?;
        let is_held =
            |destroyed: Timestamp| backups.iter().any(|(kept, _)| kept.begun_at <= destroyed);
        let (mut after, mut waits) = (None, false);
        loop {
            let range = PathRange::versions(draft.key.id, after, MAX_PAGE_LEN);
            let page = self.store.scan(&range).await?;
            let full = page.len() == MAX_PAGE_LEN;
            for stored in page {
                let Record::Version(mut version) = stored.record else {
                    return Err(corrupt(stored.path));
                };
                after = Some(version.number);
                let destroyed = version.destroyed_at.filter(|_| version.erased_at.is_none());
                let Some(destroyed) = destroyed.filter(|at| is_covered(*at)) else { continue };
                if is_held(destroyed) {
                    waits = true;
                    continue;
                }
                version.erased_at = Some(now);
                draft.put_version(version, Expected::At(stored.revision));
            }
            if !full {
                draft.move_due(DueWhat::Erase, Some(at), None);
                return if waits { self.plan_erasure_later(draft).await } else { Ok(()) };
            }
        }
    }
}

impl Draft {
    pub(crate) fn plan_deletion(&mut self, window: DeletionWindow) -> Result<(), Error> {
        if self.key.deletion_protection {
            return Err(Error::DeletionProtected);
        }
        self.happen(KeyEvent::ScheduleDestruction)?;
        let seconds = u64::from(window.days()).saturating_mul(SECONDS_PER_DAY);
        let due = Elapsed(self.clock.elapsed.0.saturating_add(seconds));
        let scheduled_at = self.clock.last.wall;
        self.key.destruction = Some(Destruction { due, scheduled_at, window });
        self.move_due(DueWhat::Destroy, None, Some(due));
        Ok(())
    }

    pub(crate) fn plan_cancellation(&mut self) -> Result<(), Error> {
        let due = self.key.destruction.map(|destruction| destruction.due);
        self.happen(KeyEvent::CancelDestruction)?;
        self.move_due(DueWhat::Destroy, due, None);
        Ok(())
    }
}
