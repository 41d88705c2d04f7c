//! The keyring in the long run: a new epoch in time, and the records of older ones under it.
//!
//! Room      `service`.
//! Source    docs/formats/hierarchy.md, "Epochs". NIST SP 800-38D, 8.3 bounds what a key protects
//!           with random nonces at 2^32; XAES-256-GCM bears more, and the bound is kept.
//! Holds     a record that is renewed keeps content and revision, and one that changes meanwhile
//!           is under the new epoch by that change. While many call, the work rests so long that
//!           one call of 250 meets it.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::audit::{Event, Phase};
use lastkey_core::ids::RequestId;
use lastkey_core::permit::{Action as _, UpdateSeals};
use lastkey_core::principal::{Principal, Source};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::custody::SealChange;
use crate::engine::Engine;
use crate::error::Error;
use crate::root::draw_id;

/// Records that are looked at by one call; the store gives others their turn in between.
const PAGE: usize = 16_384;

/// The same while many call.
const SHORT_PAGE: usize = 512;

/// Those who call more often than this are many: fewer find a core that is free.
const MANY_APART: Duration = Duration::from_millis(1);

/// How long is rested while many call, in times of what a page took.
const REST: u32 = 249;

/// Longest rest: on a slow disk the work is to come to an end as well.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Writes after which an epoch ends.
const MAX_WRITES: u64 = 1 << 32;

/// Age at which an epoch ends, in seconds: a year.
const MAX_AGE_SECS: u64 = 365 * 86_400;

/// How long a renewal that failed is not tried again.
const PAUSE: Duration = Duration::from_secs(60);

/// Renews records whenever an epoch has begun, and again after what failed, until it is told to
/// stop.
pub(crate) async fn run(engine: Arc<Engine>, mut stop: oneshot::Receiver<()>) {
    loop {
        let is_done = tokio::select! {
            biased;
            _ = &mut stop => return,
            is_done = engine.renew_records() => is_done,
        };
        tokio::select! {
            biased;
            _ = &mut stop => return,
            () = engine.epoch_began.notified() => {}
            () = sleep(PAUSE), if !is_done => {}
        }
    }
}

impl Engine {
    /// Puts all records under the newest epoch, if any is under an older one; false when that has
    /// failed.
    async fn renew_records(&self) -> bool {
        match self.try_renew_records().await {
            Ok(0) => {}
            Ok(records) => tracing::info!(records, "records are under the newest epoch"),
            Err(error) => {
                tracing::error!(%error, "records could not be renewed; they stay readable");
                return false;
            }
        }
        true
    }

    async fn try_renew_records(&self) -> Result<usize, Error> {
        let bootstrap = self.stored_bootstrap().await?;
        let newest = bootstrap.keyring.last().map_or(0, |entry| entry.epoch);
        if bootstrap.records_from >= newest {
            return Ok(0);
        }
        let mut records = 0_usize;
        loop {
            let met = self.renewal_pass().await?;
            records = records.saturating_add(met);
            // A pass that met none comes after every write that was under way. An epoch that
            // began meanwhile has a pass of its own.
            if met == 0 {
                self.apply_change(&SealChange::Renewed(newest)).await?;
                return Ok(records);
            }
        }
    }

    async fn renewal_pass(&self) -> Result<usize, Error> {
        // Short first: nobody knows yet how many call.
        let (mut after, mut met, mut page) = (None, 0_usize, SHORT_PAGE);
        loop {
            let (began, before) = (Instant::now(), self.recorded_calls());
            let renewed = self.store.renew(after, page).await?;
            met = met.saturating_add(renewed.met);
            let Some(last) = renewed.last else { return Ok(met) };
            after = Some(last);
            let calls = self.recorded_calls().saturating_sub(before);
            let rest = rest(calls, began.elapsed());
            if rest.is_zero() {
                page = PAGE;
                tokio::task::yield_now().await;
            } else {
                page = SHORT_PAGE;
                sleep(rest).await;
            }
        }
    }

    /// How many calls the audit log has heard of; 0 where it does not tell.
    fn recorded_calls(&self) -> u64 {
        self.ports.audit.archive().map_or(0, |archive| archive.state().durable)
    }

    /// Counts the writes of the epoch, and begins the next one when it is time. Called once a
    /// minute.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn turn_keyring(&self) -> Result<(), Error> {
        let bootstrap = self.stored_bootstrap().await?;
        let Some(newest) = bootstrap.keyring.last() else { return Ok(()) };
        let epoch = newest.epoch;
        let writes = self.seal_book.writes(epoch, self.store.writes_of_epoch());
        self.seal_book
            .change(&*self.store, |book| (book.epoch, book.writes) = (epoch, writes))
            .await?;
        let age = self.clock.wall().0.saturating_sub(newest.created_at.0);
        let is_held = self.clock.observe().hold.is_some();
        if writes < MAX_WRITES && (age < MAX_AGE_SECS || is_held) {
            return Ok(());
        }
        let request = RequestId(draw_id(&mut *self.ports.entropy.open()).unwrap_or_default());
        self.audit_turn(request, Phase::Intent, "pending").await?;
        let turned = self.apply_change(&SealChange::RotateKeyring).await;
        let result = turned.as_ref().map_or_else(Error::code, |_| "ok");
        self.audit_turn(request, Phase::Outcome, result).await?;
        turned.map(|_| ())
    }

    async fn audit_turn(
        &self,
        request: RequestId,
        phase: Phase,
        result: &'static str,
    ) -> Result<(), Error> {
        let event = Event {
            at: self.clock.wall(),
            request,
            who: &Principal::named(Principal::SCHEDULER),
            action: UpdateSeals::NAME,
            phase,
            key: None,
            version: None,
            context_hash: None,
            result,
            reason: "the epoch of the keyring has served its time",
            source: Source::default(),
            target: Some("rotate/keyring"),
        };
        self.ports.audit.append_durably(&event).await.map_err(Error::Unavailable)
    }
}

/// How long is rested after a page during which so many have called.
fn rest(calls: u64, took: Duration) -> Duration {
    let calls = u32::try_from(calls).unwrap_or(u32::MAX);
    let are_many = MANY_APART.saturating_mul(calls) > took;
    if are_many { took.saturating_mul(REST).min(LONGEST_REST) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_rests_while_many_call_and_only_then() {
        let took = Duration::from_millis(5);
        for (calls, expected) in [(0, 0), (5, 0), (6, 1_245), (u64::MAX, 1_245)] {
            assert_eq!(rest(calls, took), Duration::from_millis(expected), "{calls}");
        }
        assert_eq!(rest(u64::MAX, Duration::from_secs(1)), LONGEST_REST);
    }
}
