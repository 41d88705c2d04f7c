//! `database role`: what accounts of a database are made like.
//!
//! Room      `lastkey`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lastkey_wire::native::databases::{
    AddDatabaseRoleRequest, DatabaseRoleView, ListDatabaseRolesReply,
};

use crate::cli::{
    access::text,
    args::{DryRunArgs, Span},
    failure::Failure,
    key::paging::{ListArgs, Page, listed},
    session::Session,
    table::{Fields, Show, grid},
};

/// Subcommands of `database role`.
#[derive(Subcommand, Debug)]
pub(crate) enum RoleCommand {
    /// Make a role, after the database has tried it
    Create(CreateArgs),
    /// Show a role
    Show {
        /// Name of the role
        name: String,
    },
    /// List the roles
    List(ListArgs),
    /// Remove a role; its leases end and their accounts are dropped
    Delete {
        /// Name of the role
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
}

/// Arguments of `database role create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Name that those who ask will call it by
    name: String,
    /// The database, by its name here
    #[arg(long, value_name = "NAME")]
    database: String,
    /// The role in the database that every account is a member of and acts as; it owns what they make
    #[arg(long, value_name = "ROLE")]
    member_of: String,
    /// SQL that is done to a new account too; {{user}} and {{group}} stand for the names, quoted
    #[arg(long, value_name = "SQL")]
    statement: Vec<String>,
    /// File with one such statement on each line
    #[arg(long, value_name = "FILE")]
    statements_file: Option<PathBuf>,
    /// Life of a lease between two renewals, 5m to 30d [default: 1h]
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// Longest life with all renewals [default: 1d]; leases of pods end with their pods
    #[arg(long, value_name = "SPAN")]
    max_ttl: Option<Span>,
    /// Leases at a time, 1 to 10000 [default: 1000]
    #[arg(long, value_name = "N")]
    max_leases: Option<u32>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

impl CreateArgs {
    fn request(&self) -> Result<AddDatabaseRoleRequest, Failure> {
        let mut statements = self.statement.clone();
        if let Some(file) = &self.statements_file {
            let lines = text(file)?;
            let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
            statements.extend(lines.map(str::to_owned));
        }
        Ok(AddDatabaseRoleRequest {
            database: self.database.clone(),
            group: self.member_of.clone(),
            statements,
            ttl_seconds: self.ttl.map(|span| span.seconds),
            max_ttl_seconds: self.max_ttl.map(|span| span.seconds),
            max_leases: self.max_leases,
        })
    }
}

/// Runs a subcommand.
pub(crate) async fn run(command: RoleCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        RoleCommand::Create(args) => {
            let request = args.request()?;
            let call = client.add_database_role(&args.name, &request);
            session.settle_and_show(call, args.dry_run).await
        }
        RoleCommand::Show { name } => session.show(&client.describe_database_role(&name).await?),
        RoleCommand::List(args) => {
            let all = listed(args, async |page| client.list_database_roles(&page).await).await?;
            session.show(&all)
        }
        RoleCommand::Delete { name, dry_run } => {
            session.settle_quietly(client.remove_database_role(&name), dry_run).await
        }
    }
}

impl Show for DatabaseRoleView {
    fn table(&self) -> String {
        let fields = Fields::new()
            .with("Role", &self.name)
            .with("Database", &self.database)
            .with("Member of", &self.group);
        let fields =
            self.statements.iter().fold(fields, |fields, sql| fields.with("Statement", sql));
        fields
            .with("Lives", format!("{} s, then renewed or dropped", self.ttl_seconds))
            .with("At most", format!("{} s, unless it is a pod's", self.max_ttl_seconds))
            .with("Leases at a time", self.max_leases)
            .with("Made", &self.created_at)
            .table()
    }
}

impl Show for ListDatabaseRolesReply {
    fn table(&self) -> String {
        let row = |one: &DatabaseRoleView| {
            let ttl = format!("{} s", one.ttl_seconds);
            vec![one.name.clone(), one.database.clone(), one.group.clone(), ttl]
        };
        grid(&["ROLE", "DATABASE", "MEMBER OF", "LIVES"], self.roles.iter().map(row))
    }
}

impl Page for ListDatabaseRolesReply {
    fn next_marker(&mut self) -> &mut Option<String> {
        &mut self.next_marker
    }

    fn append(&mut self, later: Self) {
        self.roles.extend(later.roles);
    }
}
