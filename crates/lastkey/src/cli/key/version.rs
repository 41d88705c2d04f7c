//! `key versions` and `key version`.
//!
//! Room      `lastkey`.

use clap::{Args, Subcommand};
use lastkey_client::VersionChange;

use super::{
    deletion::{InSpiteArgs, confirm_destruction},
    holdings::warn_of_needs_of,
    paging::{ListArgs, listed},
};
use crate::cli::{args::DryRunArgs, failure::Failure, session::Session};

/// Arguments of `key versions`.
#[derive(Args, Debug)]
pub(crate) struct VersionsArgs {
    /// Key: id or alias
    key: String,
    #[command(flatten)]
    list: ListArgs,
}

/// One version of a key.
#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// Key: id or alias
    key: String,
    /// Version number, from 1
    version: u32,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Subcommands of `key version`.
#[derive(Subcommand, Debug)]
pub(crate) enum VersionCommand {
    /// Show one version
    Show {
        /// Key: id or alias
        key: String,
        /// Version number, from 1
        version: u32,
    },
    /// Let this version protect new data
    MakePrimary(VersionArgs),
    /// Refuse and count every use, to see whether anybody still needs it; can be undone
    ShadowDisable(VersionArgs),
    /// Undo shadow-disable
    Reinstate(VersionArgs),
    /// Mark as known or suspected to be in other hands, for good
    Compromise(VersionArgs),
    /// Make it unusable now and for good; it must be shadow-disabled or compromised before
    Destroy {
        #[command(flatten)]
        version: VersionArgs,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
        #[command(flatten)]
        in_spite: InSpiteArgs,
    },
}

/// Lists the versions: one page, or everything.
pub(crate) async fn list(args: VersionsArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let all = listed(args.list, async |page| client.list_versions(&args.key, &page).await).await?;
    session.show(&all)
}

/// Shows or changes one version.
pub(crate) async fn run(command: VersionCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let (args, change) = match command {
        VersionCommand::Show { key, version } => {
            return session.show(&client.describe_version(&key, version).await?);
        }
        VersionCommand::Destroy { version: args, yes, in_spite } => {
            if !yes && !args.dry_run.dry_run {
                confirm_destruction(&client, &args.key, args.version).await?;
            }
            let call = client.destroy_version(&args.key, args.version, in_spite.reason());
            return session.settle_and_show(call, args.dry_run).await;
        }
        VersionCommand::MakePrimary(args) => (args, VersionChange::MakePrimary),
        VersionCommand::ShadowDisable(args) => {
            warn_of_needs_of(&client, &args.key, args.version).await?;
            (args, VersionChange::ShadowDisable)
        }
        VersionCommand::Reinstate(args) => (args, VersionChange::Enable),
        VersionCommand::Compromise(args) => (args, VersionChange::Compromise),
    };
    let call = client.change_version(&args.key, args.version, change);
    session.settle_and_show(call, args.dry_run).await
}
