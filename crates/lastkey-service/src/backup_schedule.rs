//! Backups by themselves: when the next one is due, which ones go, what is kept beside them.
//!
//! Room      `service`.
//! Source    docs/backup.md.
//! Holds     what is due follows from what is on record, in service time: it survives restarts and
//!           jumps of the clock, and is done once. The newest backups that are proven stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lastkey_core::backup::{BackupId, BackupState};
use lastkey_core::ids::RequestId;
use lastkey_core::time::{Elapsed, Timestamp};

use crate::engine::Engine;
use crate::error::Error;
use crate::jobs::scheduled_call;
use crate::ops::backups::BackupReport;
use crate::sealing::Gate;

/// How long an attempt that gave no backup is not repeated.
const PAUSE: Duration = Duration::from_secs(900);

/// When backups are made, and how many are kept, where the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupSchedule {
    /// From one to the next; `None`: only when somebody asks.
    pub period: Option<Duration>,
    /// Proven backups that are kept; at least 1.
    pub keep: usize,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    is_due: bool,
    remove: Vec<BackupId>,
}

/// Looks after the backups of the configured place. Lives as long as the server.
pub struct BackupKeeper {
    gate: Arc<Gate>,
    schedule: BackupSchedule,
    /// What was kept beside the backups of each directory last, or could not be.
    kept: BTreeMap<Option<String>, Result<Known, Known>>,
    /// Backups that could not be removed, and when that was tried last.
    stayed: BTreeMap<[u8; 16], Elapsed>,
}

/// How many tombstones there are, and when the last of them was.
type Known = (usize, Option<Timestamp>);

impl BackupKeeper {
    /// A keeper that has done nothing yet.
    #[must_use]
    pub const fn new(gate: Arc<Gate>, schedule: BackupSchedule) -> Self {
        Self { gate, schedule, kept: BTreeMap::new(), stayed: BTreeMap::new() }
    }

    /// Does what is due. Does nothing while the server is sealed.
    pub async fn look_after(&mut self) {
        let Ok(engine) = self.gate.engine() else { return };
        if let Err(error) = self.try_look_after(&engine).await {
            tracing::error!(%error, "the backups could not be looked after");
        }
    }

    async fn try_look_after(&mut self, engine: &Arc<Engine>) -> Result<(), Error> {
        let backups = self.gate.reports(engine).await?;
        let now = engine.clock.observe().elapsed;
        let plan = plan(&backups, now, self.schedule);
        let call = scheduled_call(engine);
        self.stayed.retain(|id, _| plan.remove.contains(&RequestId(*id)));
        for id in plan.remove {
            // Where an old one has to stay, in a bucket that locks it, that is not told each time.
            if self.stayed.get(&id.0).is_some_and(|tried| tried.after(PAUSE) > now) {
                continue;
            }
            match self.gate.remove_backup(&call, id, false).await {
                Ok(()) => tracing::info!(backup = %id, "a backup has served its time"),
                Err(error) => {
                    tracing::warn!(backup = %id, %error, "an old backup stays");
                    self.stayed.insert(id.0, now);
                }
            }
        }
        if plan.is_due {
            self.gate.start_backup(&call, None).await?;
            return Ok(());
        }
        self.keep_lists(engine, &backups).await
    }

    /// Keeps the list of what was destroyed beside every backup that may be restored. Where it
    /// cannot be written now it is tried again.
    async fn keep_lists(&mut self, engine: &Engine, backups: &[BackupReport]) -> Result<(), Error> {
        let written = backups.iter().filter(|report| report.record.written.is_some());
        let places: BTreeSet<_> = written.map(|r| r.record.place.directory.clone()).collect();
        self.kept.retain(|place, _| places.contains(place));
        let tombstones = engine.tombstones().await?;
        let last = tombstones.iter().map(|tombstone| tombstone.destroyed_at).max();
        let known = (tombstones.len(), last);
        for place in places {
            let before = self.kept.get(&place).copied();
            if before == Some(Ok(known)) {
                continue;
            }
            let kept = self.gate.keep_tombstones(engine, place.as_deref()).await;
            if let (Err(error), true) = (&kept, before != Some(Err(known))) {
                tracing::warn!(%error, place, "the list of what was destroyed is not kept there");
            }
            self.kept.insert(place, kept.map(|()| known).map_err(|_| known));
        }
        Ok(())
    }
}

