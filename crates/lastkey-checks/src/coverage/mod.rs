//! Coverage: under which key every object in etcd is sealed, and which are not sealed at all.
//!
//! Room      `checks`. Takes one stored value after the other from whoever reads them; what a
//!           plugin or a decryption says comes in as counts.
//! Holds     Memory grows with resources and keys, not with objects: what is kept of an object
//!           is a count, and of a few their names. What does not begin as a sealed value does
//!           counts as in the clear; what cannot be read as sealed is damaged, and never current.

mod report;
mod require;
mod residue;
mod show;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aws_lc_rs::digest;

use crate::snapshot::stored::{Class, EncryptedObject, SourceType, owner, prefix};

pub use self::{
    report::{CoverageReport, Key, Resource, Totals, key_id_hash},
    require::{BadRequirement, Requirement},
    residue::{Residue, ScanError, scan},
};

/// The prefix of an API server that was told nothing else.
pub const REGISTRY: &str = "/registry";
/// Names that are kept of each group of objects.
const SAMPLE_LEN: usize = 5;
/// Groups and seeds beyond this number are no cluster but an attack on memory.
const MAX_DISTINCT: usize = 100_000;

/// What the reader of a report wants to hold against.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Names of providers whose values are current; when empty, each resource's own newest write
    /// says.
    pub providers: Vec<String>,
    /// Key ids that are current; when empty, the newest write under each provider says.
    pub key_ids: Vec<String>,
    /// Resources that have to be sealed beside `secrets` and those that are at least in part.
    pub resources: Vec<String>,
}

/// More distinct resources, key ids or seeds than any cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_DISTINCT} different resources, key ids or seeds: no API server wrote this")]
pub struct TooMany;

/// How a value is sealed, for a caller that wants to open it.
#[derive(Clone, Debug)]
pub struct Sealed<'a> {
    /// Which seed it is, for [`Coverage::unwrapped`].
    pub seed: SeedId,
    /// The message behind the prefix.
    pub object: EncryptedObject<'a>,
}

/// Names a seed within one run: half of a SHA-256 over all that a plugin is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeedId([u8; 16]);

/// Counts what is taken.
#[derive(Debug)]
pub struct Coverage {
    registry: String,
    groups: HashMap<String, Group>,
    keys: BTreeMap<KeyName, KeyUse>,
    seeds: HashSet<SeedId>,
    /// Reused for the name of a group.
    scratch: String,
}

/// Objects of one resource that are sealed in the same way.
#[derive(Clone, Debug)]
struct Group {
    resource: String,
    how: How,
    count: u64,
    newest: u64,
    sample: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    Clear,
    Damaged,
    /// By KMS v2.
    Key(KeyName, SourceType),
    /// By anything else: `kms v1 old`, `aescbc key1`.
    Other(String),
}

/// A key as the API server names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct KeyName {
    provider: String,
    key_id: String,
}

#[derive(Clone, Debug, Default)]
struct KeyUse {
    objects: u64,
    seeds: u64,
    unwrapped: u64,
    refused: u64,
    opened: u64,
    not_opened: u64,
    oldest: u64,
    newest: u64,
    annotations: BTreeMap<String, BTreeSet<String>>,
}

impl Coverage {
    /// Nothing was seen yet below `registry`.
    #[must_use]
    pub fn new(registry: &str) -> Self {
        Self {
            registry: registry.trim_end_matches('/').to_owned(),
            groups: HashMap::new(),
            keys: BTreeMap::new(),
            seeds: HashSet::new(),
            scratch: String::new(),
        }
    }

    /// Counts one object, and answers how it is sealed when that was by KMS v2. What is not
    /// below the prefix is no object, and not counted.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn take<'a>(
        &mut self,
        key: &[u8],
        value: &'a [u8],
        revision: u64,
    ) -> Result<Option<Sealed<'a>>, TooMany> {
        let Some(owner) = owner(key, &self.registry) else { return Ok(None) };
        let (how, object) = how(value);
        let mut sealed = None;
        if let (How::Key(name, _), Some(object)) = (&how, object) {
            let seed = SeedId::of(name, &object);
            let is_new = self.seeds.insert(seed);
            if self.seeds.len() > MAX_DISTINCT {
                return Err(TooMany);
            }
            self.key(name).take(&object, is_new, revision);
            sealed = Some(Sealed { seed, object });
        }
        self.count(&owner.resource, owner.name, how, revision)?;
        Ok(sealed)
    }

    /// Whether a plugin gave the seed of a key back.
    pub fn unwrapped(&mut self, provider: &str, key_id: &str, is_given: bool) {
        let key = self.key(&KeyName::new(provider, key_id));
        if is_given { key.unwrapped += 1 } else { key.refused += 1 }
    }

    /// Whether an object under a key could be opened.
    pub fn opened(&mut self, provider: &str, key_id: &str, is_whole: bool) {
        let key = self.key(&KeyName::new(provider, key_id));
        if is_whole { key.opened += 1 } else { key.not_opened += 1 }
    }

    /// All of it, as a report.
    #[must_use]
    pub fn report(self, expected: &Expected) -> CoverageReport {
        report::report(self, expected)
    }

    fn key(&mut self, name: &KeyName) -> &mut KeyUse {
        // A lookup before: names are cloned for new keys alone.
        if !self.keys.contains_key(name) {
            self.keys.insert(name.clone(), KeyUse::default());
        }
        self.keys.entry(name.clone()).or_default()
    }

    fn count(
        &mut self,
        resource: &str,
        name: String,
        how: How,
        revision: u64,
    ) -> Result<(), TooMany> {
        self.scratch.clear();
        self.scratch.push_str(resource);
        self.scratch.push('\0');
        how.add_to(&mut self.scratch);
        if !self.groups.contains_key(&self.scratch) {
            if self.groups.len() >= MAX_DISTINCT {
                return Err(TooMany);
            }
            let resource = resource.to_owned();
            let group = Group { resource, how, count: 0, newest: 0, sample: Vec::new() };
            self.groups.insert(self.scratch.clone(), group);
        }
        if let Some(group) = self.groups.get_mut(&self.scratch) {
            group.count += 1;
            group.newest = group.newest.max(revision);
            keep_first(&mut group.sample, name);
        }
        Ok(())
    }
}

