//! `key create|list|show|update|rotate|rotation` and the changes of state.
//!
//! Room      `lastkey`.

use clap::{Args, Subcommand};
use lastkey_client::KeyChange;
use lastkey_wire::{
    native::keys::{CreateKeyRequest, UpdateKeyRequest},
    words::{KeySpec, KeyUsage, Origin},
};

use super::paging::{ListArgs, listed};
use crate::cli::{
    args::{DryRunArgs, Pair, Span, one_of, wire_map},
    failure::Failure,
    session::Session,
};

/// One key, and whether to change it in earnest.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// Key: id or alias
    key: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `key create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// First alias, such as alias/app
    #[arg(long)]
    alias: Option<String>,
    /// What the material is (default: AES_256)
    #[arg(long, value_parser = one_of::<KeySpec>(KeySpec::WORDS))]
    spec: Option<KeySpec>,
    /// What the key is for (default: the usual use of its spec)
    #[arg(long, value_parser = one_of::<KeyUsage>(KeyUsage::WORDS))]
    usage: Option<KeyUsage>,
    /// Make no material; wait for `lastkey key import`
    #[arg(long, conflicts_with = "rotate_every")]
    imported: bool,
    /// Free text
    #[arg(long)]
    description: Option<String>,
    /// Tag (repeatable)
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    tags: Vec<Pair>,
    /// Refuse deletion until `lastkey key unprotect`
    #[arg(long)]
    deletion_protection: bool,
    /// Rotate by itself, every 1h to 10y, such as 90d
    #[arg(long, value_name = "PERIOD")]
    rotate_every: Option<Span>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `key show`.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Key: id or alias
    key: String,
}

/// Arguments of `key update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// Key: id or alias
    key: String,
    /// New description; empty removes it
    #[arg(long)]
    description: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Subcommands of `key rotation`.
#[derive(Subcommand, Debug)]
pub(crate) enum RotationCommand {
    /// Show how a key rotates by itself
    Get(ShowArgs),
    /// Rotate every so often
    Set {
        /// Key: id or alias
        key: String,
        /// How often, 1h to 10y, such as 90d
        period: Span,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Stop rotating by itself
    Off(KeyArgs),
}

/// Creates a key.
pub(crate) async fn create(args: CreateArgs, session: &Session) -> Result<(), Failure> {
    let request = CreateKeyRequest {
        spec: args.spec,
        usage: args.usage,
        origin: args.imported.then_some(Origin::Imported),
        alias: args.alias,
        description: args.description,
        tags: wire_map(&args.tags)?,
        deletion_protection: args.deletion_protection,
        rotation_period_seconds: args.rotate_every.map(|period| period.seconds),
    };
    let client = session.client()?;
    session.settle_and_show(client.create_key(&request), args.dry_run).await
}

/// Lists the keys: one page, or everything.
pub(crate) async fn list(args: ListArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let all = listed(args, async |page| client.list_keys(&page).await).await?;
    session.show(&all)
}

/// Shows one key.
pub(crate) async fn show(args: &ShowArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.show(&client.describe_key(&args.key).await?)
}

/// Changes the description.
pub(crate) async fn update(args: UpdateArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let request =
        UpdateKeyRequest { description: Some(args.description), deletion_protection: None };
    session.settle_and_show(client.update_key(&args.key, &request), args.dry_run).await
}

/// Switches deletion protection.
pub(crate) async fn protect(
    args: &KeyArgs,
    is_protected: bool,
    session: &Session,
) -> Result<(), Failure> {
    let client = session.client()?;
    let request = UpdateKeyRequest { description: None, deletion_protection: Some(is_protected) };
    session.settle_and_show(client.update_key(&args.key, &request), args.dry_run).await
}

/// Makes a new version.
pub(crate) async fn rotate(args: &KeyArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.rotate_key(&args.key), args.dry_run).await
}

/// Shows or changes how a key rotates by itself.
pub(crate) async fn rotation(command: RotationCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        RotationCommand::Get(args) => session.show(&client.rotation(&args.key).await?),
        RotationCommand::Set { key, period, dry_run } => {
            session.settle_and_show(client.set_rotation(&key, period.seconds), dry_run).await
        }
        RotationCommand::Off(args) => {
            session.settle_and_show(client.stop_rotation(&args.key), args.dry_run).await
        }
    }
}

/// Changes the state of a key.
pub(crate) async fn change(
    args: &KeyArgs,
    change: KeyChange,
    session: &Session,
) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.change_key(&args.key, change), args.dry_run).await
}
