//! `cluster`: Kubernetes clusters whose ServiceAccount tokens are taken.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lastkey_wire::native::access::SetClusterRequest;

use super::{KeysArgs, text};
use crate::cli::{
    args::{DryRunArgs, Span},
    failure::Failure,
    key::paging::{ListArgs, listed},
    session::Session,
};

/// Subcommands of `cluster`.
#[derive(Subcommand, Debug)]
pub(crate) enum ClusterCommand {
    /// Take tokens of a cluster, or change how
    Add(AddArgs),
    /// Show a cluster
    Show {
        /// Name of the cluster
        name: String,
    },
    /// List the clusters
    List(ListArgs),
    /// Take no more tokens of a cluster
    Remove {
        /// Name of the cluster
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
}

/// Arguments of `cluster add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// Name that roles will call it by
    name: String,
    /// What its tokens say in `iss`; repeat during a change of issuer
    #[arg(long = "issuer", required = true, value_name = "URL")]
    issuers: Vec<String>,
    #[command(flatten)]
    keys: KeysArgs,
    /// What its tokens must say in `aud` [default: lastkey:// and the id of the installation]
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// Longest lifetime of a token that is taken, such as 1h [default: 1d]
    #[arg(long, value_name = "TIME")]
    max_token_lifetime: Option<Span>,
    /// Authority of its kubelets: its nodes may join by their certificates then, without a token
    #[arg(long, value_name = "FILE")]
    kubelet_ca: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Runs a subcommand.
pub(crate) async fn run(command: ClusterCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        ClusterCommand::Add(args) => {
            let request = SetClusterRequest {
                issuers: args.issuers,
                audiences: args.audiences,
                jwks: args.keys.jwks.as_deref().map(text).transpose()?,
                jwks_url: args.keys.jwks_url,
                jwks_ca: args.keys.jwks_ca.as_deref().map(text).transpose()?,
                max_token_seconds: args.max_token_lifetime.map(|span| span.seconds),
                kubelet_ca: args.kubelet_ca.as_deref().map(text).transpose()?,
            };
            let call = client.set_cluster(&args.name, &request);
            session.settle_and_show(call, args.dry_run).await
        }
        ClusterCommand::Show { name } => {
            session.settle_and_show(client.describe_cluster(&name), DryRunArgs::default()).await
        }
        ClusterCommand::List(args) => {
            let all = listed(args, async |page| client.list_clusters(&page).await).await?;
            session.show(&all)
        }
        ClusterCommand::Remove { name, dry_run } => {
            session.settle_quietly(client.remove_cluster(&name), dry_run).await
        }
    }
}
