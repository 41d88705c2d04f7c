//! Reports to the key service: which volumes and snapshots of this node are under which version of
//! which key, so that none is destroyed that one of them needs.
//!
//! Room      `volumes`.
//! Holds     A key that anything was reported of is not forgotten, not by a restart either, until
//!           the service knows that nothing is under it any more. What is under a version that is
//!           not known is not left out: then nothing is said of that key, and the last word stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lastkey_crypto::digest::sha256;

use crate::driver::Driver;
use crate::escrow::hex;
use crate::fault::{Fault, Kind, key_fault};
use crate::keep::PAUSE;
use crate::ports::{KeyError, Thing};
use crate::record::{SnapshotRecord, VolumeRecord, Wraps};
use crate::shelf::put_file;

const FILE: &str = "reports.json";
/// What tells this folder from another one on a node of the same name.
const PLACE_FILE: &str = "place";
/// Said again, also when nothing changed: the service may have been restored from a backup.
const AGAIN: Duration = Duration::from_secs(3_600);
/// The service's code for too many reports at once.
const OVERTAKEN: &str = "Conflict";
/// How much of the name of a place is for people. With the digest it is below the 128 bytes that the
/// service takes.
const READABLE_LEN: usize = 80;
/// How much of a digest tells one place from another, in hexadecimal digits.
const PLACE_DIGEST_LEN: usize = 32;

/// What was said to the service.
#[derive(Debug)]
pub(crate) struct Reports {
    file: PathBuf,
    sent: Mutex<BTreeMap<String, Option<Sent>>>,
    /// Keys of which the service does not take the report, as for too many places, and what it said.
    refused: Mutex<BTreeMap<String, String>>,
    /// Held from the count to the answer: what was counted first never comes last.
    saying: Mutex<()>,
    /// The id of the folder.
    folder: String,
}

/// The last report about a key; none before the first one of this process.
#[derive(Clone, Debug)]
struct Sent {
    things: Vec<Thing>,
    at: Instant,
    /// When it is said again, as it is.
    again: Duration,
}

impl Reports {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let file = folder.join(FILE);
        let keys: BTreeSet<String> = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            file,
            sent: Mutex::new(keys.into_iter().map(|key| (key, None)).collect()),
            refused: Mutex::default(),
            saying: Mutex::default(),
            folder: folder_id(folder)?,
        })
    }

    /// Keeps whether the service takes the report of a key. Whether this node may report at all is
    /// for the policies to say.
    fn note(&self, key: &str, said: &Result<(), KeyError>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Ok(()) => {
                refused.remove(key);
            }
            Err(KeyError::Refused { code, message })
                if code != "AccessDenied" && code != OVERTAKEN =>
            {
                refused.insert(key.to_owned(), message.clone());
            }
            Err(
                KeyError::Refused { .. }
                | KeyError::RolledBack { .. }
                | KeyError::Away(_)
                | KeyError::Undecryptable,
            ) => {}
        }
    }

    /// What the service said when it did not take the report of a key.
    fn refusal(&self, key: &str) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn say(&self) -> MutexGuard<'_, ()> {
        self.saying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<Sent>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of which something was reported, or is to be.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        self.lock().keys().cloned().collect()
    }

    fn is_said(&self, key: &str, things: &[Thing]) -> bool {
        let sent = self.lock();
        let last = sent.get(key).and_then(Option::as_ref);
        last.is_some_and(|last| last.things == things && last.at.elapsed() < last.again)
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

    /// After a report that the service took.
    fn end(&self, key: &str, things: &[Thing]) -> io::Result<()> {
        if !things.is_empty() {
            self.wait(key, things, AGAIN);
            return Ok(());
        }
        let mut sent = self.lock();
        sent.remove(key);
        self.write(&sent)
    }

    /// Says no more about a key until something changes, or the time is over.
    fn wait(&self, key: &str, things: &[Thing], again: Duration) {
        let last = Sent { things: things.to_vec(), at: Instant::now(), again };
        self.lock().insert(key.to_owned(), Some(last));
    }

    fn write(&self, sent: &BTreeMap<String, Option<Sent>>) -> io::Result<()> {
        let keys: Vec<&String> = sent.keys().collect();
        put_file(&self.file, &serde_json::to_vec(&keys).map_err(io::Error::other)?)
    }
}

