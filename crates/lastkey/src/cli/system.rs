//! `status`, `unseal`, `seal`, `confirm-clock`.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

use clap::Args;
use lastkey_secret::SecretVec;
use lastkey_wire::native::system::UnsealRequest;
use lastkey_wire::{SecretBase64, SecretText};

use super::{args::DryRunArgs, failure::Failure, input, session::Session};

/// Arguments of `status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Exit with 6 unless the server is initialised, unsealed and ready
    #[arg(long)]
    ready: bool,
}

/// Arguments of `unseal`.
#[derive(Args, Debug)]
pub(crate) struct UnsealArgs {
    /// File with the passphrase (`-`: standard input); asked for when left out
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The key file, where a key file is what unseals
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    keyfile: Option<PathBuf>,
}

/// Says what the server says about itself.
pub(crate) async fn status(args: StatusArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.show(&client.status().await?)?;
    if args.ready && !client.ready().await?.ready {
        return Err(Failure::NotReady);
    }
    Ok(())
}

/// Unseals by passphrase or key file.
pub(crate) async fn unseal(args: UnsealArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let request = match args.keyfile {
        Some(path) => {
            let doing = || format!("read {}", path.display());
            let key =
                std::fs::read(&path).map_err(|source| Failure::Io { doing: doing(), source })?;
            UnsealRequest { passphrase: None, keyfile: Some(SecretBase64(SecretVec::take(key))) }
        }
        None => {
            let passphrase = input::passphrase(args.passphrase_file.as_deref())?;
            UnsealRequest { passphrase: Some(SecretText(passphrase)), keyfile: None }
        }
    };
    session.show(&client.unseal(request).await?)
}

/// Makes the server forget its root key.
pub(crate) async fn seal(args: DryRunArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.seal(), args).await
}

/// Lets time go on after the server's clock jumped.
pub(crate) async fn confirm_clock(args: DryRunArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.confirm_clock(), args).await
}
