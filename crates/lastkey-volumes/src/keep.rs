//! What is done for volumes and snapshots beside the calls: data keys are wrapped anew after a
//! rotation, replaced when that was asked for, headers go into escrow, and the service is told what
//! lies here under which version.
//!
//! Room      `volumes`.
//! Source    docs/formats/luks2-token.md, "Rotations".
//! Holds     At every moment the data key that the service gives opens the header on the disk. One
//!           that a call works on waits for the next round. What fails is tried again, and said
//!           once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lastkey_crypto::entropy::SystemEntropy;
use lastkey_luks::{Header, State};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, Kind, io_while, key_fault};
use crate::ports::KeyInfo;
use crate::record::{SnapshotRecord, VolumeRecord, Wraps};
use crate::reports::report_of;
use crate::unlock::{Opener, Owner, Unlocked, fresh_data_key, waits_for_pod};

/// How soon after a rotation nothing here is under an older version.
const PERIOD: Duration = Duration::from_secs(5);

/// What was refused is asked again so much later: each time is a line in the audit log.
pub(crate) const PAUSE: Duration = Duration::from_secs(300);

/// Volumes and snapshots for which something was refused, and until when they wait.
#[derive(Debug, Default)]
pub(crate) struct Postponed(Mutex<BTreeMap<String, Instant>>);

impl Postponed {
    pub(crate) fn waits(&self, id: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(id).is_some_and(|until| *until > Instant::now())
    }

    pub(crate) fn put(&self, id: &str) {
        let now = Instant::now();
        let until = now.checked_add(PAUSE);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Also of what is not there any more.
        all.retain(|_, until| *until > now);
        all.extend(until.map(|until| (id.to_owned(), until)));
    }

    fn drop(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// What is done for one of them.
type Keep = fn(&Driver, &str) -> Result<(), Fault>;

/// Does it again and again until `stop` says so.
pub async fn keep(driver: Arc<Driver>, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = ticks.tick() => {}
        }
        let round = Arc::clone(&driver);
        let stopping = stop.clone();
        // What it began comes to its end by itself.
        let done = tokio::task::spawn_blocking(move || round.keep_until(&|| *stopping.borrow()));
        if done.await.is_err() {
            tracing::error!("a round over the data keys of the volumes has failed");
        }
    }
}

impl Driver {
    /// One round, which ends early when `is_over` says so.
    pub(crate) fn keep_until(&self, is_over: &dyn Fn() -> bool) {
        self.sweep_zombies();
        self.forget_complaints();
        self.describe_keys();
        let volumes = self.volumes.all().into_iter().map(|record| record.id);
        let snapshots = self.snapshots.all().into_iter().map(|record| record.id);
        let volumes = volumes.map(|id| (id, Self::keep_volume as Keep));
        let snapshots = snapshots.map(|id| (id, Self::keep_snapshot as Keep));
        for (id, keep) in volumes.chain(snapshots) {
            if is_over() {
                return;
            }
            if self.postponed.waits(&id) {
                continue;
            }
            match keep(self, &id) {
                Ok(()) => {
                    self.postponed.drop(&id);
                    self.is_well(&id);
                }
                // A call works on it, or nobody answers: the next round.
                Err(fault) if fault.kind == Kind::Busy => {}
                Err(fault) if fault.kind == Kind::Away => return self.complain(&id, &fault),
                Err(fault) => {
                    self.postponed.put(&id);
                    self.complain(&id, &fault);
                }
            }
        }
        self.report_all();
    }

    /// Forgets what was wrong with volumes and snapshots that were deleted since, and with keys that
    /// nothing is under.
    fn forget_complaints(&self) {
        let volumes = self.volumes.all().into_iter().map(|record| record.id);
        let snapshots = self.snapshots.all().into_iter().map(|record| record.id);
        let mut there: BTreeSet<String> = volumes.chain(snapshots).collect();
        there.extend(self.class_keys());
        there.extend(self.reports.keys().iter().map(|key| report_of(key)));
        there.extend(self.zombie_names());
        self.keep_complaints(&there);
    }

    /// The keys of classes that anything here is under.
    fn class_keys(&self) -> BTreeSet<String> {
        let volumes = self.volumes.all().into_iter().map(|record| record.key);
        let snapshots = self.snapshots.all().into_iter().map(|record| record.key);
        volumes.chain(snapshots).collect()
    }

    fn describe_keys(&self) {
        for key in self.class_keys() {
            match self.keys.describe(&key) {
                Ok(Some(info)) => {
                    self.is_well(&key);
                    self.lock_known().insert(key, info);
                }
                // What was known stays: nothing here is done by a silence.
                Ok(None) => {}
                Err(error) => self.complain(&key, &key_fault(&key, error)),
            }
        }
    }

    fn keep_volume(&self, id: &str) -> Result<(), Fault> {
        let _held = self.locks.take_for_round(id)?;
        let Some(mut record) = self.volumes.get(id) else { return Ok(()) };
        let Some(info) = self.known(&record.key).filter(|info| info.usable) else { return Ok(()) };
        // A copy that pods open is bound to its own key by one that may open what it was made of.
        let is_for_pod = record.role.is_some() && record.bound_to.is_some();
        if !record.formatted || record.deleting || is_for_pod || !record.is_due(&info) {
            return Ok(());
        }
        let file = self.volumes.find(id)?;
        let device = self.machine.attach(&file).map_err(io_while("attach the volume"))?;
        let disk = Disk::open(&device).map_err(io_while("open the volume's device"))?;
        let kept = self.keep_open(&mut record, &disk, &info);
        drop(disk);
        if self.mapping(id)?.is_none() {
            self.machine.detach(&file).map_err(io_while("let go of the volume"))?;
        }
        kept
    }

