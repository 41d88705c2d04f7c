//! What a client needs to know before its first call.
//!
//! Room      `client`. Given by the program, or found: [`ClientConfig::discover`].

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use lastkey_secret::SecretVec;

use crate::{
    addr::{Addr, AddrError},
    config_file::{self, FileProblem},
    error::Error,
    retry::RetryPolicy,
    trust::{Trust, TrustError},
};

/// The variable with the server's address.
pub const ADDR_VARIABLE: &str = "LASTKEY_ADDR";
/// The variable with the token.
pub const TOKEN_VARIABLE: &str = "LASTKEY_TOKEN";
/// The variable with the path of a PEM file of CA certificates.
pub const CA_VARIABLE: &str = "LASTKEY_CA";
/// The variable with the fingerprint of the server's CA certificate.
pub const CA_FINGERPRINT_VARIABLE: &str = "LASTKEY_CA_FINGERPRINT";

/// The variable with the path of a configuration file of the client.
pub const CONFIG_VARIABLE: &str = "LASTKEY_CLIENT_CONFIG";
/// Where a configuration file for all users of a machine lies.
pub const SYSTEM_CONFIG: &str = "/etc/lastkey/client.toml";
/// Where a node offers the service to the programs on it.
pub const NODE_SOCKET: &str = "/run/lastkey/node.sock";
/// The variable with the path of a PEM file of a client certificate and its key.
pub const IDENTITY_VARIABLE: &str = "LASTKEY_IDENTITY";

/// How to reach a server and as whom.
///
/// ```
/// use lastkey_client::{Client, ClientConfig, RetryPolicy, Trust};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut config = ClientConfig::new("https://keys.example:8400".parse()?);
/// config.trust = Trust::Pinned(
///     "sha256:0000000000000000000000000000000000000000000000000000000000000000".parse()?,
/// );
/// config.retry = RetryPolicy::default().attempts(6);
/// let client = Client::new(&config)?;
/// # let _ = client;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Where the server listens.
    pub addr: Addr,
    /// Sent as `Authorization: Bearer`; without it only the public calls work.
    pub token: Option<SecretVec>,
    /// What vouches for an `https://` server.
    pub trust: Trust,
    /// A certificate of one's own and its key, in PEM, shown to an `https://` server.
    pub identity: Option<SecretVec>,
    /// Until the connection stands, TLS included. Default 5 seconds.
    pub connect_timeout: Duration,
    /// From the call to the whole answer, further attempts included. Default 40 seconds: the
    /// server gives up first.
    pub request_timeout: Duration,
    /// When a call is sent again.
    pub retry: RetryPolicy,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Neither the environment nor a file nor a node names a server.
    #[error("no server: set {ADDR_VARIABLE}, or write {SYSTEM_CONFIG}")]
    NotFound,
    /// A configuration file cannot be used.
    #[error("{}", path.display())]
    File {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileProblem,
    },
    /// `LASTKEY_ADDR` is not set.
    #[error("no server address: {ADDR_VARIABLE} is not set")]
    NoAddr,
    /// `LASTKEY_ADDR` is no address.
    #[error("{ADDR_VARIABLE} is wrong")]
    Addr(#[source] AddrError),
    /// `LASTKEY_CA` cannot be read.
    #[error("{CA_VARIABLE}: cannot read {path}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// `LASTKEY_IDENTITY` cannot be read.
    #[error("{IDENTITY_VARIABLE}: cannot read {path}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// `LASTKEY_CA_FINGERPRINT` is no fingerprint.
    #[error("{CA_FINGERPRINT_VARIABLE} is wrong")]
    Fingerprint(#[source] TrustError),
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// No usable configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration gives no client.
    #[error(transparent)]
    Client(#[from] Error),
    /// A thread or a runtime could not be started.
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
}

impl ClientConfig {
    /// A client of `addr` without token and trust, with the default limits.
    #[must_use]
    pub fn new(addr: Addr) -> Self {
        Self {
            addr,
            token: None,
            trust: Trust::Nothing,
            identity: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(40),
            retry: RetryPolicy::default(),
        }
    }

    /// Looks for a server, in this order: the environment, when `LASTKEY_ADDR` is set; the file
    /// of `LASTKEY_CLIENT_CONFIG`; `lastkey/client.toml` in `XDG_CONFIG_HOME` or `~/.config`;
    /// [`SYSTEM_CONFIG`]; the socket of the node, [`NODE_SOCKET`]. The first that is there
    /// counts, also when it is wrong. `LASTKEY_TOKEN` is used wherever the address came from.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn discover() -> Result<Self, ConfigError> {
        if is_set(ADDR_VARIABLE) {
            return Self::from_env();
        }
        if let Some(path) = path_in(CONFIG_VARIABLE) {
            return Self::from_file(&path);
        }
        let mut files = user_config().into_iter().chain([PathBuf::from(SYSTEM_CONFIG)]);
        if let Some(path) = files.find(|path| path.exists()) {
            return Self::from_file(&path);
        }
        let socket = Path::new(NODE_SOCKET);
        if socket.exists() { Ok(Self::from_socket(socket)) } else { Err(ConfigError::NotFound) }
    }

    /// Reads a configuration file: TOML with `addr` and, as needed, `token_file`, `ca`,
    /// `ca_fingerprint`, `connect_seconds`, `request_seconds` and `attempts`. Paths are relative
    /// to the file. Other names are refused. A token file that others can read is refused.
    ///
    /// # Errors
    /// [`ConfigError::File`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::from_file_alone(path)?;
        if let Some(token) = token_from_env() {
            config.token = Some(token);
        }
        Ok(config)
    }

    /// As [`ClientConfig::from_file`], with the token of the file alone: for a client in a program
    /// whose `LASTKEY_TOKEN` is meant for another server.
    ///
    /// # Errors
    /// [`ConfigError::File`].
    pub fn from_file_alone(path: &Path) -> Result<Self, ConfigError> {
        config_file::read(path)
            .map_err(|source| ConfigError::File { path: path.to_owned(), source })
    }

    /// A client of a unix socket: of a node or of a server on this machine. The token is that
    /// of `LASTKEY_TOKEN`, when there is one.
    #[must_use]
    pub fn from_socket(path: &Path) -> Self {
        let mut config = Self::new(Addr::Unix(path.to_owned()));
        config.token = token_from_env();
        config
    }

    /// Reads `LASTKEY_ADDR`, `LASTKEY_TOKEN`, `LASTKEY_CA`, `LASTKEY_CA_FINGERPRINT` and
    /// `LASTKEY_IDENTITY`.
    ///
    /// # Errors
    /// See [`ConfigError`]; an absent token, CA or identity is no error.
    pub fn from_env() -> Result<Self, ConfigError> {
        let addr = env::var(ADDR_VARIABLE).map_err(|_| ConfigError::NoAddr)?;
        let mut config = Self::new(addr.parse().map_err(ConfigError::Addr)?);
        config.token = token_from_env();
        config.trust = trust_from_env()?;
        config.identity = identity_from_env()?;
        Ok(config)
    }
}

