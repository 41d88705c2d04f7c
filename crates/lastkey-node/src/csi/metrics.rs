//! What the provider counts, for Prometheus.
//!
//! Room      `node`.
//! Holds     No name of a pod, an account or a secret stands in it.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::provider::Provider;
use crate::page::Shown;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Mount {
    personality: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    mounts: Family<Mount, Counter>,
    durations: Histogram,
    from_memory: Counter,
    renewals: Family<Outcome, Counter>,
    given_in_outage: Counter,
    volumes: Gauge,
    watch_answers: Gauge,
}

impl Metrics {
    pub(super) fn new(version: &str) -> Self {
        let mut registry = Registry::with_prefix("lastkey_secrets_provider");
        let metrics = (Family::default(), Counter::default(), Family::default());
        let (mounts, from_memory, renewals) = metrics;
        let (given_in_outage, durations) = (Counter::default(), Histogram::new(BUCKETS));
        let (volumes, watch_answers) = (Gauge::default(), Gauge::default());
        registry.register("mounts", "Questions of the driver by gRPC code", Clone::clone(&mounts));
        let help = "Time of such a question";
        registry.register_with_unit("mount_duration", help, Unit::Seconds, durations.clone());
        let help = "Questions that were answered without one to the server";
        registry.register("from_memory", help, Clone::clone(&from_memory));
        let help = "Volumes that were made anew after a secret had changed, by result";
        registry.register("renewals", help, Clone::clone(&renewals));
        let help = "Volumes that were given what is remembered while no server answered";
        registry.register("given_in_outage", help, given_in_outage.clone());
        registry.register("volumes", "Volumes that are known", volumes.clone());
        let help = "1 while a server tells this node of changes";
        registry.register("watch_answers", help, watch_answers.clone());
        registry.register("build", "What runs", Info::new(vec![("version", version.to_owned())]));
        Self {
            registry,
            mounts,
            durations,
            from_memory,
            renewals,
            given_in_outage,
            volumes,
            watch_answers,
        }
    }

    /// The driver was answered.
    pub(super) fn mounted(&self, personality: &'static str, code: &'static str, took: Duration) {
        self.mounts.get_or_create(&Mount { personality, code }).inc();
        self.durations.observe(took.as_secs_f64());
    }

    pub(super) fn answered_from_memory(&self) {
        self.from_memory.inc();
    }

    pub(super) fn gave_in_outage(&self) {
        self.given_in_outage.inc();
    }

    /// A mounted volume was made anew, or was not.
    pub(super) fn renewed(&self, result: &'static str) {
        self.renewals.get_or_create(&Outcome { result }).inc();
    }

    pub(super) fn watch(&self, answers: bool) {
        self.watch_answers.set(i64::from(answers));
    }
}

impl Shown for Provider {
    fn metrics(&self) -> String {
        let volumes = i64::try_from(self.slots().len()).unwrap_or(i64::MAX);
        self.metrics.volumes.set(volumes);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let written = prometheus_client::encoding::text::encode(&mut text, &self.metrics.registry);
        if written.is_ok() { text } else { String::new() }
    }

    /// Ready while it serves: pods that run are answered also while no server answers.
    fn readiness(&self) -> (bool, String) {
        let told = self.metrics.watch_answers.get() == 1;
        let state = if told { "ok" } else { "not told of changes" };
        (true, format!("watch: {state}\nvolumes: {}\n", self.slots().len()))
    }
}

/// Upper bounds in seconds: from an answer out of memory to a driver's patience.
const BUCKETS: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

#[cfg(test)]
mod tests {
    use super::super::tests::{mounted, provider, request, token};
    use super::*;

    #[tokio::test]
    async fn volumes_and_answers_from_memory_are_counted_and_nobody_is_named() {
        let (_, provider) = provider(None);
        for _ in 0..3 {
            mounted(&provider, &request("uid-of-a-pod", &token("uid-of-a-pod", 1))).await;
        }
        provider.metrics.mounted("lastkey", "OK", Duration::from_millis(2));
        let text = provider.metrics();
        for line in [
            "lastkey_secrets_provider_from_memory_total 2",
            "lastkey_secrets_provider_volumes 1",
            "lastkey_secrets_provider_mounts_total{personality=\"lastkey\",code=\"OK\"} 1",
            "lastkey_secrets_provider_mount_duration_seconds_count 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
        assert!(!text.contains("uid-of-a-pod"), "{text}");
    }
}
