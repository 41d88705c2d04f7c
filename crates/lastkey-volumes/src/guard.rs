//! The kill switch: volumes under a key that was disabled are frozen, and go on when it is enabled.
//!
//! Room      `volumes`.
//! Holds     One question for each key of a class, however many volumes are under it. Only a key
//!           service that says so freezes: silence changes nothing. What a frozen volume
//!           needs to go on is asked of the service, which then decides again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, io_while};
use crate::record::VolumeRecord;

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
        if tokio::task::spawn_blocking(move || round.guard_once()).await.is_err() {
            tracing::error!("a round over the keys of the volumes has failed");
        }
    }
}

impl Driver {
    /// One round.
    pub(crate) fn guard_once(&self) {
        let mut known = BTreeMap::new();
        for record in self.volumes.all() {
            if let Err(fault) = self.guard_volume(&record, &mut known) {
                let cause = fault.cause.as_ref().map(ToString::to_string);
                tracing::warn!(volume = record.id, cause, "{fault}");
            }
        }
    }

    fn guard_volume(
        &self,
        record: &VolumeRecord,
        known: &mut BTreeMap<String, Option<bool>>,
    ) -> Result<(), Fault> {
        let Some(mapping) = self.mapping(&record.id)? else { return Ok(()) };
        let usable = self.is_usable(&record.key, known);
        if usable == Some(false) && !mapping.suspended {
            // Also while another call works on the volume: that call fails, or waits.
            self.machine.freeze(&record.id).map_err(io_while("freeze the volume"))?;
            tracing::warn!(volume = record.id, key = record.key, "frozen: the key is disabled");
        } else if usable == Some(true) && mapping.suspended {
            self.thaw(record)?;
            tracing::info!(volume = record.id, key = record.key, "goes on: the key is enabled");
        }
        Ok(())
    }

    /// Asked once a round for each key. None while the service is silent.
    fn is_usable(&self, key: &str, known: &mut BTreeMap<String, Option<bool>>) -> Option<bool> {
        if let Some(usable) = known.get(key) {
            return *usable;
        }
        let usable = match self.keys.describe(key) {
            Ok(Some(info)) => Some(info.usable),
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

    fn thaw(&self, record: &VolumeRecord) -> Result<(), Fault> {
        let _held = self.locks.take(&record.id)?;
        let mut record = record.clone();
        let device = self.device_below(&record)?;
        let disk = Disk::open(&device).map_err(io_while("open the volume's device"))?;
        let unlocked = self.unlock(&mut record, &disk)?;
        let thawed = self.machine.thaw(&record.id, &unlocked.key);
        thawed.map_err(io_while("let the volume go on"))
    }

    fn device_below(&self, record: &VolumeRecord) -> Result<std::path::PathBuf, Fault> {
        let file = self.volumes.data(&record.id);
        self.machine.attach(Path::new(&file)).map_err(io_while("attach the volume"))
    }
}
