//! `audit`: read the log, prove what it says, check all of it.
//!
//! Room      `lastkey`.

mod export;
mod read;
pub(crate) mod verify;
mod witness;

use clap::Subcommand;

use super::{failure::Failure, session::Session};

/// Subcommands of `audit`.
#[derive(Subcommand, Debug)]
pub(crate) enum AuditCommand {
    /// Show the newest records, and with --follow those that come
    Tail(read::TailArgs),
    /// Find records by key, principal, action, result, request or time
    Search(read::SearchArgs),
    /// Write records for another system, and remember how far it got
    Export(export::ExportArgs),
    /// Check every record against the key that signed the log
    Verify(verify::VerifyArgs),
    /// Get the proof that a record is in the log
    Receipt(verify::ReceiptArgs),
    /// Sign a checkpoint now, or print the key that signs
    Checkpoint(verify::CheckpointArgs),
    /// Name, list and remove witnesses
    #[command(subcommand)]
    Witness(witness::WitnessCommand),
}

/// Runs a subcommand.
pub(crate) async fn run(command: AuditCommand, session: &Session) -> Result<(), Failure> {
    match command {
        AuditCommand::Tail(args) => read::tail(args, session).await,
        AuditCommand::Search(args) => read::search(args, session).await,
        AuditCommand::Export(args) => export::export(args, session).await,
        AuditCommand::Verify(args) => verify::verify(args, session).await,
        AuditCommand::Receipt(args) => verify::receipt(args, session).await,
        AuditCommand::Checkpoint(args) => verify::checkpoint(args, session).await,
        AuditCommand::Witness(command) => witness::run(command, session).await,
    }
}
