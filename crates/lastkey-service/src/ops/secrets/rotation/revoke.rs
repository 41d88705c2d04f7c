//! Use case: revoke an old version when its overlap has ended, or its consumers have moved.
//!
//! Room      `service`.
//! Holds     the current version is never revoked, also when somebody went back to the old one in
//!           between. While the clock is on hold nothing is revoked.

use std::time::Duration;

use lastkey_core::ids::VersionNo;
use lastkey_core::permit::{Action, RevokeSecretVersion};
use lastkey_core::secret_item::{SecretId, SecretName};
use lastkey_core::secret_rotation::{LastRotation, Overlap, SecretRotation};

use super::run::waits;
use super::{ATTEMPTS, Scene, rewritten, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::secrets::change::let_go;

/// How often it is looked whether consumers have moved.
const LOOK_PERIOD: Duration = Duration::from_secs(15);

/// How long nodes are listened to before their silence counts, in seconds. They speak three times
/// as often.
const LISTENED_SECS: i64 = 60;

/// When a revocation that failed is tried again.
const AGAIN: Duration = Duration::from_secs(300);

impl Engine {
    /// Who holds a version of a secret or an older one, as far as nodes have said.
    pub(super) fn old_holders(&self, name: &SecretName, version: VersionNo) -> Vec<String> {
        let holders = self.holders_of(name).consumers.into_iter();
        let old = holders.filter(|one| one.holder.version <= version);
        old.map(|one| format!("{}/{} on {}", one.holder.namespace, one.holder.pod, one.node))
            .collect()
    }

    /// Whether nobody is known to hold a version or an older one, and all had the time to say so.
    fn have_moved(&self, name: &SecretName, version: VersionNo) -> bool {
        let known = self.holders_of(name);
        let listened = self.clock.wall().seconds_since(known.heard_since);
        known.is_complete && listened >= LISTENED_SECS && self.old_holders(name, version).is_empty()
    }

    /// Revokes the old version of a secret if it is time; else says when to look again.
    pub(super) async fn revoke_due(&self, call: &Call, secret: SecretId) -> Result<(), Error> {
        let Some(scene) = self.scene(secret).await? else { return Ok(()) };
        let clock = self.clock.observe();
        let Some(overlap) = scene.held.rotation.overlap.filter(|one| one.ends <= clock.elapsed)
        else {
            return Ok(());
        };
        if clock.hold.is_some() {
            return Err(Error::ClockHeld);
        }
        if overlap.waits_for_consumers && !self.have_moved(&scene.item.name, overlap.version) {
            return self.put_off(scene, overlap, LOOK_PERIOD, None).await;
        }
        let outcome = self.revoke_now::<RevokeSecretVersion>(call, secret).await;
        if let Err(error) = &outcome
            && !waits(error)
            && let Some(scene) = self.scene(secret).await?
        {
            self.put_off(scene, overlap, AGAIN, Some(error.to_string())).await?;
        }
        outcome
    }

    /// Revokes the old version of a secret, if one still counts, by the caller's right to an action.
    pub(super) async fn revoke_now<A: Action>(
        &self,
        call: &Call,
        secret: SecretId,
    ) -> Result<(), Error> {
        let Some(scene) = self.scene(secret).await? else { return Ok(()) };
        let Some(overlap) = scene.held.rotation.overlap else { return Ok(()) };
        let mut trail = Trail::of::<A>(self, call);
        trail.target = Some(target(&scene.item.name, Some(overlap.version)));
        let outcome = self.try_revoke_version::<A>(&mut trail, secret, overlap).await;
        trail.close(self, outcome).await
    }

    async fn try_revoke_version<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        secret: SecretId,
        overlap: Overlap,
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let Some(scene) = self.scene(secret).await? else { return Ok(()) };
            if scene.held.rotation.overlap != Some(overlap) {
                return Ok(());
            }
            self.permit_secret::<A>(trail, &scene.item.name).await?;
            if self.clock.observe().hold.is_some() {
                return Err(Error::ClockHeld);
            }
            trail.intend(self).await?;
            match self.revoke_version(trail, scene, overlap.version).await {
                // Somebody else changed something, perhaps what is current: it is looked at anew.
                Err(Error::Conflict) => {}
                revoked => return revoked,
            }
        }
        Err(Error::Conflict)
    }

    async fn revoke_version(
        &self,
        trail: &mut Trail<'_>,
        mut scene: Scene,
        old: VersionNo,
    ) -> Result<(), Error> {
        self.revoke_outside(trail, &scene, old).await?;
        let mut batch = Vec::new();
        if scene.item.current() == Some(old) {
            trail.reason = "it is current again, and stays".into();
        } else if let Some(version) = self.secret_version(&scene.item, old).await? {
            batch = let_go(&mut scene.item, version, trail.at());
        }
        let held = &scene.held;
        batch.push(rewritten(&scene.item, scene.item_revision));
        batch.extend(held.changed(SecretRotation { overlap: None, ..held.rotation.clone() }));
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Says when an overlap is looked at again, and why it has not ended.
    async fn put_off(
        &self,
        scene: Scene,
        overlap: Overlap,
        pause: Duration,
        problem: Option<String>,
    ) -> Result<(), Error> {
        let Scene { held, .. } = scene;
        let clock = self.clock.observe();
        let ends = clock.elapsed.after(pause);
        let mut rotation =
            SecretRotation { overlap: Some(Overlap { ends, ..overlap }), ..held.rotation.clone() };
        if let Some(problem) = problem {
            tracing::error!(problem, "an old version of a secret could not be revoked");
            let problem = Some(format!("the old version was not revoked: {problem}"));
            let version = rotation.last.as_ref().and_then(|last| last.version);
            rotation.last = Some(LastRotation { at: clock.last.wall, version, problem });
        }
        self.store.commit(held.changed(rotation)).await?;
        Ok(())
    }
}
