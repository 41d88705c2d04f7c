//! A configuration that can be run: paths known, unsafe mixes refused.
//!
//! Room      the binary.
//! Holds     a value of [`Resolved`] never offers clear text on an address that others reach.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lastkey_connect::guard::{Allowed, Guard};
use lastkey_core::backup_folder::is_in_bucket;
use lastkey_service::backup_schedule::BackupSchedule;
use lastkey_store::audit_log::{AuditOptions, Durability};

use super::file::{self, ConfigFile, Liveness, Log, MetricsAccess, TlsMode};

/// Where the certificate of the server comes from, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsSource {
    /// The data directory's own CA; the names are added to those the server knows itself.
    SelfMade { names: Vec<String> },
    /// Files of the operator.
    Files { certificate: PathBuf, private_key: PathBuf },
    /// None, on loopback only.
    Off,
}

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) data: PathBuf,
    pub(crate) tcp: Vec<SocketAddr>,
    pub(crate) unix: Option<PathBuf>,
    pub(crate) unix_users: Vec<u32>,
    pub(crate) tls: TlsSource,
    pub(crate) limits: lastkey_http::Limits,
    pub(crate) open_keys: usize,
    pub(crate) secret_len: usize,
    pub(crate) audit: AuditOptions,
    /// Said on the command line alone.
    pub(crate) accepts_audit_loss: bool,
    /// Said on the command line alone.
    pub(crate) accepts_rollback: bool,
    pub(crate) backup: BackupPlan,
    pub(crate) metrics: MetricsAccess,
    pub(crate) keyfile: Option<PathBuf>,
    pub(crate) pkcs11_modules: Vec<PathBuf>,
    pub(crate) kms_configs: Vec<PathBuf>,
    pub(crate) guard: Guard,
    pub(crate) clusters: Vec<AskedCluster>,
    pub(crate) log: Log,
}

/// Where backups go, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupPlan {
    pub(crate) target: Option<String>,
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) schedule: BackupSchedule,
    pub(crate) s3: file::S3,
}

/// A cluster that is asked about its pods.
#[derive(Clone, Debug)]
pub(crate) struct AskedCluster {
    pub(crate) name: String,
    pub(crate) is_required: bool,
    pub(crate) api: Api,
}

/// How an API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// As a pod of it.
    InCluster,
    /// As a kubeconfig says.
    Kubeconfig { path: PathBuf, context: Option<String> },
    /// By its URL, with a token.
    Server { url: String, authority: Option<PathBuf>, token_file: PathBuf },
}

impl Resolved {
    /// Checks what was typed.
    ///
    /// # Errors
    /// When something is missing, out of range, or an unsafe mix; the error says what to write.
    pub(crate) fn of(typed: ConfigFile) -> anyhow::Result<Self> {
        let data = typed.data.context(
            "no data directory: name it by --data DIR, or by `data = \"DIR\"` in the configuration",
        )?;
        ensure!(
            !typed.listen.tcp.is_empty() || typed.listen.unix.is_some(),
            "nothing to listen on: set listen.tcp or listen.unix"
        );
        let tls = match (typed.tls.mode, typed.tls.certificate, typed.tls.private_key) {
            (TlsMode::SelfMade, None, None) => TlsSource::SelfMade { names: typed.tls.names },
            (TlsMode::Files, Some(certificate), Some(private_key)) => {
                TlsSource::Files { certificate, private_key }
            }
            (TlsMode::Off, None, None) => TlsSource::Off,
            (TlsMode::Files, _, _) => {
                bail!("tls.mode = \"files\" needs tls.certificate and tls.private_key")
            }
            (TlsMode::SelfMade | TlsMode::Off, _, _) => {
                bail!("tls.certificate and tls.private_key go with tls.mode = \"files\" only")
            }
        };
        if tls == TlsSource::Off
            && let Some(open) = typed.listen.tcp.iter().find(|a| !a.ip().is_loopback())
        {
            bail!("tls.mode = \"off\" is for loopback addresses only, and {open} is not one");
        }
        ensure!(
            typed.listen.unix_users.is_empty() || typed.listen.unix.is_some(),
            "listen.unix_users goes with listen.unix"
        );
        let limits = door_limits(&typed.limits)?;
        let clusters: Vec<_> =
            typed.cluster.into_iter().map(asked_cluster).collect::<anyhow::Result<_>>()?;
        for (place, cluster) in clusters.iter().enumerate() {
            let is_twice = clusters.iter().skip(place + 1).any(|other| other.name == cluster.name);
            ensure!(!is_twice, "cluster: {} is there twice", cluster.name);
        }
        ensure!(typed.keyring.open_keys > 0, "keyring.open_keys is at least 1");
        Ok(Self {
            data,
            tcp: typed.listen.tcp,
            unix: typed.listen.unix,
            unix_users: typed.listen.unix_users,
            tls,
            limits,
            open_keys: typed.keyring.open_keys,
            secret_len: secret_len(&typed.secrets, limits.body_len)?,
            audit: audit_options(&typed.audit)?,
            accepts_audit_loss: false,
            accepts_rollback: false,
            backup: backup_plan(typed.backup)?,
            metrics: typed.metrics.access,
            keyfile: typed.unseal.keyfile,
            pkcs11_modules: typed.unseal.pkcs11_modules,
            kms_configs: typed.unseal.kms_configs,
            guard: guard(typed.connect.allow)?,
            clusters,
            log: typed.log,
        })
    }
}

