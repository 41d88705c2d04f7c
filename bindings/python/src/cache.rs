//! The data-key cache.
//!
//! Room      `python`.

use std::time::Duration;

use lastkey_client::CacheLimits;
use pyo3::{PyResult, exceptions::PyValueError, pyclass, pymethods};

/// As `lastkey_client::DataKeyCache`.
#[pyclass(frozen, subclass, module = "lastkey._lastkey")]
pub(crate) struct DataKeyCache {
    pub(crate) inner: lastkey_client::DataKeyCache,
}

#[pymethods]
impl DataKeyCache {
    #[new]
    #[pyo3(signature = (*, max_age=300.0, max_messages=1_000, max_bytes=68_719_476_736, max_entries=1_000))]
    fn new(max_age: f64, max_messages: u64, max_bytes: u64, max_entries: usize) -> PyResult<Self> {
        let mut limits = CacheLimits::default();
        limits.max_age = seconds(max_age)?;
        limits.max_messages = max_messages;
        limits.max_bytes = max_bytes;
        limits.max_entries = max_entries;
        Ok(Self { inner: lastkey_client::DataKeyCache::new(limits) })
    }

    /// Hits, misses, shared, failures, retired, entries.
    fn counts(&self) -> (u64, u64, u64, u64, u64, u64) {
        let stats = self.inner.stats();
        (stats.hits, stats.misses, stats.shared, stats.failures, stats.retired, stats.entries)
    }

    /// Wipes every data key.
    fn clear(&self) {
        self.inner.clear();
    }
}

/// Seconds from Python: no NaN, nothing negative, nothing beyond measure.
pub(crate) fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))
}
