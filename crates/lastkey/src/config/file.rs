//! What a configuration file may say. Every field has a default; `lastkey config show` prints
//! them all.
//!
//! Room      the binary.
//! Source    docs/configuration.md.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A configuration file as it was typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// The data directory. No default on purpose: it is named on the command line or here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<PathBuf>,
    pub(crate) listen: Listen,
    pub(crate) tls: Tls,
    pub(crate) limits: Limits,
    pub(crate) keyring: Keyring,
    pub(crate) secrets: Secrets,
    pub(crate) audit: Audit,
    pub(crate) backup: Backup,
    pub(crate) metrics: Metrics,
    pub(crate) unseal: Unseal,
    pub(crate) connect: Connect,
    pub(crate) log: Log,
    /// Clusters that are asked about their own pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cluster: Vec<Cluster>,
}

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    /// TCP addresses; may be empty when there is a unix socket.
    pub(crate) tcp: Vec<SocketAddr>,
    /// A unix socket, made with mode 0600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unix: Option<PathBuf>,
    /// User ids that may connect to the unix socket, and are known by that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unix_users: Vec<u32>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            tcp: vec![SocketAddr::from(([127, 0, 0, 1], 8400))],
            unix: None,
            unix_users: Vec::new(),
        }
    }
}

/// How TCP connections are protected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    pub(crate) mode: TlsMode,
    /// Certificate chain in PEM, with `mode = "files"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    /// Private key in PEM, with `mode = "files"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) private_key: Option<PathBuf>,
    /// Names and addresses for the certificate with `mode = "self-made"`, beside localhost, the
    /// host name and the addresses that are listened on.
    pub(crate) names: Vec<String>,
}

/// Where the certificate of the server comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsMode {
    /// From the CA that `init` made in the data directory.
    #[default]
    SelfMade,
    /// From the operator's files; read again on SIGHUP.
    Files,
    /// None. Only on loopback addresses.
    Off,
}

/// Limits of the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) body_bytes: usize,
    pub(crate) head_bytes: usize,
    pub(crate) requests_in_flight: usize,
    pub(crate) connections: usize,
    pub(crate) request_seconds: u64,
    pub(crate) idle_seconds: u64,
    pub(crate) handshake_seconds: u64,
    pub(crate) drain_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let door = lastkey_http::Limits::default();
        Self {
            body_bytes: door.body_len,
            head_bytes: door.head_len,
            requests_in_flight: door.requests_in_flight,
            connections: door.connections,
            request_seconds: door.request_time.as_secs(),
            idle_seconds: door.idle_time.as_secs(),
            handshake_seconds: door.handshake_time.as_secs(),
            drain_seconds: door.drain_time.as_secs(),
        }
    }
}

/// The keyring.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keyring {
    /// Keys kept ready in memory, about 1 KB each; others are read from the store when used.
    pub(crate) open_keys: usize,
}

impl Default for Keyring {
    fn default() -> Self {
        Self { open_keys: 20_000 }
    }
}

/// Managed secrets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Secrets {
    /// Longest value, at most 1048576.
    pub(crate) max_value_bytes: usize,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { max_value_bytes: lastkey_core::secret_item::DEFAULT_VALUE_LEN }
    }
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Audit {
    pub(crate) durability: Durability,
    /// Longest segment; at least 1048576.
    pub(crate) segment_bytes: u64,
    /// Records are kept at least so long; at least 184 unless `retention_bytes` says otherwise.
    pub(crate) retention_days: u64,
    /// When records take more than this, the oldest go before their time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention_bytes: Option<u64>,
    /// Free bytes of the disk below which there is an alarm; at most a twentieth of the disk.
    pub(crate) alarm_free_bytes: u64,
    /// Free bytes below which operations are refused; at most a hundredth of the disk.
    pub(crate) refuse_free_bytes: u64,
}

/// When an answer may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Durability {
    /// When its record is on the disk.
    #[default]
    Sync,
    /// When the log has taken its record; it reaches the disk some milliseconds later.
    Batched,
}

