//! `volume list`, and what the other commands know of volumes.
//!
//! Room      `lastkey`.

use clap::Args;
use lastkey_client::Client;
use lastkey_wire::{
    native::{holdings::HoldingView, keys::KeyView},
    words::HeldWhat,
};
use serde::Serialize;

use crate::adapters::LINEAGE_TAG;
use crate::cli::{
    failure::Failure,
    key::paging::{self, listed},
    session::Session,
    table::{Show, grid, or_dash},
};

/// Arguments of `volume list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only volumes under this key: id or alias (repeatable; default: all keys)
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
}

/// A volume or snapshot, as its driver reported it last.
#[derive(Clone, Debug, Serialize)]
pub(super) struct VolumeView {
    pub(super) volume: String,
    kind: String,
    /// Id of the key of its class, and the version that it is under.
    pub(super) key: String,
    pub(super) key_version: u32,
    /// How many new data keys had been asked for when its own was drawn.
    pub(super) data_key: u32,
    lineage: Option<String>,
    /// The driver and its node.
    pub(super) place: String,
    state: Option<String>,
    claim: Option<String>,
    pods: Option<String>,
    source: Option<String>,
    bytes: Option<u64>,
    /// Whether its header is in escrow.
    escrow: bool,
    pub(super) problem: Option<String>,
    pub(super) reported_at: String,
}

#[derive(Debug, Serialize)]
struct Volumes {
    volumes: Vec<VolumeView>,
}

/// Lists the volumes.
pub(crate) async fn list(args: &ListArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let keys = match args.keys.as_slice() {
        [] => class_keys(&client).await?.into_iter().map(|key| key.id).collect(),
        named => named.to_vec(),
    };
    let mut volumes = Vec::new();
    for key in keys {
        let impact = client.impact(&key).await?;
        volumes.extend(volumes_of(&impact.key, &impact.holdings));
    }
    session.show(&Volumes { volumes })
}

/// All keys but those of lineages, and those that are gone.
pub(super) async fn class_keys(client: &Client) -> Result<Vec<KeyView>, Failure> {
    let all = paging::ListArgs::everything();
    let mut all = listed(all, async |page| client.list_keys(&page).await).await?.keys;
    all.retain(|key| key.destroyed_at.is_none() && !key.tags.0.contains_key(LINEAGE_TAG));
    Ok(all)
}

/// What drivers name under a key.
pub(super) fn volumes_of(key: &str, holdings: &[HoldingView]) -> Vec<VolumeView> {
    let drivers = holdings.iter().filter(|holding| holding.what == HeldWhat::Volumes);
    let of = |holding: &HoldingView| {
        let (place, reported_at) = (holding.place.clone(), holding.reported_at.clone());
        let things = holding.things.iter().map(move |thing| {
            let about = |name: &str| thing.about.0.get(name).cloned();
            let number = |name: &str| about(name).and_then(|text| text.parse::<u64>().ok());
            VolumeView {
                volume: thing.name.clone(),
                kind: about("kind").unwrap_or_else(|| "volume".to_owned()),
                key: key.to_owned(),
                key_version: thing.version,
                data_key: number("data-key").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                lineage: about("lineage"),
                place: place.clone(),
                state: about("state"),
                claim: about("claim"),
                pods: about("pods"),
                source: about("source"),
                bytes: number("bytes"),
                escrow: about("escrow").is_some_and(|word| word == "yes"),
                problem: about("problem"),
                reported_at: reported_at.clone(),
            }
        });
        things.collect::<Vec<_>>()
    };
    drivers.flat_map(of).collect()
}

impl Show for Volumes {
    fn table(&self) -> String {
        let header =
            ["VOLUME", "KIND", "KEY", "VERSION", "PLACE", "STATE", "CLAIM", "PODS", "PROBLEM"];
        let rows = self.volumes.iter().map(|volume| {
            vec![
                volume.volume.clone(),
                volume.kind.clone(),
                volume.key.clone(),
                volume.key_version.to_string(),
                volume.place.clone(),
                or_dash(volume.state.as_ref()),
                or_dash(volume.claim.as_ref()),
                or_dash(volume.pods.as_ref()),
                or_dash(volume.problem.as_ref()),
            ]
        });
        grid(&header, rows)
    }
}
