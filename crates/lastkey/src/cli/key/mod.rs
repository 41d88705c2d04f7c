//! `key`: everything about keys, their versions and their aliases.
//!
//! Room      `lastkey`.

pub(crate) mod deletion;
mod holdings;
mod import;
mod life;
mod names;
pub(crate) mod paging;
mod version;

use clap::Subcommand;

use super::{failure::Failure, session::Session};

/// Subcommands of `key`.
#[derive(Subcommand, Debug)]
pub(crate) enum KeyCommand {
    /// Create a key
    Create(life::CreateArgs),
    /// List the keys
    List(paging::ListArgs),
    /// Show one key
    Show(life::ShowArgs),
    /// Change the description of a key
    Update(life::UpdateArgs),
    /// Make a new version that protects new data; older ones still decrypt
    Rotate(life::KeyArgs),
    /// Let a key rotate by itself
    #[command(subcommand)]
    Rotation(life::RotationCommand),
    /// Take a disabled key back into use
    Enable(life::KeyArgs),
    /// Hold a key back until it is enabled again
    Disable(life::KeyArgs),
    /// Stop protecting new data for good; old data still decrypts
    Retire(life::KeyArgs),
    /// Mark a key as known or suspected to be in other hands, for good
    Compromise(life::KeyArgs),
    /// Refuse deletion until it is unprotected
    Protect(life::KeyArgs),
    /// Permit deletion again
    Unprotect(life::KeyArgs),
    /// Schedule the destruction of keys; it can be cancelled within the window
    Delete(deletion::DeleteArgs),
    /// Show what depends on a key, as far as the server knows
    Impact(holdings::ImpactArgs),
    /// Forget what a place was reported to hold under a key, as when its cluster is gone
    ForgetHolding(holdings::ForgetArgs),
    /// Keep a key that was to be destroyed; it comes back disabled
    CancelDeletion(life::KeyArgs),
    /// List the versions of a key
    Versions(version::VersionsArgs),
    /// Change one version of a key
    #[command(subcommand)]
    Version(version::VersionCommand),
    /// Give a key created with --imported its material
    Import(import::ImportArgs),
    /// First step of an import elsewhere: get the wrapping key and the token
    ImportParameters(import::ParametersArgs),
    /// Second step of an import elsewhere: wrap the material, without a server
    WrapMaterial(import::WrapArgs),
    /// Set tags; others stay
    Tag(names::TagArgs),
    /// Remove tags
    Untag(names::UntagArgs),
    /// Set, delete and list aliases
    #[command(subcommand)]
    Alias(names::AliasCommand),
}

/// Runs one of the subcommands of `key`.
pub(crate) async fn run(command: KeyCommand, session: &Session) -> Result<(), Failure> {
    use lastkey_client::KeyChange;
    match command {
        KeyCommand::Create(args) => life::create(args, session).await,
        KeyCommand::List(args) => life::list(args, session).await,
        KeyCommand::Show(args) => life::show(&args, session).await,
        KeyCommand::Update(args) => life::update(args, session).await,
        KeyCommand::Rotate(args) => life::rotate(&args, session).await,
        KeyCommand::Rotation(command) => life::rotation(command, session).await,
        KeyCommand::Enable(args) => life::change(&args, KeyChange::Enable, session).await,
        KeyCommand::Disable(args) => life::change(&args, KeyChange::Disable, session).await,
        KeyCommand::Retire(args) => life::change(&args, KeyChange::Deactivate, session).await,
        KeyCommand::Compromise(args) => life::change(&args, KeyChange::Compromise, session).await,
        KeyCommand::CancelDeletion(args) => {
            life::change(&args, KeyChange::CancelDeletion, session).await
        }
        KeyCommand::Protect(args) => life::protect(&args, true, session).await,
        KeyCommand::Unprotect(args) => life::protect(&args, false, session).await,
        KeyCommand::Delete(args) => deletion::delete(args, session).await,
        KeyCommand::Impact(args) => holdings::impact(&args, session).await,
        KeyCommand::ForgetHolding(args) => holdings::forget(args, session).await,
        KeyCommand::Versions(args) => version::list(args, session).await,
        KeyCommand::Version(command) => version::run(command, session).await,
        KeyCommand::Import(args) => import::import(args, session).await,
        KeyCommand::ImportParameters(args) => import::parameters(args, session).await,
        KeyCommand::WrapMaterial(args) => import::wrap(&args),
        KeyCommand::Tag(args) => names::tag(args, session).await,
        KeyCommand::Untag(args) => names::untag(args, session).await,
        KeyCommand::Alias(command) => names::alias(command, session).await,
    }
}
