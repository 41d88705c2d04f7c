//! `database creds` and `database lease`: accounts that are made for one caller.
//!
//! Room      `lastkey`.

use clap::{Args, Subcommand};
use lastkey_wire::native::databases::{
    DatabaseCredentialsReply, EndLeaseRequest, LeaseView, ListLeasesReply, MendReply,
};

use crate::cli::{
    args::DryRunArgs,
    failure::Failure,
    key::paging::{ListArgs, Page, listed},
    session::Session,
    table::{Fields, Show, grid},
};

/// Subcommands of `database lease`.
#[derive(Subcommand, Debug)]
pub(crate) enum LeaseCommand {
    /// List the leases of a role
    List {
        /// Name of the role
        role: String,
        #[command(flatten)]
        args: ListArgs,
    },
    /// Let a lease of your own live on
    Renew {
        /// Name of the role
        role: String,
        /// Id of the lease
        lease: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// End a lease: its account is dropped, and what it owns stays with the role of the database
    Revoke(RevokeArgs),
}

/// Arguments of `database lease revoke`.
#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    /// Name of the role
    role: String,
    /// Id of the lease
    lease: String,
    /// Leave the account where it is: for a database that is gone for good
    #[arg(long)]
    forget: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Runs `database creds`.
pub(crate) async fn creds(
    role: &str,
    dry_run: DryRunArgs,
    session: &Session,
) -> Result<(), Failure> {
    let client = session.client()?;
    session.settle_and_show(client.database_credentials(role), dry_run).await
}

/// Runs a subcommand of `database lease`.
pub(crate) async fn run(command: LeaseCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        LeaseCommand::List { role, args } => {
            let all = listed(args, async |page| client.list_leases(&role, &page).await).await?;
            session.show(&all)
        }
        LeaseCommand::Renew { role, lease, dry_run } => {
            session.settle_and_show(client.renew_lease(&role, &lease), dry_run).await
        }
        LeaseCommand::Revoke(args) => {
            let request = EndLeaseRequest { forget: args.forget };
            let call = client.end_lease(&args.role, &args.lease, &request);
            session.settle_quietly(call, args.dry_run).await
        }
    }
}

impl Show for DatabaseCredentialsReply {
    fn table(&self) -> String {
        let password = self.password.0.expose(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Fields::new()
            .with("Username", &self.lease.username)
            .with("Password", password)
            .with("Address", &self.address)
            .with("Expires", &self.lease.expires_at)
            .with("Lease", format!("{} {}", self.lease.role, self.lease.id))
            .table()
    }
}

impl Show for LeaseView {
    fn table(&self) -> String {
        Fields::new()
            .with("Lease", format!("{} {}", self.role, self.id))
            .with("Database", &self.database)
            .with("Username", &self.username)
            .with("Holder", &self.holder)
            .with_some("Pod", self.pod.as_ref())
            .with("State", &self.state)
            .with("Made", &self.created_at)
            .with("Expires", &self.expires_at)
            .with_some("Problem", self.problem.as_ref())
            .table()
    }
}

impl Show for ListLeasesReply {
    fn table(&self) -> String {
        let row = |one: &LeaseView| {
            let holder = one.pod.as_ref().map(|pod| format!("{} ({pod})", one.holder));
            vec![
                one.id.clone(),
                one.username.clone(),
                holder.unwrap_or_else(|| one.holder.clone()),
                one.state.clone(),
                one.expires_at.clone(),
                one.problem.clone().unwrap_or_default(),
            ]
        };
        let header = ["LEASE", "USERNAME", "HOLDER", "STATE", "EXPIRES", "PROBLEM"];
        grid(&header, self.leases.iter().map(row))
    }
}

impl Page for ListLeasesReply {
    fn next_marker(&mut self) -> &mut Option<String> {
        &mut self.next_marker
    }

    fn append(&mut self, later: Self) {
        self.leases.extend(later.leases);
    }
}

impl Show for MendReply {
    fn table(&self) -> String {
        let rows = |what: &'static str, names: &[String]| {
            names.iter().map(|name| vec![name.clone(), what.to_owned()]).collect::<Vec<_>>()
        };
        let all = [
            rows("an account without a lease: dropped", &self.dropped),
            rows("its account was gone: made again", &self.made_again),
            rows("its account was gone: ended", &self.ended),
        ];
        grid(&["WHAT", "WAS AMISS"], all.into_iter().flatten())
    }
}
