//! The kill switch: volumes under a key that was disabled are frozen, and go on when it is enabled.
//!
//! Room      `volumes`.
//! Holds     What is done for a volume runs on a thread of its own and waits for no call: a disk that
//!           hangs keeps no other volume's key in the kernel, and a program that waits for a frozen
//!           volume does not keep it frozen.
//!           One question for each key of a class, however many volumes are under it. Only a key
//!           service that says so freezes: silence changes nothing. What a frozen volume
//!           needs to go on is asked of the service, which then decides again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, Kind, io_while};
use crate::record::VolumeRecord;
use crate::snapshots::still;

/// Twice in the five seconds within which a volume is to be frozen.
const PERIOD: Duration = Duration::from_secs(2);

/// Looks at the keys of all open volumes until `stop` says so.
pub async fn guard(driver: Arc<Driver>, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = ticks.tick() => {}
        }
        let round = Arc::clone(&driver);
        // What it starts comes to its end by itself.
        if tokio::task::spawn_blocking(move || drop(round.guard_once())).await.is_err() {
            tracing::error!("a round over the keys of the volumes has failed");
        }
    }
}

impl Driver {
    /// One round; the threads that it started.
    pub(crate) fn guard_once(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let mut known = BTreeMap::new();
        let mut started = Vec::new();
        for record in self.volumes.all() {
            match self.guard_volume(&record, &mut known) {
                Ok(thread) => started.extend(thread),
                Err(fault) => complain(&record, &fault),
            }
        }
        started
    }

    fn guard_volume(
        self: &Arc<Self>,
        record: &VolumeRecord,
        known: &mut BTreeMap<String, Option<bool>>,
    ) -> Result<Option<JoinHandle<()>>, Fault> {
        let Some(mapping) = self.mapping(&record.id)? else { return Ok(None) };
        let stopped = self.is_frozen(&record.id, &mapping);
        let Some(usable) = self.is_usable(&record.key, known) else { return Ok(None) };
        if usable && (!stopped || self.postponed.waits(&thaw_of(&record.id))) {
            return Ok(None);
        }
        // One at most for a volume: that of an earlier round may still be under way.
        let Ok(held) = self.locks.take(&format!("guard {}", record.id)) else { return Ok(None) };
        let (driver, record) = (Arc::clone(self), record.clone());
        let work = move || {
            let _held = held;
            let done = if usable { driver.thaw(&record) } else { driver.freeze(&record, stopped) };
            if let Err(fault) = done {
                complain(&record, &fault);
                if record.role.is_some() && fault.kind == Kind::Denied {
                    // A pod shows its token again before long.
                    driver.postponed.put(&thaw_of(&record.id));
                }
            }
        };
        let started = thread::Builder::new().name("guard".to_owned()).spawn(work);
        started.map(Some).map_err(io_while("start a thread"))
    }

    /// Also while another call works on the volume: that call fails, or waits. Of one that stands
    /// still already the key is wiped as well: who stopped it may have left it there.
    fn freeze(&self, record: &VolumeRecord, stopped: bool) -> Result<(), Fault> {
        self.machine.freeze(&record.id).map_err(io_while("freeze the volume"))?;
        if !stopped {
            tracing::warn!(volume = record.id, key = record.key, "frozen: the key is disabled");
        }
        Ok(())
    }

    /// Asked once a round for each key. None while the service is silent.
    fn is_usable(&self, key: &str, known: &mut BTreeMap<String, Option<bool>>) -> Option<bool> {
        if let Some(usable) = known.get(key) {
            return *usable;
        }
        let usable = match self.keys.describe(key) {
            Ok(Some(info)) => {
                let usable = info.usable;
                self.lock_known().insert(key.to_owned(), info);
                Some(usable)
            }
            // A destroyed key is still described. This one is hidden from us, which is no order.
            Ok(None) => {
                tracing::warn!(key, "the key service does not show this key to this node");
                None
            }
            Err(error) => {
                tracing::warn!(key, %error, "cannot ask for the state of a key");
                None
            }
        };
        known.insert(key.to_owned(), usable);
        usable
    }

    /// Not under the lock of the volume: a call that has it may wait for this.
    fn thaw(&self, record: &VolumeRecord) -> Result<(), Fault> {
        let _still = self.locks.take(&still(&record.id))?;
        if !self.mapping(&record.id)?.is_some_and(|mapping| mapping.suspended) {
            return Ok(());
        }
        let device = self.device_below(record)?;
        let disk = Disk::open(&device).map_err(io_while("open the volume's device"))?;
        let key = self.key_again(record, &disk)?;
        self.machine.thaw(&record.id, &key).map_err(io_while("let the volume go on"))?;
        tracing::info!(volume = record.id, key = record.key, "goes on: the key is enabled");
        Ok(())
    }

    fn device_below(&self, record: &VolumeRecord) -> Result<PathBuf, Fault> {
        let file = self.volumes.find(&record.id)?;
        self.machine.attach(&file).map_err(io_while("attach the volume"))
    }
}

fn thaw_of(volume: &str) -> String {
    format!("thaw {volume}")
}

fn complain(record: &VolumeRecord, fault: &Fault) {
    let cause = fault.cause.as_ref().map(ToString::to_string);
    tracing::warn!(volume = record.id, cause, "{fault}");
}
