//! `lastkey config show`: the configuration with every default.
//!
//! Room      the binary.

use std::path::PathBuf;

use crate::config::file::ConfigFile;

/// Shows the configuration that a server would run with, every default included.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A configuration file; without it the defaults are shown.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints it as TOML.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = match &args.config {
        Some(path) => ConfigFile::read(path)?,
        None => ConfigFile::default(),
    };
    crate::say::line(&config.to_toml()?)
}
