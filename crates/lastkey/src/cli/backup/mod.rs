//! `backup`: make one, list them, check one without a server, take one away. And `restore`.
//!
//! Room      `lastkey`.
//! Holds     what opens a seal comes from files, standard input or a prompt without echo, and
//!           stays on this machine.

mod find;
mod restore;
mod show;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use lastkey_client::Client;
use lastkey_core::backup::BackupError;
use lastkey_core::backup_folder::is_in_bucket;
use lastkey_wire::native::backups::{BackupView, CreateBackupRequest, RemoveBackupRequest};

pub(crate) use self::restore::{RestoreArgs, restore};
use super::{args::DryRunArgs, failure::Failure, output, session::Session};

/// How often it is asked how far a backup is.
const PAUSE: Duration = Duration::from_millis(200);

/// Subcommands of `backup`.
#[derive(Subcommand, Debug)]
pub(crate) enum BackupCommand {
    /// Make a backup, and wait until it was restored on trial
    Create(CreateArgs),
    /// Check backups without a server; with what opens a seal, every byte and record
    Verify(verify::VerifyArgs),
    /// List the backups that the server has made; only those that are proven count
    List,
    /// Show a backup
    Show {
        /// Id of the backup
        id: String,
    },
    /// Take a backup away; or say that one is gone, so that nothing waits for it any more
    Remove {
        /// Id of the backup
        id: String,
        /// Forget it even where the server does not go to look; you have destroyed it
        #[arg(long)]
        forget: bool,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
}

/// Arguments of `backup create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Directory of the server's machine, or s3://BUCKET/FOLDER; where its configuration says
    /// when left out
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Do not wait; `backup list` shows how it ends
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Runs a command.
pub(crate) async fn run(command: BackupCommand, session: &Session) -> Result<(), Failure> {
    match command {
        BackupCommand::Create(args) => create(args, session).await,
        BackupCommand::Verify(args) => verify::verify(&args, session).await,
        BackupCommand::List => session.show(&session.client()?.list_backups().await?),
        BackupCommand::Show { id } => session.show(&session.client()?.describe_backup(&id).await?),
        BackupCommand::Remove { id, forget, dry_run } => {
            let client = session.client()?;
            let call = client.remove_backup(&id, RemoveBackupRequest { forget });
            session.settle_quietly(call, dry_run).await
        }
    }
}

async fn create(args: CreateArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let absolute = |path: PathBuf| {
        if let Some(place) = path.to_str().filter(|place| is_in_bucket(place)) {
            return Ok(place.to_owned());
        }
        let doing = || format!("find {}", path.display());
        let absolute = std::path::absolute(&path).map_err(|e| Failure::io(doing(), e))?;
        let text = absolute.into_os_string().into_string();
        text.map_err(|_| Failure::Usage("--to is no UTF-8".to_owned()))
    };
    let directory = args.to.map(absolute).transpose()?;
    let call = client.create_backup(CreateBackupRequest { directory });
    let Some(begun) = session.settle(call, args.dry_run).await? else { return Ok(()) };
    if args.no_wait {
        return session.show(&begun);
    }
    let ended = wait(&client, begun).await?;
    session.show(&ended)?;
    if ended.state == "proven" {
        return Ok(());
    }
    let problem = ended.problem.as_deref().unwrap_or("the server was stopped or sealed meanwhile");
    output::note(&format!("error: there is no backup: {problem}"));
    Err(Failure::Found)
}

/// Asks until the backup has ended in one way or another.
async fn wait(client: &Client, begun: BackupView) -> Result<BackupView, Failure> {
    let mut seen = begun;
    while matches!(seen.state.as_str(), "writing" | "proving") {
        tokio::time::sleep(PAUSE).await;
        seen = client.describe_backup(&seen.id).await?;
    }
    Ok(seen)
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Failed { doing, what, cause } => {
                let source = std::io::Error::other(cause);
                Self::Io { doing: format!("{doing} {what}"), source }
            }
            BackupError::Full(_)
            | BackupError::NotABackup(_)
            | BackupError::Newer(_)
            | BackupError::Damaged { .. }
            | BackupError::WrongKey(_)
            | BackupError::Refused(_)
            | BackupError::NotConfigured(_)
            | BackupError::Stopped => Self::Input(error.to_string()),
        }
    }
}
