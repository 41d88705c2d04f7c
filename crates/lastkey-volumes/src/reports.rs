//! Reports to the key service: which volumes and snapshots of this node are under which version of
//! which key, so that none is destroyed that one of them needs.
//!
//! Room      `volumes`.
//! Holds     A key that anything was reported of is not forgotten, not by a restart either, until
//!           the service knows that nothing is under it any more. What is under a version that is
//!           not known is not left out: then nothing is said of that key, and the last word stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::driver::Driver;
use crate::fault::{Fault, Kind, key_fault};
use crate::ports::Thing;
use crate::record::{SnapshotRecord, VolumeRecord, Wraps};

const FILE: &str = "reports.json";
/// Said again, also when nothing changed: the service may have been restored from a backup.
const AGAIN: Duration = Duration::from_secs(3_600);
/// Longest name of a place, in bytes.
const MAX_PLACE_LEN: usize = 128;

/// What was said to the service.
#[derive(Debug)]
pub(crate) struct Reports {
    file: PathBuf,
    sent: Mutex<BTreeMap<String, Option<Sent>>>,
}

/// The last report about a key; none before the first one of this process.
#[derive(Clone, Debug)]
struct Sent {
    things: Vec<Thing>,
    at: Instant,
}

impl Reports {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let file = folder.join(FILE);
        let keys: BTreeSet<String> = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        let sent = keys.into_iter().map(|key| (key, None)).collect();
        Ok(Self { file, sent: Mutex::new(sent) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<Sent>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> BTreeSet<String> {
        self.lock().keys().cloned().collect()
    }

    fn is_said(&self, key: &str, things: &[Thing]) -> bool {
        let sent = self.lock();
        let last = sent.get(key).and_then(Option::as_ref);
        last.is_some_and(|last| last.things == things && last.at.elapsed() < AGAIN)
    }

    /// Before a key is reported for the first time.
    fn begin(&self, key: &str) -> io::Result<()> {
        let mut sent = self.lock();
        if sent.contains_key(key) {
            return Ok(());
        }
        sent.insert(key.to_owned(), None);
        self.write(&sent)
    }

    /// The service has answered: it is asked again when something changed, or much later.
    fn answered(&self, key: &str, things: &[Thing]) {
        let last = Sent { things: things.to_vec(), at: Instant::now() };
        self.lock().insert(key.to_owned(), Some(last));
    }

    /// The service knows that nothing is under a key.
    fn forget(&self, key: &str) -> io::Result<()> {
        let mut sent = self.lock();
        sent.remove(key);
        self.write(&sent)
    }

    fn write(&self, sent: &BTreeMap<String, Option<Sent>>) -> io::Result<()> {
        let keys: Vec<&String> = sent.keys().collect();
        let fresh = self.file.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&keys).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.file)
    }
}

/// What is under each key; nothing for one of which not everything is known.
type Held = BTreeMap<String, Option<Vec<Thing>>>;

impl Driver {
    /// Tells the service what changed since it was told.
    pub(crate) fn report_all(&self) {
        let mut held = self.held();
        for key in self.reports.keys() {
            held.entry(key).or_insert_with(|| Some(Vec::new()));
        }
        for (key, things) in held {
            let Some(things) = things else { continue };
            if self.reports.is_said(&key, &things) {
                continue;
            }
            let what = format!("report of {key}");
            match self.report(&key, &things) {
                Ok(()) => self.is_well(&what),
                Err(fault) => {
                    self.complain(&what, &fault);
                    if fault.kind == Kind::Away {
                        return;
                    }
                }
            }
        }
    }

    /// Tells the service that nothing is under the key of a lineage, before that is ended.
    pub(crate) fn report_ended(&self, lineage: &str) {
        if let Err(fault) = self.report(lineage, &[]) {
            // Whether it counts, the service says when the key is to end.
            self.complain(lineage, &fault);
        }
    }

    fn report(&self, key: &str, things: &[Thing]) -> Result<(), Fault> {
        let kept = |error: io::Error| {
            let message = format!("cannot remember which keys were reported: {error}");
            Fault::new(Kind::Internal, message)
        };
        self.reports.begin(key).map_err(kept)?;
        let said = self.keys.report(key, &self.reporter(), things);
        match said.map_err(|error| key_fault(key, error)) {
            Ok(()) if things.is_empty() => self.reports.forget(key).map_err(kept),
            Ok(()) => {
                self.reports.answered(key, things);
                Ok(())
            }
            Err(fault) if fault.kind == Kind::Away => Err(fault),
            Err(fault) => {
                self.reports.answered(key, things);
                let message = format!(
                    "the service does not take the report of what is under the key {key}, and so \
                     does not keep it from being destroyed: {fault}"
                );
                Err(Fault { message, ..fault })
            }
        }
    }