/// What is to be done about the backups of the configured place, newest first.
fn plan(backups: &[BackupReport], now: Elapsed, schedule: BackupSchedule) -> Plan {
    let ours = || backups.iter().filter(|report| report.record.place.directory.is_none());
    let is_running = ours().any(|r| matches!(r.state, BackupState::Begun | BackupState::Written));
    let passed = |report: &BackupReport, time: Duration| report.record.begun.after(time) <= now;
    let proven = || ours().filter(|report| report.state == BackupState::Proven);
    let is_due = schedule.period.is_some_and(|period| {
        !is_running
            && proven().next().is_none_or(|newest| passed(newest, period))
            && ours().next().is_none_or(|last| passed(last, PAUSE.min(period)))
    });
    let mut remove: Vec<_> =
        proven().skip(schedule.keep.max(1)).map(|report| report.record.id).collect();
    if let Some(newest) = proven().next() {
        let is_over = |r: &&BackupReport| {
            matches!(r.state, BackupState::Failed | BackupState::Interrupted)
                && r.record.begun < newest.record.begun
        };
        remove.extend(ours().filter(is_over).map(|report| report.record.id));
    }
    Plan { is_due, remove }
}

#[cfg(test)]
mod tests {
    use lastkey_core::backup::{BackupPlace, BackupRecord};

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn report(id: u8, begun: u64, state: BackupState) -> BackupReport {
        let record = BackupRecord {
            id: RequestId([id; 16]),
            place: BackupPlace { directory: None, name: String::new() },
            begun_at: Timestamp(0),
            begun: Elapsed(begun),
            written: None,
            proven_at: None,
            problem: None,
        };
        BackupReport { record, state }
    }

    fn planned(backups: &[BackupReport], now: u64, keep: usize) -> (bool, Vec<u8>) {
        let plan = plan(backups, Elapsed(now), BackupSchedule { period: Some(DAY), keep });
        (plan.is_due, plan.remove.iter().map(|id| id.0[0]).collect())
    }

    #[test]
    fn the_next_backup_is_due_a_period_after_the_last_proven_one() {
        use BackupState::{Begun, Failed, Interrupted, Proven};
        let day = DAY.as_secs();
        assert_eq!(planned(&[], 0, 3), (true, vec![]));
        assert!(!planned(&[report(1, 0, Proven)], day - 1, 3).0);
        assert!(planned(&[report(1, 0, Proven)], day, 3).0);
        // One that failed is tried again, but not at once.
        for state in [Failed, Interrupted] {
            let failed = [report(2, day, state), report(1, 0, Proven)];
            assert!(!planned(&failed, day + 899, 3).0);
            assert!(planned(&failed, day + 900, 3).0);
        }
        assert!(!planned(&[report(2, day, Begun), report(1, 0, Proven)], 9 * day, 3).0);
        let by_hand = BackupReport {
            record: BackupRecord {
                place: BackupPlace { directory: Some("/x".to_owned()), name: String::new() },
                ..report(3, 9 * day, Proven).record
            },
            state: Proven,
        };
        assert_eq!(planned(&[by_hand, report(1, 0, Proven)], 9 * day, 1), (true, vec![]));
    }

    #[test]
    fn the_newest_proven_backups_stay_and_what_failed_before_them_goes() {
        use BackupState::{Failed, Proven};
        let all = [
            report(5, 50, Failed),
            report(4, 40, Proven),
            report(3, 30, Failed),
            report(2, 20, Proven),
            report(1, 10, Proven),
        ];
        assert_eq!(planned(&all, 60, 2).1, [1, 3]);
        assert_eq!(planned(&all, 60, 0).1, [2, 1, 3]);
        // Nothing goes while nothing is proven.
        assert_eq!(planned(&[report(2, 20, Failed), report(1, 10, Failed)], 60, 1).1, [0; 0]);
    }
}
