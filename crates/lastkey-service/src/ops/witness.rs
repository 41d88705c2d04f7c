//! Use cases: who witnesses this log, which logs it witnesses, and witnessing itself.
//!
//! Room      `service`.

use std::sync::Arc;

use lastkey_core::audit::archive::{Witness, Witnesses};
use lastkey_core::audit::note::NoteKey;
use lastkey_core::audit::witness::{AddCheckpoint, Refusal};
use lastkey_core::permit::{ReadAudit, Resource, UpdateWitness};

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::sealing::{Gate, detached};

/// A change of the list of witnesses.
#[derive(Clone, Debug)]
pub enum WitnessChange {
    /// This one is asked to cosign our checkpoints.
    Ask(Witness),
    /// The checkpoints of the log with this key are cosigned here.
    Accept(NoteKey),
    /// Whoever has this key is no longer asked, and no longer cosigned.
    Remove(NoteKey),
}

impl WitnessChange {
    const fn key(&self) -> &NoteKey {
        match self {
            Self::Ask(witness) => &witness.key,
            Self::Accept(key) | Self::Remove(key) => key,
        }
    }

    fn apply(self, witnesses: &mut Witnesses) {
        let key = self.key().clone();
        witnesses.ours.retain(|witness| witness.key != key);
        witnesses.theirs.retain(|known| *known != key);
        match self {
            Self::Ask(witness) => witnesses.ours.push(witness),
            Self::Accept(key) => witnesses.theirs.push(key),
            Self::Remove(_) => {}
        }
    }
}

/// Most of each kind.
const MAX_WITNESSES: usize = 64;

impl Engine {
    /// The witnesses of this log, and the logs that are witnessed here.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`].
    pub async fn list_witnesses(&self, call: &Call) -> Result<Witnesses, Error> {
        let mut trail = Trail::of::<ReadAudit>(self, call);
        let outcome = self.try_list_witnesses(&mut trail).await;
        trail.close(self, outcome).await
    }

    async fn try_list_witnesses(&self, trail: &mut Trail<'_>) -> Result<Witnesses, Error> {
        self.permit::<ReadAudit>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        self.archive()?.witnesses().await.map_err(Error::Unavailable)
    }

    /// Changes who witnesses this log, or which logs are witnessed here.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] above 64 of a kind; [`Error::Denied`], [`Error::Conflict`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn change_witnesses(
        self: &Arc<Self>,
        call: &Call,
        change: WitnessChange,
    ) -> Result<Witnesses, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<UpdateWitness>(&engine, &call);
            let outcome = engine.try_change_witnesses(&mut trail, change).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_change_witnesses(
        &self,
        trail: &mut Trail<'_>,
        change: WitnessChange,
    ) -> Result<Witnesses, Error> {
        trail.target = Some(format!("witness/{}", change.key().name()));
        self.permit::<UpdateWitness>(trail, Resource::Instance)?;
        let archive = self.archive()?;
        let before = archive.witnesses().await.map_err(Error::Unavailable)?;
        let mut witnesses = before.clone();
        change.apply(&mut witnesses);
        if witnesses.ours.len().max(witnesses.theirs.len()) > MAX_WITNESSES {
            return Err(Error::LimitExceeded("a log has at most 64 witnesses"));
        }
        trail.call().go_on()?;
        trail.intend(self).await?;
        let replaced = archive.replace_witnesses(&before, witnesses.clone()).await;
        if replaced.map_err(Error::Unavailable)? { Ok(witnesses) } else { Err(Error::Conflict) }
    }
}

impl Gate {
    /// Judges the checkpoint of another log and cosigns it. Who asks is not asked: the signature
    /// of a log that was accepted here is what counts.
    ///
    /// # Errors
    /// [`Error::Sealed`], [`Error::Unavailable`].
    pub async fn cosign(&self, request: &AddCheckpoint) -> Result<Result<String, Refusal>, Error> {
        self.engine()?.archive()?.cosign(request).await.map_err(Error::Unavailable)
    }
}
