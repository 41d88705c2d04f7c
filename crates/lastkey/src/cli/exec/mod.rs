//! `exec`: a program with secrets in its environment or in files, and without a copy on any disk.
//!
//! Room      `lastkey`.
//! Holds     the program gets the secrets and not the token. Files lie in memory (tmpfs), are
//!           readable by this user alone and go when the program ends. Without `--on-change` this
//!           process becomes the program; with it, it stays, passes signals on and ends as the
//!           program ends.

mod child;
mod delivery;
mod steering;

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use clap::{Args, ValueEnum};
use lastkey_client::{Client, IDENTITY_VARIABLE, TOKEN_VARIABLE};
use lastkey_wire::native::secrets::{SecretValueQuery, SecretValueReply};

use self::delivery::Delivery;
use crate::cli::{failure::Failure, session::Session};

/// Arguments of `exec`.
#[derive(Args, Debug)]
pub(crate) struct ExecArgs {
    /// Secret to deliver (repeatable); VARIABLE=NAME names the variable of one without fields
    #[arg(long = "secret", required = true, value_name = "NAME")]
    secrets: Vec<Wanted>,
    /// Stage of the secrets
    #[arg(long, default_value = "current")]
    stage: String,
    /// What stands before the names of variables
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "files")]
    prefix: String,
    /// Deliver files in this new folder, which must be in memory such as /dev/shm/app
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// What to do when a secret gets another current version
    #[arg(long, value_enum, value_name = "WHAT", default_value = "nothing")]
    on_change: OnChange,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What to do when a secret changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnChange {
    /// Nothing
    Nothing,
    /// End the program and start it anew
    Restart,
    /// Write the files anew and send SIGHUP; needs --files
    Hangup,
}

/// A secret, and the variable that it goes to.
#[derive(Clone, Debug)]
struct Wanted {
    variable: Option<String>,
    name: String,
}

impl std::str::FromStr for Wanted {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A name may have the sign too, but no variable has a slash, a point or a minus.
        let (variable, name) = match text.split_once('=') {
            Some((variable, name)) if delivery::is_variable(variable) => {
                (Some(variable.to_owned()), name)
            }
            Some(_) | None => (None, text),
        };
        Ok(Self { variable, name: name.to_owned() })
    }
}

/// The secrets as they were read.
struct Fetched(Vec<(Wanted, SecretValueReply)>);

impl Fetched {
    async fn of(args: &ExecArgs, client: &Client) -> Result<Self, Failure> {
        let mut all = Vec::with_capacity(args.secrets.len());
        for wanted in &args.secrets {
            let stage = Some(args.stage.clone());
            let query = SecretValueQuery { version: None, stage, dry_run: false };
            all.push((wanted.clone(), client.get_secret(&wanted.name, &query).await?));
        }
        Ok(Self(all))
    }
}

/// Runs a program with secrets.
pub(crate) async fn exec(args: ExecArgs, session: &Session) -> Result<(), Failure> {
    if args.on_change == OnChange::Hangup && args.files.is_none() {
        let problem = "a running program's environment cannot change: give --files as well";
        return Err(Failure::Usage(problem.to_owned()));
    }
    let watches = args.on_change != OnChange::Nothing;
    if watches && args.stage != "current" {
        return Err(Failure::Usage("--on-change watches the stage `current` alone".to_owned()));
    }
    let client = session.client()?;
    let fetched = Fetched::of(&args, &client).await?;
    let delivery = Delivery::prepare(&args, &fetched)?;
    if watches || args.files.is_some() {
        return child::supervise(&args, session, client, fetched, delivery).await;
    }
    let mut command = command(&args)?;
    delivery.apply(&mut command);
    let program = args.command.first().map(|name| name.to_string_lossy().into_owned());
    // Comes back only when the program could not be started.
    let cause = command.exec();
    Err(Failure::io(format!("start {}", program.unwrap_or_default()), cause))
}

/// The program, without the credentials of this process.
fn command(args: &ExecArgs) -> Result<Command, Failure> {
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Failure::Usage("give a program after --".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(rest).env_remove(TOKEN_VARIABLE).env_remove(IDENTITY_VARIABLE);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_no_credential_of_ours() {
        let args = ExecArgs {
            secrets: Vec::new(),
            stage: String::new(),
            prefix: String::new(),
            files: None,
            on_change: OnChange::Nothing,
            command: vec!["true".into()],
        };
        let command = command(&args).ok().unwrap();
        let removed = command.get_envs().filter(|(_, value)| value.is_none());
        let removed: Vec<_> = removed.map(|(name, _)| name).collect();
        assert_eq!(removed, [IDENTITY_VARIABLE, TOKEN_VARIABLE]);
    }
}
