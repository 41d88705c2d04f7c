//! Use case: an operator says that the wall clock is right, and what waited for it goes on.
//!
//! Room      `service`.

use std::sync::Arc;

use lastkey_core::permit::{ConfirmClock, Resource};

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::sealing::detached;

impl Engine {
    /// Ends a hold of the clock. Without a hold it does nothing.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn confirm_clock(self: &Arc<Self>, call: &Call) -> Result<(), Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<ConfirmClock>(&engine, &call);
            let outcome = engine.try_confirm_clock(&mut trail).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_confirm_clock(&self, trail: &mut Trail<'_>) -> Result<(), Error> {
        self.permit::<ConfirmClock>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        trail.intend(self).await?;
        Ok(self.clock.confirm(&*self.store).await?)
    }
}
