//! A machine and a key service in memory, for tests: they fail when told, and count.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};

use lastkey_kernel::DeviceNumber;
use lastkey_kernel::loop_device::Orphan;
use lastkey_kernel::mapper::{CryptTable, Mapping};
use lastkey_kernel::mounts::{Fill, Mount};
use lastkey_luks::VolumeKey;
use lastkey_secret::SecretVec;

use crate::ports::{Context, KeyError, KeyInfo, Machine, Thing, VolumeKeys};
use crate::record::Fs;

#[derive(Default)]
pub(crate) struct FakeMachine(pub(crate) Mutex<State>, pub(crate) Condvar);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) mappings: BTreeMap<String, Mapping>,
    pub(crate) mounts: Vec<Mount>,
    /// What was done, in order.
    pub(crate) calls: Vec<String>,
    /// The disk of this volume hangs.
    pub(crate) hung: Option<String>,
    /// Files that have a block device, which is the file itself here.
    pub(crate) loops: BTreeMap<PathBuf, DeviceNumber>,
    /// How many more calls that change something succeed.
    pub(crate) budget: Option<usize>,
}

impl FakeMachine {
    fn change(&self, call: String) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.0.lock().unwrap();
        if let Some(left) = &mut state.budget {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("out of budget"))?;
        }
        state.calls.push(call);
        Ok(state)
    }

    pub(crate) fn done(&self, call: &str) -> usize {
        self.0.lock().unwrap().calls.iter().filter(|done| done.starts_with(call)).count()
    }

    /// A restart of the machine.
    pub(crate) fn reboot(&self) {
        let mut state = self.0.lock().unwrap();
        state.mappings.clear();
        state.mounts.clear();
        state.loops.clear();
        state.budget = None;
    }
}

impl Machine for FakeMachine {
    fn attach(&self, file: &Path) -> io::Result<PathBuf> {
        let number = self.number(file)?;
        self.change("attach".to_owned())?.loops.insert(file.to_owned(), number);
        Ok(file.to_owned())
    }

    fn detach(&self, file: &Path) -> io::Result<()> {
        self.change("detach".to_owned())?.loops.remove(file);
        Ok(())
    }

    fn release(&self, device: &Path) -> io::Result<()> {
        self.change(format!("release {}", device.display()))?.loops.remove(device);
        Ok(())
    }

    fn orphans(&self) -> io::Result<Vec<Orphan>> {
        let state = self.0.lock().unwrap();
        let orphans = state.loops.iter().filter(|(file, _)| !file.exists());
        let orphans = orphans.map(|(file, number)| Orphan {
            device: file.clone(),
            number: *number,
            file: file.clone(),
        });
        Ok(orphans.collect())
    }

    fn grow(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn number(&self, device: &Path) -> io::Result<DeviceNumber> {
        let minor = u32::try_from(std::fs::metadata(device)?.ino() & 0xf_ffff).unwrap();
        Ok(DeviceNumber { major: 7, minor })
    }

    fn is_solid_state(&self, _: DeviceNumber) -> bool {
        true
    }

    fn mappings(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().mappings.keys().cloned().collect())
    }

    fn mapping(&self, name: &str) -> io::Result<Option<Mapping>> {
        Ok(self.0.lock().unwrap().mappings.get(name).cloned())
    }

    fn open(
        &self,
        name: &str,
        uuid: &str,
        table: &CryptTable,
        _: &VolumeKey,
    ) -> io::Result<Mapping> {
        let mut state = self.change(format!("open {name}"))?;
        let minor = u32::try_from(state.calls.len()).unwrap();
        let mapping = Mapping {
            uuid: uuid.to_owned(),
            number: DeviceNumber { major: 253, minor },
            suspended: false,
            below: Some(table.device),
            len: table.len,
            opens: 0,
        };
        if state.mappings.insert(name.to_owned(), mapping.clone()).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(mapping)
    }

    fn reload(&self, name: &str, table: &CryptTable, _: &VolumeKey) -> io::Result<()> {
        let mut state = self.change(format!("reload {name}"))?;
        state.mappings.get_mut(name).unwrap().len = table.len;
        Ok(())
    }

    fn close(&self, name: &str, _: bool) -> io::Result<()> {
        self.change(format!("close {name}"))?.mappings.remove(name);
        Ok(())
    }

