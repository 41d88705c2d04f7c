//! `secret rotate`, `secret rotation set|show|remove`.
//!
//! Room      `lastkey`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand};
use lastkey_client::Client;
use lastkey_wire::native::rotation::{
    DatabaseStrategy, GeneratedStrategy, OverlapView, RotateSecretRequest, SecretRotationView,
    SetSecretRotationReply, SetSecretRotationRequest, WebhookStrategy,
};

use crate::cli::{
    access::text,
    args::{DryRunArgs, Span},
    failure::{Failure, printable},
    output,
    session::Session,
    table::{Fields, Show},
};

/// How often it is asked whether consumers have moved.
const ASK_PERIOD: Duration = Duration::from_secs(2);

/// Arguments of `secret rotate`.
#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    /// Name of the secret
    name: String,
    /// Revoke the old version when no consumer holds it any more, and wait for that
    #[arg(long)]
    wait_consumers: bool,
    /// Revoke the version before, if it still counts, now
    #[arg(long)]
    end_overlap: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Subcommands of `secret rotation`.
#[derive(Subcommand, Debug)]
pub(crate) enum RotationCommand {
    /// Say how a secret rotates, and when
    Set(Box<SetArgs>),
    /// Show how a secret rotates, and how the last rotation ended
    Show {
        /// Name of the secret
        name: String,
    },
    /// Rotate no more; versions stay as they are
    Remove {
        /// Name of the secret
        name: String,
        #[command(flatten)]
        dry_run: DryRunArgs,
    },
}

/// Arguments of `secret rotation set`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("strategy").required(true)
    .args(["generate", "database", "webhook"]))]
pub(crate) struct SetArgs {
    /// Name of the secret
    name: String,
    /// The server draws the new value
    #[arg(long)]
    generate: bool,
    /// Two accounts of this database take turns; the secret has the fields username and password
    #[arg(long, value_name = "NAME", requires = "accounts")]
    database: Option<String>,
    /// The two accounts
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 1, requires = "database")]
    accounts: Vec<String>,
    /// A program at this address makes, sets and tests the new value
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// PEM file with the authority of the program's certificate [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "webhook")]
    webhook_ca: Option<PathBuf>,
    /// Characters of a drawn value, 8 to 1024 [default: 32]
    #[arg(long, value_name = "N", conflicts_with = "database")]
    length: Option<u32>,
    /// Characters that it is made of [default: letters and digits]
    #[arg(long, value_name = "CHARACTERS", conflicts_with = "database")]
    alphabet: Option<String>,
    /// Field that takes it [default: the whole value]
    #[arg(long, value_name = "NAME", conflicts_with = "database")]
    field: Option<String>,
    /// How often, 1h to 10y, such as 30d [default: on demand alone]
    #[arg(long, value_name = "PERIOD", conflicts_with = "cron")]
    every: Option<Span>,
    /// At times of the calendar in UTC, such as "30 3 * * 1-5"
    #[arg(long, value_name = "FIELDS")]
    cron: Option<String>,
    /// Begin at a random moment of so long from then on, and at no other time; up to 1d
    #[arg(long, value_name = "TIME", requires = "cron")]
    window: Option<Span>,
    /// Revoke the old version after so long, up to 90d [default: 1d with --database, else never]
    #[arg(long, value_name = "TIME")]
    overlap: Option<Span>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

impl SetArgs {
    fn request(self) -> Result<(String, SetSecretRotationRequest, DryRunArgs), Failure> {
        let drawn =
            GeneratedStrategy { length: self.length, alphabet: self.alphabet, field: self.field };
        let window = |span: Span| {
            u32::try_from(span.seconds)
                .map_err(|_| Failure::Usage("--window: a window is a day at most".to_owned()))
        };
        let authority = self.webhook_ca.as_deref().map(text).transpose()?;
        let accounts = self.accounts;
        let request = SetSecretRotationRequest {
            generated: self.generate.then(|| drawn.clone()),
            database: self.database.map(|name| DatabaseStrategy { name, accounts }),
            webhook: self.webhook.map(|url| WebhookStrategy { url, authority, generated: drawn }),
            period_seconds: self.every.map(|span| span.seconds),
            cron: self.cron,
            window_seconds: self.window.map(window).transpose()?,
            overlap_seconds: self.overlap.map(|span| span.seconds),
        };
        Ok((self.name, request, self.dry_run))
    }
}

/// Rotates now; with `--wait-consumers` until the old version is revoked.
pub(crate) async fn rotate(args: RotateArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let request = RotateSecretRequest {
        wait_for_consumers: args.wait_consumers,
        end_overlap: args.end_overlap,
    };
    let call = client.rotate_secret(&args.name, &request);
    let Some(mut view) = session.settle(call, args.dry_run).await? else { return Ok(()) };
    if args.wait_consumers {
        view = wait(&client, &args.name, view).await?;
    }
    session.show(&view)
}

