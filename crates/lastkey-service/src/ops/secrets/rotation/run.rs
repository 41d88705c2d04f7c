//! The steps of a rotation after the first, and what is done when one of them fails.
//!
//! Room      `service`.
//! Holds     what is set is tested, what is tested becomes current, and all of that by the record:
//!           a step that was done and not written down is done again. What fails outside is taken
//!           back. When the store or the audit log fails, or nobody knows whether a program set the
//!           new value, the rotation waits where it stands. A value that may count is never
//!           destroyed: that of `current`, and what a program was told to set. A program is told that
//!           its value is current, again after a kill; one that does not answer is not told again.

use std::time::Duration;

use lastkey_core::permit::Why;
use lastkey_core::secret_item::{SecretId, SecretItem, Stage};
use lastkey_core::secret_rotation::{
    LastRotation, Overlap, SecretRotation, Step, Strategy, UnderWay,
};
use lastkey_core::time::ClockRecord;

use super::outside::Stopped;
use super::{ATTEMPTS, Scene, rewritten, target};
use crate::audited::Trail;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::secrets::change::let_go;

/// Steps and repeated steps of one rotation.
const MOST_STEPS: usize = 32;

/// How long a scheduled rotation waits after it failed first; this doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(300);

/// Doublings: from five minutes to more than five hours.
const MOST_DOUBLINGS: u32 = 6;

impl Engine {
    /// Does what is left of a rotation that is under way.
    pub(super) async fn carry_out(
        &self,
        trail: &mut Trail<'_>,
        secret: SecretId,
    ) -> Result<SecretRotation, Error> {
        for _ in 0..MOST_STEPS {
            let Some(scene) = self.scene(secret).await? else { return Err(Error::NoRotation) };
            let Some(under_way) = scene.held.rotation.under_way.clone() else {
                return Ok(scene.held.rotation);
            };
            trail.target = Some(target(&scene.item.name, Some(under_way.version)));
            match self.next_step(trail, scene, &under_way).await {
                // Somebody else changed something: it is looked at anew.
                Ok(()) | Err(Stopped::Failed(Error::Conflict)) => {}
                Err(Stopped::Failed(error)) if waits(&error) => return Err(error),
                Err(Stopped::Unknown(error)) => {
                    self.leave_standing(trail, secret, &under_way, &error).await?;
                    return Err(error);
                }
                Err(Stopped::Failed(error)) => {
                    self.take_back(trail, secret, &under_way, &error).await?;
                    return Err(error);
                }
            }
        }
        Err(Error::Conflict)
    }

    async fn next_step(
        &self,
        trail: &mut Trail<'_>,
        scene: Scene,
        under_way: &UnderWay,
    ) -> Result<(), Stopped> {
        let is_current = scene.item.current() == Some(under_way.version);
        if !is_current && scene.item.current() != under_way.replaces {
            return Err(Error::Outside("another version became current meanwhile".into()).into());
        }
        let next = match under_way.step {
            Step::Created => {
                self.set_outside(trail, &scene, under_way).await?;
                Step::Set
            }
            // Somebody made it current without a test.
            Step::Set if is_current => return Ok(self.finish(trail, scene, under_way).await?),
            Step::Set => {
                self.test_outside(trail, &scene, under_way).await?;
                Step::Tested
            }
            Step::Tested if !is_current && is_hooked(&scene.held.rotation) => {
                return Ok(self.make_current(scene, under_way).await?);
            }
            Step::Tested => return Ok(self.finish(trail, scene, under_way).await?),
        };
        let held = &scene.held;
        let under_way = Some(UnderWay { step: next, ..under_way.clone() });
        let rotation = SecretRotation { under_way, ..held.rotation.clone() };
        self.store.commit(held.changed(rotation)).await.map_err(Error::from)?;
        Ok(())
    }