    fn freeze(&self, name: &str) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        drop(self.1.wait_while(state, |state| state.hung.as_deref() == Some(name)).unwrap());
        self.change(format!("freeze {name}"))?.mappings.get_mut(name).unwrap().suspended = true;
        Ok(())
    }

    fn thaw(&self, name: &str, _: &VolumeKey) -> io::Result<()> {
        self.change(format!("thaw {name}"))?.mappings.get_mut(name).unwrap().suspended = false;
        Ok(())
    }

    fn pause(&self, name: &str) -> io::Result<()> {
        self.change(format!("pause {name}"))?.mappings.get_mut(name).unwrap().suspended = true;
        Ok(())
    }

    fn go_on(&self, name: &str) -> io::Result<()> {
        self.change(format!("go on {name}"))?.mappings.get_mut(name).unwrap().suspended = false;
        Ok(())
    }

    fn make_fs(&self, fs: Fs, _: &Path) -> io::Result<()> {
        self.change(format!("make {}", fs.as_str())).map(drop)
    }

    fn grow_fs(&self, _: Fs, _: &Path, _: &Path) -> io::Result<()> {
        self.change("grow fs".to_owned()).map(drop)
    }

    fn mount(&self, device: &Path, at: &Path, _: Fs, _: &[String]) -> io::Result<()> {
        let mut state = self.change(format!("mount {}", at.display()))?;
        let found = state.mappings.values().find(|mapping| mapping.path() == device);
        let number = found.ok_or(io::ErrorKind::NotFound)?.number;
        state.mounts.push(mount_of(number, at, Path::new("/"), false));
        Ok(())
    }

    fn bind(&self, from: &Path, to: &Path, read_only: bool) -> io::Result<()> {
        let mut state = self.change(format!("bind {}", to.display()))?;
        let below = state.mounts.iter().find(|mount| mount.at == from).map(|mount| mount.device);
        let root = from.file_name().map(|name| Path::new("/").join(name)).unwrap();
        state.mounts.push(match below {
            Some(device) => mount_of(device, to, Path::new("/"), read_only),
            None => mount_of(DeviceNumber { major: 0, minor: 5 }, to, &root, read_only),
        });
        Ok(())
    }

    fn unmount(&self, at: &Path) -> io::Result<()> {
        self.change(format!("unmount {}", at.display()))?.mounts.retain(|mount| mount.at != at);
        Ok(())
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        Ok(self.0.lock().unwrap().mounts.clone())
    }

    fn fill(&self, _: &Path) -> io::Result<Fill> {
        Ok(Fill { total: 100, available: 60, used: 40, files: 10, free_files: 9 })
    }
}

fn mount_of(device: DeviceNumber, at: &Path, root: &Path, read_only: bool) -> Mount {
    let (at, root) = (at.to_owned(), root.to_owned());
    Mount { at, device, root, source: PathBuf::new(), read_only }
}

/// How the key service answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Away,
    Denied,
}

/// Wraps by writing key, version and context before the secret.
pub(crate) struct FakeKeys(pub(crate) Mutex<Keys>);

pub(crate) struct Keys {
    pub(crate) mood: Mood,
    /// Alias or id, and id.
    pub(crate) known: BTreeMap<String, String>,
    pub(crate) disabled: BTreeSet<String>,
    pub(crate) ended: BTreeSet<String>,
    /// Primary versions that are not 1.
    pub(crate) primary: BTreeMap<String, u32>,
    /// Versions that are gone.
    pub(crate) destroyed: BTreeSet<(String, u32)>,
    /// How often new data keys were asked for.
    pub(crate) data_keys: u32,
    /// The last report about each key.
    pub(crate) reports: BTreeMap<String, Vec<Thing>>,
    /// How many reports there were, those that were refused too.
    pub(crate) reported: usize,
    /// With which code reports are refused.
    pub(crate) no_reports: Option<&'static str>,
    /// Nothing is protected; no key has a primary version.
    pub(crate) protects_nothing: bool,
    pub(crate) has_no_primary: bool,
    /// Headers in escrow.
    pub(crate) headers: BTreeMap<String, Vec<u8>>,
    /// Tokens of pods that get a session, and whether they may recover in it.
    pub(crate) pods: BTreeMap<Vec<u8>, bool>,
    /// How many sessions were opened.
    pub(crate) sessions: usize,
    /// The driver itself recovers nothing under keys of classes.
    pub(crate) recovers_nothing: bool,
}

impl Keys {
    fn recover(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError> {
        let (key, version) = under(wrapped).ok_or(KeyError::Undecryptable)?;
        let is_gone = self.destroyed.contains(&(key.clone(), version));
        if self.disabled.contains(&key) || self.ended.contains(&key) || is_gone {
            return Err(refused("KeyState"));
        }
        let secret = wrapped.strip_prefix(prefix(&key, version, context).as_slice());
        secret.map(SecretVec::copy_of).ok_or(KeyError::Undecryptable)
    }

    fn primary(&self, key: &str) -> u32 {
        self.primary.get(key).copied().unwrap_or(1)
    }
}

impl FakeKeys {
    pub(crate) fn with(keys: &[(&str, &str)]) -> Self {
        let mut known = BTreeMap::new();
        for (alias, id) in keys {
            known.insert((*alias).to_owned(), (*id).to_owned());
            known.insert((*id).to_owned(), (*id).to_owned());
        }
        Self(Mutex::new(Keys {
            mood: Mood::Well,
            known,
            disabled: BTreeSet::new(),
            ended: BTreeSet::new(),
            primary: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            data_keys: 0,
            reports: BTreeMap::new(),
            reported: 0,
            protects_nothing: false,
            has_no_primary: false,
            no_reports: None,
            headers: BTreeMap::new(),
            pods: BTreeMap::new(),
            sessions: 0,
            recovers_nothing: false,
        }))
    }

