//! `key delete`: destruction in some days, after a look at the last use.
//!
//! Room      `lastkey`.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use lastkey_client::Client;
use lastkey_wire::native::keys::{KeyView, ListKeysReply};

use super::holdings::{warn_of_needs, warn_of_needs_of};
use crate::cli::{
    args::DryRunArgs,
    failure::{Failure, printable},
    output,
    session::Session,
    table::{Show, last_use},
};

/// Arguments of `key delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// Keys: ids or aliases
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// Days until the material is destroyed, 7 to 366 (default: 30)
    #[arg(long, value_name = "N")]
    window_days: Option<u32>,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    #[command(flatten)]
    in_spite: InSpiteArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// What lets a key or version go that is still needed.
#[derive(Args, Clone, Debug)]
pub(crate) struct InSpiteArgs {
    /// Destroy it although places were reported to hold things under it, and why
    #[arg(long, value_name = "REASON")]
    pub(super) in_spite_of_reports: Option<String>,
}

/// Shows when the keys were used last, asks a person, and schedules their destruction.
pub(crate) async fn delete(args: DeleteArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    if args.dry_run.dry_run {
        for key in &args.keys {
            let call = client.schedule_deletion(key, args.window_days, args.in_spite.reason());
            session.settle(call, args.dry_run).await?;
        }
        return Ok(());
    }
    let views = described(&client, &args.keys).await?;
    output::note(ListKeysReply { keys: views.clone(), next_marker: None }.table().trim_end());
    views.iter().for_each(|view| warn_of_needs(view, None));
    if !args.yes {
        confirm(&format!("Destroy {} in {} days?", counted(views.len()), days(&args)))?;
    }
    for view in &views {
        // By id: an alias may name another key by now than the one that was shown.
        let reply = client.schedule_deletion(&view.id, args.window_days, args.in_spite.reason());
        let reply = reply.await?;
        session.show(&reply)?;
        output::note(&format!("to keep it: lastkey key cancel-deletion {}", printable(&view.id)));
    }
    Ok(())
}

impl InSpiteArgs {
    pub(super) fn reason(&self) -> Option<String> {
        self.in_spite_of_reports.clone()
    }
}

fn days(args: &DeleteArgs) -> u32 {
    args.window_days.unwrap_or(30)
}

fn counted(count: usize) -> String {
    if count == 1 { "this key".to_owned() } else { format!("these {count} keys") }
}

/// The keys, with the last use of any version.
async fn described(client: &Client, keys: &[String]) -> Result<Vec<KeyView>, Failure> {
    let mut views: Vec<KeyView> = Vec::with_capacity(keys.len());
    for key in keys {
        let view = client.describe_key(key).await?;
        if !views.iter().any(|other| other.id == view.id) {
            views.push(view);
        }
    }
    Ok(views)
}

/// Shows one version and asks before it is destroyed for good. Nobody to ask: refused.
pub(super) async fn confirm_destruction(
    client: &Client,
    key: &str,
    version: u32,
) -> Result<(), Failure> {
    let view = client.describe_version(key, version).await?;
    output::note(&format!(
        "version {version} of {}: {}, last used {}",
        printable(key),
        view.state,
        printable(&last_use(view.usage.last_used_at.as_deref()))
    ));
    warn_of_needs_of(client, key, version).await?;
    confirm_for_good("Destroy this version now and for good?")
}

/// Asks a person about what cannot be undone. Nobody to ask: refused.
pub(crate) fn confirm_for_good(question: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() {
        return confirm(question);
    }
    let advice = "this cannot be undone: give --yes, or run it in a terminal";
    Err(Failure::Usage(advice.to_owned()))
}

/// Asks a person. Where nobody can be asked it goes on: deletion can be cancelled.
fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    let ask = || -> io::Result<String> {
        write!(io::stderr(), "{question} [y/N] ")?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|cause| Failure::io("ask", cause))?;
    if is_yes(&answer) { Ok(()) } else { Err(Failure::Declined) }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn answer_is_yes_only_when_it_says_so() {
        for yes in ["y\n", "Y", "yes\n", " YES "] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "no", "yep", "yes please"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
