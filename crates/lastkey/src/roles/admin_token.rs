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
use lastkey_service::sealing::{WayIn, replace_admin_token};
use lastkey_store::audit_log::AuditOptions;

use super::dev;
use crate::wiring::{Opened, open_data};
use crate::{hardening, passphrase, say};

/// Mints a new administrator's token and makes the old one void; once an administrator is
/// enrolled, prints a code with which another one enrols. Stop the server first.
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
    let presented = match &args.keyfile {
        Some(path) => read_keyfile(path)?,
        None => passphrase::read(args.passphrase_file.as_deref(), "Passphrase: ")?,
    };
    match replace(&args.data, &presented)? {
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

/// Mints a new administrator's token and makes the old one void; once an administrator is
/// enrolled, a code with which another one enrols.
///
/// # Errors
/// When another process has the data directory, or what is presented does not unseal.
pub(crate) fn replace(data: &Path, presented: &SecretVec) -> anyhow::Result<WayIn> {
    let Opened { store, ports, .. } = open_data(data, AuditOptions::KEEP_ALL)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(replace_admin_token(&*store, &ports, presented)) {
        Err(Error::Unauthenticated) => {
            bail!("what was presented does not unseal this installation; the old token still holds")
        }
        outcome => outcome.context("there is no new token, and the old one still holds"),
    }
}