    fn ask(&self) -> Result<std::sync::MutexGuard<'_, Keys>, KeyError> {
        let keys = self.0.lock().unwrap();
        match keys.mood {
            Mood::Well => Ok(keys),
            Mood::Away => Err(KeyError::Away("silent".into())),
            Mood::Denied => Err(refused("AccessDenied")),
        }
    }
}

fn refused(code: &str) -> KeyError {
    KeyError::Refused { code: code.to_owned(), message: "no".to_owned() }
}

fn prefix(key: &str, version: u32, context: &Context) -> Vec<u8> {
    let mut prefix = format!("{key}@{version}|").into_bytes();
    context.iter().for_each(|(name, value)| prefix.extend(format!("{name}={value};").bytes()));
    prefix.push(b'|');
    prefix
}

impl VolumeKeys for FakeKeys {
    fn describe(&self, key: &str) -> Result<Option<KeyInfo>, KeyError> {
        let keys = self.ask()?;
        Ok(keys.known.get(key).map(|id| KeyInfo {
            id: id.clone(),
            usable: !keys.disabled.contains(id) && !keys.ended.contains(id),
            primary: (!keys.has_no_primary).then(|| keys.primary(id)),
            data_keys: keys.data_keys,
        }))
    }

    fn make_lineage(&self, alias: &str, volume: &str) -> Result<String, KeyError> {
        let mut keys = self.ask()?;
        let id = format!("lineage-of-{volume}");
        keys.known.insert(alias.to_owned(), id.clone());
        keys.known.insert(id.clone(), id.clone());
        Ok(id)
    }

    fn end_lineage(&self, key: &str) -> Result<(), KeyError> {
        let mut keys = self.ask()?;
        if keys.reports.get(key).is_some_and(|things| !things.is_empty()) {
            return Err(refused("KeyNeeded"));
        }
        keys.ended.insert(key.to_owned());
        Ok(())
    }

    fn wrap(&self, key: &str, secret: &SecretVec, context: &Context) -> Result<Vec<u8>, KeyError> {
        let keys = self.ask()?;
        if keys.disabled.contains(key) {
            return Err(refused("KeyState"));
        }
        if keys.protects_nothing {
            return Err(refused("AccessDenied"));
        }
        let mut wrapped = prefix(key, keys.primary(key), context);
        secret.expose(|secret| wrapped.extend_from_slice(secret));
        Ok(wrapped)
    }

    fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError> {
        let keys = self.ask()?;
        if keys.recovers_nothing && !wrapped.starts_with(b"lineage") {
            return Err(refused("AccessDenied"));
        }
        keys.recover(wrapped, context)
    }

    fn open_session(&self, token: &SecretVec, _: &str) -> Result<SecretVec, KeyError> {
        let mut keys = self.ask()?;
        let token = token.expose(<[u8]>::to_vec);
        if !keys.pods.contains_key(&token) {
            return Err(refused("Unauthenticated"));
        }
        keys.sessions += 1;
        Ok(SecretVec::take(token))
    }

    fn unwrap_in(
        &self,
        session: &SecretVec,
        wrapped: &[u8],
        context: &Context,
    ) -> Result<SecretVec, KeyError> {
        let keys = self.ask()?;
        match session.expose(|session| keys.pods.get(session).copied()) {
            Some(true) => keys.recover(wrapped, context),
            Some(false) | None => Err(refused("AccessDenied")),
        }
    }

    fn version_of(&self, wrapped: &[u8]) -> Option<u32> {
        under(wrapped).map(|(_, version)| version)
    }

    fn report(&self, key: &str, _: &str, things: &[Thing]) -> Result<(), KeyError> {
        let mut keys = self.ask()?;
        keys.reported += 1;
        if let Some(code) = keys.no_reports {
            return Err(refused(code));
        }
        keys.reports.insert(key.to_owned(), things.to_vec());
        Ok(())
    }

    fn keep_header(&self, volume: &str, _: &str, header: &SecretVec) -> Result<(), KeyError> {
        self.ask()?.headers.insert(volume.to_owned(), header.expose(<[u8]>::to_vec));
        Ok(())
    }

    fn drop_header(&self, volume: &str) -> Result<(), KeyError> {
        self.ask()?.headers.remove(volume);
        Ok(())
    }
}

/// Key and version of a wrapped secret.
fn under(wrapped: &[u8]) -> Option<(String, u32)> {
    let end = wrapped.iter().position(|byte| *byte == b'|')?;
    let text = String::from_utf8_lossy(&wrapped[..end]).into_owned();
    let (key, version) = text.rsplit_once('@')?;
    Some((key.to_owned(), version.parse().ok()?))
}
