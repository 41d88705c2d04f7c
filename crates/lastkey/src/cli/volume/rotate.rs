//! `volume rotate`: all volumes of a key, on all nodes, follow its rotation.
//!
//! Room      `lastkey`. The drivers do it; here it is asked for, and watched in their reports.
//! Holds     A volume counts as done when its driver says so, never before.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use lastkey_client::Client;
use lastkey_wire::{
    StringMap,
    native::{holdings::HoldingView, keys::KeyView},
    words::HeldWhat,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::list::{VolumeView, class_keys, volumes_of};
use crate::adapters::{DATA_KEYS_TAG, data_keys};
use crate::cli::{
    args::Span,
    failure::{Failure, printable},
    output::note,
    session::Session,
    table::{Show, grid},
};

/// How often drivers' reports are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// So many that are not done are named on the terminal; all of them in the JSON.
const NAMED: usize = 5;

/// Arguments of `volume rotate`.
#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    /// Keys of classes: ids or aliases
    #[arg(value_name = "KEY", required_unless_present = "all")]
    keys: Vec<String>,
    /// All keys that volumes are under
    #[arg(long, conflicts_with = "keys")]
    all: bool,
    /// Make a new version of each key first
    #[arg(long)]
    new_version: bool,
    /// Give each volume a new data key as well
    #[arg(long)]
    data_keys: bool,
    /// Ask for it, and do not wait
    #[arg(long)]
    no_wait: bool,
    /// Wait at most so long
    #[arg(long, value_name = "SPAN", default_value = "10m")]
    timeout: Span,
}

/// What volumes are to have.
struct Goal {
    key: KeyView,
    version: u32,
    data_keys: u32,
}

/// How far the volumes of a key are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Progress {
    key: String,
    version: u32,
    data_keys: u32,
    volumes: u64,
    done: u64,
    left: Vec<Left>,
}

/// A volume that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Left {
    volume: String,
    place: String,
    version: u32,
    data_key: u32,
    reported_at: String,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Rotated {
    keys: Vec<Progress>,
}

/// Asks for it, and waits.
pub(crate) async fn rotate(args: &RotateArgs, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let mut goals = Vec::new();
    for key in keys(args, &client).await? {
        goals.push(ask(args, &client, &key).await?);
    }
    let deadline = Instant::now() + Duration::from_secs(args.timeout.seconds);
    let mut said = BTreeMap::new();
    loop {
        let mut keys = Vec::new();
        for goal in &goals {
            let progress = look(goal, &client).await?;
            if said.insert(progress.key.clone(), progress.done) != Some(progress.done) {
                note(&progress.sentence());
            }
            keys.push(progress);
        }
        let left: u64 = keys.iter().map(|key| key.volumes.saturating_sub(key.done)).sum();
        if left == 0 || args.no_wait {
            return session.show(&Rotated { keys });
        }
        if Instant::now() >= deadline {
            session.show(&Rotated { keys })?;
            return Err(Failure::Input(format!(
                "{left} volumes are not done; their drivers go on, and a second run shows how far \
                 they are"
            )));
        }
        sleep(PERIOD).await;
    }
}

async fn keys(args: &RotateArgs, client: &Client) -> Result<Vec<String>, Failure> {
    if !args.all {
        return Ok(args.keys.clone());
    }
    let mut keys = Vec::new();
    for key in class_keys(client).await? {
        let view = client.describe_key(&key.id).await?;
        if view.holdings.iter().any(|one| one.what == HeldWhat::Volumes && one.count > 0) {
            keys.push(key.id);
        }
    }
    Ok(keys)
}

async fn ask(args: &RotateArgs, client: &Client, key: &str) -> Result<Goal, Failure> {
    let mut view = client.describe_key(key).await?;
    if args.new_version {
        view = client.rotate_key(key).await?;
    }
    let mut wanted = data_keys(&view);
    if args.data_keys {
        wanted = wanted.saturating_add(1);
        let tag = (DATA_KEYS_TAG.to_owned(), wanted.to_string());
        view = client.set_tags(key, StringMap::from_iter([tag])).await?;
    }
    let version = view.primary_version.ok_or_else(|| {
        Failure::Input(format!("{} has no version that protects new data", printable(key)))
    })?;
    Ok(Goal { key: view, version, data_keys: wanted })
}

async fn look(goal: &Goal, client: &Client) -> Result<Progress, Failure> {
    let impact = client.impact(&goal.key.id).await?;
    Ok(goal.progress(&impact.holdings))
}