    /// This driver on this node, as a place of the service.
    pub(crate) fn reporter(&self) -> String {
        let config = &self.config;
        let cluster = if config.cluster.is_empty() { "" } else { "." };
        let text = format!("{}@{}{cluster}{}", config.name, config.node_id, config.cluster);
        let is_allowed = |c: &char| c.is_ascii_alphanumeric() || "._@-".contains(*c);
        text.chars().map(|c| if is_allowed(&c) { c } else { '-' }).take(MAX_PLACE_LEN).collect()
    }

    fn held(&self) -> Held {
        let mut held = Held::new();
        let mut add = |key: &str, thing: Option<Thing>| {
            let things = held.entry(key.to_owned()).or_insert_with(|| Some(Vec::new()));
            match (things.as_mut(), thing) {
                (Some(things), Some(thing)) => things.push(thing),
                (_, None) => *things = None,
                (None, Some(_)) => {}
            }
        };
        for record in self.volumes.all().iter().filter(|record| record.needs_keys()) {
            let about = self.about_volume(record);
            let class = record.wraps.as_ref().map_or(&record.key, |wraps| &wraps.key);
            let thing = |version: fn(&Wraps) -> u32| {
                thing(&record.id, record.wraps.as_ref(), version, &about)
            };
            add(class, thing(|wraps| wraps.version));
            if let Some(lineage) = &record.lineage {
                add(lineage, thing(|wraps| wraps.lineage_version));
            }
        }
        for record in self.snapshots.all().iter().filter(|record| record.formatted) {
            let about = self.about_snapshot(record);
            let class = record.wraps.as_ref().map_or(&record.key, |wraps| &wraps.key);
            let thing = |version: fn(&Wraps) -> u32| {
                thing(&record.id, record.wraps.as_ref(), version, &about)
            };
            add(class, thing(|wraps| wraps.version));
            add(&record.lineage, thing(|wraps| wraps.lineage_version));
        }
        for things in held.values_mut().flatten() {
            things.sort_by(|a, b| a.name.cmp(&b.name));
        }
        held
    }

    fn about_volume(&self, record: &VolumeRecord) -> BTreeMap<&'static str, String> {
        let state = match self.machine.mapping(&record.id) {
            Ok(None) => "closed",
            Ok(Some(mapping)) if mapping.suspended => "frozen",
            Ok(Some(_)) => "open",
            Err(_) => "unknown",
        };
        let pods: BTreeSet<&str> = record.pods.values().map(String::as_str).collect();
        let pods: Vec<&str> = pods.into_iter().collect();
        let mut about = about(&record.key, record.wraps.as_ref(), record.lineage.as_deref());
        about.insert("kind", "volume".to_owned());
        about.insert("state", state.to_owned());
        about.insert("bytes", record.capacity.to_string());
        let escrow = if record.escrow.is_some() { "yes" } else { "no" };
        about.insert("escrow", escrow.to_owned());
        let some = [
            ("claim", record.claim.clone()),
            ("pods", (!pods.is_empty()).then(|| pods.join(", "))),
            ("source", record.source.as_ref().map(|source| source.id().to_owned())),
            ("problem", self.complaint(&record.id)),
        ];
        about.extend(some.into_iter().filter_map(|(name, word)| Some((name, clip(&word?)))));
        about
    }

    fn about_snapshot(&self, record: &SnapshotRecord) -> BTreeMap<&'static str, String> {
        let mut about = about(&record.key, record.wraps.as_ref(), Some(&record.lineage));
        about.insert("kind", "snapshot".to_owned());
        about.insert("source", record.volume.clone());
        about.insert("bytes", record.capacity.to_string());
        let some = [("claim", record.claim.clone()), ("problem", self.complaint(&record.id))];
        about.extend(some.into_iter().filter_map(|(name, word)| Some((name, clip(&word?)))));
        about
    }
}

impl VolumeRecord {
    fn needs_keys(&self) -> bool {
        self.formatted && !self.deleting
    }
}

fn about(
    key: &str,
    wraps: Option<&Wraps>,
    lineage: Option<&str>,
) -> BTreeMap<&'static str, String> {
    let mut about = BTreeMap::from([("key", key.to_owned())]);
    about.extend(wraps.map(|wraps| ("data-key", wraps.data_key.to_string())));
    about.extend(wraps.map(|wraps| ("key-version", wraps.version.to_string())));
    about.extend(lineage.map(|lineage| ("lineage", lineage.to_owned())));
    about
}

fn thing(
    name: &str,
    wraps: Option<&Wraps>,
    version: fn(&Wraps) -> u32,
    about: &BTreeMap<&'static str, String>,
) -> Option<Thing> {
    let version = version(wraps?);
    Some(Thing { name: name.to_owned(), version, about: about.clone() })
}

/// As long as the service takes it, in one line.
fn clip(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.scan(0_usize, |len, c| {
        *len = len.saturating_add(c.len_utf8());
        (*len <= 512).then_some(c)
    })
    .collect()
}
