//! How agents on a node serve: they say so when they do, and go on until they are asked to stop.
//!
//! Room      the binary.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{hardening, say};

/// Hears that somebody asks to stop, from when it is made.
pub(super) struct StopSignals(Signal, Signal);

impl StopSignals {
    /// SIGTERM and SIGINT.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    /// Says that everything is served, and waits until somebody asks to stop.
    pub(super) async fn serve_until_asked(mut self, ready: &str) -> anyhow::Result<()> {
        hardening::release_code();
        tokio::spawn(hardening::release_code_again());
        say::line(ready)?;
        tokio::select! { _ = self.0.recv() => (), _ = self.1.recv() => () }
        Ok(())
    }
}

/// Ends what serves sockets when it has finished what it has accepted.
pub(super) async fn finish(
    stopping: &watch::Sender<bool>,
    mut serving: JoinSet<io::Result<()>>,
) -> anyhow::Result<()> {
    tracing::info!("stopping: no new connections, accepted requests are finished");
    // Nobody may listen any more.
    let _ = stopping.send(true);
    while let Some(ended) = serving.join_next().await {
        ended??;
    }
    Ok(())
}
