//! What runs beside the calls: rotation, destruction and expiry when due, and what is written
//! once a minute.
//!
//! Room      `service`.
//! Holds     a due time is used once: the work and the removal of its due record are one commit.
//!           While the clock is on hold nothing is destroyed and nothing expires.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lastkey_core::ids::{KeyRef, RequestId};
use lastkey_core::permit::{DestroyKey, ExpireImport, RecordErasure, RotateKey};
use lastkey_core::ports::{Change, Expected, Stored, Watch, Write};
use lastkey_core::principal::{Caller, Principal, Source};
use lastkey_core::record::{Due, DueWhat, PathRange, Record, RecordPath};
use lastkey_core::time::{ClockRecord, Elapsed, Timestamp};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::audit_head;
use crate::call::Call;
use crate::change::Plan;
use crate::engine::Engine;
use crate::error::Error;

/// How often counted uses and the clock are written.
const WRITE_PERIOD: Duration = Duration::from_secs(60);
/// How long the audit log may take to say where it stands.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// Due records looked at in one scan.
const DUE_PAGE: usize = 256;
/// How long a failed rewriting of the journals is not tried again.
const REWRITE_PAUSE_SECONDS: u64 = 600;

/// Runs until it is told to stop.
pub(crate) async fn run(engine: Arc<Engine>, mut stop: oneshot::Receiver<()>) {
    let mut watch = engine.store.watch("due/");
    let mut write_at = Instant::now() + WRITE_PERIOD;
    loop {
        tell_time(&engine);
        let next = engine.run_due().await;
        let of_secrets = engine.run_secrets_due().await;
        let soonest = [next, of_secrets].into_iter().flatten().min();
        let wait = soonest.map(|at| engine.clock.observe().elapsed.until(at));
        let wake = wait.map_or(write_at, |wait| write_at.min(Instant::now() + wait));
        let goes_on = tokio::select! {
            biased;
            _ = &mut stop => false,
            goes_on = wait_for(&mut *watch, wake, next) => goes_on,
        };
        if !goes_on {
            return;
        }
        if Instant::now() >= write_at {
            write_pending(&engine).await;
            engine.refresh_due_keys();
            write_at = Instant::now() + WRITE_PERIOD;
        }
    }
}

/// Waits for a moment, or until something is due before `next`; false when the store has closed.
async fn wait_for(watch: &mut dyn Watch, wake: Instant, next: Option<Elapsed>) -> bool {
    let horizon = next.map(RecordPath::due_from);
    let is_news = |path: &RecordPath| horizon.as_ref().is_none_or(|horizon| path < horizon);
    loop {
        let change = tokio::select! {
            () = sleep_until(wake) => return true,
            change = watch.next() => change,
        };
        match change {
            Some(Change::Record { path, revision: Some(_), .. }) if is_news(&path) => return true,
            Some(Change::Record { .. }) => {}
            Some(Change::Missed) => return true,
            None => return false,
        }
    }
}

/// Writes the counted uses and attempts, and the clock. What cannot be written now is written next
/// time.
pub(crate) async fn write_pending(engine: &Engine) {
    if let Err(error) = engine.keyring.usage.write_to(&*engine.store).await {
        tracing::warn!(%error, "the use of keys could not be written; it stays counted");
    }
    if let Err(error) = engine.record_counted_attempts().await {
        tracing::warn!(%error, "attempts to come in could not be recorded; they stay counted");
    }
    if let Err(error) = engine.turn_keyring().await {
        tracing::warn!(%error, "the epoch of the keyring could not be counted or turned");
    }
    if let Err(error) = engine.turn_sessions().await {
        tracing::warn!(%error, "the epoch of sessions could not be turned");
    }
    if let Err(error) = engine.clock.write_to(&*engine.store).await {
        tracing::warn!(%error, "the clock could not be written");
    }
    if let Some(archive) = engine.ports.audit.archive() {
        // The log may be held up by its disk; it is asked again next time.
        let remembering = audit_head::remember(archive, &*engine.store);
        let remembered = tokio::time::timeout(HEAD_PATIENCE, remembering).await;
        let held_up = || Err(Error::Unavailable("its disk holds it up".into()));
        if let Err(error) = remembered.unwrap_or_else(|_| held_up()) {
            tracing::warn!(%error, "it could not be written where the audit log stands");
        }
    }
}

/// Tells the audit log the time, while the clock is not on hold: its records grow old by that.
fn tell_time(engine: &Engine) {
    if let (Some(archive), Some(now)) =
        (engine.ports.audit.archive(), engine.clock.observe().trusted_wall())
    {
        archive.trust_time(now);
    }
}