/// Longest value of a secret. A request carries it in base64, and some words beside it.
fn secret_len(typed: &file::Secrets, body_len: usize) -> anyhow::Result<usize> {
    let len = typed.max_value_bytes;
    let most = lastkey_core::secret_item::MAX_VALUE_LEN;
    ensure!((1..=most).contains(&len), "secrets.max_value_bytes is 1 to {most}");
    let needed = len.div_ceil(3).saturating_mul(4).saturating_add(65_536);
    ensure!(
        body_len >= needed || len <= lastkey_core::secret_item::DEFAULT_VALUE_LEN,
        "secrets.max_value_bytes = {len} needs limits.body_bytes = {needed} or more"
    );
    Ok(len)
}

fn backup_plan(typed: file::Backup) -> anyhow::Result<BackupPlan> {
    ensure!(typed.keep > 0, "backup.keep is at least 1");
    let file::Backup { target, scratch, s3, .. } = typed;
    let is_target = |target: &String| is_in_bucket(target) || Path::new(target).is_absolute();
    ensure!(
        target.as_ref().is_none_or(is_target),
        "backup.target is an absolute path, or s3://BUCKET/FOLDER"
    );
    let paths = [
        ("scratch", &scratch),
        ("s3.authority", &s3.authority),
        ("s3.credentials_file", &s3.credentials_file),
    ];
    for (field, path) in paths {
        let is_absolute = path.as_ref().is_none_or(|path| path.is_absolute());
        ensure!(is_absolute, "backup.{field} is an absolute path");
    }
    let hours = Duration::from_secs(typed.period_hours.saturating_mul(3_600));
    let period = Some(hours).filter(|hours| !hours.is_zero() && target.is_some());
    let schedule = BackupSchedule { period, keep: typed.keep };
    Ok(BackupPlan { target, scratch, schedule, s3 })
}

fn guard(allow: Option<Vec<String>>) -> anyhow::Result<Guard> {
    let Some(allow) = allow else { return Ok(Guard::default()) };
    let patterns = allow.iter().map(|text| {
        text.parse().with_context(|| format!("connect.allow: {text:?}, expected a host"))
    });
    Ok(Guard::new(Allowed::Only(patterns.collect::<anyhow::Result<_>>()?)))
}

fn asked_cluster(typed: file::Cluster) -> anyhow::Result<AskedCluster> {
    let file::Cluster { name, context, authority, .. } = typed;
    let api = match (typed.in_cluster, typed.kubeconfig, typed.server, typed.token_file) {
        (true, None, None, None) => Api::InCluster,
        (false, Some(path), None, None) => Api::Kubeconfig { path, context: context.clone() },
        (false, None, Some(url), Some(token_file)) => {
            Api::Server { url, authority: authority.clone(), token_file }
        }
        (_, _, _, _) => bail!(
            "cluster {name}: expected one of in_cluster = true, kubeconfig, or server with \
             token_file"
        ),
    };
    let is_stray = (context.is_some() && !matches!(api, Api::Kubeconfig { .. }))
        || (authority.is_some() && !matches!(api, Api::Server { .. }));
    ensure!(!is_stray, "cluster {name}: context goes with kubeconfig, authority with server");
    Ok(AskedCluster { name, is_required: typed.liveness == Liveness::Required, api })
}

