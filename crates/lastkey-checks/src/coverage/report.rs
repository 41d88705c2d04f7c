//! What was counted, held against what is current.
//!
//! Room      `checks`.
//! Holds     Current is what the caller named. Where nothing was named, the newest write under a
//!           provider tells its key, and the newest write of a resource its provider: the report
//!           says that it was so.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use serde::Serialize;

use super::{Coverage, Expected, Group, How, KeyName, KeyUse, Residue, keep_first};
use crate::snapshot::stored::SourceType;

/// All that was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CoverageReport {
    /// `named` when the caller said which keys are current, else `newest write`.
    pub current_by: &'static str,
    /// Of all resources that have to be sealed.
    pub totals: Totals,
    /// Each resource.
    pub resources: Vec<Resource>,
    /// Resources that were named, and of which nothing is there: a name that is wrong looks the
    /// same.
    pub missing: Vec<String>,
    /// Each key of KMS v2.
    pub keys: Vec<Key>,
    /// Old values on disk; none when nobody looked.
    pub residue: Option<Residue>,
}

/// Counts of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// All.
    pub objects: u64,
    /// Not sealed.
    pub clear: u64,
    /// Sealed by another provider.
    pub other: u64,
    /// Sealed under an older key, or in an older form.
    pub old: u64,
    /// Sealed under the current key.
    pub current: u64,
    /// Begins like a sealed object, and is none.
    pub damaged: u64,
    /// Sealed by KMS v2, and could not be opened; none when nobody tried.
    pub unopened: Option<u64>,
}

/// One resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// `secrets`, `widgets.example.com`.
    pub resource: String,
    /// Whether its objects have to be sealed.
    pub required: bool,
    /// Its counts.
    #[serde(flatten)]
    pub counts: Totals,
    /// The first names of those that are not current, by what is wrong with them.
    pub samples: BTreeMap<&'static str, Vec<String>>,
}

/// One key of KMS v2, as the API server names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Name of the provider in the configuration.
    pub provider: String,
    /// The plugin's key id.
    pub key_id: String,
    /// The hash of it that the API server's metrics show.
    pub key_id_hash: String,
    /// Whether new values are sealed under it.
    pub current: bool,
    /// Objects under it.
    pub objects: u64,
    /// Distinct seeds that seal these objects.
    pub seeds: u64,
    /// Seeds that the plugin gave back.
    pub unwrapped: u64,
    /// Seeds that the plugin refused.
    pub refused: u64,
    /// Objects that were opened in memory.
    pub opened: u64,
    /// Objects that could not be opened.
    pub not_opened: u64,
    /// Revision of the oldest and the newest write under it.
    pub revisions: (u64, u64),
    /// What the plugin noted.
    pub annotations: BTreeMap<String, BTreeSet<String>>,
}

/// What is current.
struct Current<'a> {
    expected: &'a Expected,
    /// Newest key id of each provider, by the revision of its newest write.
    key_ids: BTreeMap<&'a str, (u64, &'a str)>,
    /// Newest provider of each resource.
    providers: BTreeMap<&'a str, (u64, &'a str)>,
}

impl<'a> Current<'a> {
    fn new(coverage: &'a Coverage, expected: &'a Expected) -> Self {
        let (mut key_ids, mut providers) = (BTreeMap::new(), BTreeMap::new());
        for (name, used) in &coverage.keys {
            newer(&mut key_ids, &name.provider, (used.newest, &name.key_id));
        }
        for group in coverage.groups.values() {
            if let How::Key(name, _) = &group.how {
                newer(&mut providers, &group.resource, (group.newest, &name.provider));
            }
        }
        Self { expected, key_ids, providers }
    }

    fn has_provider(&self, resource: &str, provider: &str) -> bool {
        if !self.expected.providers.is_empty() {
            return self.expected.providers.iter().any(|named| named == provider);
        }
        self.providers.get(resource).is_some_and(|(_, newest)| *newest == provider)
    }

    fn has_key(&self, name: &KeyName) -> bool {
        if !self.expected.key_ids.is_empty() {
            return self.expected.key_ids.contains(&name.key_id);
        }
        self.key_ids.get(name.provider.as_str()).is_some_and(|(_, newest)| *newest == name.key_id)
    }

    /// Where the objects of a group belong.
    fn kind(&self, group: &Group) -> Kind {
        match &group.how {
            How::Clear => Kind::Clear,
            How::Damaged => Kind::Damaged,
            How::Other(_) => Kind::Other,
            How::Key(name, _) if !self.has_provider(&group.resource, &name.provider) => Kind::Other,
            How::Key(name, SourceType::Seed) if self.has_key(name) => Kind::Current,
            How::Key(..) => Kind::Old,
        }
    }
}

