//! `audit witness add|list|remove`.
//!
//! Room      `lastkey`.

use clap::{Args, Subcommand};
use lastkey_wire::native::audit::{AddWitnessRequest, WitnessesReply};

use crate::cli::{
    args::DryRunArgs,
    failure::Failure,
    session::Session,
    table::{Show, grid},
};

/// Subcommands of `audit witness`.
#[derive(Subcommand, Debug)]
pub(crate) enum WitnessCommand {
    /// Name a witness of this log; or, without --url, a log to be witnessed here
    Add(AddArgs),
    /// List the witnesses of this log, and the logs that are witnessed here
    List(DryRunArgs),
    /// Remove a witness, or a log that is witnessed here
    Remove(RemoveArgs),
}

/// Arguments of `audit witness add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// Key: of a witness (`audit checkpoint --witness-key` there), or of a log (`--public-key`)
    #[arg(value_name = "KEY")]
    key: String,
    /// Where the witness takes add-checkpoint; of a Lastkey server, https://HOST:PORT/v1/audit/witness
    #[arg(long)]
    url: Option<String>,
    /// Fingerprint of the witness's CA, if that is no public one
    #[arg(long, value_name = "sha256:HEX", requires = "url")]
    witness_ca_fingerprint: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `audit witness remove`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Key of the witness or log
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Runs a subcommand.
pub(crate) async fn run(command: WitnessCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        WitnessCommand::Add(args) => {
            let request = AddWitnessRequest {
                key: args.key,
                url: args.url,
                ca_fingerprint: args.witness_ca_fingerprint,
            };
            session.settle_and_show(client.add_witness(request), args.dry_run).await
        }
        WitnessCommand::List(dry_run) => {
            session.settle_and_show(client.list_witnesses(), dry_run).await
        }
        WitnessCommand::Remove(args) => {
            session.settle_and_show(client.remove_witness(&args.key), args.dry_run).await
        }
    }
}

impl Show for WitnessesReply {
    fn table(&self) -> String {
        let ours = self.witnesses.iter().map(|witness| {
            vec!["witness of this log".to_owned(), witness.key.clone(), witness.url.clone()]
        });
        let logs = self
            .logs
            .iter()
            .map(|key| vec!["log witnessed here".to_owned(), key.clone(), String::new()]);
        grid(&["WHAT", "KEY", "URL"], ours.chain(logs))
    }
}
