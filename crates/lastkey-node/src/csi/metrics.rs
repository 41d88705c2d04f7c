//! What the provider counts, for Prometheus.
//!
//! Room      `node`.
//! Holds     No name of a pod, an account or a secret stands in it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::provider::Provider;
use super::servers::Providers;
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Age {
    read_within: &'static str,
}

/// Ages by which objects are counted, each with all that are younger.
const AGES: [(&str, Duration); 5] = [
    ("1m", Duration::from_secs(60)),
    ("1h", Duration::from_secs(3_600)),
    ("1d", Duration::from_secs(86_400)),
    ("7d", Duration::from_secs(7 * 86_400)),
    ("ever", Duration::MAX),
];

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    mounts: Family<Mount, Counter>,
    durations: Histogram,
    from_memory: Counter,
    renewals: Family<Outcome, Counter>,
    renewal_times: Histogram,
    given_in_outage: Counter,
    volumes: Gauge,
    behind: Gauge,
    oldest: Gauge,
    objects: Family<Age, Gauge>,
    watch_answers: Gauge,
}

impl Metrics {
    pub(super) fn new(version: &str) -> Self {
        let mut registry = Registry::with_prefix("lastkey_secrets_provider");
        let metrics = (Family::default(), Counter::default(), Family::default());
        let (mounts, from_memory, renewals) = metrics;
        let (given_in_outage, durations) = (Counter::default(), Histogram::new(BUCKETS));
        let renewal_times = Histogram::new(BUCKETS);
        let (volumes, watch_answers) = (Gauge::default(), Gauge::default());
        let (behind, oldest) = (Gauge::default(), Gauge::default());
        registry.register("mounts", "Questions of the driver by gRPC code", Clone::clone(&mounts));
        let help = "Time of such a question";
        registry.register_with_unit("mount_duration", help, Unit::Seconds, durations.clone());
        let help = "Questions that were answered without one to the server";
        registry.register("from_memory", help, Clone::clone(&from_memory));
        let help = "Volumes that were made anew after a secret had changed, by result";
        registry.register("renewals", help, Clone::clone(&renewals));
        let help = "Time from the news of a change to the new files in the volume";
        registry.register_with_unit("renewal", help, Unit::Seconds, renewal_times.clone());
        let help = "How long the volume that is behind for longest has waited; 0 when none is";
        registry.register_with_unit("behind", help, Unit::Seconds, behind.clone());
        let help = "Time since the volume that was read first was read from a server";
        registry.register_with_unit("oldest_read", help, Unit::Seconds, oldest.clone());
        let (help, objects) = ("Files of all volumes by when they were read", Family::default());
        registry.register("objects", help, Clone::clone(&objects));
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
            renewal_times,
            given_in_outage,
            volumes,
            behind,
            oldest,
            objects,
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

    /// A mounted volume was made anew, so long after the news.
    pub(super) fn renewed(&self, took: Duration) {
        self.renewals.get_or_create(&Outcome { result: "ok" }).inc();
        self.renewal_times.observe(took.as_secs_f64());
    }

    /// A mounted volume was not made anew.
    pub(super) fn not_renewed(&self) {
        self.renewals.get_or_create(&Outcome { result: "failed" }).inc();
    }
}

impl Shown for Providers {
    fn metrics(&self) -> String {
        let metrics = &self.own().metrics;
        let slots: Vec<_> = self.all().flat_map(|one| one.slots()).collect();
        metrics.volumes.set(i64::try_from(slots.len()).unwrap_or(i64::MAX));
        metrics.watch_answers.set(i64::from(self.is_told()));
        let (mut behind, mut oldest, mut ages) = (Duration::ZERO, Duration::ZERO, Vec::new());
        // One that is being made is neither behind nor old.
        for slot in &slots {
            let Ok(held) = slot.held.try_lock() else { continue };
            let Some(held) = &*held else { continue };
            let waited = held.behind_since.map_or(Duration::ZERO, |since| since.elapsed());
            let age = held.made_at.elapsed();
            (behind, oldest) = (behind.max(waited), oldest.max(age));
            ages.push((age, held.files.len()));
        }
        for (read_within, bound) in AGES {
            let young = ages.iter().filter(|(age, _)| *age <= bound);
            let count = young.map(|(_, files)| *files).sum::<usize>();
            let objects = metrics.objects.get_or_create(&Age { read_within });
            objects.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let seconds = |age: Duration| i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        metrics.behind.set(seconds(behind));
        metrics.oldest.set(seconds(oldest));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let written = prometheus_client::encoding::text::encode(&mut text, &metrics.registry);
        if written.is_ok() { text } else { String::new() }
    }

    /// Ready while it serves: pods that run are answered also while no server answers.
    fn readiness(&self) -> (bool, String) {
        let state = if self.is_told() { "ok" } else { "not told of changes" };
        let volumes: usize = self.all().map(|one| one.slots().len()).sum();
        (true, format!("watch: {state}\nvolumes: {volumes}\n"))
    }
}

impl Providers {
    /// Whether each server that has volumes on this node tells it of changes.
    fn is_told(&self) -> bool {
        let told = |one: &Provider| one.is_told.load(Ordering::Relaxed);
        let others = self.all().skip(1).filter(|one| !one.slots().is_empty());
        let mut asked = self.all().take(1).chain(others);
        asked.all(|one| told(one))
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
        let text = Providers::new(provider).metrics();
        for line in [
            "lastkey_secrets_provider_from_memory_total 2",
            "lastkey_secrets_provider_volumes 1",
            "lastkey_secrets_provider_mounts_total{personality=\"lastkey\",code=\"OK\"} 1",
            "lastkey_secrets_provider_mount_duration_seconds_count 1",
            "lastkey_secrets_provider_renewal_seconds_count 0",
            "lastkey_secrets_provider_behind_seconds 0",
            "lastkey_secrets_provider_objects{read_within=\"1m\"} 2",
            "lastkey_secrets_provider_objects{read_within=\"ever\"} 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
        assert!(!text.contains("uid-of-a-pod"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn objects_are_counted_by_their_age_each_with_the_younger_ones() {
        let (_, provider) = provider(None);
        mounted(&provider, &request("old", &token("old", 1))).await;
        tokio::time::advance(Duration::from_secs(7_200)).await;
        mounted(&provider, &request("new", &token("new", 1))).await;
        let text = Providers::new(provider).metrics();
        for (within, count) in [("1m", 2), ("1h", 2), ("1d", 4), ("7d", 4), ("ever", 4)] {
            let line =
                format!("lastkey_secrets_provider_objects{{read_within=\"{within}\"}} {count}");
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
    }
}
