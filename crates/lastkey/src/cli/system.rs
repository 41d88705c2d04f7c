//! `status`, `unseal`, `confirm-clock`.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

use clap::Args;
use lastkey_secret::SecretVec;
use lastkey_wire::native::system::UnsealRequest;
use lastkey_wire::{SecretBase64, SecretText};

use super::{args::DryRunArgs, failure::Failure, input, seal::read_share, session::Session};

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
    /// File with a share, decrypted (`-`: standard input); may be given more than once
    #[arg(long, value_name = "FILE", conflicts_with_all = ["passphrase_file", "keyfile"])]
    share: Vec<PathBuf>,
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

/// Unseals by passphrase, key file or shares.
pub(crate) async fn unseal(args: UnsealArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    for path in &args.share {
        let share = Some(SecretText(read_share(path)?));
        let request = UnsealRequest { share, ..UnsealRequest::default() };
        session.show(&client.unseal(request).await?)?;
    }
    if !args.share.is_empty() {
        return Ok(());
    }
    let request = match args.keyfile {
        Some(path) => {
            let doing = || format!("read {}", path.display());
            let key =
                std::fs::read(&path).map_err(|source| Failure::Io { doing: doing(), source })?;
            let keyfile = Some(SecretBase64(SecretVec::take(key)));
            UnsealRequest { keyfile, ..UnsealRequest::default() }
        }
        None => {
            let passphrase = Some(SecretText(input::passphrase(args.passphrase_file.as_deref())?));
            UnsealRequest { passphrase, ..UnsealRequest::default() }
        }
    };
    session.show(&client.unseal(request).await?)
}

/// Lets time go on after the server's clock jumped.
pub(crate) async fn confirm_clock(args: DryRunArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.confirm_clock(), args).await
}
