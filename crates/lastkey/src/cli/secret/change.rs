//! `secret update`, `stage`, `unstage`, `copy`, `move`, `delete`, `restore`, `destroy`.
//!
//! Room      `lastkey`.

use clap::Args;
use lastkey_wire::native::secrets::UpdateSecretRequest;

use crate::cli::{
    args::{DryRunArgs, Pair, wire_map},
    failure::{Failure, printable},
    key::deletion::confirm_for_good,
    session::Session,
};

/// Arguments of `secret update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// Name of the secret
    name: String,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Tag to set (repeatable)
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    tags: Vec<Pair>,
    /// Tag to remove (repeatable)
    #[arg(long = "untag", value_name = "NAME")]
    untag: Vec<String>,
    /// How many versions are kept, 1 to 100
    #[arg(long, value_name = "N")]
    keep: Option<u32>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `secret stage`.
#[derive(Args, Debug)]
pub(crate) struct StageArgs {
    /// Name of the secret
    name: String,
    /// Stage: current, previous, pending, or a label of your own
    stage: String,
    /// The version that stands there from now on
    version: u32,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `secret unstage`.
#[derive(Args, Debug)]
pub(crate) struct UnstageArgs {
    /// Name of the secret
    name: String,
    /// Stage
    stage: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `secret copy` and `secret move`.
#[derive(Args, Debug)]
pub(crate) struct TransferArgs {
    /// Name of the secret
    from: String,
    /// The other name; there must be no secret yet
    to: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `secret delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// Name of the secret
    name: String,
    /// Days in which it can be restored, 7 to 366 (default: 30)
    #[arg(long, value_name = "N")]
    window_days: Option<u32>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `secret restore`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// Name of the secret
    name: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `secret destroy`.
#[derive(Args, Debug)]
pub(crate) struct DestroyArgs {
    /// Name of the secret
    name: String,
    /// This version alone
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Changes metadata.
pub(crate) async fn update(args: UpdateArgs, session: &Session) -> Result<(), Failure> {
    let request = UpdateSecretRequest {
        description: args.description,
        tags: wire_map(&args.tags)?,
        remove_tags: args.untag,
        keep_versions: args.keep,
    };
    let client = session.client()?;
    session.settle_and_show(client.update_secret(&args.name, &request), args.dry_run).await
}

/// Puts a version at a stage.
pub(crate) async fn stage(args: StageArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let call = client.place_stage(&args.name, &args.stage, args.version);
    session.settle_and_show(call, args.dry_run).await
}

/// Takes a stage away.
pub(crate) async fn unstage(args: UnstageArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.remove_stage(&args.name, &args.stage), args.dry_run).await
}

/// Copies a secret.
pub(crate) async fn copy(args: TransferArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.copy_secret(&args.from, &args.to), args.dry_run).await
}

/// Moves a secret.
pub(crate) async fn rename(args: TransferArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.move_secret(&args.from, &args.to), args.dry_run).await
}

/// Deletes a secret.
pub(crate) async fn delete(args: DeleteArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.delete_secret(&args.name, args.window_days), args.dry_run).await
}

/// Restores a deleted secret.
pub(crate) async fn restore(args: RestoreArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.restore_secret(&args.name), args.dry_run).await
}

/// Destroys a version, or a secret with all of them, after a question.
pub(crate) async fn destroy(args: DestroyArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let asks = !args.yes && !args.dry_run.dry_run;
    let name = printable(&args.name);
    match args.version {
        Some(version) => {
            if asks {
                confirm_for_good(&format!("Destroy version {version} of {name}?"))?;
            }
            let call = client.destroy_secret_version(&args.name, version);
            session.settle_and_show(call, args.dry_run).await
        }
        None => {
            if asks {
                confirm_for_good(&format!("Destroy {name} with all its versions, for good?"))?;
            }
            session.settle_quietly(client.destroy_secret(&args.name), args.dry_run).await
        }
    }
}
