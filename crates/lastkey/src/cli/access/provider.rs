//! `provider`: OpenID Connect, others that sign tokens, and SPIFFE trust domains.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

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
    Add(Box<AddArgs>),
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
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "trust_domain",
        requires = "audiences"
    )]
    issuer: Option<String>,
    /// What its tokens must say in `aud`; repeat for several
    #[arg(long = "audience", value_name = "AUDIENCE", requires = "issuer")]
    audiences: Vec<String>,
    /// SPIFFE trust domain whose workloads are let in by their certificates, or tokens
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
    /// With --trust-domain: file with its bundle, as JSON or certificates in PEM
    #[arg(
        long,
        value_name = "FILE",
        requires = "trust_domain",
        conflicts_with_all = ["jwks", "jwks_url", "jwks_ca"]
    )]
    bundle: Option<PathBuf>,
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
            let args = *args;
            let keys = args.bundle.as_deref().or(args.keys.jwks.as_deref());
            let request = SetProviderRequest {
                issuer: args.issuer,
                audiences: args.audiences,
                trust_domain: args.trust_domain,
                jwks: keys.map(text).transpose()?,
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
