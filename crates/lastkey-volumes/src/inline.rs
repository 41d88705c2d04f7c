//! Inline volumes: made with a pod, gone with it, under a key that exists in the kernel alone.
//!
//! Room      `volumes`.
//! Source    CSI ephemeral inline volumes of Kubernetes.
//! Holds     The key is drawn, handed to the kernel and forgotten: after a restart of the node nobody
//!           opens what is left of the volume, and it is removed. The key service is not asked: what
//!           keeps pods from taking a whole disk are the bounds, for one volume and for all of a node.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_kernel::mapper::{CryptTable, Mapping};
use lastkey_luks::{DATA_OFFSET, ENCRYPTION, Medium as _, VOLUME_KEY_LEN, VolumeKey};
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::csi::PublishRequest;

use crate::back_end::Fill;
use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, Kind, io_while};
use crate::record::Fs;
use crate::request::{Access, Capability, Inline, required};
use crate::unlock::LAYOUT;

/// Where their data lies.
pub(crate) const FOLDER: &str = "inline";
/// Mappings of inline volumes begin so.
pub(crate) const PREFIX: &str = "lke-";
/// The device mapper takes names of 127 bytes.
const MAX_ID_LEN: usize = 120;

/// How much inline volumes may take of a node, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InlineBounds {
    /// One of them.
    pub each: u64,
    /// All of them.
    pub total: u64,
}

/// What inline volumes of the node have in bytes, by their names; those that are being made too.
#[derive(Debug, Default)]
pub(crate) struct Promised(Mutex<BTreeMap<String, u64>>);

impl Promised {
    /// Promises room to one more, or says why there is none.
    fn add(&self, name: &str, len: u64, total: u64) -> Result<(), Fault> {
        let mut all = self.lock();
        let taken = all.values().copied().fold(0, u64::saturating_add);
        if taken.saturating_add(len) > total {
            let message = format!(
                "inline volumes may have {total} bytes of this node in all (--inline-total), {taken} \
                 are taken, and {len} were asked for"
            );
            return Err(Fault::new(Kind::Exhausted, message));
        }
        all.insert(name.to_owned(), len);
        Ok(())
    }

    /// One that is there already.
    fn found(&self, name: &str, len: u64) {
        self.lock().insert(name.to_owned(), len);
    }

