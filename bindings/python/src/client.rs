//! The client: where the server is, and as whom.
//!
//! Room      `python`.

use std::path::PathBuf;

use lastkey_client::{
    ClientConfig, ConfigError, RetryPolicy, SetupError, Trust, blocking, token_from_env,
    trust_from_env,
};
use pyo3::{Bound, PyAny, PyResult, Python, exceptions::PyValueError, pyclass, pymethods};

use crate::{
    bytes::secret,
    cache::seconds,
    errors::{OrRaise, chain, raised},
};

/// As `lastkey_client::blocking::Client`.
#[pyclass(frozen, subclass, module = "lastkey._lastkey")]
pub(crate) struct Client {
    pub(crate) inner: blocking::Client,
    addr: String,
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (
        addr=None, *, token=None, ca_file=None, ca_fingerprint=None, config_file=None,
        timeout=None, connect_timeout=None, attempts=None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "Python names them")]
    fn new(
        py: Python<'_>,
        addr: Option<String>,
        token: Option<&Bound<'_, PyAny>>,
        ca_file: Option<PathBuf>,
        ca_fingerprint: Option<String>,
        config_file: Option<PathBuf>,
        timeout: Option<f64>,
        connect_timeout: Option<f64>,
        attempts: Option<u32>,
    ) -> PyResult<Self> {
        let mut config = found(addr.as_deref(), config_file)
            .map_err(|error| raised(py, "ConfigError", &chain(&error), &[]))?;
        if let Some(trust) = trust_of(ca_file, ca_fingerprint)? {
            config.trust = trust;
        }
        if let Some(token) = token {
            config.token = Some(secret(token)?);
        }
        if let Some(limit) = timeout {
            config.request_timeout = seconds(limit)?;
        }
        if let Some(limit) = connect_timeout {
            config.connect_timeout = seconds(limit)?;
        }
        if let Some(attempts) = attempts {
            config.retry = RetryPolicy::default().attempts(attempts);
        }
        let addr = config.addr.to_string();
        let inner = py.detach(|| blocking::Client::new(&config)).or_raise(py)?;
        Ok(Self { inner, addr })
    }

    #[getter]
    fn addr(&self) -> &str {
        &self.addr
    }
}

/// The address that was given, with token and trust of the environment; else what is found.
fn found(addr: Option<&str>, file: Option<PathBuf>) -> Result<ClientConfig, SetupError> {
    let Some(addr) = addr else {
        return Ok(match file {
            Some(file) => ClientConfig::from_file(&file)?,
            None => ClientConfig::discover()?,
        });
    };
    let mut config = ClientConfig::new(addr.parse().map_err(ConfigError::Addr)?);
    config.token = token_from_env();
    config.trust = trust_from_env()?;
    Ok(config)
}

fn trust_of(file: Option<PathBuf>, fingerprint: Option<String>) -> PyResult<Option<Trust>> {
    match (file, fingerprint) {
        (None, None) => Ok(None),
        (Some(file), None) => Ok(Some(Trust::Authority(std::fs::read(file)?))),
        (None, Some(text)) => {
            let pinned = text.parse().map(Trust::Pinned);
            pinned.map(Some).map_err(|error| PyValueError::new_err(chain(&error)))
        }
        (Some(_), Some(_)) => {
            Err(PyValueError::new_err("give ca_file or ca_fingerprint, not both"))
        }
    }
}