impl Goal {
    fn progress(&self, holdings: &[HoldingView]) -> Progress {
        let drivers = || holdings.iter().filter(|holding| holding.what == HeldWhat::Volumes);
        let volumes: u64 = drivers().map(|holding| holding.count).sum();
        let is_done =
            |one: &VolumeView| one.key_version == self.version && one.data_key >= self.data_keys;
        let (done, left): (Vec<_>, Vec<_>) =
            volumes_of(&self.key.id, holdings).into_iter().partition(is_done);
        // A driver of so many volumes that it names none is done when it says so by version.
        let unnamed = drivers().filter(|holding| holding.things.is_empty());
        let counted = unnamed.flat_map(|holding| &holding.versions);
        let counted: u64 = counted
            .filter(|held| held.version == self.version && self.data_keys == 0)
            .map(|held| held.count)
            .sum();
        Progress {
            key: self.key.id.clone(),
            version: self.version,
            data_keys: self.data_keys,
            volumes,
            done: u64::try_from(done.len()).unwrap_or(u64::MAX).saturating_add(counted),
            left: left.into_iter().map(Left::of).collect(),
        }
    }
}

impl Left {
    fn of(volume: VolumeView) -> Self {
        Self {
            volume: volume.volume,
            place: volume.place,
            version: volume.key_version,
            data_key: volume.data_key,
            reported_at: volume.reported_at,
            problem: volume.problem,
        }
    }
}

impl Progress {
    fn sentence(&self) -> String {
        let Self { key, version, data_keys, volumes, done, .. } = self;
        let data = match data_keys {
            0 => String::new(),
            number => format!(", with data key {number}"),
        };
        format!("{done} of {volumes} volumes under {key} are under version {version}{data}")
    }
}

impl Show for Rotated {
    fn table(&self) -> String {
        let header = ["KEY", "VERSION", "DATA KEY", "VOLUMES", "DONE", "NOT DONE"];
        let rows = self.keys.iter().map(|key| {
            let mut left: Vec<String> = key.left.iter().take(NAMED).map(Left::sentence).collect();
            if key.left.len() > NAMED {
                left.push("and others (--output json)".to_owned());
            }
            let left = if left.is_empty() { "-".to_owned() } else { left.join("; ") };
            vec![
                key.key.clone(),
                key.version.to_string(),
                key.data_keys.to_string(),
                key.volumes.to_string(),
                key.done.to_string(),
                left,
            ]
        });
        grid(&header, rows)
    }
}

impl Left {
    fn sentence(&self) -> String {
        let Self { volume, place, reported_at, problem, .. } = self;
        match problem {
            Some(problem) => format!("{volume} on {place}: {problem}"),
            None => format!("{volume} on {place}, last heard of at {reported_at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use lastkey_wire::native::holdings::{HeldThing, HeldVersion};
    use serde_json::json;

    use super::*;

    fn goal(version: u32, data_keys: u32) -> Goal {
        let key = json!({
            "id": "k", "spec": "AES_256", "usage": "ENCRYPT_DECRYPT", "origin": "generated",
            "state": "Enabled", "description": "", "tags": {}, "aliases": [], "activation": 1,
            "created_at": "2026-01-01T00:00:00Z", "deletion_protection": false,
        });
        Goal { key: serde_json::from_value(key).unwrap(), version, data_keys }
    }

    fn holding(what: HeldWhat, things: &[(&str, u32, u32)]) -> HoldingView {
        let thing = |(name, version, data_key): &(&str, u32, u32)| HeldThing {
            name: (*name).to_owned(),
            version: *version,
            about: StringMap::from_iter([("data-key".to_owned(), data_key.to_string())]),
        };
        HoldingView {
            place: "node-1".to_owned(),
            what,
            count: things.len() as u64,
            versions: Vec::new(),
            things: things.iter().map(thing).collect(),
            reported_at: "2026-01-01T00:00:00Z".to_owned(),
            reported_by: "node".to_owned(),
            overridden: false,
        }
    }

    #[test]
    fn volume_is_done_when_version_and_data_key_are_there() {
        let things = [("a", 2, 1), ("b", 1, 1), ("c", 2, 0), ("d", 2, 2)];
        let holdings =
            [holding(HeldWhat::Volumes, &things), holding(HeldWhat::EtcdObjects, &[("x", 1, 0)])];
        let progress = goal(2, 1).progress(&holdings);
        assert_eq!((progress.volumes, progress.done), (4, 2));
        let left: Vec<&str> = progress.left.iter().map(|left| left.volume.as_str()).collect();
        assert_eq!(left, ["b", "c"]);
        assert_eq!(goal(2, 0).progress(&holdings).done, 3);
    }

    #[test]
    fn volumes_that_are_counted_and_not_named_are_done_by_their_version_alone() {
        let mut many = holding(HeldWhat::Volumes, &[]);
        many.count = 2_000;
        many.versions =
            vec![HeldVersion { version: 1, count: 500 }, HeldVersion { version: 2, count: 1_500 }];
        let progress = goal(2, 0).progress(std::slice::from_ref(&many));
        assert_eq!((progress.volumes, progress.done), (2_000, 1_500));
        assert_eq!(goal(2, 1).progress(&[many]).done, 0, "nobody knows of their data keys");
    }
}
