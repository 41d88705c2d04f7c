//! What a client needs to know before its first call.
//!
//! Room      `client`. Given by the program; [`ClientConfig::from_env`] is the usual source.

use std::{env, fs, io, path::PathBuf, time::Duration};

use lastkey_secret::SecretVec;

use crate::{
    addr::{Addr, AddrError},
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

/// How to reach a server and as whom.
#[derive(Debug)]
pub struct ClientConfig {
    /// Where the server listens.
    pub addr: Addr,
    /// Sent as `Authorization: Bearer`; without it only the public calls work.
    pub token: Option<SecretVec>,
    /// What vouches for an `https://` server.
    pub trust: Trust,
    /// Until the connection stands, TLS included. Default 5 seconds.
    pub connect_timeout: Duration,
    /// From the call to the whole answer. Default 40 seconds: the server gives up first.
    pub request_timeout: Duration,
}

/// Why the environment gives no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
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
    /// `LASTKEY_CA_FINGERPRINT` is no fingerprint.
    #[error("{CA_FINGERPRINT_VARIABLE} is wrong")]
    Fingerprint(#[source] TrustError),
}

impl ClientConfig {
    /// A client of `addr` without token and trust, with the default limits.
    #[must_use]
    pub fn new(addr: Addr) -> Self {
        Self {
            addr,
            token: None,
            trust: Trust::Nothing,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(40),
        }
    }

    /// Reads `LASTKEY_ADDR`, `LASTKEY_TOKEN`, `LASTKEY_CA` and `LASTKEY_CA_FINGERPRINT`.
    ///
    /// # Errors
    /// See [`ConfigError`]; an absent token or CA is no error.
    pub fn from_env() -> Result<Self, ConfigError> {
        let addr = env::var(ADDR_VARIABLE).map_err(|_| ConfigError::NoAddr)?;
        let mut config = Self::new(addr.parse().map_err(ConfigError::Addr)?);
        config.token = token_from_env();
        config.trust = trust_from_env()?;
        Ok(config)
    }
}

/// The token of `LASTKEY_TOKEN`, when set and not empty.
#[must_use]
pub fn token_from_env() -> Option<SecretVec> {
    env::var(TOKEN_VARIABLE).ok().filter(|text| !text.is_empty()).map(SecretVec::take_text)
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