impl Default for Audit {
    fn default() -> Self {
        let options = lastkey_store::audit_log::AuditOptions::default();
        Self {
            durability: Durability::Sync,
            segment_bytes: options.segment_len,
            retention_days: options.retention.as_secs() / 86_400,
            retention_bytes: options.retention_len,
            alarm_free_bytes: options.alarm_free,
            refuse_free_bytes: options.refuse_free,
        }
    }
}

/// Backups that the server makes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backup {
    /// A directory outside the data directory, or `s3://BUCKET/FOLDER`. No backups are made by
    /// themselves without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// From one backup to the next; 0: only when somebody asks.
    pub(crate) period_hours: u64,
    /// Proven backups that are kept.
    pub(crate) keep: usize,
    /// Where backups are restored on trial; in the data directory when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) s3: S3,
}

impl Default for Backup {
    fn default() -> Self {
        Self { target: None, period_hours: 24, keep: 14, scratch: None, s3: S3::default() }
    }
}

/// How buckets are reached. What is left out is what the variables of the AWS tools say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct S3 {
    /// URL of the service, without a path; Amazon's own when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// Whether the bucket is part of the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) virtual_hosted: Option<bool>,
    /// PEM file with the authorities of the service; those of the machine when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<PathBuf>,
    /// A file with `aws_access_key_id` and `aws_secret_access_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials_file: Option<PathBuf>,
}

/// The `/metrics` page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    pub(crate) access: MetricsAccess,
}

/// Who may read the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MetricsAccess {
    /// Everybody who reaches the server.
    #[default]
    Public,
    /// Who presents a token.
    Token,
}

/// Unsealing without a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Unseal {
    /// A key file that opens a `keyfile` seal at start. For development only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keyfile: Option<PathBuf>,
    /// Modules of security modules that are loaded although others than root can change them.
    pub(crate) pkcs11_modules: Vec<PathBuf>,
    /// Configurations of clients of another Lastkey that are used although others than root can
    /// change them.
    pub(crate) kms_configs: Vec<PathBuf>,
}

/// Connections that the server makes itself, to fetch keys of issuers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Connect {
    /// Hosts that may be reached: `HOST`, `HOST:PORT`, `*.HOST`; all when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow: Option<Vec<String>>,
}

/// How a cluster is asked about its pods. One of `in_cluster`, `kubeconfig` and `server`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// Its name, as `lastkey cluster add` has it.
    pub(crate) name: String,
    /// What happens while it cannot be asked.
    #[serde(default)]
    pub(crate) liveness: Liveness,
    /// It is the cluster that this server is a pod of.
    #[serde(default)]
    pub(crate) in_cluster: bool,
    /// A kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// With `kubeconfig`: the context; the current one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<String>,
    /// URL of its API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// With `server`: its authority in PEM; those of the machine when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<PathBuf>,
    /// With `server`: a file with a token, read for each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

/// What happens while a cluster cannot be asked about a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Liveness {
    /// No session is opened.
    #[default]
    Required,
    /// A session is opened, and the audit log says that nobody was asked.
    Preferred,
}

/// The log of the server (not the audit log).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// A level (error, warn, info, debug, trace) or a tracing filter.
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::default() }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or does not parse; the error names line and column.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in the configuration {}", path.display()))
    }

    /// The file as TOML, with every default.
    ///
    /// # Errors
    /// When it cannot be written as TOML.
    pub(crate) fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string_pretty(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_config_show_prints_is_a_configuration_that_says_the_same() {
        let shown = ConfigFile::default().to_toml().unwrap();
        assert_eq!(toml::from_str::<ConfigFile>(&shown).unwrap(), ConfigFile::default());
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error = toml::from_str::<ConfigFile>("[listen]\ntpc = []").unwrap_err().to_string();
        assert!(error.contains("tpc"), "{error}");
    }
}