/// The token of `LASTKEY_TOKEN`, when set and not empty.
#[must_use]
pub fn token_from_env() -> Option<SecretVec> {
    env::var(TOKEN_VARIABLE).ok().filter(|text| !text.is_empty()).map(SecretVec::take_text)
}

/// The certificate and key of `LASTKEY_IDENTITY`, when it is set and not empty.
///
/// # Errors
/// [`ConfigError::Identity`].
pub fn identity_from_env() -> Result<Option<SecretVec>, ConfigError> {
    let Some(path) = env::var_os(IDENTITY_VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    let pem = fs::read(&path).map_err(|source| ConfigError::Identity { path, source })?;
    Ok(Some(SecretVec::take(pem)))
}

/// The trust of `LASTKEY_CA` or, when that is not set, `LASTKEY_CA_FINGERPRINT`.
///
/// # Errors
/// [`ConfigError::Ca`], [`ConfigError::Fingerprint`].
pub fn trust_from_env() -> Result<Trust, ConfigError> {
    if let Some(path) = env::var_os(CA_VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let pem = fs::read(&path).map_err(|source| ConfigError::Ca { path, source })?;
        return Ok(Trust::Authority(pem));
    }
    match env::var(CA_FINGERPRINT_VARIABLE) {
        Ok(text) if !text.is_empty() => {
            text.parse().map(Trust::Pinned).map_err(ConfigError::Fingerprint)
        }
        Ok(_) | Err(_) => Ok(Trust::Nothing),
    }
}

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn path_in(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn user_config() -> Option<PathBuf> {
    // A relative XDG_CONFIG_HOME is invalid (XDG Base Directory Specification 0.8).
    let home = path_in("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| path_in("HOME").map(|home| home.join(".config")))?;
    Some(home.join("lastkey/client.toml"))
}
