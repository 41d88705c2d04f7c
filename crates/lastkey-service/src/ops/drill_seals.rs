//! Use case: the drill, which proves that each seal opens.
//!
//! Room      `service`.
//! Source    docs/operations/recovery.md, "Prove them".
//! Holds     what is presented is a guess until it opens something: a drill guesses no faster than
//!           an unseal.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastkey_core::permit::{DrillSeals, Resource};
use lastkey_core::seal_record::{Bootstrap, SealRecord};
use lastkey_secret::SecretVec;
use tokio::sync::MutexGuard;

use crate::attempts::UnsealAttempts;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::backups::NewestBackup;
use crate::ops::seals::{Health, SealsReport, report};
use crate::seal_authority::CHANGED;
use crate::sealing::{Gate, detached};
use crate::unsealing::is_of_a_device;

impl Gate {
    /// Opens every seal that can be opened now: those of devices, and those that open to what is
    /// presented. Shares are brought by [`Gate::unseal_by_share`].
    ///
    /// # Errors
    /// As [`Gate::list_seals`]; [`Error::SealRefused`] when the seals were tampered with,
    /// [`Error::Throttled`] when something is presented too often.
    pub async fn drill_seals(
        self: &Arc<Self>,
        call: &Call,
        presented: Option<SecretVec>,
    ) -> Result<SealsReport, Error> {
        let (gate, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let engine = gate.engine()?;
            let mut trail = Trail::of::<DrillSeals>(&engine, &call);
            let outcome = gate.try_drill_seals(&engine, &mut trail, presented).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_drill_seals(
        &self,
        engine: &Engine,
        trail: &mut Trail<'_>,
        presented: Option<SecretVec>,
    ) -> Result<SealsReport, Error> {
        engine.permit::<DrillSeals>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        // The place of backups may be slow to answer: nobody who unseals waits for it.
        let newest = self.newest_backup(engine).await?;
        let guessing = match presented {
            Some(presented) => Some((self.take_guess().await?, Arc::new(presented))),
            None => None,
        };
        trail.intend(engine).await?;
        let bootstrap = engine.stored_bootstrap().await?;
        if !engine.custody.lock().await.has_written(&bootstrap) {
            return Err(Error::SealRefused(CHANGED.into()));
        }
        let (devices, others): (Vec<_>, Vec<_>) =
            bootstrap.seals.iter().partition(|seal| is_of_a_device(seal));
        let places = (&bootstrap, newest.as_ref());
        let mut failed = BTreeMap::new();
        if let Some((mut attempts, presented)) = guessing {
            let opened = self.drill(engine, places, &others, Some(&presented), &mut failed);
            if opened.await? > 0 {
                attempts.guesses.refill();
            }
        }
        self.drill(engine, places, &devices, None, &mut failed).await?;
        let mut report = report(&bootstrap, &engine.seal_book.read().await, engine.clock.wall());
        for seal in &mut report.seals {
            if let Some(problem) = failed.remove(&seal.id.0) {
                seal.health = Health::Failed(problem);
            }
        }
        Ok(report)
    }

    /// One guess at what opens a seal. Nobody else has one until it is dropped.
    async fn take_guess(&self) -> Result<MutexGuard<'_, UnsealAttempts>, Error> {
        let mut attempts = self.attempts.lock().await;
        attempts.guesses.take(self.ports.clock.read().since_boot)?;
        Ok(attempts)
    }

    /// Opens what can be opened of these seals, and the newest backup by each; how many did.
    async fn drill(
        &self,
        engine: &Engine,
        (bootstrap, newest): (&Bootstrap, Option<&NewestBackup>),
        seals: &[&SealRecord],
        presented: Option<&Arc<SecretVec>>,
        failed: &mut BTreeMap<[u8; 16], String>,
    ) -> Result<usize, Error> {
        let mut opened = 0_usize;
        for seal in seals {
            match self.try_seal_now(engine, bootstrap, seal, presented, newest).await {
                Some(Ok(())) => {
                    self.note_opened(engine, seal.id).await?;
                    opened = opened.saturating_add(1);
                }
                Some(Err(problem)) => {
                    failed.insert(seal.id, problem);
                }
                None => {}
            }
        }
        Ok(opened)
    }
}
