//! Use cases: rotate a key now, and set its automatic rotation.
//!
//! Room      `service`.
//! Holds     one due time makes at most one version: the new version, the key and both due
//!           records are one commit, and a due time that is not the key's own makes none.

use std::sync::Arc;

use lastkey_core::ids::{KeyRef, VersionNo};
use lastkey_core::permit::{RotateKey, UpdateRotation};
use lastkey_core::ports::Expected;
use lastkey_core::record::DueWhat;
use lastkey_core::rotation::{Period, Rotation};
use lastkey_core::state::{Purpose, VersionEvent};
use lastkey_core::time::Elapsed;
use lastkey_secret::SecretVec;

use super::create_key::IMPORTED_NEVER_ROTATES;
use crate::call::Call;
use crate::change::{Draft, Plan};
use crate::engine::Engine;
use crate::error::Error;
use crate::view::KeyView;

impl Engine {
    /// Makes a new version, which is the primary one from now on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for imported material, [`Error::KeyState`], [`Error::Denied`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn rotate_key(self: &Arc<Self>, call: &Call, key: KeyRef) -> Result<KeyView, Error> {
        self.change::<RotateKey>(call, key, Plan::Rotate).await
    }

    /// Sets automatic rotation, or ends it.
    ///
    /// # Errors
    /// As [`Engine::rotate_key`].
    pub async fn set_rotation(
        self: &Arc<Self>,
        call: &Call,
        key: KeyRef,
        period: Option<Period>,
    ) -> Result<KeyView, Error> {
        self.change::<UpdateRotation>(call, key, Plan::SetRotation(period)).await
    }

    pub(crate) async fn plan_rotation(&self, draft: &mut Draft) -> Result<(), Error> {
        if !draft.key.can_rotate() {
            return Err(Error::invalid("key", IMPORTED_NEVER_ROTATES));
        }
        if !draft.key.phase().permits(Purpose::Protect) {
            return Err(Error::state(draft.key.state));
        }
        let material = self.generate_material(draft.key.spec).await?;
        self.add_primary(draft, &material).await?;
        if let Some(rotation) = draft.key.rotation {
            self.move_rotation(draft, rotation, true);
        }
        Ok(())
    }

    /// What comes due for a key that is not in use is put off by a period.
    pub(crate) async fn plan_due_rotation(
        &self,
        draft: &mut Draft,
        at: Elapsed,
    ) -> Result<(), Error> {
        let Some(rotation) = draft.key.rotation.filter(|rotation| rotation.due == at) else {
            draft.move_due(DueWhat::Rotate, Some(at), None);
            return Ok(());
        };
        if draft.key.phase().permits(Purpose::Protect) {
            self.plan_rotation(draft).await
        } else {
            self.move_rotation(draft, rotation, false);
            Ok(())
        }
    }

    fn move_rotation(&self, draft: &mut Draft, before: Rotation, rotated: bool) {
        let next = self.rotation(before.period, draft.clock.elapsed);
        let last = if rotated { Some(draft.clock.last.wall) } else { before.last };
        draft.move_due(DueWhat::Rotate, Some(before.due), Some(next.due));
        draft.key.rotation = Some(Rotation { last, ..next });
    }

    pub(crate) fn plan_rotation_period(
        &self,
        draft: &mut Draft,
        period: Option<Period>,
    ) -> Result<(), Error> {
        if period.is_some() && !draft.key.can_rotate() {
            return Err(Error::invalid("key", IMPORTED_NEVER_ROTATES));
        }
        let phase = draft.key.phase();
        if period.is_some() && (phase.destruction_scheduled || !phase.state.may_process()) {
            return Err(Error::state(phase.state));
        }
        let before = draft.key.rotation;
        let after = period.map(|period| Rotation {
            last: before.and_then(|before| before.last),
            ..self.rotation(period, draft.clock.elapsed)
        });
        draft.move_due(DueWhat::Rotate, before.map(|b| b.due), after.map(|a| a.due));
        draft.key.rotation = after;
        Ok(())
    }

    /// Adds material as the newest version and makes it primary.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] after 2^32 - 1 versions, [`Error::Internal`].
    pub(crate) async fn add_primary(
        &self,
        draft: &mut Draft,
        material: &SecretVec,
    ) -> Result<(), Error> {
        self.supersede_primary(draft).await?;
        let number = draft.key.newest.map_or(Some(VersionNo::FIRST), VersionNo::next);
        let number = number.ok_or(Error::LimitExceeded("a key has at most 2^32 - 1 versions"))?;
        let version = self.new_version(&mut draft.key, number, material)?;
        draft.put_version(version, Expected::Absent);
        draft.version = Some(number);
        Ok(())
    }

    /// Ends the time of the present primary version, if there is one.
    pub(crate) async fn supersede_primary(&self, draft: &mut Draft) -> Result<(), Error> {
        let Some(number) = draft.key.primary.take() else { return Ok(()) };
        let stored = self.read_version(draft.key.id, number).await?;
        let (mut old, revision) =
            stored.ok_or_else(|| Error::Internal("the primary version is not there".into()))?;
        let state = old.state;
        old.state = state.after(VersionEvent::Supersede).map_err(Error::refused(state))?;
        draft.put_version(old, Expected::At(revision));
        Ok(())
    }
}