    fn end(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a volume takes: the back end's data has a header's length more than it shows, which is not
/// used here.
const fn taken(len: u64) -> u64 {
    len.saturating_add(DATA_OFFSET)
}

impl Driver {
    /// Removes what a node that was restarted has left of inline volumes.
    pub(crate) fn sweep_inline(&self) -> io::Result<()> {
        let folder = self.config.folder.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let swept = self.machine.mapping(&name).and_then(|mapping| match mapping {
                Some(mapping) => {
                    self.promised.found(&name, taken(mapping.len));
                    Ok(())
                }
                None => self.remove_inline(&name),
            });
            // One that is busy stops nobody: the next start tries again.
            if let Err(error) = swept {
                tracing::warn!(volume = name, %error, "an inline volume of before is not removed yet");
                let left = Disk::open(&self.inline_data(&name)).and_then(|disk| disk.len());
                self.promised.found(&name, left.unwrap_or(0));
            }
        }
        Ok(())
    }

    /// The mapping of an inline volume, if this is the id of one.
    pub(crate) fn inline_mapping(&self, id: &str) -> Result<Option<Mapping>, Fault> {
        mapping_name(id).map_or(Ok(None), |name| self.mapping(&name))
    }

    pub(crate) fn publish_inline(&self, request: &PublishRequest) -> Result<(), Fault> {
        let id = required("volume_id", &request.volume_id)?;
        let target = Path::new(required("target_path", &request.target_path)?);
        let wish = Inline::parse(&request.context)?;
        let capability = Capability::parse(request.capability.as_ref())?;
        let Access::Mount { fs, flags } = &capability.access else {
            return Err(Fault::invalid("an inline volume is mounted: it is no device"));
        };
        let name =
            mapping_name(id).ok_or_else(|| Fault::invalid("this is no id of an inline volume"))?;
        if !self.back_end.has_inline() {
            return Err(Fault::invalid(
                "volumes of this driver are whole devices, of which none is spent on an inline volume",
            ));
        }
        let _held = self.locks.take(id)?;
        let shown = self.machine.mounts().map_err(io_while("read the mounts"))?;
        let shown = shown.into_iter().rev().find(|mount| mount.at == target);
        match (self.mapping(&name)?, shown) {
            (Some(mapping), Some(mount)) if mount.device == mapping.number => return Ok(()),
            (_, Some(_)) => {
                let message = format!("{} shows something else already", target.display());
                return Err(Fault::new(Kind::Exists, message));
            }
            // Of a call that was cut short: no pod has seen it.
            (Some(_), None) => self.close_inline(&name)?,
            (None, None) => {}
        }
        self.remove_inline(&name).map_err(io_while("remove what was left"))?;
        let len = wish.len_within(self.config.inline.each)?;
        self.promised.add(&name, taken(len), self.config.inline.total)?;
        let fs = fs.or(wish.fs).unwrap_or(Fs::Ext4);
        let mut options = flags.clone();
        options.extend((request.readonly || capability.read_only).then(|| "ro".to_owned()));
        let made = self.make_inline(&name, len, fs, target, &options);
        if made.is_err() {
            // As much as goes; the next call begins anew.
            drop(self.close_inline(&name));
            drop(self.remove_inline(&name));
        }
        made
    }

    fn make_inline(
        &self,
        name: &str,
        len: u64,
        fs: Fs,
        target: &Path,
        options: &[String],
    ) -> Result<(), Fault> {
        let len = taken(len);
        if len > self.free()? {
            return Err(Fault::new(Kind::Exhausted, "this node has no room for the inline volume"));
        }
        let data = self.inline_data(name);
        let made = self.back_end.make(&data, name, len, Fill::Nothing);
        made.map_err(io_while("make the inline volume"))?;
        let device = self.machine.attach(&data).map_err(io_while("attach the volume"))?;
        let disk = Disk::open(&device).map_err(io_while("open the volume's device"))?;
        let len = disk.len().map_err(io_while("tell the length of the volume"))?;
        drop(disk);
        let number =
            self.machine.number(&device).map_err(io_while("ask for the device's number"))?;
        let sectors = u64::from(LAYOUT.sector_size);
        let table = CryptTable {
            encryption: ENCRYPTION.to_owned(),
            device: number,
            offset: DATA_OFFSET,
            len: len.saturating_sub(DATA_OFFSET) / sectors * sectors,
            sector_size: LAYOUT.sector_size,
            iv_tweak: 0,
            discards: false,
            no_workqueues: self.machine.is_solid_state(number),
        };
        let key = SecretVec::try_fill(VOLUME_KEY_LEN, |key| SystemEntropy.fill(key))
            .map_err(|_| Fault::new(Kind::Internal, "no randomness available"))?;
        let key = VolumeKey::take(key)?;
        let opened = self.machine.open(name, &mapping_uuid(name), &table, &key);
        let mapping = opened.map_err(io_while("open the encrypted device"))?;
        drop(key);
        let path = mapping.path();
        self.machine.make_fs(fs, &path).map_err(io_while("make the file system"))?;
        fs::create_dir_all(target).map_err(io_while("make the target path"))?;
        let mounted = self.machine.mount(&path, target, fs, options);
        mounted.map_err(io_while("mount the file system"))
    }

    /// Ends an inline volume that is not mounted any more; nothing to do for any other id.
    pub(crate) fn end_inline(&self, id: &str) -> Result<(), Fault> {
        let Some(name) = mapping_name(id) else { return Ok(()) };
        if self.mapping(&name)?.is_some() {
            self.close_inline(&name)?;
        }
        self.remove_inline(&name).map_err(io_while("remove the inline volume"))
    }

    fn close_inline(&self, name: &str) -> Result<(), Fault> {
        self.machine.close(name, false).map_err(io_while("close the encrypted device"))
    }

    fn remove_inline(&self, name: &str) -> io::Result<()> {
        let data = self.inline_data(name);
        match data.symlink_metadata() {
            Ok(_) => {
                self.machine.detach(&data)?;
                self.back_end.remove(&data, name)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.promised.end(name);
        Ok(())
    }

    pub(crate) fn inline_data(&self, name: &str) -> PathBuf {
        self.config.folder.join(FOLDER).join(name)
    }
}

/// What the mapping of an inline volume says of itself.
pub(crate) fn mapping_uuid(name: &str) -> String {
    format!("CRYPT-PLAIN-{name}")
}

/// Whether a pod asks for an inline volume.
pub(crate) fn is_inline(context: &BTreeMap<String, String>) -> bool {
    context.get("csi.storage.k8s.io/ephemeral").is_some_and(|value| value == "true")
}

/// Ids are the kubelet's; what could be a path or another name is none.
fn mapping_name(id: &str) -> Option<String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_id = (1..=MAX_ID_LEN).contains(&id.len()) && id.bytes().all(is_word);
    is_id.then(|| format!("{PREFIX}{id}"))
}