    fn keep_open(
        &self,
        record: &mut VolumeRecord,
        disk: &Disk,
        info: &KeyInfo,
    ) -> Result<(), Fault> {
        let unlocked = self.unlock(record, disk, Opener::Driver);
        let mut unlocked = unlocked.map_err(|fault| waits_for_pod(record, fault))?;
        let late = unlocked.late.take();
        self.keep_unlocked(record, disk, unlocked, info, Opener::Driver)?;
        late.map_or(Ok(()), Err)
    }

    /// What an unlocked volume lacks: a newer data key, its header in escrow.
    pub(crate) fn keep_unlocked(
        &self,
        record: &mut VolumeRecord,
        disk: &Disk,
        mut unlocked: Unlocked,
        info: &KeyInfo,
        by: Opener<'_>,
    ) -> Result<(), Fault> {
        if unlocked.wraps.data_key < info.data_keys {
            self.renew_data_key(record.owner(), disk, &mut unlocked, info.data_keys, by)?;
            record.wraps = Some(unlocked.wraps.clone());
            self.remember(record)?;
        }
        if unlocked.token.state == State::Ready && record.escrow.as_ref() != Some(&unlocked.wraps) {
            self.keep_header(&record.id, &unlocked)?;
            record.escrow = Some(unlocked.wraps);
            self.remember(record)?;
        }
        Ok(())
    }

    /// The data key of a snapshot stays bound to the volume that it was taken of.
    fn keep_snapshot(&self, id: &str) -> Result<(), Fault> {
        let _held = self.locks.take_for_round(id)?;
        let Some(mut record) = self.snapshots.get(id) else { return Ok(()) };
        let Some(info) = self.known(&record.key).filter(|info| info.usable) else { return Ok(()) };
        if !record.formatted || !is_due(record.wraps.as_ref(), &record.key, &info) {
            return Ok(());
        }
        let file = self.snapshots.find(id)?;
        let disk = Disk::open(&file).map_err(io_while("open the snapshot"))?;
        let header = Header::read(&disk)?;
        let header = header.ok_or_else(|| Fault::precondition("a snapshot without a header"))?;
        let by = Opener::Driver;
        let (mut unlocked, data_key) = self.open_header(record.owner(), &disk, header, by)?;
        if is_older(&unlocked.wraps, &info) || unlocked.token.key != record.key {
            let volume = unlocked.token.volume.clone();
            self.wrap_anew(&disk, &mut unlocked, &data_key, &volume, &record.key)?;
        }
        if unlocked.wraps.data_key < info.data_keys {
            self.renew_data_key(record.owner(), &disk, &mut unlocked, info.data_keys, by)?;
        }
        record.wraps = Some(unlocked.wraps);
        self.snapshots.put(&record).map_err(io_while("write the record of a snapshot"))
    }

    /// A new data key in a slot of its own; the older slots go once it opens what is on the disk.
    fn renew_data_key(
        &self,
        owner: Owner<'_>,
        disk: &Disk,
        unlocked: &mut Unlocked,
        number: u32,
        by: Opener<'_>,
    ) -> Result<(), Fault> {
        // Those of a renewal that was cut short are among them.
        let old = unlocked.token.slots.clone();
        let data_key = fresh_data_key()?;
        let slot = unlocked.header.add_slot(disk, &unlocked.key, &data_key, &mut SystemEntropy)?;
        let mut token = unlocked.token.clone();
        token.slots.push(slot);
        self.wrap(&mut token, &data_key, number)?;
        unlocked.token = token;
        unlocked.put(disk)?;
        let header = Header::read(disk)?;
        let header = header.ok_or_else(|| Fault::new(Kind::Internal, "the header is gone"))?;
        let (mut again, _) = self.open_header(owner, disk, header, by)?;
        if !again.key.ct_eq(&unlocked.key) {
            let message = "a new data key opens another volume key; the old one was kept";
            return Err(Fault::new(Kind::Internal, message));
        }
        for slot in &old {
            again.header.remove_slot(disk, *slot, &mut SystemEntropy)?;
        }
        again.token.slots.retain(|slot| !old.contains(slot));
        again.wraps.data_key = number;
        *unlocked = again;
        tracing::info!(volume = owner.id, number, "has a new data key");
        Ok(())
    }
}

impl VolumeRecord {
    fn is_due(&self, info: &KeyInfo) -> bool {
        is_due(self.wraps.as_ref(), &self.key, info)
            || self.bound_to.is_some()
            || (self.ready && self.escrow != self.wraps)
    }
}

impl SnapshotRecord {
    fn owner(&self) -> Owner<'_> {
        let data_key = self.wraps.as_ref().map_or(0, |wraps| wraps.data_key);
        Owner { id: &self.id, bound_to: Some(&self.bound_to), data_key }
    }
}

/// Whether a data key is not known to be under the version that is primary, or too old.
fn is_due(wraps: Option<&Wraps>, key: &str, info: &KeyInfo) -> bool {
    wraps.is_none_or(|wraps| {
        wraps.key != key || is_older(wraps, info) || wraps.data_key < info.data_keys
    })
}

/// Whether another version is primary; none is while there is none.
fn is_older(wraps: &Wraps, info: &KeyInfo) -> bool {
    info.primary.is_some_and(|primary| primary != wraps.version)
}
