//! `lastkey admin-token`: a new administrator's token, when the old one is lost or known to
//! somebody who should not have it.
//!
//! Room      the binary.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use lastkey_secret::SecretVec;
use lastkey_service::error::Error;
use lastkey_service::sealing::{WayIn, replace_admin_token, replace_admin_token_by};
use lastkey_store::audit_log::AuditOptions;

use super::dev;
use crate::cli::open_seal::OpenArgs;
use crate::wiring::{Opened, open_data};
use crate::{hardening, say};

/// Mints a new administrator's token and makes the old one void; once an administrator is
/// enrolled, prints a code with which another one enrols. Stop the server first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    open: OpenArgs,
}

/// Why nothing was done.
const OLD_HOLDS: &str = "there is no new token, and the old one still holds";

/// Mints it and prints it, this once.
///
/// # Errors
/// When the server is running, or what is presented does not unseal.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    hardening::apply().context("cannot switch core dumps off")?;
    let Opened { store, ports, .. } = open_data(&args.data, AuditOptions::KEEP_ALL)?;
    let way_in = async {
        let bootstrap = store.bootstrap().await?.context("run `lastkey init` first")?;
        let open = args.open.opener_of_data(&args.data)?.open(&bootstrap).await?;
        Ok(replace_admin_token_by(&*store, &ports, &open).await?)
    };
    let way_in: anyhow::Result<WayIn> = runtime()?.block_on(way_in);
    match way_in.context(OLD_HOLDS)? {
        WayIn::Token(token) => {
            token.expose(|text| say::line(&String::from_utf8_lossy(text)))?;
            dev::take_over_token(&args.data, &token)
        }
        WayIn::EnrolmentCode(code) => code.expose(|text| say::line(&String::from_utf8_lossy(text))),
    }
}

/// Reads a key file.
///
/// # Errors
/// When it cannot be read, or others than its owner can.
pub(crate) fn read_keyfile(path: &Path) -> anyhow::Result<SecretVec> {
    let name = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
    let mode = file.metadata().with_context(|| format!("cannot read {name}"))?.mode();
    ensure!(mode & 0o077 == 0, "{name} can be read by others; make it private: chmod 600 {name}");
    let mut key = Vec::with_capacity(64);
    // One byte more than a key file has: a longer one opens nothing.
    let read = file.take(33).read_to_end(&mut key);
    let key = SecretVec::take(key);
    read.with_context(|| format!("cannot read {name}"))?;
    Ok(key)
}

/// The same for somebody who has shown what opens a seal that takes a passphrase or a key file.
///
/// # Errors
/// When another process has the data directory, or what is presented does not unseal.
pub(crate) fn replace(data: &Path, presented: &SecretVec) -> anyhow::Result<WayIn> {
    let Opened { store, ports, .. } = open_data(data, AuditOptions::KEEP_ALL)?;
    match runtime()?.block_on(replace_admin_token(&*store, &ports, presented)) {
        Err(Error::Unauthenticated) => {
            bail!("what was presented does not unseal this installation; the old token still holds")
        }
        outcome => outcome.context(OLD_HOLDS),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
