//! `role`: who may open sessions, and what they may do in them.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lastkey_wire::native::access::SetRoleRequest;

use super::text;
use crate::cli::{
    args::{DryRunArgs, Pair, Span, wire_map},
    failure::Failure,
    key::paging::{ListArgs, listed},
    session::Session,
};

/// Subcommands of `role`.
#[derive(Subcommand, Debug)]
pub(crate) enum RoleCommand {
    /// Make a role, or change it
    Create(CreateArgs),
    /// Show a role
    Show {
        /// Name of the role
        name: String,
    },
    /// List the roles
    List(ListArgs),
    /// Remove a role; its sessions may do nothing from then on
    Delete {
        /// Name of the role
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
}

/// Arguments of `role create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Name of the role
    name: String,
    /// Cluster whose ServiceAccounts may take it
    #[arg(long, value_name = "CLUSTER", required_unless_present = "provider")]
    cluster: Option<String>,
    /// Namespace of those ServiceAccounts, or '*'; repeat for several
    #[arg(long = "namespace", value_name = "NAMESPACE", requires = "cluster")]
    namespaces: Vec<String>,
    /// ServiceAccount, or '*'; repeat for several
    #[arg(long = "service-account", value_name = "NAME", requires = "cluster")]
    service_accounts: Vec<String>,
    /// Provider whose subjects may take it
    #[arg(long, value_name = "PROVIDER", conflicts_with = "cluster")]
    provider: Option<String>,
    /// Claim that their tokens must have; '*' stands for any characters; repeat for several
    #[arg(long = "claim", value_name = "CLAIM=VALUE", requires = "provider")]
    claims: Vec<Pair>,
    /// SPIFFE id of a workload of the provider's trust domain; with /* at its end all below that
    /// path; repeat for several
    #[arg(long = "spiffe-id", value_name = "ID", requires = "provider", conflicts_with = "claims")]
    spiffe_ids: Vec<String>,
    /// File with what the role may do, in Cedar; see docs/policies.md
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Longest session, such as 1h (the default); at most 12h
    #[arg(long, value_name = "TIME")]
    max_session: Option<Span>,
    /// Good only when a node agent on the pod's own node presents it
    #[arg(long)]
    by_node_agent: bool,
    /// Also for tokens of these ServiceAccounts that are bound to no pod, such as those that a
    /// controller asks for
    #[arg(long, requires = "cluster", conflicts_with = "by_node_agent")]
    allow_without_pod: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Runs a subcommand.
pub(crate) async fn run(command: RoleCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        RoleCommand::Create(args) => {
            let claims = if args.provider.is_some() && args.spiffe_ids.is_empty() {
                Some(wire_map(&args.claims)?.unwrap_or_default())
            } else {
                None
            };
            let request = SetRoleRequest {
                cluster: args.cluster,
                namespaces: args.namespaces,
                service_accounts: args.service_accounts,
                provider: args.provider,
                claims,
                spiffe_ids: args.spiffe_ids,
                policy: text(&args.policy)?,
                max_session_seconds: args.max_session.map(|span| span.seconds),
                by_node_agent: args.by_node_agent,
                allow_without_pod: args.allow_without_pod,
            };
            session.settle_and_show(client.set_role(&args.name, &request), args.dry_run).await
        }
        RoleCommand::Show { name } => {
            session.settle_and_show(client.describe_role(&name), DryRunArgs::default()).await
        }
        RoleCommand::List(args) => {
            let all = listed(args, async |page| client.list_roles(&page).await).await?;
            session.show(&all)
        }
        RoleCommand::Delete { name, dry_run } => {
            session.settle_quietly(client.remove_role(&name), dry_run).await
        }
    }
}
