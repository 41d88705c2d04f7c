//! What an agent of a node serves over HTTP beside its socket: metrics and health.
//!
//! Room      the binary.
//! Holds     What a node does is read on the node alone; elsewhere it is told whether the agent
//!           works, in one word.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use lastkey_node::page::{self, Shown};

/// Where, as it was typed.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct PageArgs {
    /// Serve /metrics, /healthz and /readyz over HTTP on this loopback address, such as
    /// 127.0.0.1:9464.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) metrics: Option<SocketAddr>,
    /// Serve /healthz and /readyz alone on this address, for probes, such as 0.0.0.0:9810.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) health: Option<SocketAddr>,
}

/// The open listeners.
#[derive(Debug)]
pub(super) struct Pages {
    metrics: Option<TcpListener>,
    health: Option<TcpListener>,
}

impl Pages {
    /// Listens.
    ///
    /// # Errors
    /// When metrics were to be served beyond this machine, or an address cannot be had.
    pub(super) fn open(args: &PageArgs) -> anyhow::Result<Self> {
        if let Some(addr) = args.metrics {
            ensure!(
                addr.ip().is_loopback(),
                "metrics are served on a loopback address, and {addr} is none: for probes there is \
                 --health (in a configuration file health.listen), which tells nobody what a node \
                 does"
            );
        }
        let listen = |addr: SocketAddr| {
            TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}"))
        };
        let (metrics, health) = (args.metrics.map(listen), args.health.map(listen));
        Ok(Self { metrics: metrics.transpose()?, health: health.transpose()? })
    }

    /// Serves them until the end of the process; where, for the line that says that the agent is
    /// ready.
    ///
    /// # Errors
    /// When the system does not tell an address.
    pub(super) fn serve<S: Shown>(self, shown: &Arc<S>) -> anyhow::Result<String> {
        let mut told = String::new();
        if let Some(metrics) = self.metrics {
            told.push_str(&format!("; metrics on http://{}", metrics.local_addr()?));
            tokio::spawn(page::serve(Arc::clone(shown), metrics));
        }
        if let Some(health) = self.health {
            told.push_str(&format!("; health on http://{}", health.local_addr()?));
            tokio::spawn(page::serve_health(Arc::clone(shown), health));
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::{PageArgs, Pages};

    #[test]
    fn metrics_stay_on_the_node_and_health_does_not_have_to() {
        let any = "0.0.0.0:0".parse().ok();
        let refused = Pages::open(&PageArgs { metrics: any, health: None }).unwrap_err();
        assert!(refused.to_string().contains("--health"), "{refused}");
        Pages::open(&PageArgs { metrics: "127.0.0.1:0".parse().ok(), health: any }).unwrap();
    }
}
