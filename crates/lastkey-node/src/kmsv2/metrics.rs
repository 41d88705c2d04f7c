//! What the plugin counts, for Prometheus.
//!
//! Room      `node`.
//! Holds     The key id stands in it only as the hash that the API server's metrics have too, so
//!           that the two can be joined.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::key_id::key_id_hash;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    provider: String,
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    provider: String,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyIdHash {
    provider: String,
    key_id_hash: String,
    version: u32,
}

type Durations = Family<Method, Histogram, fn() -> Histogram>;

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Family<Call, Counter>,
    durations: Durations,
    key_ids: Family<KeyIdHash, Gauge>,
    answers: Family<Name, Gauge>,
    refuses: Family<Name, Gauge>,
    silent: Family<Name, Gauge>,
    local_keys: Family<Name, Gauge>,
    kept: Family<Name, Gauge>,
    old_clients: Family<Name, Counter>,
    credential: Gauge,
}

/// Shows when the credential of the plugin ends.
#[derive(Clone, Debug)]
pub struct Expiry(Gauge);

impl Expiry {
    /// It ends at this time, in seconds since 1970.
    pub fn set(&self, at: u64) {
        self.0.set(i64::try_from(at).unwrap_or(i64::MAX));
    }
}

impl Metrics {
    /// Registers everything. `locked` tells whether the memory of the process is locked.
    #[must_use]
    pub fn new(version: &str, locked: bool) -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("lastkey_kms_plugin"),
            calls: Family::default(),
            durations: Family::new_with_constructor(histogram),
            key_ids: Family::default(),
            answers: Family::default(),
            refuses: Family::default(),
            silent: Family::default(),
            local_keys: Family::default(),
            kept: Family::default(),
            old_clients: Family::default(),
            credential: Gauge::default(),
        };
        metrics.registered(version, locked)
    }

    fn registered(mut self, version: &str, locked: bool) -> Self {
        let own = &mut self.registry;
        own.register("requests", "Calls by method and gRPC code", self.calls.clone());
        let help = "Time of a call";
        let durations = self.durations.clone();
        own.register_with_unit("request_duration", help, Unit::Seconds, durations);
        let help = "1 for the key id that new data is protected under, by the hash of it";
        own.register("key_id", help, self.key_ids.clone());
        let help = "1 while the key service answers";
        own.register("service_answers", help, self.answers.clone());
        let help = "1 while the key service refuses the key";
        own.register("service_refuses", help, self.refuses.clone());
        let help = "Seconds since the key service answered last; -1 before it did";
        own.register_with_unit("service_silent", help, Unit::Seconds, self.silent.clone());
        own.register("local_keys", "Local keys in memory", self.local_keys.clone());
        let help = "1 while the local keys on disk are those in memory, where they are kept";
        own.register("local_keys_kept", help, self.kept.clone());
        let help = "Requests that HTTP/2 refused, as those of an API server before 1.32";
        own.register("refused_streams", help, self.old_clients.clone());
        let help = "When the node certificate ends, in seconds since 1970; 0 without one";
        let credential = self.credential.clone();
        own.register_with_unit("credential_expires_timestamp", help, Unit::Seconds, credential);
        let memory: Gauge = Gauge::default();
        memory.set(i64::from(locked));
        own.register("memory_locked", "1 when no page of the process can be swapped out", memory);
        let build =
            prometheus_client::metrics::info::Info::new(vec![("version", version.to_owned())]);
        own.register("build", "What runs", build);
        self
    }

    pub(super) fn provider(&self, provider: &str) -> ProviderMetrics {
        let name = || Name { provider: provider.to_owned() };
        let method = |method| {
            let labels = Method { provider: provider.to_owned(), method };
            self.durations.get_or_create_owned(&labels)
        };
        ProviderMetrics {
            provider: provider.to_owned(),
            calls: self.calls.clone(),
            durations: [method("Status"), method("Encrypt"), method("Decrypt")],
            key_ids: self.key_ids.clone(),
            shown: Mutex::default(),
            answers: self.answers.get_or_create_owned(&name()),
            refuses: self.refuses.get_or_create_owned(&name()),
            silent: self.silent.get_or_create_owned(&name()),
            local_keys: self.local_keys.get_or_create_owned(&name()),
            kept: self.kept.get_or_create_owned(&name()),
            old_clients: self.old_clients.get_or_create_owned(&name()),
        }
    }

    /// Where the end of the credential is shown.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        Expiry(self.credential.clone())
    }

    /// Everything, in OpenMetrics text.
    #[must_use]
    pub fn scrape(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let written = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        if written.is_ok() { text } else { String::new() }
    }
}

/// A method of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Status,
    Encrypt,
    Decrypt,
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Status => "Status",
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
        }
    }
}

/// What one provider counts.
#[derive(Debug)]
pub(super) struct ProviderMetrics {
    provider: String,
    calls: Family<Call, Counter>,
    durations: [Histogram; 3],
    key_ids: Family<KeyIdHash, Gauge>,
    shown: Mutex<Option<KeyIdHash>>,
    answers: Gauge,
    refuses: Gauge,
    silent: Gauge,
    local_keys: Gauge,
    kept: Gauge,
    old_clients: Counter,
}

impl ProviderMetrics {
    pub(super) fn answered(&self, asked: Asked, code: &'static str, took: Duration) {
        let labels = Call { provider: self.provider.clone(), method: asked.name(), code };
        self.calls.get_or_create(&labels).inc();
        let [status, encrypt, decrypt] = &self.durations;
        let histogram = match asked {
            Asked::Status => status,
            Asked::Encrypt => encrypt,
            Asked::Decrypt => decrypt,
        };
        histogram.observe(took.as_secs_f64());
    }

    pub(super) fn promoted(&self, key_id: &str, version: u32) {
        let key_id_hash = key_id_hash(key_id);
        let labels = KeyIdHash { provider: self.provider.clone(), key_id_hash, version };
        self.key_ids.get_or_create(&labels).set(1);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = shown.replace(labels.clone())
            && before != labels
        {
            self.key_ids.remove(&before);
        }
    }

    pub(super) fn contact(&self, answers: bool, refuses: bool) {
        self.answers.set(i64::from(answers));
        self.refuses.set(i64::from(refuses));
    }

    pub(super) fn silent(&self, silent: Option<Duration>) {
        let seconds =
            silent.map_or(-1, |silent| i64::try_from(silent.as_secs()).unwrap_or(i64::MAX));
        self.silent.set(seconds);
    }

    pub(super) fn local_keys(&self, count: usize) {
        self.local_keys.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn kept(&self, is_kept: bool) {
        self.kept.set(i64::from(is_kept));
    }

    pub(super) fn old_client(&self) {
        self.old_clients.inc();
    }
}

/// Upper bounds in seconds: from an operation in memory to one that waits for a failover.
const BUCKETS: [f64; 14] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0,
    2.0, 3.0,
];

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}