fn audit_options(typed: &super::file::Audit) -> anyhow::Result<AuditOptions> {
    ensure!(typed.segment_bytes >= 1 << 20, "audit.segment_bytes is at least 1048576");
    ensure!(
        typed.retention_days >= 184 || typed.retention_bytes.is_some(),
        "audit.retention_days is at least 184; to keep less, set audit.retention_bytes as well"
    );
    Ok(AuditOptions {
        durability: match typed.durability {
            file::Durability::Sync => Durability::Sync,
            file::Durability::Batched => Durability::Batched,
        },
        segment_len: typed.segment_bytes,
        retention: Duration::from_secs(typed.retention_days.saturating_mul(86_400)),
        retention_len: typed.retention_bytes,
        alarm_free: typed.alarm_free_bytes,
        refuse_free: typed.refuse_free_bytes,
    })
}

fn door_limits(typed: &super::file::Limits) -> anyhow::Result<lastkey_http::Limits> {
    ensure!(typed.head_bytes >= 8_192, "limits.head_bytes is at least 8192");
    ensure!(typed.body_bytes >= 1_024, "limits.body_bytes is at least 1024");
    let counts = [typed.requests_in_flight, typed.connections];
    ensure!(
        counts.iter().all(|count| *count > 0),
        "limits.requests_in_flight and limits.connections are at least 1"
    );
    let times = [typed.request_seconds, typed.idle_seconds, typed.handshake_seconds];
    ensure!(times.iter().all(|time| *time > 0), "the times under limits are at least 1 second");
    Ok(lastkey_http::Limits {
        body_len: typed.body_bytes,
        head_len: typed.head_bytes,
        requests_in_flight: typed.requests_in_flight,
        connections: typed.connections,
        request_time: Duration::from_secs(typed.request_seconds),
        idle_time: Duration::from_secs(typed.idle_seconds),
        handshake_time: Duration::from_secs(typed.handshake_seconds),
        drain_time: Duration::from_secs(typed.drain_seconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> anyhow::Result<Resolved> {
        Resolved::of(toml::from_str(text).unwrap())
    }

    #[test]
    fn defaults_and_a_data_directory_are_enough() {
        let resolved = resolve("data = '/d'").unwrap();
        assert_eq!(resolved.tls, TlsSource::SelfMade { names: Vec::new() });
        assert_eq!(resolved.limits, lastkey_http::Limits::default());
    }

    #[test]
    fn clear_text_is_refused_on_addresses_that_others_reach() {
        let on = |address: &str| {
            resolve(&format!("data='/d'\nlisten.tcp=['{address}']\ntls.mode='off'")).is_ok()
        };
        assert!(on("127.0.0.1:1") && on("[::1]:1"));
        assert!(!on("0.0.0.0:1") && !on("192.0.2.1:1") && !on("[::]:1"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, named) in [
            ("", "data"),
            ("data='/d'\nlisten.tcp=[]", "listen.unix"),
            ("data='/d'\ntls.mode='files'", "tls.certificate"),
            ("data='/d'\ntls.certificate='c'\ntls.private_key='k'", "files"),
            ("data='/d'\nlimits.head_bytes=1", "8192"),
            ("data='/d'\nkeyring.open_keys=0", "open_keys"),
            ("data='/d'\nbackup.keep=0", "backup.keep"),
            ("data='/d'\nbackup.target='here'", "backup.target"),
            ("data='/d'\nbackup.s3.credentials_file='here'", "backup.s3.credentials_file"),
            ("data='/d'\nsecrets.max_value_bytes=0", "max_value_bytes"),
            ("data='/d'\nsecrets.max_value_bytes=1048577", "1048576"),
            ("data='/d'\nsecrets.max_value_bytes=1048576", "limits.body_bytes = 1463640"),
            ("data='/d'\nlisten.unix_users=[1]", "listen.unix"),
            ("data='/d'\nconnect.allow=['https://x']", "connect.allow"),
            ("data='/d'\n[[cluster]]\nname='a'", "kubeconfig"),
            ("data='/d'\n[[cluster]]\nname='a'\nserver='https://k'", "token_file"),
            ("data='/d'\n[[cluster]]\nname='a'\nin_cluster=true\ncontext='x'", "context"),
            ("data='/d'\ncluster=[{name='a',in_cluster=true},{name='a',in_cluster=true}]", "twice"),
        ] {
            let error = resolve(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
