//! `lastkey admin-token`: a new administrator's token, when the old one is lost or known to
//! somebody who should not have it.
//!
//! Room      the binary.

use std::path::PathBuf;

use anyhow::Context as _;
use lastkey_secret::SecretVec;
use lastkey_service::sealing::replace_admin_token;
use lastkey_store::audit_log::AuditLimits;

use crate::wiring::{Opened, open_data};
use crate::{hardening, passphrase, say};

/// Mints a new administrator's token and makes the old one void. Stop the server first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Read the passphrase from a file (- for standard input) instead of asking.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The key file, where a key file is what unseals.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    keyfile: Option<PathBuf>,
}

/// Mints it and prints it, this once.
///
/// # Errors
/// When the server is running, or what is presented does not unseal.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    hardening::apply().context("cannot switch core dumps off")?;
    let Opened { store, ports } = open_data(&args.data, AuditLimits::default())?;
    let presented = match &args.keyfile {
        Some(path) => SecretVec::take(
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        ),
        None => passphrase::read(args.passphrase_file.as_deref(), "Passphrase: ")?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let token = runtime
        .block_on(replace_admin_token(&*store, &ports, &presented))
        .context("no new token; what was presented does not unseal this installation, or it cannot be written")?;
    token.expose(|text| say::line(&String::from_utf8_lossy(text)))
}
