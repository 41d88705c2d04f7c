//! `volume`: encrypted volumes of all nodes, as their drivers report them to the server.
//!
//! Room      `lastkey`. The driver is `roles::volumes`; nothing here reaches a node.

mod erase;
mod header;
mod list;
mod rotate;

use clap::Subcommand;

use super::{failure::Failure, session::Session};

/// Subcommands of `volume`.
#[derive(Subcommand, Debug)]
pub(crate) enum VolumeCommand {
    /// List volumes and snapshots with their keys, nodes, claims and pods
    List(list::ListArgs),
    /// Have volumes follow a rotation of their keys, or get new data keys, and wait until all have
    Rotate(rotate::RotateArgs),
    /// Write the header of a volume that the server keeps; its key in it is wrapped
    Escrow(header::EscrowArgs),
    /// Write the lost header of a volume anew, on its device
    RestoreHeader(header::RestoreArgs),
    /// Prove that the key of a deleted volume is gone, with all copies of it
    EraseProof(erase::EraseArgs),
}

/// Runs a subcommand.
pub(crate) async fn run(command: VolumeCommand, session: &Session) -> Result<(), Failure> {
    match command {
        VolumeCommand::List(args) => list::list(&args, session).await,
        VolumeCommand::Rotate(args) => rotate::rotate(&args, session).await,
        VolumeCommand::Escrow(args) => header::escrow(&args, session).await,
        VolumeCommand::RestoreHeader(args) => header::restore(args, session).await,
        VolumeCommand::EraseProof(args) => erase::prove(&args, session).await,
    }
}
