//! The server inside the plugin's process: a control-plane node needs nothing else.
//!
//! Room      the binary.
//! Holds     The plugin serves before the server does, and goes on when it cannot start: the
//!           disk may not be there yet.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::adapters::EmbeddedKeys;
use crate::config::file::{ConfigFile, Listen};
use crate::config::resolved::Resolved;
use crate::roles::server;

/// Where the server is described.
#[derive(Clone, Debug)]
pub(super) enum Embedded {
    /// A data directory: it listens on the unix socket `server.sock` in there and nowhere else.
    Data(PathBuf),
    /// A configuration file of `lastkey server`.
    Config(PathBuf),
}

/// A server that runs.
#[derive(Debug)]
pub(super) struct Running(mpsc::Receiver<()>);

/// More than the server takes to finish what it has accepted.
const FAREWELL: Duration = Duration::from_secs(60);

impl Running {
    /// Waits until it has ended by the signal that the plugin ended by. One that still cannot
    /// start has nothing to finish.
    pub(super) fn wait(self) {
        if self.0.recv_timeout(FAREWELL) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the embedded server was cut");
        }
    }
}

/// Between two attempts to start.
const PAUSE: Duration = Duration::from_secs(2);

impl Embedded {
    /// What the server is told.
    ///
    /// # Errors
    /// When it is wrong or cannot be read.
    pub(super) fn resolve(&self) -> anyhow::Result<Resolved> {
        Resolved::of(match self {
            Self::Config(path) => ConfigFile::read(path)?,
            Self::Data(data) => {
                let unix = Some(data.join("server.sock"));
                let listen = Listen { tcp: Vec::new(), unix, ..Listen::default() };
                ConfigFile { data: Some(data.clone()), listen, ..ConfigFile::default() }
            }
        })
    }

    /// Runs the server on threads of its own, until the signal that ends the plugin too.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(self, keys: EmbeddedKeys) -> anyhow::Result<Running> {
        let (alive, ended) = mpsc::channel();
        let run = move || {
            while let Err(error) = self.run(&keys) {
                let error = format!("{error:#}");
                tracing::error!(error, "the embedded server cannot start; it is tried again");
                thread::sleep(PAUSE);
            }
            drop::<mpsc::Sender<()>>(alive);
        };
        thread::Builder::new().name("server".to_owned()).spawn(run).context("no thread")?;
        Ok(Running(ended))
    }

    fn run(&self, keys: &EmbeddedKeys) -> anyhow::Result<()> {
        let ended = server::start(self.resolve()?, |started| {
            keys.serve_by(Some(Arc::clone(&started.gate)));
            let unsealed = started.unsealed;
            tracing::info!(unsealed, "the embedded server has started");
            Ok(())
        });
        keys.serve_by(None);
        ended
    }
}
