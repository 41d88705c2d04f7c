//! The parts of a server, put together.
//!
//! Room      the binary: says which adapter stands behind which port of a server. Agents of nodes
//!           and the bench are put together in their roles.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use lastkey_connect::database::GuardedDatabases;
use lastkey_connect::guard::Guard;
use lastkey_connect::issuers::GuardedIssuers;
use lastkey_connect::webhooks::GuardedWebhooks;
use lastkey_core::outside::Nobody;
use lastkey_core::ports::{SealDevices, SealedStore};
use lastkey_kube::{Access, Cluster};
use lastkey_service::engine::Ports;
use lastkey_store::SqliteSealedStore;
use lastkey_store::audit_log::{AuditLog, AuditOptions};
use lastkey_store::backup::DataBackups;

use crate::adapters::{MachineClock, ScanPackClaims, SystemEntropySource, WatchedClusters};
use crate::config::resolved::{Api, AskedCluster};
use crate::devices::{DevicePlaces, Devices};
use crate::in_cluster;

/// An open data directory and the world around it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn SealedStore>,
    pub(crate) ports: Ports,
    pub(crate) backups: DataBackups,
}

/// Opens a data directory; another process must not have it open.
///
/// # Errors
/// When it cannot be opened; the error says what to do.
pub(crate) fn open_data(data: &Path, audit: AuditOptions) -> anyhow::Result<Opened> {
    let store = SqliteSealedStore::open_dir(data, Arc::new(SystemEntropySource))
        .with_context(|| format!("cannot open the data directory {}", data.display()))?;
    opened(data, store, audit)
}

/// The same at the end of a restore.
///
/// # Errors
/// As [`open_data`].
pub(crate) fn open_restored(data: &Path) -> anyhow::Result<Opened> {
    let store = SqliteSealedStore::open_restored(data, Arc::new(SystemEntropySource))
        .with_context(|| format!("cannot open the data directory {}", data.display()))?;
    opened(data, store, AuditOptions::KEEP_ALL)
}

fn opened(data: &Path, store: SqliteSealedStore, audit: AuditOptions) -> anyhow::Result<Opened> {
    let entropy = Arc::new(SystemEntropySource);
    let audit = AuditLog::open(&data.join("audit"), audit).context("cannot open the audit log")?;
    let (store, audit) = (Arc::new(store), Arc::new(audit));
    let backups = DataBackups::of(Arc::clone(&store), Arc::clone(&audit), data, entropy.clone());
    let ports = Ports {
        audit,
        clock: Arc::new(MachineClock::of_this_boot()),
        entropy,
        issuers: Arc::new(Nobody),
        clusters: Arc::new(Nobody),
        databases: Arc::new(Nobody),
        webhooks: Arc::new(Nobody),
        claims: Arc::new(ScanPackClaims),
    };
    Ok(Opened { store, ports, backups })
}

/// The devices that this machine can ask to hold seals.
pub(crate) fn seal_devices(places: DevicePlaces) -> Arc<dyn SealDevices> {
    Arc::new(Devices::new(places))
}

impl Opened {
    /// Lets the server ask issuers and clusters, those that are to be listened to, and call
    /// databases and programs that rotate.
    ///
    /// # Errors
    /// When a cluster's authority or credential cannot be read.
    pub(crate) fn ask_others(
        &mut self,
        guard: &Guard,
        clusters: &[AskedCluster],
    ) -> anyhow::Result<Arc<WatchedClusters>> {
        let asked = clusters.iter().map(|one| {
            let api = api_of(&one.api).with_context(|| format!("cluster {}", one.name))?;
            Ok((one.name.clone(), api, one.is_required))
        });
        let asked = asked.collect::<anyhow::Result<Vec<_>>>()?;
        let watched = Arc::new(WatchedClusters::of(asked, &self.ports.clock));
        self.ports.clusters = Arc::clone(&watched) as _;
        self.ports.issuers = Arc::new(GuardedIssuers::behind(guard.clone()));
        self.ports.databases = Arc::new(GuardedDatabases::behind(guard.clone()));
        self.ports.webhooks = Arc::new(GuardedWebhooks::behind(guard.clone()));
        Ok(watched)
    }
}

/// The API server of a cluster. The operator named it in the configuration, so the list of hosts
/// for fetches does not concern it.
fn api_of(api: &Api) -> anyhow::Result<Cluster> {
    let access = match api {
        Api::InCluster => in_cluster::access()?,
        Api::Kubeconfig { path, context } => Access::from_kubeconfig(path, context.as_deref())?,
        Api::Server { url, authority, token_file } => {
            Access::with_token_file(url.clone(), authority.as_deref(), token_file.clone())?
        }
    };
    Ok(Cluster::new(&Guard::default(), access)?)
}
