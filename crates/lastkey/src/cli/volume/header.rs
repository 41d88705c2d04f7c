//! `volume escrow`, `volume restore-header`: headers that the server keeps.
//!
//! Room      `lastkey`. What is in escrow, and when it is written, is `lastkey-volumes`.

use std::path::PathBuf;

use clap::Args;
use lastkey_client::Client;
use lastkey_volumes::{EscrowHeader, Fault, Kind};
use lastkey_wire::{SecretBase64, native::secrets::SecretValueQuery};
use tokio::runtime::Handle;

use crate::adapters::{Access, RemoteKeys, VolumeKeyService, escrow_name};
use crate::cli::{
    args::OutArgs,
    failure::Failure,
    input,
    output::{self, Content, note},
    session::Session,
};

/// Arguments of `volume escrow`.
#[derive(Args, Debug)]
pub(crate) struct EscrowArgs {
    /// Id of the volume
    volume: String,
    #[command(flatten)]
    out: OutArgs,
}

/// Arguments of `volume restore-header`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// Id of the volume
    volume: String,
    /// The device or file of the volume, on this machine
    #[arg(long, value_name = "PATH")]
    device: PathBuf,
    /// A header that `volume escrow` wrote, in place of the one that the server keeps
    #[arg(long, value_name = "FILE")]
    escrow: Option<PathBuf>,
    /// Also when nothing on the device tells that it is the volume's
    #[arg(long)]
    unseen: bool,
}

/// Writes what is in escrow, as JSON.
pub(crate) async fn escrow(args: &EscrowArgs, session: &Session) -> Result<(), Failure> {
    let header = kept(&session.client()?, &args.volume).await?;
    output::write_whole(&args.out, &header, Content::Unknown)
}

/// Writes a lost header anew. The key service decides whether: it has to open the volume key.
pub(crate) async fn restore(args: RestoreArgs, session: &Session) -> Result<(), Failure> {
    let bytes = match &args.escrow {
        Some(path) => input::Source::open(Some(path))?.read_plain()?,
        None => kept(&session.client()?, &args.volume).await?,
    };
    let header = EscrowHeader::parse(&bytes).map_err(refused)?;
    if header.volume != args.volume {
        return Err(Failure::Input(format!("this is the header of the volume {}", header.volume)));
    }
    let access = Access::of_flags(session.connection(), Access::NO_RENEWAL);
    let keys =
        access.and_then(RemoteKeys::new).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let keys = VolumeKeyService::new(keys, Handle::current());
    let (device, unseen) = (args.device, args.unseen);
    let work = tokio::task::spawn_blocking(move || header.restore(&keys, &device, unseen));
    let done = work.await.map_err(|error| Failure::io("restore the header", error.into()))?;
    done.map_err(refused)?;
    note(&format!("the header of {} is whole on this device", args.volume));
    Ok(())
}

async fn kept(client: &Client, volume: &str) -> Result<Vec<u8>, Failure> {
    let reply = client.get_secret(&escrow_name(volume), &SecretValueQuery::default()).await?;
    match reply.value {
        Some(SecretBase64(value)) => Ok(value.expose(<[u8]>::to_vec)),
        None => Err(Failure::Input("what is in escrow there is no header".to_owned())),
    }
}

fn refused(fault: Fault) -> Failure {
    match fault.kind {
        Kind::Internal => Failure::io("restore the header", std::io::Error::other(fault)),
        Kind::Invalid
        | Kind::NotFound
        | Kind::Exists
        | Kind::Denied
        | Kind::Exhausted
        | Kind::Precondition
        | Kind::Busy
        | Kind::OutOfRange
        | Kind::Unimplemented
        | Kind::Away => Failure::Input(fault.message),
    }
}