    /// Makes the new version of a program current. It stays under way until the program was told.
    async fn make_current(&self, scene: Scene, under_way: &UnderWay) -> Result<(), Error> {
        let Scene { held, mut item, item_revision } = scene;
        refuse_deleted(&item)?;
        item.place(Stage::current(), under_way.version)?;
        let mut batch = held.changed(held.rotation.clone());
        batch.push(rewritten(&item, item_revision));
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Makes the new version current; the old one counts until its overlap ends.
    async fn finish(
        &self,
        trail: &mut Trail<'_>,
        scene: Scene,
        under_way: &UnderWay,
    ) -> Result<(), Error> {
        let Scene { held, mut item, item_revision } = scene;
        refuse_deleted(&item)?;
        self.tell_finished(&held.rotation, &item, under_way).await;
        let (clock, random) = (self.clock.observe(), self.draw_random()?);
        item.place(Stage::current(), under_way.version)?;
        let before = &held.rotation;
        let after = SecretRotation {
            due: before.schedule.as_ref().and_then(|schedule| schedule.next(&clock, random)),
            under_way: None,
            overlap: overlap(before, under_way, &clock),
            failures: 0,
            last: Some(LastRotation {
                at: trail.at(),
                version: Some(under_way.version),
                problem: None,
            }),
            ..before.clone()
        };
        let mut batch = held.changed(after);
        batch.push(rewritten(&item, item_revision));
        self.store.commit(batch).await?;
        self.turns.count(true);
        Ok(())
    }

    /// Leaves a rotation where it stands, and says why and when it goes on.
    async fn leave_standing(
        &self,
        trail: &mut Trail<'_>,
        secret: SecretId,
        under_way: &UnderWay,
        error: &Error,
    ) -> Result<(), Error> {
        let Some(held) = self.held_rotation(secret).await? else { return Ok(()) };
        if held.rotation.under_way.as_ref() != Some(under_way) {
            return Ok(());
        }
        let problem = error.to_string();
        tracing::error!(problem, "the rotation of a secret waits where it stands");
        trail.reason = Why::Named(format!("waits: {problem}").into());
        let rotation = SecretRotation {
            due: Some(self.clock.observe().elapsed.after(FIRST_PAUSE)),
            last: Some(LastRotation { at: trail.at(), version: None, problem: Some(problem) }),
            ..held.rotation.clone()
        };
        self.store.commit(held.changed(rotation)).await?;
        Ok(())
    }

    /// Takes back what is under way: the new value is destroyed unless it may count, the current
    /// one stays.
    async fn take_back(
        &self,
        trail: &mut Trail<'_>,
        secret: SecretId,
        under_way: &UnderWay,
        error: &Error,
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let Some(Scene { held, mut item, item_revision }) = self.scene(secret).await? else {
                return Ok(());
            };
            if held.rotation.under_way.as_ref().map(|one| one.id) != Some(under_way.id) {
                return Ok(());
            }
            let may_count = is_hooked(&held.rotation) || item.current() == Some(under_way.version);
            let mut batch = match self.secret_version(&item, under_way.version).await? {
                Some(version) if !may_count => let_go(&mut item, version, trail.at()),
                Some(_) | None => Vec::new(),
            };
            batch.push(rewritten(&item, item_revision));
            batch.extend(held.changed(self.failed(trail, &held.rotation, error)));
            match self.store.commit(batch).await.map_err(Error::from) {
                Err(Error::Conflict) => {}
                committed => return committed.map(|_| ()),
            }
        }
        Err(Error::Conflict)
    }

    /// Notes that a rotation could not begin, if that is not to be tried again at once.
    pub(super) async fn note_failure(
        &self,
        trail: &mut Trail<'_>,
        secret: SecretId,
        error: &Error,
    ) -> Result<(), Error> {
        if waits(error) {
            return Ok(());
        }
        let Some(held) = self.held_rotation(secret).await? else { return Ok(()) };
        if held.rotation.under_way.is_some() {
            return Ok(());
        }
        let after = self.failed(trail, &held.rotation, error);
        self.store.commit(held.changed(after)).await?;
        Ok(())
    }

    /// The rotation after a failure, which is told to the log as well.
    fn failed(
        &self,
        trail: &mut Trail<'_>,
        before: &SecretRotation,
        error: &Error,
    ) -> SecretRotation {
        let problem = error.to_string();
        tracing::error!(problem, "a secret was not rotated; the old version stays current");
        trail.reason = Why::Named(format!("taken back: {problem}").into());
        self.turns.count(false);
        let doublings = before.failures.min(MOST_DOUBLINGS);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings);
        let again = self.clock.observe().elapsed.after(pause);
        SecretRotation {
            due: before.schedule.as_ref().map(|_| again),
            under_way: None,
            failures: before.failures.saturating_add(1),
            last: Some(LastRotation { at: trail.at(), version: None, problem: Some(problem) }),
            ..before.clone()
        }
    }
}

/// Whether a program makes, sets and tests what is new.
const fn is_hooked(rotation: &SecretRotation) -> bool {
    matches!(rotation.strategy, Strategy::Webhook(_))
}

fn refuse_deleted(item: &SecretItem) -> Result<(), Error> {
    match item.deletion {
        Some(_) => Err(Error::SecretState { state: "deleted" }),
        None => Ok(()),
    }
}

/// Whether a rotation waits where it stands: what failed is a part of the service.
pub(super) const fn waits(error: &Error) -> bool {
    matches!(error, Error::Unavailable(_) | Error::Internal(_) | Error::Conflict)
}

/// The old version, until it is revoked; `None` when it is kept like any other.
fn overlap(before: &SecretRotation, under_way: &UnderWay, clock: &ClockRecord) -> Option<Overlap> {
    let waits_for_consumers = under_way.waits_for_consumers;
    let lasts = match before.overlap_secs {
        _soon if waits_for_consumers => Duration::ZERO,
        Some(seconds) => Duration::from_secs(seconds),
        None => return None,
    };
    let version = under_way.replaces?;
    Some(Overlap { version, ends: clock.elapsed.after(lasts), waits_for_consumers })
}
