//! `database`: databases whose accounts the server manages.
//!
//! Room      `lastkey`.

mod lease;
mod role;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lastkey_wire::{
    SecretText,
    native::databases::{AddDatabaseRequest, DatabaseView, ListDatabasesReply},
};

use super::{
    access::text,
    args::DryRunArgs,
    failure::Failure,
    input,
    key::{
        deletion::confirm_for_good,
        paging::{ListArgs, Page, listed},
    },
    session::Session,
    table::{Fields, Show, grid},
};

/// Subcommands of `database`.
#[derive(Subcommand, Debug)]
pub(crate) enum DatabaseCommand {
    /// Make a database known; its root account gets a password that nobody else knows
    Add(AddArgs),
    /// Show a database
    Show {
        /// Name of the database
        name: String,
    },
    /// List the databases
    List(ListArgs),
    /// Draw a new password for the root account
    RotateRoot {
        /// Name of the database
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Compare a database with its leases, and mend what is amiss
    Mend {
        /// Name of the database
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Say what accounts of a database are made like for those who ask
    #[command(subcommand)]
    Role(role::RoleCommand),
    /// Have an account of a database made, by a role
    Creds {
        /// Name of the role
        role: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// List, renew and end what was made so
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Forget a database; nobody knows the password of its root account then
    Remove {
        /// Name of the database
        name: String,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
}

/// Arguments of `database add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// Name that secrets will call it by
    name: String,
    /// postgresql://HOST:PORT/NAME, mariadb:// or mysql:// likewise; for a socket
    /// postgresql:///NAME?host=/FOLDER or mysql:///NAME?socket=/FILE
    #[arg(long)]
    address: String,
    /// PEM file with the authority of its certificate [default: those of the system, and no TLS on
    /// loopback]
    #[arg(long, value_name = "FILE")]
    database_ca: Option<PathBuf>,
    /// The account by which others are managed
    #[arg(long)]
    user: String,
    /// File with its password in the first line (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    /// Leave that password as it is: whoever knows it knows it still
    #[arg(long)]
    keep_password: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Runs a subcommand.
pub(crate) async fn run(command: DatabaseCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        DatabaseCommand::Add(args) => {
            let password = input::token_file(&args.password_file)?;
            let request = AddDatabaseRequest {
                address: args.address,
                authority: args.database_ca.as_deref().map(text).transpose()?,
                user: args.user,
                password: SecretText(password),
                keep_password: args.keep_password,
            };
            let call = client.add_database(&args.name, &request);
            session.settle_and_show(call, args.dry_run).await
        }
        DatabaseCommand::Show { name } => session.show(&client.describe_database(&name).await?),
        DatabaseCommand::List(args) => {
            let all = listed(args, async |page| client.list_databases(&page).await).await?;
            session.show(&all)
        }
        DatabaseCommand::RotateRoot { name, dry_run } => {
            session.settle_and_show(client.rotate_database_root(&name), dry_run).await
        }
        DatabaseCommand::Mend { name, dry_run } => {
            session.settle_and_show(client.mend_database(&name), dry_run).await
        }
        DatabaseCommand::Role(command) => role::run(command, session).await,
        DatabaseCommand::Creds { role, dry_run } => lease::creds(&role, dry_run, session).await,
        DatabaseCommand::Lease(command) => lease::run(command, session).await,
        DatabaseCommand::Remove { name, yes, dry_run } => {
            if !yes && !dry_run.dry_run {
                let question = "Forget it? Nobody knows the password of its root account then.";
                confirm_for_good(question)?;
            }
            session.settle_quietly(client.remove_database(&name), dry_run).await
        }
    }
}

impl Show for DatabaseView {
    fn table(&self) -> String {
        let known = "as it was given; others may know it".to_owned();
        Fields::new()
            .with("Database", &self.name)
            .with("Address", &self.address)
            .with("Root account", &self.user)
            .with(
                "Its password",
                self.root_rotated_at.as_ref().map_or(known, |at| format!("drawn {at}")),
            )
            .with("Known since", &self.created_at)
            .table()
    }
}

impl Show for ListDatabasesReply {
    fn table(&self) -> String {
        let row =
            |one: &DatabaseView| vec![one.name.clone(), one.address.clone(), one.user.clone()];
        grid(&["DATABASE", "ADDRESS", "ROOT ACCOUNT"], self.databases.iter().map(row))
    }
}

impl Page for ListDatabasesReply {
    fn next_marker(&mut self) -> &mut Option<String> {
        &mut self.next_marker
    }

    fn append(&mut self, later: Self) {
        self.databases.extend(later.databases);
    }
}