/// Whether a value is sealed as a new write under one of these key ids would be.
#[must_use]
pub fn is_current(value: &[u8], key_ids: &[String]) -> bool {
    matches!(how(value).0, How::Key(name, SourceType::Seed) if key_ids.contains(&name.key_id))
}

/// Keeps a name when it is among the first.
fn keep_first(sample: &mut Vec<String>, name: String) {
    let at = sample.binary_search(&name).unwrap_or_else(|at| at);
    if at < SAMPLE_LEN {
        sample.insert(at, name);
        sample.truncate(SAMPLE_LEN);
    }
}

/// How a value is sealed, and by KMS v2 the message.
fn how(value: &[u8]) -> (How, Option<EncryptedObject<'_>>) {
    if !value.starts_with(crate::snapshot::stored::SEALED) {
        return (How::Clear, None);
    }
    let Some(prefix) = prefix(value) else { return (How::Damaged, None) };
    match prefix.class() {
        Class::Kms2(provider) => match EncryptedObject::parse(prefix.body) {
            Some(object) => {
                let name = KeyName { provider, key_id: object.key_id.to_owned() };
                (How::Key(name, object.source_type), Some(object))
            }
            None => (How::Damaged, None),
        },
        Class::Kms1(name) => (How::Other(format!("kms v1 {name}")), None),
        Class::Local(kind) => (How::Other(format!("{kind} {}", prefix.name)), None),
        Class::Clear | Class::Unknown => (How::Damaged, None),
    }
}

impl How {
    fn add_to(&self, text: &mut String) {
        match self {
            Self::Clear => text.push('c'),
            Self::Damaged => text.push('d'),
            Self::Other(words) => {
                text.push('o');
                text.push_str(words);
            }
            Self::Key(name, source_type) => {
                text.push(match source_type {
                    SourceType::Key => 'k',
                    SourceType::Seed => 's',
                });
                text.push_str(&name.provider);
                // INVARIANT: no name of a provider holds a colon.
                text.push(':');
                text.push_str(&name.key_id);
            }
        }
    }
}

impl KeyName {
    fn new(provider: &str, key_id: &str) -> Self {
        Self { provider: provider.to_owned(), key_id: key_id.to_owned() }
    }
}

impl KeyUse {
    fn take(&mut self, object: &EncryptedObject<'_>, is_new_seed: bool, revision: u64) {
        self.oldest = if self.objects == 0 { revision } else { self.oldest.min(revision) };
        self.newest = self.newest.max(revision);
        self.objects += 1;
        if !is_new_seed {
            return;
        }
        self.seeds += 1;
        for (name, value) in &object.annotations {
            if self.annotations.len() < SAMPLE_LEN || self.annotations.contains_key(*name) {
                let values = self.annotations.entry((*name).to_owned()).or_default();
                if values.len() < SAMPLE_LEN {
                    values.insert(annotation(value));
                }
            }
        }
    }
}

/// Longest annotation that a report repeats, in characters.
const MAX_ANNOTATION_LEN: usize = 200;

/// An annotation as a report may show it: text, or how much of something else there is.
fn annotation(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= MAX_ANNOTATION_LEN && !text.contains(char::is_control) => {
            text.to_owned()
        }
        Ok(_) | Err(_) => format!("({} bytes)", value.len()),
    }
}

impl SeedId {
    fn of(name: &KeyName, object: &EncryptedObject<'_>) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        let parts = [name.provider.as_bytes(), name.key_id.as_bytes(), object.source];
        let annotations =
            object.annotations.iter().flat_map(|(name, value)| [name.as_bytes(), *value]);
        for part in parts.into_iter().chain(annotations) {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finish().as_ref().first_chunk().copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
