//! `key impact` and `key forget-holding`: what depends on a key.
//!
//! Room      `lastkey`.

use clap::Args;
use lastkey_client::Client;
use lastkey_wire::{
    native::{
        holdings::{HoldingView, ImpactReply},
        keys::KeyView,
    },
    words::HeldWhat,
};

use crate::cli::{
    args::DryRunArgs,
    failure::{Failure, printable},
    output,
    session::Session,
    table::{Fields, Show, grid, last_use, or_dash},
};

/// Arguments of `key impact`.
#[derive(Args, Debug)]
pub(crate) struct ImpactArgs {
    /// Key: id or alias
    key: String,
}

/// Arguments of `key forget-holding`.
#[derive(Args, Debug)]
pub(crate) struct ForgetArgs {
    /// Key: id or alias
    key: String,
    /// Place, as its reports name it
    place: String,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

/// Shows what depends on a key, as far as the server knows.
pub(crate) async fn impact(args: &ImpactArgs, session: &Session) -> Result<(), Failure> {
    session.show(&session.client()?.impact(&args.key).await?)
}

/// Has a report of a place forgotten.
pub(crate) async fn forget(args: ForgetArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let call = client.forget_holding(&args.key, &args.place, args.reason);
    session.settle_quietly(call, args.dry_run).await
}

/// Says which places were reported to hold something under a key, or under one version of it.
pub(super) fn warn_of_needs(key: &KeyView, version: Option<u32>) {
    for holding in &key.holdings {
        let count = count(holding, version);
        if count > 0 {
            output::note(&format!(
                "warning: {} was reported at {} to hold {count} {} under {}",
                printable(&holding.place),
                printable(&holding.reported_at),
                noun(holding.what),
                version.map_or_else(|| "this key".to_owned(), |one| format!("version {one}")),
            ));
        }
    }
}

/// The same for a version, of a key that is not described yet.
pub(super) async fn warn_of_needs_of(
    client: &Client,
    key: &str,
    version: u32,
) -> Result<(), Failure> {
    warn_of_needs(&client.describe_key(key).await?, Some(version));
    Ok(())
}

const fn noun(what: HeldWhat) -> &'static str {
    match what {
        HeldWhat::EtcdObjects => "objects",
        HeldWhat::Volumes => "volumes",
    }
}

fn count(holding: &HoldingView, version: Option<u32>) -> u64 {
    match version {
        None => holding.count,
        Some(version) => {
            let found = holding.versions.iter().find(|held| held.version == version);
            found.map_or(0, |held| held.count)
        }
    }
}

/// What places name, as rows; nothing when they name nothing.
fn things(holdings: &[HoldingView]) -> String {
    let header = ["NAME", "PLACE", "VERSION", "CLAIM", "PODS", "STATE"];
    let rows = holdings.iter().flat_map(|holding| {
        holding.things.iter().map(|thing| {
            let about = |name: &str| thing.about.0.get(name).cloned();
            vec![
                thing.name.clone(),
                holding.place.clone(),
                thing.version.to_string(),
                or_dash(about("claim")),
                or_dash(about("pods")),
                or_dash(about("state")),
            ]
        })
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() { String::new() } else { format!("\n{}", grid(&header, rows)) }
}

/// Reports as rows.
pub(crate) fn rows(holdings: &[HoldingView]) -> String {
    let header = ["PLACE", "HOLDS", "BY VERSION", "REPORTED", "BY"];
    let rows = holdings.iter().map(|holding| {
        let by_version = holding.versions.iter().map(|h| format!("{}: {}", h.version, h.count));
        let by_version: Vec<_> = by_version.collect();
        vec![
            holding.place.clone(),
            format!("{} {}", holding.count, holding.what),
            if by_version.is_empty() { "-".to_owned() } else { by_version.join(", ") },
            holding.reported_at.clone(),
            holding.reported_by.clone(),
        ]
    });
    grid(&header, rows)
}

impl Show for ImpactReply {
    fn table(&self) -> String {
        let fields = Fields::new()
            .with("Key", &self.key)
            .with("State", self.state)
            .with_some("Primary version", self.primary_version)
            .with("Last used", last_use(self.last_used_at.as_deref()))
            .with("Secrets", format!("{} ({} values)", self.secrets, self.secret_versions));
        format!("{}\n{}{}", fields.table(), rows(&self.holdings), things(&self.holdings))
    }
}
