//! `key tag`, `key untag`, `key alias`.
//!
//! Room      `lastkey`.

use clap::{Args, Subcommand};

use super::paging::{ListArgs, listed};
use crate::cli::{
    args::{DryRunArgs, Pair, wire_map},
    failure::Failure,
    session::Session,
};

/// Arguments of `key tag`.
#[derive(Args, Debug)]
pub(crate) struct TagArgs {
    /// Key: id or alias
    key: String,
    /// Tags to set
    #[arg(required = true, value_name = "NAME=VALUE")]
    tags: Vec<Pair>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `key untag`.
#[derive(Args, Debug)]
pub(crate) struct UntagArgs {
    /// Key: id or alias
    key: String,
    /// Names of the tags to remove
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Subcommands of `key alias`.
#[derive(Subcommand, Debug)]
pub(crate) enum AliasCommand {
    /// Let an alias name a key, whatever it named before
    Set {
        /// Alias, such as alias/app
        alias: String,
        /// Key: id or another alias
        key: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Remove an alias; the key stays
    Delete {
        /// Alias, such as alias/app
        alias: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// List the aliases
    List(ListArgs),
}

/// Sets tags.
pub(crate) async fn tag(args: TagArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let tags = wire_map(&args.tags)?.unwrap_or_default();
    session.settle_and_show(client.set_tags(&args.key, tags), args.dry_run).await
}

/// Removes tags.
pub(crate) async fn untag(args: UntagArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.remove_tags(&args.key, args.names), args.dry_run).await
}

/// Sets, deletes or lists aliases.
pub(crate) async fn alias(command: AliasCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        AliasCommand::Set { alias, key, dry_run } => {
            session.settle_and_show(client.set_alias(&alias, &key), dry_run).await
        }
        AliasCommand::Delete { alias, dry_run } => {
            session.settle_quietly(client.delete_alias(&alias), dry_run).await
        }
        AliasCommand::List(args) => {
            let all = listed(args, async |page| client.list_aliases(&page).await).await?;
            session.show(&all)
        }
    }
}