fn newer<'a>(
    known: &mut BTreeMap<&'a str, (u64, &'a str)>,
    of: &'a str,
    candidate: (u64, &'a str),
) {
    let newest = known.entry(of).or_insert(candidate);
    *newest = candidate.max(*newest);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Clear,
    Other,
    Old,
    Current,
    Damaged,
}

impl Kind {
    /// Its name in samples; none for what is right.
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Clear => Some("clear"),
            Self::Other => Some("other"),
            Self::Old => Some("old"),
            Self::Current => None,
            Self::Damaged => Some("damaged"),
        }
    }
}

impl Totals {
    /// Sealed, and not as a new write would be.
    #[must_use]
    pub const fn stale(&self) -> u64 {
        self.other + self.old + self.damaged
    }

    fn add(&mut self, kind: Kind, count: u64) {
        self.objects += count;
        *match kind {
            Kind::Clear => &mut self.clear,
            Kind::Other => &mut self.other,
            Kind::Old => &mut self.old,
            Kind::Current => &mut self.current,
            Kind::Damaged => &mut self.damaged,
        } += count;
    }

    fn join(&mut self, more: &Self) {
        self.objects += more.objects;
        self.clear += more.clear;
        self.other += more.other;
        self.old += more.old;
        self.current += more.current;
        self.damaged += more.damaged;
    }
}

pub(super) fn report(coverage: Coverage, expected: &Expected) -> CoverageReport {
    let current = Current::new(&coverage, expected);
    let mut resources: BTreeMap<&str, Resource> = BTreeMap::new();
    for group in coverage.groups.values() {
        let row = resources.entry(&group.resource).or_default();
        let kind = current.kind(group);
        row.counts.add(kind, group.count);
        if let Some(kind) = kind.name() {
            let sample = row.samples.entry(kind).or_default();
            group.sample.iter().for_each(|name| keep_first(sample, name.clone()));
        }
    }
    let mut totals = Totals::default();
    for (name, row) in &mut resources {
        row.resource = (*name).to_owned();
        let is_sealed_in_part = row.counts.clear < row.counts.objects;
        let is_named = expected.resources.iter().any(|named| is_for(named, name));
        row.required = *name == "secrets" || is_named || is_sealed_in_part;
        if row.required {
            totals.join(&row.counts);
        }
    }
    let keys: Vec<Key> =
        coverage.keys.iter().map(|(name, used)| key(name, used, &current)).collect();
    totals.unopened = unopened(&keys);
    let is_there = |named: &str| resources.keys().any(|name| is_for(named, name));
    let missing = expected.resources.iter().filter(|named| !is_there(named)).cloned().collect();
    let resources = resources.into_values().collect();
    let is_named = !expected.key_ids.is_empty();
    let current_by = if is_named { "named" } else { "newest write" };
    CoverageReport { current_by, totals, resources, missing, keys, residue: None }
}

/// Whether a name that somebody gave is for a resource as etcd has it. Built-in resources lie
/// there without their group: `deployments` is that of `deployments.apps`.
fn is_for(named: &str, resource: &str) -> bool {
    let plain = named.split_once('.').map_or(named, |(plain, _)| plain);
    named == "*" || named == resource || plain == resource
}

fn key(name: &KeyName, used: &KeyUse, current: &Current<'_>) -> Key {
    let is_provider_current =
        current.providers.keys().any(|resource| current.has_provider(resource, &name.provider));
    Key {
        provider: name.provider.clone(),
        key_id: name.key_id.clone(),
        key_id_hash: key_id_hash(&name.key_id),
        current: is_provider_current && current.has_key(name),
        objects: used.objects,
        seeds: used.seeds,
        unwrapped: used.unwrapped,
        refused: used.refused,
        opened: used.opened,
        not_opened: used.not_opened,
        revisions: (used.oldest, used.newest),
        annotations: used.annotations.clone(),
    }
}

/// Objects that cannot be read back; none when no seed was asked for.
fn unopened(keys: &[Key]) -> Option<u64> {
    let is_tried = keys.iter().any(|key| key.unwrapped + key.refused > 0);
    is_tried.then(|| keys.iter().map(|key| key.refused + key.not_opened).sum())
}

/// The hash by which the API server's metrics name a key id.
///
/// # Source
/// k8s.io/apiserver: storage/value/encrypt/envelope/metrics (`sha256:` and hex).
#[must_use]
pub fn key_id_hash(key_id: &str) -> String {
    let hash = digest::digest(&digest::SHA256, key_id.as_bytes());
    let hex = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    std::iter::once("sha256:".to_owned()).chain(hex).collect()
}
