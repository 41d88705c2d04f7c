//! The driver: configuration, ports, and what its services share.
//!
//! Room      `volumes`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_kernel::mapper::Mapping;

use crate::back_end::BackEnd;
use crate::escrow::hex;
use crate::fault::{Fault, Kind, io_while};
use crate::inline::{InlineBounds, Promised};
use crate::keep::Postponed;
use crate::locks::Locks;
use crate::metrics::{Counted, Counts};
use crate::ports::{KeyInfo, Machine, VolumeKeys};
use crate::record::{SnapshotRecord, VolumeRecord};
use crate::reports::Reports;
use crate::shelf::Shelf;

/// The file of the folder that a running driver holds the lock of.
const LOCK: &str = "lock";

/// What the operator chose.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the driver, as StorageClasses give it.
    pub name: String,
    /// Id of this node.
    pub node_id: String,
    /// Version of the program.
    pub version: String,
    /// Bound to every data key.
    pub cluster: String,
    /// The key of classes that name none: id or alias.
    pub default_key: String,
    /// Where their records lie, and volumes that are files.
    pub folder: PathBuf,
    /// Namespaces whose claims are refused: those of the key service.
    pub refused_namespaces: Vec<String>,
    /// The audience of tokens of pods that the key service takes.
    pub audience: String,
    /// How much pods may take with inline volumes.
    pub inline: InlineBounds,
}

/// One node's driver.
pub struct Driver {
    pub(crate) config: Config,
    pub(crate) keys: Arc<dyn VolumeKeys>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) back_end: Arc<dyn BackEnd>,
    pub(crate) volumes: Shelf<VolumeRecord>,
    pub(crate) snapshots: Shelf<SnapshotRecord>,
    pub(crate) locks: Locks,
    pub(crate) reports: Reports,
    pub(crate) postponed: Postponed,
    pub(crate) counts: Counts,
    pub(crate) promised: Promised,
    /// Keys of classes, by id, as they were described last.
    known: Mutex<BTreeMap<String, KeyInfo>>,
    /// Mappings that nothing remembers and that are in use.
    pub(crate) zombies: Mutex<BTreeSet<String>>,
    /// What was said last of each volume that something is wrong with.
    complaints: Mutex<BTreeMap<String, String>>,
    /// Locked for as long as the driver lives.
    _folder: File,
}

impl Driver {
    /// Opens the folder of the volumes.
    ///
    /// # Errors
    /// When it cannot be made or read, or another driver uses it.
    pub fn new(
        config: Config,
        keys: Arc<dyn VolumeKeys>,
        machine: Arc<dyn Machine>,
        back_end: Arc<dyn BackEnd>,
    ) -> io::Result<Self> {
        let folder = lock_folder(&config.folder)?;
        let volumes = Shelf::open(&config.folder, Arc::clone(&back_end))?;
        let snapshots = Shelf::open(&config.folder, Arc::clone(&back_end))?;
        let reports = Reports::open(&config.folder)?;
        let counts = Counts::default();
        let keys = Arc::new(Counted::new(keys, counts.clone()));
        let driver = Self {
            config,
            keys,
            machine,
            back_end,
            volumes,
            snapshots,
            locks: Locks::default(),
            reports,
            postponed: Postponed::default(),
            counts,
            promised: Promised::default(),
            known: Mutex::default(),
            zombies: Mutex::default(),
            complaints: Mutex::default(),
            _folder: folder,
        };
        driver.sweep_inline()?;
        Ok(driver)
    }

    pub(crate) fn lock_known(&self) -> MutexGuard<'_, BTreeMap<String, KeyInfo>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is wrong with a volume, once for as long as it is the same.
    pub(crate) fn complain(&self, id: &str, fault: &Fault) {
        let said = fault.to_string();
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.get(id) != Some(&said) {
            let cause = fault.cause.as_ref().map(ToString::to_string);
            tracing::warn!(volume = id, cause, "{fault}");
            complaints.insert(id.to_owned(), said);
        }
    }

    /// Nothing is wrong with a volume any more.
    pub(crate) fn is_well(&self, id: &str) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Nothing is wrong with what is not there any more.
    pub(crate) fn keep_complaints(&self, there: &BTreeSet<String>) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.retain(|id, _| there.contains(id));
    }

    /// With how many something is wrong.
    pub(crate) fn complaints_len(&self) -> usize {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What is wrong with a volume, if it was said.
    pub(crate) fn complaint(&self, id: &str) -> Option<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// A fresh id with a prefix.
    pub(crate) fn fresh_id(prefix: &str) -> Result<String, Fault> {
        let mut bytes = [0; 16];
        SystemEntropy
            .fill(&mut bytes)
            .map_err(|_| Fault::new(Kind::Internal, "no randomness available"))?;
        Ok(format!("{prefix}-{}", hex(&bytes)))
    }

    pub(crate) fn volume(&self, id: &str) -> Result<VolumeRecord, Fault> {
        self.volumes.get(id).ok_or_else(|| Fault::no_volume(id))
    }

    pub(crate) fn mapping(&self, id: &str) -> Result<Option<Mapping>, Fault> {
        self.machine.mapping(id).map_err(io_while("ask the device mapper"))
    }

    /// The label of nodes that volumes of this one are bound to.
    pub(crate) fn topology_key(&self) -> String {
        format!("topology.{}/node", self.config.name)
    }

    /// The id of a key that a class names. An id that the service does not know may be an alias:
    /// ids of other services become aliases of a key here, so that classes need no change.
    pub(crate) fn resolve_key(&self, named: Option<&str>) -> Result<String, Fault> {
        let name = named.unwrap_or(&self.config.default_key);
        let alias = format!("alias/{name}");
        let names = match name {
            _ if name.starts_with("alias/") => vec![name],
            _ if is_uuid(name) => vec![name, &alias],
            _ => vec![alias.as_str()],
        };
        for name in &names {
            let found = self.keys.describe(name);
            match found.map_err(|error| crate::fault::key_fault(name, error))? {
                Some(key) if key.usable => {
                    let id = key.id.clone();
                    self.lock_known().insert(id.clone(), key);
                    return Ok(id);
                }
                Some(_) => {
                    let message = format!("the key {name:.300} is disabled or to be deleted");
                    return Err(Fault::precondition(message));
                }
                None => {}
            }
        }
        let alias = names.last().copied().unwrap_or_default();
        Err(Fault::invalid(format!(
            "the key service has no key {name:.300} for this node. For a new key of this name: lastkey key create \
             --alias {alias:.300}; for an existing one: lastkey key alias set {alias:.300} KEY"
        )))
    }
}

/// Two drivers would each remove what the other one is making.
fn lock_folder(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = File::options().create(true).append(true).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another driver uses it; stop that one, or give each a folder of its own",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn is_uuid(text: &str) -> bool {
    let is_digit = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::is_uuid;

    #[test]
    fn ids_are_told_from_names() {
        assert!(is_uuid("0d1a2b3c-4d5e-6f70-8192-a3b4c5d6e7f8"));
        for other in ["", "alias/app", "0d1a2b3c-4d5e-6f70-8192-a3b4c5d6e7f", "acs:kms:cn:1:key/0d"]
        {
            assert!(!is_uuid(other), "{other}");
        }
    }
}
