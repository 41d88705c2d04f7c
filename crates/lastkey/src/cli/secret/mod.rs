//! `secret`: what the server keeps for programs, in versions.
//!
//! Room      `lastkey`.

mod change;
mod diff;
mod import;
mod pack;
mod read;
mod rotation;
mod show;
mod sync;
mod write;

use clap::Subcommand;

use super::{failure::Failure, session::Session};

/// Subcommands of `secret`.
#[derive(Subcommand, Debug)]
pub(crate) enum SecretCommand {
    /// Write a version of a secret; makes the secret if there is none
    Put(write::PutArgs),
    /// Read a value
    Get(read::GetArgs),
    /// List secrets; search by name, tag and age
    List(read::SearchArgs),
    /// Show a secret without its values
    Show {
        /// Name of the secret
        name: String,
    },
    /// List the versions of a secret
    Versions {
        /// Name of the secret
        name: String,
    },
    /// List the pods that hold a version of a secret, as their nodes say
    Consumers {
        /// Name of the secret
        name: String,
    },
    /// Write many secrets from what other programs export
    Import(import::ImportArgs),
    /// Write a scan pack: marks by which `lastkey scan --pack` finds the values you may read
    ScanPack(pack::PackArgs),
    /// Show in what two versions differ; you must be allowed to read both
    Diff(diff::DiffArgs),
    /// Change description, tags, or how many versions are kept
    Update(change::UpdateArgs),
    /// Put a version at a stage: `current` to go back to it, or a label of your own
    Stage(change::StageArgs),
    /// Take a stage away from the version that stands there
    Unstage(change::UnstageArgs),
    /// Copy the current value to another name, inside the server
    Copy(change::TransferArgs),
    /// Move a secret with all its versions to another name, inside the server
    Move(change::TransferArgs),
    /// Make a new value now, by the rotation of the secret
    Rotate(rotation::RotateArgs),
    /// Say how and when a secret rotates
    #[command(subcommand)]
    Rotation(rotation::RotationCommand),
    /// Keep Kubernetes Secrets as secrets are here, for those who need them
    Sync(sync::SyncArgs),
    /// Delete a secret; it can be restored for some days
    Delete(change::DeleteArgs),
    /// Restore a deleted secret
    Restore(change::RestoreArgs),
    /// Destroy a version, or a whole secret, for good and at once
    Destroy(change::DestroyArgs),
}

/// Runs a subcommand.
pub(crate) async fn run(command: SecretCommand, session: &Session) -> Result<(), Failure> {
    match command {
        SecretCommand::Put(args) => write::put(args, session).await,
        SecretCommand::Get(args) => read::get(args, session).await,
        SecretCommand::List(args) => read::list(args, session).await,
        SecretCommand::Show { name } => {
            session.show(&session.client()?.describe_secret(&name).await?)
        }
        SecretCommand::Versions { name } => {
            session.show(&session.client()?.list_secret_versions(&name).await?)
        }
        SecretCommand::Consumers { name } => {
            session.show(&session.client()?.list_secret_consumers(&name).await?)
        }
        SecretCommand::Import(args) => import::import(args, session).await,
        SecretCommand::ScanPack(args) => pack::scan_pack(args, session).await,
        SecretCommand::Diff(args) => diff::diff(args, session).await,
        SecretCommand::Update(args) => change::update(args, session).await,
        SecretCommand::Stage(args) => change::stage(args, session).await,
        SecretCommand::Unstage(args) => change::unstage(args, session).await,
        SecretCommand::Copy(args) => change::copy(args, session).await,
        SecretCommand::Move(args) => change::rename(args, session).await,
        SecretCommand::Rotate(args) => rotation::rotate(args, session).await,
        SecretCommand::Rotation(command) => rotation::run(command, session).await,
        SecretCommand::Sync(args) => sync::sync(args, session).await,
        SecretCommand::Delete(args) => change::delete(args, session).await,
        SecretCommand::Restore(args) => change::restore(args, session).await,
        SecretCommand::Destroy(args) => change::destroy(args, session).await,
    }
}
