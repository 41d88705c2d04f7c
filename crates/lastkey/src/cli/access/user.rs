//! `user`: people are made known, enrol, and are kept out.
//!
//! Room      `lastkey`.
//! Holds     passwords and codes come from files, standard input or a prompt without echo, never
//!           from arguments.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lastkey_client::Client;
use lastkey_secret::SecretVec;
use lastkey_service::people::FIRST_ADMINISTRATOR;
use lastkey_wire::{
    SecretText,
    native::{
        sessions::{EnrolReply, EnrolRequest},
        users::{AddUserRequest, UpdateUserRequest},
    },
};

use crate::cli::{
    args::DryRunArgs,
    failure::Failure,
    input,
    key::paging::{ListArgs, listed},
    output,
    session::Session,
};

/// Subcommands of `user`.
#[derive(Subcommand, Debug)]
pub(crate) enum UserCommand {
    /// Make a person known; prints the code with which he enrols
    Add {
        /// Name of the person
        name: String,
        /// Group that he is in, such as security-administrator; repeat for several
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Show a person
    Show {
        /// Name of the person
        name: String,
    },
    /// List people
    List(ListArgs),
    /// Change the groups of a person; his sessions end
    Groups {
        /// Name of the person
        name: String,
        /// Group that he is in from now on; repeat for several, leave out for none
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Keep a person out; his sessions end
    Disable {
        /// Name of the person
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Let a person in again
    Enable {
        /// Name of the person
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Forget a person; his sessions end
    Remove {
        /// Name of the person
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Print a new code to enrol with; password and second factor from before are void
    EnrolCode {
        /// Name of the person
        #[arg(default_value = FIRST_ADMINISTRATOR)]
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
    /// Set your password and second factor with the code that you were given
    Enrol(EnrolArgs),
}

/// Arguments of `user enrol`.
#[derive(Args, Debug)]
pub(crate) struct EnrolArgs {
    /// Your name; the first administrator chooses one
    #[arg(long, value_name = "NAME")]
    name: String,
    /// File with the code
    #[arg(long, value_name = "FILE", required_unless_present = "code_stdin")]
    code_file: Option<PathBuf>,
    /// Read the code from standard input
    #[arg(long, conflicts_with_all = ["code_file", "otp_stdin"])]
    code_stdin: bool,
    /// Only print the address for the authenticator; it is the same until you are enrolled
    #[arg(long, conflicts_with_all = ["password_file", "otp_stdin"])]
    offer: bool,
    /// File with the new password, 12 to 1024 bytes, instead of asking
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Read the first one-time code from standard input instead of asking
    #[arg(long, requires = "password_file")]
    otp_stdin: bool,
}

/// Runs a subcommand.
pub(crate) async fn run(command: UserCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        UserCommand::Add { name, groups, dry_run } => {
            let request = AddUserRequest { name, groups };
            session.settle_and_show(client.add_user(&request), dry_run).await
        }
        UserCommand::Show { name } => {
            session.settle_and_show(client.describe_user(&name), DryRunArgs::default()).await
        }
        UserCommand::List(args) => {
            let all = listed(args, async |page| client.list_users(&page).await).await?;
            session.show(&all)
        }
        UserCommand::Groups { name, groups, dry_run } => {
            let change = UpdateUserRequest { groups: Some(groups), disabled: None };
            session.settle_and_show(client.update_user(&name, &change), dry_run).await
        }
        UserCommand::Disable { name, dry_run } => {
            let call = client.update_user(&name, &DISABLE);
            session.settle_and_show(call, dry_run).await
        }
        UserCommand::Enable { name, dry_run } => {
            let call = client.update_user(&name, &ENABLE);
            session.settle_and_show(call, dry_run).await
        }
        UserCommand::Remove { name, dry_run } => {
            session.settle_quietly(client.remove_user(&name), dry_run).await
        }
        UserCommand::EnrolCode { name, dry_run } => {
            session.settle_and_show(client.renew_enrolment(&name), dry_run).await
        }
        UserCommand::Enrol(args) => enrol(&args, &client, session).await,
    }
}

const DISABLE: UpdateUserRequest = UpdateUserRequest { groups: None, disabled: Some(true) };
const ENABLE: UpdateUserRequest = UpdateUserRequest { groups: None, disabled: Some(false) };

async fn enrol(args: &EnrolArgs, client: &Client, session: &Session) -> Result<(), Failure> {
    let code = input::token_file(args.code_file.as_deref().unwrap_or(Path::new("-")))?;
    let request = |password, one_time_code| EnrolRequest {
        user: args.name.clone(),
        enrolment_code: SecretText(code.expose(SecretVec::copy_of)),
        password,
        one_time_code,
    };
    if !args.otp_stdin {
        let offer = client.enrol(&request(None, None)).await?;
        if args.offer {
            return session.show(&offer);
        }
        show_offer(&offer);
    }
    let password = match &args.password_file {
        Some(file) => input::typed(Some(file), "", "--password-file")?,
        None => input::typed_twice("New password, 12 bytes or more: ", "--password-file")?,
    };
    let one_time_code = input::one_time_code(args.otp_stdin)?;
    let chosen = request(Some(SecretText(password)), Some(SecretText(one_time_code)));
    session.show(&client.enrol(&chosen).await?)
}

/// Shows the second factor to a person who will be asked for its first code.
fn show_offer(offer: &EnrolReply) {
    if let Some(address) = &offer.otpauth_uri {
        address.0.expose(|address| {
            let address = String::from_utf8_lossy(address);
            output::note(&format!("Add this to your authenticator:\n\n  {address}\n"));
        });
    }
}