/// The id of a folder, drawn once.
fn folder_id(folder: &Path) -> io::Result<String> {
    let file = folder.join(PLACE_FILE);
    match fs::read_to_string(&file) {
        Ok(id) => Ok(id),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Driver::fresh_id("lkp").map_err(io::Error::other)?;
            put_file(&file, id.as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

/// What is under each key; for one of which not everything is known, the id of what is not.
type Held = BTreeMap<String, Result<Vec<Thing>, String>>;

impl Driver {
    /// Tells the service what changed since it was told.
    pub(crate) fn report_all(&self) {
        let _saying = self.reports.say();
        let mut held = self.held();
        for key in self.reports.keys() {
            held.entry(key).or_insert_with(|| Ok(Vec::new()));
        }
        for (key, things) in held {
            let Ok(things) = things else { continue };
            if self.reports.is_said(&key, &things) {
                continue;
            }
            if let Err(fault) = self.report(&key, &things) {
                self.complain(&report_of(&key), &fault);
                if fault.kind == Kind::Away {
                    return;
                }
            }
        }
    }

    /// Tells the service that nothing is under the key of a lineage, before that is ended.
    pub(crate) fn report_ended(&self, lineage: &str) {
        let _saying = self.reports.say();
        if let Err(fault) = self.report(lineage, &[]) {
            // Whether it counts, the service says when the key is to end.
            self.complain(&report_of(lineage), &fault);
        }
    }

    fn report(&self, key: &str, things: &[Thing]) -> Result<(), Fault> {
        if self.reports.is_said(key, things) {
            return Ok(());
        }
        let kept = |error: io::Error| {
            let message = format!("cannot remember which keys were reported: {error}");
            Fault::new(Kind::Internal, message)
        };
        self.reports.begin(key).map_err(kept)?;
        let said = self.keys.report(key, &self.reporter(), things);
        self.reports.note(key, &said);
        let is_overtaken =
            matches!(&said, Err(KeyError::Refused { code, .. }) if code == OVERTAKEN);
        let fault = match said.map_err(|error| key_fault(key, error)) {
            Ok(()) => {
                self.is_well(&report_of(key));
                return self.reports.end(key, things).map_err(kept);
            }
            // The next round.
            Err(fault) if fault.kind == Kind::Away || is_overtaken => return Err(fault),
            Err(fault) => fault,
        };
        // Also when nothing is left: the word of before stands until the service takes this one.
        let again = if fault.kind == Kind::Denied { AGAIN } else { PAUSE };
        self.reports.wait(key, things, again);
        let message = format!(
            "the service does not take the report of what is under the key {key}, and so does not \
             keep it from being destroyed: {fault}"
        );
        Err(Fault { message, ..fault })
    }

    /// Lets a new volume under a key only where the service takes this node's report of it.
    pub(crate) fn require_counted(&self, key: &str) -> Result<(), Fault> {
        let Some(said) = self.reports.refusal(key) else { return Ok(()) };
        Err(Fault::precondition(format!(
            "the key service does not take this node's report of what is under the key {key}, and so \
             would not keep it for one more volume: {said}. Name another key, or see \
             `lastkey key impact {key}`"
        )))
    }

    /// Has a volume counted before it is used for the first time.
    pub(crate) fn count(&self, record: &VolumeRecord) -> Result<(), Fault> {
        let _saying = self.reports.say();
        let mut held = self.held();
        for key in std::iter::once(&record.key).chain(&record.lineage) {
            let Some(things) = held.remove(key) else { continue };
            let things = things.map_err(|unknown| {
                Fault::precondition(format!(
                    "{} cannot be counted under the key {key} before it is known under which version \
                     {unknown} is: see what the log says of {unknown}",
                    record.id
                ))
            })?;
            match self.report(key, &things) {
                // Without the right to report there are volumes that nobody counts.
                Ok(()) => {}
                Err(fault) if fault.kind == Kind::Denied => {
                    self.complain(&report_of(key), &fault);
                }
                Err(fault) => return Err(fault),
            }
            self.require_counted(key)?;
        }
        Ok(())
    }

    /// This driver on this node, as a place of the service.
    pub(crate) fn reporter(&self) -> String {
        let config = &self.config;
        place(&config.name, &config.node_id, &config.cluster, &self.reports.folder)
    }

    fn held(&self) -> Held {
        let mut held = Held::new();
        let mut add = |key: &str, id: &str, thing: Option<Thing>| {
            let things = held.entry(key.to_owned()).or_insert_with(|| Ok(Vec::new()));
            match (things.as_mut(), thing) {
                (Ok(things), Some(thing)) => things.push(thing),
                (Ok(_), None) => *things = Err(id.to_owned()),
                (Err(_), _) => {}
            }
        };
        for record in self.volumes.all().iter().filter(|record| record.needs_keys()) {
            let about = self.about_volume(record);
            let class = record.wraps.as_ref().map_or(&record.key, |wraps| &wraps.key);
            let thing = |version: fn(&Wraps) -> u32| {
                thing(&record.id, record.wraps.as_ref(), version, &about)
            };
            add(class, &record.id, thing(|wraps| wraps.version));
            if let Some(lineage) = &record.lineage {
                add(lineage, &record.id, thing(|wraps| wraps.lineage_version));
            }
        }
        for record in self.snapshots.all().iter().filter(|record| record.formatted) {
            let about = self.about_snapshot(record);
            let class = record.wraps.as_ref().map_or(&record.key, |wraps| &wraps.key);
            let thing = |version: fn(&Wraps) -> u32| {
                thing(&record.id, record.wraps.as_ref(), version, &about)
            };
            add(class, &record.id, thing(|wraps| wraps.version));
            add(&record.lineage, &record.id, thing(|wraps| wraps.lineage_version));
        }
        for things in held.values_mut().flatten() {
            things.sort_by(|a, b| a.name.cmp(&b.name));
        }
        held
    }

    fn about_volume(&self, record: &VolumeRecord) -> BTreeMap<&'static str, String> {
        let state = match self.machine.mapping(&record.id) {
            Ok(None) => "closed",
            Ok(Some(mapping)) if self.is_frozen(&record.id, &mapping) => "frozen",
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

/// Under which name what is wrong with the report of a key is kept.
pub(crate) fn report_of(key: &str) -> String {
    format!("report of {key}")
}

/// The name of a place: what a person reads, cut, and a digest of all of it. A node that is set up
/// anew under its old name is another place: what lay on its old disks is not forgotten by that.
fn place(driver: &str, node: &str, cluster: &str, folder: &str) -> String {
    let whole = [driver, node, cluster, folder];
    let whole = whole.map(|part| format!("{}:{part}", part.len())).concat();
    let dot = if cluster.is_empty() { "" } else { "." };
    let is_allowed = |c: &char| c.is_ascii_alphanumeric() || "._@-".contains(*c);
    let text = format!("{driver}@{node}{dot}{cluster}");
    let readable = text.chars().map(|c| if is_allowed(&c) { c } else { '-' }).take(READABLE_LEN);
    let digest = hex(&sha256(whole.as_bytes()));
    readable.chain(['-']).chain(digest.chars().take(PLACE_DIGEST_LEN)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_nodes_and_no_two_folders_are_the_same_place() {
        let long = "n".repeat(200);
        let nodes = [
            ("volumes", "a.b", "c", "1"),
            ("volumes", "a.b", "c", "2"),
            ("volumes", "a", "b.c", "1"),
            ("volumes", "a.b.c", "", "1"),
            ("volumes", "a/b", "c", "1"),
            ("volumes", &format!("{long}1"), "c", "1"),
            ("volumes", &format!("{long}2"), "c", "1"),
        ];
        let places = nodes.map(|(driver, node, cluster, id)| place(driver, node, cluster, id));
        assert!(places.iter().all(|place| place.len() <= 128), "{places:?}");
        assert!(places[0].starts_with("volumes@a.b.c-"), "{places:?}");
        assert_eq!(BTreeSet::from(places).len(), nodes.len());
    }

    #[test]
    fn folder_keeps_its_id() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = |folder: &tempfile::TempDir| Reports::open(folder.path()).unwrap().folder;
        assert_eq!(id(&one), id(&one));
        assert_ne!(id(&one), id(&other));
    }
}
