//! `provider`: OpenID Connect, and others that sign tokens.
//!
//! Room      `lastkey`.

use clap::{Args, Subcommand};
use lastkey_wire::native::access::SetProviderRequest;

use super::{KeysArgs, text};
use crate::cli::{
    args::DryRunArgs,
    failure::Failure,
    key::paging::{ListArgs, listed},
    session::Session,
};

/// Subcommands of `provider`.
#[derive(Subcommand, Debug)]
pub(crate) enum ProviderCommand {
    /// Take tokens of a provider, or change how
    Add(AddArgs),
    /// Show a provider
    Show {
        /// Name of the provider
        name: String,
    },
    /// List the providers
    List(ListArgs),
    /// Take no more tokens of a provider
    Remove {
        /// Name of the provider
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
}

/// Arguments of `provider add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// Name that roles will call it by
    name: String,
    /// What its tokens say in `iss`
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// What its tokens must say in `aud`; repeat for several
    #[arg(long = "audience", required = true, value_name = "AUDIENCE")]
    audiences: Vec<String>,
    #[command(flatten)]
    keys: KeysArgs,
    /// Claim that names the subject [default: sub]
    #[arg(long, value_name = "CLAIM")]
    subject_claim: Option<String>,
    /// Claim that lists the groups [default: groups]
    #[arg(long, value_name = "CLAIM")]
    groups_claim: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Runs a subcommand.
pub(crate) async fn run(command: ProviderCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        ProviderCommand::Add(args) => {
            let request = SetProviderRequest {
                issuer: args.issuer,
                audiences: args.audiences,
                jwks: args.keys.jwks.as_deref().map(text).transpose()?,
                jwks_url: args.keys.jwks_url,
                jwks_ca: args.keys.jwks_ca.as_deref().map(text).transpose()?,
                subject_claim: args.subject_claim,
                groups_claim: args.groups_claim,
            };
            let call = client.set_provider(&args.name, &request);
            session.settle_and_show(call, args.dry_run).await
        }
        ProviderCommand::Show { name } => {
            session.settle_and_show(client.describe_provider(&name), DryRunArgs::default()).await
        }
        ProviderCommand::List(args) => {
            let all = listed(args, async |page| client.list_providers(&page).await).await?;
            session.show(&all)
        }
        ProviderCommand::Remove { name, dry_run } => {
            session.settle_quietly(client.remove_provider(&name), dry_run).await
        }
    }
}
