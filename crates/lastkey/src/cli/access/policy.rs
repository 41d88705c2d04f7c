//! `policy`: what may be done, by whom, in Cedar.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lastkey_wire::native::access::{ReplayRequest, SetPolicyRequest};

use super::text;
use crate::cli::{
    args::{DryRunArgs, Format},
    failure::Failure,
    key::paging::{ListArgs, listed},
    output,
    session::Session,
};

/// Subcommands of `policy`.
#[derive(Subcommand, Debug)]
pub(crate) enum PolicyCommand {
    /// Write a policy; the text before stays readable
    Put(PutArgs),
    /// Put the calls of the last days to a policy before it is written
    Test(TestArgs),
    /// Show the text of a policy
    Show {
        /// Name of the policy
        name: String,
    },
    /// List the policies
    List(ListArgs),
    /// List what a policy was before
    Versions {
        /// Name of the policy
        name: String,
    },
    /// Remove a policy
    Delete {
        /// Name of the policy
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
}

/// Arguments of `policy put`.
#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// Name of the policy
    name: String,
    /// File with the policy, in Cedar; see docs/policies.md
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write only if the policy has this version now (0: only if there is none)
    #[arg(long, value_name = "VERSION")]
    expected_version: Option<u32>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Arguments of `policy test`.
#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// Name of the policy, or with --role of the role
    name: String,
    /// File with the policy, in Cedar; without it, as if the policy were deleted
    #[arg(value_name = "FILE", required_if_eq("is_role", "true"))]
    file: Option<PathBuf>,
    /// It is the policy of a role
    #[arg(long = "role")]
    is_role: bool,
    /// How many days back
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    days: u64,
}

/// Puts past calls to a policy. What would be refused is told, and is no failure.
async fn test(args: TestArgs, session: &Session) -> Result<(), Failure> {
    let (policy, role) =
        if args.is_role { (None, Some(args.name)) } else { (Some(args.name), None) };
    let text = args.file.as_deref().map(text).transpose()?;
    let request = ReplayRequest { policy, role, text, days: Some(args.days) };
    session.show(&session.client()?.replay_policy(&request).await?)
}

/// Runs a subcommand.
pub(crate) async fn run(command: PolicyCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        PolicyCommand::Put(args) => {
            let request = SetPolicyRequest {
                text: text(&args.file)?,
                expected_version: args.expected_version,
            };
            session.settle_and_show(client.set_policy(&args.name, &request), args.dry_run).await
        }
        PolicyCommand::Test(args) => test(args, session).await,
        PolicyCommand::Show { name } => {
            let policy = client.describe_policy(&name).await?;
            match session.format() {
                Format::Table => output::print(&policy.text),
                Format::Json => session.show_json(&policy),
            }
        }
        PolicyCommand::List(args) => {
            let all = listed(args, async |page| client.list_policies(&page).await).await?;
            session.show(&all)
        }
        PolicyCommand::Versions { name } => session.show(&client.policy_versions(&name).await?),
        PolicyCommand::Delete { name, dry_run } => {
            session.settle_quietly(client.remove_policy(&name), dry_run).await
        }
    }
}