impl Engine {
    /// Does everything that is due, and answers when the next thing is.
    pub async fn run_due(self: &Arc<Self>) -> Option<Elapsed> {
        let mut after = None;
        loop {
            let range = PathRange { after: after.take(), ..PathRange::due(DUE_PAGE) };
            let page = match self.store.scan(&range).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "what is due could not be read");
                    return None;
                }
            };
            let last = page.last().map(|stored| stored.path.clone());
            // Once a page: what its records speak of was deleted before it was read.
            let mut rewritten = None;
            for stored in &page {
                let Record::Due(due) = stored.record else { continue };
                let clock = self.clock.observe();
                if due.at > clock.elapsed {
                    return Some(due.at);
                }
                let waits = match due.what {
                    DueWhat::Rotate => false,
                    DueWhat::Destroy | DueWhat::ExpireImport => clock.hold.is_some(),
                    DueWhat::Erase if self.may_be_in_a_backup(due, &clock).await => true,
                    DueWhat::Erase => {
                        if rewritten.is_none() {
                            rewritten = self.rewrite_journals(&clock).await;
                        }
                        rewritten.is_none()
                    }
                };
                if !waits {
                    self.do_due(stored, due, rewritten).await;
                }
            }
            after = Some(last?);
        }
    }

    /// Whether a backup may hold what is due to be called erased; in doubt it does.
    async fn may_be_in_a_backup(&self, due: Due, clock: &ClockRecord) -> bool {
        let held = self.is_held_by_backups(due.at, clock.last.wall).await;
        held.unwrap_or_else(|error| {
            tracing::warn!(%error, "the backups cannot be read; erasure waits");
            true
        })
    }

    /// Rewrites the journals, and answers when that began. After a failure it is not tried again
    /// for a while: it needs room, and holds writers up.
    async fn rewrite_journals(&self, clock: &ClockRecord) -> Option<Timestamp> {
        if clock.elapsed.0 < self.rewrite_not_before.load(Ordering::Relaxed) {
            return None;
        }
        match self.store.erase_residue().await {
            Ok(_) => Some(clock.last.wall),
            Err(error) => {
                tracing::error!(%error, "the journals could not be rewritten; erasure waits");
                let later = clock.elapsed.0.saturating_add(REWRITE_PAUSE_SECONDS);
                self.rewrite_not_before.store(later, Ordering::Relaxed);
                None
            }
        }
    }

    async fn do_due(self: &Arc<Self>, stored: &Stored, due: Due, rewritten: Option<Timestamp>) {
        let call = scheduled_call(self);
        let key = KeyRef::Id(due.key);
        let outcome = match due.what {
            DueWhat::Rotate => self.change::<RotateKey>(&call, key, Plan::RotateDue(due.at)).await,
            DueWhat::Destroy => {
                self.change::<DestroyKey>(&call, key, Plan::DestroyDue(due.at)).await
            }
            DueWhat::ExpireImport => {
                self.change::<ExpireImport>(&call, key, Plan::ExpireImport(due.at)).await
            }
            DueWhat::Erase => {
                let rewritten = rewritten.unwrap_or_default();
                let plan = Plan::Erase { at: due.at, rewritten };
                self.change::<RecordErasure>(&call, key, plan).await
            }
        };
        match outcome {
            Ok(_) => tracing::info!(key = %due.key, what = due.what.as_str(), "done as due"),
            Err(Error::Denied) => self.drop_orphan(stored, due).await,
            Err(error) => {
                tracing::error!(key = %due.key, what = due.what.as_str(), %error, "due, but failed");
            }
        }
    }

    /// Removes a due record whose key is not there.
    async fn drop_orphan(&self, stored: &Stored, due: Due) {
        if !matches!(self.store.get(&RecordPath::key(due.key)).await, Ok(None)) {
            tracing::error!(key = %due.key, what = due.what.as_str(), "due, but refused");
            return;
        }
        let expected = Expected::At(stored.revision);
        let write = Write { path: stored.path.clone(), expected, record: None };
        if let Err(error) = self.store.commit(vec![write]).await {
            tracing::warn!(path = ?stored.path, %error, "a due record without key stays");
        }
    }
}

/// A call by the scheduler itself.
pub(crate) fn scheduled_call(engine: &Engine) -> Call {
    let mut entropy = engine.ports.entropy.open();
    let request = RequestId(crate::root::draw_id(&mut *entropy).unwrap_or_default());
    let principal = Principal::named(Principal::SCHEDULER);
    Call { caller: Caller { principal, source: Source::default(), request }, dry_run: false }
}
