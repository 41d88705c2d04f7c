//! The server: its listeners, and its life from bind to the last answer.
//!
//! Room      `http`. What the binary sees.

use std::sync::Arc;

use lastkey_service::sealing::Gate;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::connection::Phase;
use crate::door::{Door, DoorParts};
use crate::limits::Limits;
use crate::listener::{Address, BindError, Bound, Listen};
use crate::metrics::MetricsAccess;

/// What a server is made of.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub listeners: Vec<Listen>,
    /// The limits.
    pub limits: Limits,
    /// Who may read `/metrics`.
    pub metrics_access: MetricsAccess,
    /// Where the door registers its metrics; others may be there already.
    pub registry: Registry,
    /// First half of all request ids: eight random bytes, drawn at each start.
    pub request_id_prefix: [u8; 8],
    /// Version of the server, for `/v1/sys/status`, `/v1/openapi.json` and `/metrics`.
    pub server_version: String,
}

/// A server whose listeners are open.
pub struct Server {
    bound: Vec<Bound>,
    door: Arc<Door>,
}

impl Server {
    /// Opens the listeners. Connections wait until [`Server::run`].
    ///
    /// # Errors
    /// [`BindError`] of the first listener that cannot be opened; then none is.
    pub async fn bind(config: ServerConfig, gate: Arc<Gate>) -> Result<Self, BindError> {
        let mut bound = Vec::with_capacity(config.listeners.len());
        for listen in config.listeners {
            if let Listen::Tcp { tls: Some(tls), .. } = &listen {
                tls.admit_clients_of(&gate);
            }
            bound.push(Bound::open(listen).await?);
        }
        let door = Door::new(DoorParts {
            gate,
            limits: config.limits,
            request_id_prefix: config.request_id_prefix,
            metrics_access: config.metrics_access,
            registry: config.registry,
            server_version: config.server_version,
        });
        Ok(Self { bound, door: Arc::new(door) })
    }

    /// Where it listens, in the order of the configuration, with the ports that were taken.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<Address> {
        self.bound.iter().map(Bound::address).collect()
    }

    /// Serves until `shutdown` is done; then takes no more connections, finishes the requests
    /// that were accepted, and drops what is left after [`Limits::drain_time`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Shutdown {
        let (phase, _) = watch::channel(Phase::Serving);
        for bound in self.bound {
            tokio::spawn(bound.serve(Arc::clone(&self.door), phase.subscribe()));
        }
        shutdown.await;
        phase.send_replace(Phase::Draining);
        // Every listener and every connection holds a receiver until it has ended.
        if timeout(self.door.limits().drain_time, phase.closed()).await.is_ok() {
            return Shutdown::Complete;
        }
        let connections = self.door.connections().taken();
        phase.send_replace(Phase::Ending);
        phase.closed().await;
        Shutdown::Cut { connections }
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Every accepted request was answered.
    Complete,
    /// The time was up.
    Cut {
        /// Connections that were dropped.
        connections: usize,
    },
}
