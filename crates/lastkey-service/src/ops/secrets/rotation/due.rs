//! What runs beside the calls: rotations that are due, or were under way, and ends of overlaps.
//!
//! Room      `service`.
//! Holds     a due time is used once. A rotation that a server did not end is taken up by the next
//!           one before anything else is done with that secret.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::permit::RotateSecret;
use lastkey_core::ports::{Change, Expected, Stored, Watch, Write};
use lastkey_core::record::{PathRange, Record};
use lastkey_core::secret_item::SecretItem;
use lastkey_core::secret_rotation::{RotationDue, RotationDueWhat, SecretRotation};
use lastkey_core::time::Elapsed;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Held, Scene, dues, target};
use crate::audited::Trail;
use crate::engine::Engine;
use crate::error::Error;
use crate::jobs::scheduled_call;

/// Due records looked at in one scan.
const DUE_PAGE: usize = 256;
/// Rotations that run at once.
const AT_ONCE: usize = 8;
/// How long nothing is looked at when nothing happens.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long after the end of an overlap a rotation follows that it has put off.
const AFTER_OVERLAP: Duration = Duration::from_secs(60);

/// Runs until it is told to stop.
pub(crate) async fn run(engine: Arc<Engine>, mut stop: oneshot::Receiver<()>) {
    let mut watch = engine.store.watch("rotation-due/");
    loop {
        let next = engine.run_rotations_due().await;
        let wait = next.map(|at| engine.clock.observe().elapsed.until(at));
        let wake = Instant::now() + wait.map_or(LONGEST_SLEEP, |wait| wait.min(LONGEST_SLEEP));
        let goes_on = tokio::select! {
            biased;
            _ = &mut stop => false,
            () = sleep_until(wake) => true,
            goes_on = news(&mut *watch) => goes_on,
        };
        if !goes_on {
            return;
        }
    }
}

/// Waits until something is due that was not; no when the store has closed.
async fn news(watch: &mut dyn Watch) -> bool {
    loop {
        match watch.next().await {
            Some(Change::Record { revision: Some(_), .. } | Change::Missed) => return true,
            Some(Change::Record { revision: None, .. }) => {}
            None => return false,
        }
    }
}

impl Engine {
    /// Does everything that is due with rotations, and answers when the next thing is.
    pub async fn run_rotations_due(self: &Arc<Self>) -> Option<Elapsed> {
        let (mut after, mut running) = (None, JoinSet::new());
        let next = loop {
            let range = PathRange { after: after.take(), ..PathRange::rotations_due(DUE_PAGE) };
            let page = match self.store.scan(&range).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "what is due with rotations could not be read");
                    break None;
                }
            };
            let Some(last) = page.last().map(|stored| stored.path.clone()) else { break None };
            let now = self.clock.observe().elapsed;
            let later = page.iter().find_map(|stored| {
                let Record::RotationDue(due) = &stored.record else { return None };
                (due.at > now).then_some(due.at)
            });
            for stored in page {
                let Record::RotationDue(due) = stored.record else { continue };
                if due.at > now {
                    break;
                }
                if running.len() >= AT_ONCE {
                    running.join_next().await;
                }
                let engine = Arc::clone(self);
                running.spawn(async move { engine.do_rotation_due(&stored, due).await });
            }
            if later.is_some() {
                break later;
            }
            after = Some(last);
        };
        while running.join_next().await.is_some() {}
        next
    }

    async fn do_rotation_due(&self, stored: &Stored, due: RotationDue) {
        // Somebody does it just now.
        let Some(_turn) = self.turns.take(due.secret) else { return };
        let call = scheduled_call(self);
        let done = match self.scene(due.secret).await {
            Ok(Some(scene)) if dues(&scene.held.rotation).any(|one| one == due) => match due.what {
                RotationDueWhat::Rotate => self.rotate_due(scene).await,
                RotationDueWhat::Revoke => self.revoke_due(&call, due.secret).await,
            },
            Ok(_nothing_speaks_of_it) => self.drop_due(stored, due).await,
            Err(error) => Err(error),
        };
        match done {
            // Tried again with the next round.
            Ok(()) | Err(Error::ClockHeld | Error::Conflict) => {}
            Err(error) => {
                tracing::error!(what = due.what.as_str(), %error, "a rotation: due, but failed");
            }
        }
    }

    /// Drops what is due with no rotation. While a secret is moved its rotation is there without
    /// it, and goes on under the new name.
    async fn drop_due(&self, stored: &Stored, due: RotationDue) -> Result<(), Error> {
        let held = self.held_rotation(due.secret).await?;
        if held.is_some_and(|held| dues(&held.rotation).any(|one| one == due)) {
            return Ok(());
        }
        let expected = Expected::At(stored.revision);
        let write = Write { path: stored.path.clone(), expected, record: None };
        self.store.commit(vec![write]).await?;
        Ok(())
    }

    async fn rotate_due(&self, scene: Scene) -> Result<(), Error> {
        let Scene { held, item, .. } = scene;
        let rotation = &held.rotation;
        let is_resumed = rotation.under_way.is_some();
        let clock = self.clock.observe();
        if !is_resumed {
            if let Some(overlap) = rotation.overlap {
                let later = overlap.ends.max(clock.elapsed).after(AFTER_OVERLAP);
                return self.due_later(&held, Some(later)).await;
            }
            let is_open = |now| rotation.schedule.as_ref().is_some_and(|one| one.is_open(now));
            if item.deletion.is_some() || !is_open(clock.last.wall) {
                let random = self.draw_random()?;
                let next = rotation.schedule.as_ref().and_then(|one| one.next(&clock, random));
                return self.due_later(&held, next).await;
            }
        }
        let call = scheduled_call(self);
        let mut trail = Trail::of::<RotateSecret>(self, &call);
        trail.target = Some(target(&item.name, None));
        let outcome = self.rotate_by_time(&mut trail, &item).await;
        trail.close(self, outcome).await
    }

    async fn rotate_by_time(&self, trail: &mut Trail<'_>, item: &SecretItem) -> Result<(), Error> {
        let permitted = self.permit_secret::<RotateSecret>(trail, &item.name).await;
        if let Err(error) = permitted {
            self.note_failure(trail, item.id, &error).await?;
            return Err(error);
        }
        trail.intend(self).await?;
        self.rotate(trail, item.id, false).await?;
        Ok(())
    }

    async fn due_later(&self, held: &Held, due: Option<Elapsed>) -> Result<(), Error> {
        let rotation = SecretRotation { due, ..held.rotation.clone() };
        self.store.commit(held.changed(rotation)).await?;
        Ok(())
    }
}
