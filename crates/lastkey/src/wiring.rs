//! The parts of a server, put together.
//!
//! Room      the binary: the one place that knows which adapter stands behind which port.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use lastkey_core::ports::{SealDevices, SealedStore};
use lastkey_service::engine::Ports;
use lastkey_store::SqliteSealedStore;
use lastkey_store::audit_log::{AuditLog, AuditOptions};

use crate::adapters::{MachineClock, SystemEntropySource};
use crate::devices::Devices;

/// An open data directory and the world around it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn SealedStore>,
    pub(crate) ports: Ports,
}

/// Opens a data directory; another process must not have it open.
///
/// # Errors
/// When it cannot be opened; the error says what to do.
pub(crate) fn open_data(data: &Path, audit: AuditOptions) -> anyhow::Result<Opened> {
    let entropy = Arc::new(SystemEntropySource);
    let store = SqliteSealedStore::open_dir(data, entropy.clone())
        .with_context(|| format!("cannot open the data directory {}", data.display()))?;
    let audit = AuditLog::open(&data.join("audit"), audit).context("cannot open the audit log")?;
    let ports =
        Ports { audit: Arc::new(audit), clock: Arc::new(MachineClock::of_this_boot()), entropy };
    Ok(Opened { store: Arc::new(store), ports })
}

/// The devices that a server can ask to hold seals. `modules` may be loaded although others than
/// root can change them.
pub(crate) fn seal_devices(data: &Path, modules: &[PathBuf]) -> Arc<dyn SealDevices> {
    Arc::new(Devices::new(data, modules))
}