/// What is told first.
const HINT: &str = ". The server revokes it when nobody does, also when this command is stopped; \
                    the next rotation with --end-overlap does not wait for that";

/// Waits until no consumer holds the old version, and tells who does. The server revokes it also
/// when nobody waits here.
async fn wait(
    client: &Client,
    name: &str,
    mut view: SecretRotationView,
) -> Result<SecretRotationView, Failure> {
    let mut told = None;
    while let Some(overlap) = view.overlap.as_ref().filter(|one| one.waits_for_consumers) {
        if told.as_ref() != Some(&overlap.holders) {
            let hint = if told.is_none() { HINT } else { "" };
            output::note(&format!("{}{hint}", still_held(overlap)));
            told = Some(overlap.holders.clone());
        }
        tokio::time::sleep(ASK_PERIOD).await;
        view = client.describe_secret_rotation(name).await?;
    }
    Ok(view)
}

fn still_held(OverlapView { version, holders, .. }: &OverlapView) -> String {
    let holders: Vec<_> = holders.iter().map(|one| printable(one)).collect();
    if holders.is_empty() {
        // It is looked now and then, and what has just begun may not know what it has.
        return format!(
            "version {version} is held by nobody who is known; the server makes sure, and waits \
             for providers that have just begun"
        );
    }
    format!("version {version} is still held by {}", holders.join(", "))
}

/// Says, shows or ends how a secret rotates.
pub(crate) async fn run(command: RotationCommand, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    match command {
        RotationCommand::Set(args) => {
            let (name, request, dry_run) = args.request()?;
            session.settle_and_show(client.set_secret_rotation(&name, &request), dry_run).await
        }
        RotationCommand::Show { name } => {
            session.show(&client.describe_secret_rotation(&name).await?)
        }
        RotationCommand::Remove { name, dry_run } => {
            session.settle_quietly(client.remove_secret_rotation(&name), dry_run).await
        }
    }
}

fn strategy(view: &SecretRotationView) -> String {
    let drawn = |one: &GeneratedStrategy| {
        let field = one.field.as_ref().map(|field| format!(", in the field {field}"));
        let length = one.length.unwrap_or_default();
        format!("{length} characters{}", field.unwrap_or_default())
    };
    match (&view.generated, &view.database, &view.webhook) {
        (Some(generated), _, _) => format!("generated: {}", drawn(generated)),
        (_, Some(database), _) => {
            format!("database {}: {} in turn", database.name, database.accounts.join(" and "))
        }
        (_, _, Some(webhook)) => format!("webhook: {}", webhook.url),
        (None, None, None) => "one that this client does not know".to_owned(),
    }
}

fn times(view: &SecretRotationView) -> String {
    match (view.period_seconds, &view.cron) {
        (Some(seconds), _) => format!("every {seconds} seconds"),
        (None, Some(cron)) => {
            let window = view.window_seconds.map(|window| format!(", within {window} seconds"));
            format!("{cron} (UTC){}", window.unwrap_or_default())
        }
        (None, None) => "on demand".to_owned(),
    }
}

impl Show for SecretRotationView {
    fn table(&self) -> String {
        let under_way = self.under_way.as_ref();
        let under_way = under_way.map(|one| format!("version {}: {}", one.version, one.step));
        let overlap = self.overlap.as_ref().map(|one| match one.waits_for_consumers {
            true => format!("version {} until nobody holds it", one.version),
            false => format!("version {} until {}", one.version, one.ends_at),
        });
        let holders = self.overlap.as_ref().map(|one| one.holders.join(", "));
        let last = self.last.as_ref().map(|last| match (&last.problem, last.version) {
            (Some(problem), _) => format!("{}: failed: {problem}", last.at),
            (None, Some(version)) => format!("{}: version {version}", last.at),
            (None, None) => last.at.clone(),
        });
        Fields::new()
            .with("Secret", &self.name)
            .with("Strategy", strategy(self))
            .with("Rotates", times(self))
            .with_some("Overlap in seconds", self.overlap_seconds)
            .with_some("Due", self.due_at.as_ref())
            .with_some("Under way", under_way)
            .with_some("Still counts", overlap)
            .with_some("Held by", holders.filter(|holders| !holders.is_empty()))
            .with_some("Failures in a row", (self.failures > 0).then_some(self.failures))
            .with_some("Last", last)
            .table()
    }
}

impl Show for SetSecretRotationReply {
    fn table(&self) -> String {
        let mut table = self.rotation.table();
        if let Some(key) = &self.signing_key {
            key.0.expose(|key| {
                table.push_str(&format!("Signing key  {}\n", String::from_utf8_lossy(key)));
            });
        }
        table
    }
}
