//! The log of the process, on standard error. Fields, not prose; never a request target.
//!
//! Room      the binary.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::file::{Log, LogFormat};

/// Starts the log, once per process.
///
/// # Errors
/// When the filter does not parse.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter)
        .with_context(|| format!("log.filter {:?} is no level and no filter", log.filter))?;
    // Colours are for people at a terminal; elsewhere they are noise in the log.
    let is_seen = std::io::stderr().is_terminal();
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_target(false).with_ansi(is_seen);
    match log.format {
        LogFormat::Text => builder.finish().try_init()?,
        LogFormat::Json => builder.json().finish().try_init()?,
    }
    Ok(())
}
