//! What the door counts, for Prometheus.
//!
//! Room      `http`.
//! Holds     counting a request looks up no label and takes no heap: its counters were resolved
//!           at the first request of their kind.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use lastkey_core::audit::archive::LogState;
use lastkey_service::ops::backups::BackupStanding;
use lastkey_service::ops::leases::LeaseTotals;
use lastkey_service::ops::secrets::RotationTotals;
use lastkey_wire::words::ErrorCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Who may read `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Everybody who reaches the listener.
    Public,
    /// Callers with a token.
    #[default]
    Token,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnsealLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RotationLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabels {
    state: &'static str,
}

/// Accounts of databases that were made for one caller.
#[derive(Default)]
struct LeaseMetrics {
    there: Family<LeaseLabels, Gauge>,
    acts: Family<RotationLabels, Counter>,
}

impl LeaseMetrics {
    fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("lastkey_database");
        own.register("leases", "Leases of accounts of databases by state", self.there.clone());
        let help = "What was done with leases, since the server was unsealed";
        own.register("lease_acts", help, self.acts.clone());
    }

    fn set(&self, totals: LeaseTotals) {
        for (state, count) in [("in_use", totals.in_use), ("ending", totals.ending)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.there.get_or_create(&LeaseLabels { state }).set(count);
        }
        for (result, count) in [
            ("made", totals.made),
            ("renewed", totals.renewed),
            ("ended", totals.ended),
            ("failed", totals.failed),
        ] {
            let counter = self.acts.get_or_create(&RotationLabels { result });
            counter.inner().store(count, Ordering::Relaxed);
        }
    }
}

/// What is known of a seal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SealLabels {
    /// Its id.
    pub(crate) seal: String,
    /// What it is.
    pub(crate) kind: &'static str,
    /// `proven`, `stale` or `holder-needed`.
    pub(crate) health: &'static str,
}

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<OperationLabels, Histogram, fn() -> Histogram>,
    unseals: Family<UnsealLabels, Counter>,
    in_flight: Gauge,
    connections: Gauge,
    sealed: Gauge,
    seals: Family<SealLabels, Gauge>,
    backups: BackupGauges,
    audit: AuditGauges,
    rotations: Family<RotationLabels, Counter>,
    leases: LeaseMetrics,
}

/// Whether there is a backup.
#[derive(Default)]
struct BackupGauges {
    proven: Gauge,
    newest: Gauge,
    failed: Gauge,
}

impl BackupGauges {
    fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("lastkey_backup");
        own.register("proven", "Backups that were restored aside", self.proven.clone());
        let help = "When the newest of them was begun, in Unix time; 0 when there is no backup";
        own.register("newest_timestamp_seconds", help, self.newest.clone());
        own.register("failed", "1 while the last attempt gave none", self.failed.clone());
    }

    /// A sealed server does not know: nothing changes.
    fn set(&self, standing: Option<&BackupStanding>) {
        let Some(standing) = standing else { return };
        self.proven.set(gauge_value(standing.proven));
        let newest = standing.newest.map_or(0, |at| at.0);
        self.newest.set(i64::try_from(newest).unwrap_or(i64::MAX));
        self.failed.set(i64::from(standing.problem.is_some()));
    }
}

/// Where the audit log stands.
#[derive(Default)]
struct AuditGauges {
    records: Gauge,
    unsigned: Gauge,
    refusing: Gauge,
    alarm: Gauge,
    tiles_behind: Gauge,
    free: Gauge,
}

impl AuditGauges {
    fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix("lastkey_audit");
        own.register("records", "Records that are durable", self.records.clone());
        let help = "Durable records that no checkpoint covers yet";
        own.register("unsigned_records", help, self.unsigned.clone());
        own.register("refusing", "1 while no records are taken", self.refusing.clone());
        own.register("alarm", "1 while space is getting short", self.alarm.clone());
        let help = "1 while the disk has not taken tiles, which are written again";
        own.register("tiles_behind", help, self.tiles_behind.clone());
        own.register("free_bytes", "Free bytes of the disk", self.free.clone());
    }

    fn set(&self, state: &LogState) {
        let value = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.records.set(value(state.durable));
        self.unsigned.set(value(state.durable.saturating_sub(state.signed)));
        self.refusing.set(i64::from(state.refusing.is_some()));
        self.alarm.set(i64::from(state.is_alarming));
        self.tiles_behind.set(i64::from(state.has_unsynced_tiles));
        self.free.set(value(state.free_bytes.unwrap_or(0)));
    }
}

/// What a scrape shows of this moment.
#[derive(Clone, Debug)]
pub(crate) struct Levels {
    /// Requests that are worked on.
    pub(crate) in_flight: usize,
    /// Open connections.
    pub(crate) connections: usize,
    /// Whether the server is sealed.
    pub(crate) sealed: bool,
    /// The seals; none while the server is sealed.
    pub(crate) seals: Vec<SealLabels>,
    /// Whether there is a backup; `None` while the server is sealed.
    pub(crate) backup: Option<BackupStanding>,
    /// Where the audit log stands.
    pub(crate) audit: LogState,
    /// Rotations of secrets since the server was unsealed.
    pub(crate) rotations: RotationTotals,
    /// Accounts of databases that were made for one caller.
    pub(crate) leases: LeaseTotals,
}

impl Metrics {
    /// Registers everything.
    pub(crate) fn new(mut registry: Registry, server_version: &str) -> Self {
        let requests = Family::default();
        let durations: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(histogram);
        let unseals = Family::default();
        let (in_flight, connections, sealed) =
            (Gauge::default(), Gauge::default(), Gauge::default());
        let http = registry.sub_registry_with_prefix("lastkey_http");
        http.register("requests", "Requests by operation and result", requests.clone());
        http.register_with_unit(
            "request_duration",
            "Time from the head of a request to its answer",
            Unit::Seconds,
            durations.clone(),
        );
        http.register("requests_in_flight", "Requests being worked on", in_flight.clone());
        http.register("connections", "Open connections", connections.clone());
        let own = registry.sub_registry_with_prefix("lastkey");
        own.register("unseal_attempts", "Attempts to unseal by result", unseals.clone());
        own.register("sealed", "1 while the server is sealed", sealed.clone());
        let seals = Family::default();
        own.register("seal_health", "1 for what is known of a seal", seals.clone());
        let rotations = Family::default();
        let help = "Rotations of secrets by result, since the server was unsealed";
        own.register("secret_rotations", help, rotations.clone());
        let leases = LeaseMetrics::default();
        leases.register(&mut registry);
        let backups = BackupGauges::default();
        backups.register(&mut registry);
        let audit = AuditGauges::default();
        audit.register(&mut registry);
        let own = registry.sub_registry_with_prefix("lastkey");
        let build = Info::new(vec![("version", server_version.to_owned())]);
        own.register("build", "What runs", build);
        Self {
            registry,
            requests,
            durations,
            unseals,
            in_flight,
            connections,
            sealed,
            seals,
            backups,
            audit,
            rotations,
            leases,
        }
    }

    /// Counters of one route.
    pub(crate) fn route(&self, operation: &'static str) -> RouteMetrics {
        RouteMetrics {
            operation,
            requests: self.requests.clone(),
            by_code: std::array::from_fn(|_| OnceLock::new()),
            duration: self.durations.get_or_create_owned(&OperationLabels { operation }),
        }
    }

    /// Counts an attempt to unseal.
    pub(crate) fn count_unseal(&self, error: Option<ErrorCode>) {
        self.unseals.get_or_create(&UnsealLabels { result: code_text(error) }).inc();
    }

    /// Everything, in OpenMetrics text.
    pub(crate) fn scrape(&self, levels: &Levels) -> Bytes {
        self.in_flight.set(gauge_value(levels.in_flight));
        self.connections.set(gauge_value(levels.connections));
        self.sealed.set(i64::from(levels.sealed));
        self.seals.clear();
        for seal in &levels.seals {
            self.seals.get_or_create(seal).set(1);
        }
        self.backups.set(levels.backup.as_ref());
        self.audit.set(&levels.audit);
        self.leases.set(levels.leases);
        for (result, count) in
            [("done", levels.rotations.done), ("failed", levels.rotations.failed)]
        {
            let counter = self.rotations.get_or_create(&RotationLabels { result });
            counter.inner().store(count, Ordering::Relaxed);
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let written = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        if written.is_ok() { text.into() } else { Bytes::new() }
    }
}

/// Upper bounds in seconds: from an operation in memory to one that hits the deadline.
const DURATION_BUCKETS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

fn histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn code_text(error: Option<ErrorCode>) -> &'static str {
    error.map_or("ok", ErrorCode::as_str)
}

/// Counters of one route, resolved.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    operation: &'static str,
    requests: Family<RequestLabels, Counter>,
    /// First the one for success, then one for each code in its order.
    by_code: [OnceLock<Counter>; 1 + ErrorCode::ALL.len()],
    duration: Histogram,
}

impl RouteMetrics {
    /// Counts one request.
    pub(crate) fn count(&self, error: Option<ErrorCode>, duration: Duration) {
        let place = error.map_or(0, |code| 1 + code as usize);
        if let Some(cell) = self.by_code.get(place) {
            let labels = || RequestLabels { operation: self.operation, code: code_text(error) };
            cell.get_or_init(|| self.requests.get_or_create_owned(&labels())).inc();
        }
        self.duration.observe(duration.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_operation_and_code() {
        let metrics = Metrics::new(Registry::default(), "1.2.3");
        let route = metrics.route("kms:Encrypt");
        route.count(None, Duration::from_micros(70));
        route.count(None, Duration::from_micros(70));
        route.count(Some(ErrorCode::Internal), Duration::from_secs(20));
        metrics.count_unseal(Some(ErrorCode::Unauthenticated));
        let audit = LogState {
            durable: 9,
            signed: 7,
            is_alarming: true,
            has_unsynced_tiles: true,
            ..LogState::default()
        };
        let proven = SealLabels { seal: "7".to_owned(), kind: "tpm2", health: "proven" };
        let seals = vec![proven];
        let newest = Some(lastkey_core::time::Timestamp(1_700));
        let backup = Some(BackupStanding { newest, proven: 2, problem: None });
        let rotations = RotationTotals { done: 5, failed: 1 };
        let leases = LeaseTotals { in_use: 2, ending: 1, made: 4, renewed: 6, ended: 2, failed: 3 };
        let levels = Levels {
            in_flight: 3,
            connections: 4,
            sealed: true,
            seals,
            backup,
            audit,
            rotations,
            leases,
        };
        let text = String::from_utf8(metrics.scrape(&levels).to_vec()).unwrap();
        for line in [
            "lastkey_http_requests_total{operation=\"kms:Encrypt\",code=\"ok\"} 2",
            "lastkey_http_requests_total{operation=\"kms:Encrypt\",code=\"Internal\"} 1",
            "lastkey_http_request_duration_seconds_count{operation=\"kms:Encrypt\"} 3",
            "lastkey_http_request_duration_seconds_bucket{le=\"0.0001\",operation=\"kms:Encrypt\"} 2",
            "lastkey_http_requests_in_flight 3",
            "lastkey_http_connections 4",
            "lastkey_sealed 1",
            "lastkey_seal_health{seal=\"7\",kind=\"tpm2\",health=\"proven\"} 1",
            "lastkey_backup_proven 2",
            "lastkey_backup_newest_timestamp_seconds 1700",
            "lastkey_backup_failed 0",
            "lastkey_secret_rotations_total{result=\"done\"} 5",
            "lastkey_secret_rotations_total{result=\"failed\"} 1",
            "lastkey_database_leases{state=\"in_use\"} 2",
            "lastkey_database_leases{state=\"ending\"} 1",
            "lastkey_database_lease_acts_total{result=\"renewed\"} 6",
            "lastkey_database_lease_acts_total{result=\"failed\"} 3",
            "lastkey_audit_records 9",
            "lastkey_audit_unsigned_records 2",
            "lastkey_audit_refusing 0",
            "lastkey_audit_alarm 1",
            "lastkey_audit_tiles_behind 1",
            "lastkey_unseal_attempts_total{result=\"Unauthenticated\"} 1",
            "lastkey_build_info{version=\"1.2.3\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_code_has_its_place() {
        for (place, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(*code as usize, place);
        }
    }
}
