//! What the driver counts, for Prometheus, and whether it does its work.
//!
//! Room      `volumes`.
//! Holds     No name of a volume, key or claim is a label: they are many, and others read metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lastkey_node::page::Shown;
use lastkey_secret::SecretVec;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::driver::Driver;
use crate::ports::{Context, KeyError, KeyInfo, Thing, VolumeKeys};

/// Of an answer of the key service and of an unlock, in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.3, 1.0, 3.0, 10.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What is counted while the driver works.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    calls: Family<Outcome, Counter>,
    waits: Histogram,
    unlocks: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            waits: Histogram::new(BUCKETS),
            unlocks: Histogram::new(BUCKETS),
        }
    }
}

impl Counts {
    /// A volume was unlocked; the key service's part is in it.
    pub(crate) fn unlocked(&self, took: Duration) {
        self.unlocks.observe(took.as_secs_f64());
    }
}

/// A key service whose answers are counted.
pub(crate) struct Counted {
    keys: Arc<dyn VolumeKeys>,
    counts: Counts,
}

impl Counted {
    pub(crate) fn new(keys: Arc<dyn VolumeKeys>, counts: Counts) -> Self {
        Self { keys, counts }
    }

    fn call<T>(
        &self,
        ask: impl FnOnce(&dyn VolumeKeys) -> Result<T, KeyError>,
    ) -> Result<T, KeyError> {
        let began = Instant::now();
        let answer = ask(&*self.keys);
        self.counts.waits.observe(began.elapsed().as_secs_f64());
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(KeyError::Away(_)) => "away",
            Err(KeyError::Refused { .. }) => "refused",
            Err(KeyError::RolledBack { .. }) => "rolled-back",
            Err(KeyError::Undecryptable) => "undecryptable",
        };
        self.counts.calls.get_or_create(&Outcome { outcome }).inc();
        answer
    }
}

impl VolumeKeys for Counted {
    fn describe(&self, key: &str) -> Result<Option<KeyInfo>, KeyError> {
        self.call(|keys| keys.describe(key))
    }

    fn make_lineage(&self, alias: &str, volume: &str) -> Result<String, KeyError> {
        self.call(|keys| keys.make_lineage(alias, volume))
    }

    fn end_lineage(&self, key: &str) -> Result<(), KeyError> {
        self.call(|keys| keys.end_lineage(key))
    }

    fn wrap(&self, key: &str, secret: &SecretVec, context: &Context) -> Result<Vec<u8>, KeyError> {
        self.call(|keys| keys.wrap(key, secret, context))
    }

    fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError> {
        self.call(|keys| keys.unwrap(wrapped, context))
    }

    fn open_session(&self, token: &SecretVec, role: &str) -> Result<SecretVec, KeyError> {
        self.call(|keys| keys.open_session(token, role))
    }

    fn unwrap_in(
        &self,
        session: &SecretVec,
        wrapped: &[u8],
        context: &Context,
    ) -> Result<SecretVec, KeyError> {
        self.call(|keys| keys.unwrap_in(session, wrapped, context))
    }

    fn version_of(&self, wrapped: &[u8]) -> Option<u32> {
        self.keys.version_of(wrapped)
    }

    fn report(&self, key: &str, place: &str, things: &[Thing]) -> Result<(), KeyError> {
        self.call(|keys| keys.report(key, place, things))
    }

    fn keep_header(&self, volume: &str, key: &str, header: &SecretVec) -> Result<(), KeyError> {
        self.call(|keys| keys.keep_header(volume, key, header))
    }

    fn drop_header(&self, volume: &str) -> Result<(), KeyError> {
        self.call(|keys| keys.drop_header(volume))
    }
}

/// What is shown of a driver.
pub struct Metrics {
    driver: Arc<Driver>,
    registry: Registry,
    volumes: Family<State, Gauge>,
    snapshots: Gauge,
    behind: Gauge,
    without_escrow: Gauge,
    complaints: Gauge,
}

impl Metrics {
    /// Registers everything.
    #[must_use]
    pub fn new(driver: Arc<Driver>) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lastkey_volumes"),
            volumes: Family::default(),
            snapshots: Gauge::default(),
            behind: Gauge::default(),
            without_escrow: Gauge::default(),
            complaints: Gauge::default(),
            driver,
        };
        let own = &mut metrics.registry;
        own.register("volumes", "Volumes by state: closed, open, frozen", metrics.volumes.clone());
        own.register("snapshots", "Snapshots", metrics.snapshots.clone());
        let help = "Volumes and snapshots that are not under the primary version of their key";
        own.register("behind", help, metrics.behind.clone());
        let help = "Volumes that were used and whose header is not in escrow";
        own.register("without_escrow", help, metrics.without_escrow.clone());
        let help = "Volumes, snapshots and keys with which something is wrong";
        own.register("complaints", help, metrics.complaints.clone());
        let counts = &metrics.driver.counts;
        let help = "Calls of the key service by outcome";
        own.register("key_service_calls", help, counts.calls.clone());
        let help = "Time of a call of the key service";
        own.register_with_unit("key_service", help, Unit::Seconds, counts.waits.clone());
        let help = "Time to unlock a volume, calls of the key service included";
        own.register_with_unit("unlock", help, Unit::Seconds, counts.unlocks.clone());
        let version = vec![("version", metrics.driver.config.version.clone())];
        own.register("build", "What runs", Info::new(version));
        metrics
    }

    fn observe(&self) {
        let driver = &self.driver;
        let (mut states, mut behind, mut without) = ([0_i64; 3], 0, 0);
        for record in driver.volumes.all() {
            let at = match driver.machine.mapping(&record.id) {
                Ok(Some(mapping)) if driver.is_frozen(&record.id, &mapping) => 2,
                Ok(Some(_)) => 1,
                Ok(None) | Err(_) => 0,
            };
            if let Some(count) = states.get_mut(at) {
                *count += 1;
            }
            behind += i64::from(record.formatted && driver.is_behind(record.wraps.as_ref()));
            without += i64::from(record.ready && record.escrow.is_none());
        }
        let snapshots = driver.snapshots.all();
        let is_behind = |wraps| driver.is_behind(wraps);
        let late = snapshots.iter().filter(|one| one.formatted && is_behind(one.wraps.as_ref()));
        behind += i64::try_from(late.count()).unwrap_or(i64::MAX);
        for (state, count) in ["closed", "open", "frozen"].into_iter().zip(states) {
            self.volumes.get_or_create(&State { state }).set(count);
        }
        self.snapshots.set(i64::try_from(snapshots.len()).unwrap_or(i64::MAX));
        self.behind.set(behind);
        self.without_escrow.set(without);
        self.complaints.set(i64::try_from(driver.complaints_len()).unwrap_or(i64::MAX));
    }
}

impl Shown for Metrics {
    fn metrics(&self) -> String {
        self.observe();
        let mut text = String::new();
        // Writing to a string cannot fail.
        let written = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        if written.is_ok() { text } else { String::new() }
    }

    fn readiness(&self) -> (bool, String) {
        match self.driver.free() {
            Ok(free) => (true, format!("{free} bytes free\n")),
            Err(fault) => (false, format!("{fault}\n")),
        }
    }
}
