//! `csi.v1.Node`: volumes are unlocked, mounted, shown to pods, and all of it undone.
//!
//! Room      `volumes`.
//! Source    CSI 1.13, "Node Service RPC".
//! Holds     A mapping is reused when its UUID and the device below are the volume's, or not at
//!           all. A file system is made in the state `luks` alone.

use std::fs;
use std::io;
use std::path::Path;

use lastkey_kernel::mapper::{CryptTable, Mapping};
use lastkey_kernel::mounts::Mount;
use lastkey_luks::{Content, ENCRYPTION, Header, State};
use lastkey_node::tokens::PodTokens;
use lastkey_wire::grpc::csi::{
    Condition, ExpandReply, NodeExpandRequest, NodeInfo, PublishRequest, StageRequest, StatsReply,
    StatsRequest, UndoRequest, Usage,
};

use crate::controller::len_of;
use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, Kind, io_while};
use crate::inline::is_inline;
use crate::record::{Fs, VolumeRecord};
use crate::request::{Access, Capability, pod, required, size};
use crate::unlock::{LAYOUT, Opener, Unlocked, waits_for_pod};

const BYTES: i32 = 1;
const INODES: i32 = 2;

impl Driver {
    pub(crate) fn stage(&self, request: &StageRequest) -> Result<(), Fault> {
        let id = required("volume_id", &request.volume_id)?;
        let at = Path::new(required("staging_target_path", &request.staging_path)?);
        let capability = Capability::parse(request.capability.as_ref())?;
        let _held = self.locks.take(id)?;
        let mut record = self.volume(id)?;
        if record.role.is_some() {
            // It is opened when a pod shows its token, which comes with a publish alone.
            return Ok(());
        }
        self.make_ready(&mut record, at, &capability, Opener::Driver)
    }

    /// Unlocks a volume, opens its mapping, and mounts what is in it.
    pub(crate) fn make_ready(
        &self,
        record: &mut VolumeRecord,
        at: &Path,
        capability: &Capability,
        by: Opener<'_>,
    ) -> Result<(), Fault> {
        let file = self.volumes.find(&record.id)?;
        let device = self.machine.attach(&file).map_err(io_while("attach the volume"))?;
        // A clone may be longer than what it was copied from.
        self.machine.grow(&file).map_err(io_while("tell the kernel the volume's length"))?;
        let disk = Disk::open(&device).map_err(io_while("open the volume's device"))?;
        let mut unlocked = self.unlock(record, &disk, by)?;
        match (unlocked.late.take(), by) {
            (Some(late), _) => self.complain(&record.id, &late),
            // What waited for a pod is done by now.
            (None, Opener::Pod(_)) => self.is_well(&record.id),
            (None, Opener::Driver) => {}
        }
        if !record.ready {
            self.count(record)?;
        }
        let mapping = self.mapped(record, &device, &disk, &unlocked)?;
        match &capability.access {
            Access::Block => {
                self.require_content(record, &unlocked, Content::Block)?;
                unlocked.advance(&disk, State::Ready, Content::Block)?;
            }
            Access::Mount { fs, flags } => {
                if !self.is_mounted(at, &mapping)? {
                    let fs = fs.or(record.fs).unwrap_or(Fs::Ext4);
                    self.prepare_fs(record, &mapping, &disk, &mut unlocked, fs)?;
                    self.mount(record, &mapping, at, fs, flags)?;
                    unlocked.advance(&disk, State::Ready, content_of(fs))?;
                }
            }
        }
        if !record.ready {
            record.ready = true;
            self.remember(record)?;
        }
        self.keep_for_pod(record, &disk, unlocked, by);
        Ok(())
    }

    /// The mapping of a volume: the one that is there, when it is the right one, or a new one.
    fn mapped(
        &self,
        record: &VolumeRecord,
        device: &Path,
        disk: &Disk,
        unlocked: &Unlocked,
    ) -> Result<Mapping, Fault> {
        let (name, uuid) = (record.id.as_str(), mapping_uuid(&unlocked.header, &record.id));
        let table = self.table(record, device, disk)?;
        if let Some(mut found) = self.mapping(name)? {
            let ours = found.uuid == uuid && found.below == Some(table.device);
            if ours && found.suspended {
                self.machine.thaw(name, &unlocked.key).map_err(io_while("let the volume go on"))?;
                found = self.mapping(name)?.ok_or_else(|| Fault::no_volume(name))?;
            }
            if ours && found.len == table.len {
                return Ok(found);
            }
            if ours {
                let grown = self.machine.reload(name, &table, &unlocked.key);
                grown.map_err(io_while("let the volume grow"))?;
                return self.mapping(name)?.ok_or_else(|| Fault::no_volume(name));
            }
            tracing::warn!(volume = name, uuid = found.uuid, "a stale mapping is closed");
            self.machine.close(name, false).map_err(|error| {
                Fault::precondition(format!(
                    "a stale mapping {name} of another device is in use ({error}); nothing was \
                     touched. Stop what uses it"
                ))
            })?;
        }
        let opened = self.machine.open(name, &uuid, &table, &unlocked.key);
        opened.map_err(io_while("open the encrypted device"))
    }

    fn table(
        &self,
        record: &VolumeRecord,
        device: &Path,
        disk: &Disk,
    ) -> Result<CryptTable, Fault> {
        let number =
            self.machine.number(device).map_err(io_while("ask for the device's number"))?;
        let sectors = u64::from(LAYOUT.sector_size);
        // What holds it may be longer: logical volumes have whole extents, devices their own length.
        let len = len_of(disk)?.saturating_sub(LAYOUT.offset).min(record.capacity);
        Ok(CryptTable {
            encryption: ENCRYPTION.to_owned(),
            device: number,
            offset: LAYOUT.offset,
            len: len / sectors * sectors,
            sector_size: LAYOUT.sector_size,
            iv_tweak: 0,
            discards: record.discards,
            no_workqueues: self.machine.is_solid_state(number),
        })
    }

    /// Makes the file system, once in the life of a volume.
    fn prepare_fs(
        &self,
        record: &VolumeRecord,
        mapping: &Mapping,
        disk: &Disk,
        unlocked: &mut Unlocked,
        fs: Fs,
    ) -> Result<(), Fault> {
        if unlocked.token.state != State::Luks {
            return self.require_content(record, unlocked, content_of(fs));
        }
        self.machine.make_fs(fs, &mapping.path()).map_err(io_while("make the file system"))?;
        unlocked.advance(disk, State::Fs, content_of(fs))
    }

    fn require_content(
        &self,
        record: &VolumeRecord,
        unlocked: &Unlocked,
        wanted: Content,
    ) -> Result<(), Fault> {
        let found = unlocked.token.content;
        if unlocked.token.state == State::Luks || found == wanted {
            return Ok(());
        }
        Err(Fault::precondition(format!(
            "{} holds {found:?} and was asked for as {wanted:?}; nothing was touched",
            record.id
        )))
    }

    fn mount(
        &self,
        record: &VolumeRecord,
        mapping: &Mapping,
        at: &Path,
        fs: Fs,
        flags: &[String],
    ) -> Result<(), Fault> {
        fs::create_dir_all(at).map_err(io_while("make the staging path"))?;
        let mut options = flags.to_vec();
        // A copy has the UUID of what it was copied from, which XFS takes for the same.
        if fs == Fs::Xfs && record.source.is_some() {
            options.push("nouuid".to_owned());
        }
        let device = mapping.path();
        let mounted = self.machine.mount(&device, at, fs, &options);
        mounted.map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidInput && !flags.is_empty() {
                return Fault::invalid(format!("the kernel refuses these mount options: {error}"));
            }
            io_while("mount the file system")(error)
        })?;
        let grown = self.machine.grow_fs(fs, &device, at);
        grown.map_err(io_while("let the file system fill its device"))
    }

    /// Whether the volume is mounted at a path; something else there is an error.
    fn is_mounted(&self, at: &Path, mapping: &Mapping) -> Result<bool, Fault> {
        match self.mount_at(at)? {
            None => Ok(false),
            Some(mount) if mount.device == mapping.number => Ok(true),
            Some(_) => {
                Err(Fault::precondition(format!("something else is mounted at {}", at.display())))
            }
        }
    }

    pub(crate) fn mount_at(&self, at: &Path) -> Result<Option<Mount>, Fault> {
        Ok(self.mounts()?.into_iter().rev().find(|mount| mount.at == at))
    }

    pub(crate) fn mounts(&self) -> Result<Vec<Mount>, Fault> {
        self.machine.mounts().map_err(io_while("read the mounts"))
    }

    pub(crate) fn unstage(&self, request: &UndoRequest) -> Result<(), Fault> {
        let id = required("volume_id", &request.volume_id)?;
        let at = Path::new(required("staging_target_path", &request.path)?);
        let _held = self.locks.take(id)?;
        self.shut(id, at)
    }

    /// Unmounts a volume where it was made ready, and closes it.
    pub(crate) fn shut(&self, id: &str, at: &Path) -> Result<(), Fault> {
        // The id is what the caller says: other devices of the node have names as well.
        let mapping = self.mapping(id)?.filter(|mapping| is_ours(mapping, id));
        if let (Some(mapping), Some(mount)) = (&mapping, self.mount_at(at)?)
            && mount.device == mapping.number
        {
            self.machine.unmount(at).map_err(io_while("unmount the staging path"))?;
        }
        if mapping.is_some() {
            self.machine.close(id, false).map_err(io_while("close the encrypted device"))?;
        }
        if self.volumes.get(id).is_some() {
            let file = self.volumes.data(id);
            self.machine.detach(&file).map_err(io_while("let go of the volume"))?;
        }
        Ok(())
    }

    pub(crate) fn publish(&self, mut request: PublishRequest) -> Result<(), Fault> {
        let tokens = PodTokens::take(&mut request.secrets, &mut request.context);
        let tokens = tokens.map_err(|wrong| Fault::invalid(wrong.to_string()))?;
        if is_inline(&request.context) {
            return self.publish_inline(&request);
        }
        let id = required("volume_id", &request.volume_id)?;
        required("target_path", &request.target_path)?;
        let capability = Capability::parse(request.capability.as_ref())?;
        if request.staging_path.is_empty() {
            return Err(Fault::precondition("staging_target_path is missing"));
        }
        let read_only = request.readonly || capability.read_only;
        if read_only && capability.access == Access::Block {
            return Err(Fault::invalid(
                "a raw device for reading alone is not there yet: use a file system, or a claim \
                 that may write",
            ));
        }
        let _held = self.locks.take(id)?;
        let mut record = self.volume(id)?;
        if let Some(role) = record.role.clone() {
            self.open_for_pod(&mut record, &role, &request, &capability, &tokens)?;
        }
        self.show(record, &request, &capability, read_only)
    }

    /// Shows a volume that is open to a pod.
    fn show(
        &self,
        mut record: VolumeRecord,
        request: &PublishRequest,
        capability: &Capability,
        read_only: bool,
    ) -> Result<(), Fault> {
        let (staging, target) = (Path::new(&request.staging_path), Path::new(&request.target_path));
        let id = &record.id;
        let not_staged = || Fault::precondition(format!("{id} is not staged on this node"));
        let mapping = self.mapping(id)?.ok_or_else(not_staged)?;
        let from = match capability.access {
            Access::Block => mapping.path(),
            Access::Mount { .. } => {
                if !self.is_mounted(staging, &mapping)? {
                    return Err(not_staged());
                }
                staging.to_owned()
            }
        };
        let shown = |mount: &Mount| shows(mount, &mapping);
        if let Some(mount) = self.mount_at(target)? {
            return if shown(&mount) && mount.read_only == read_only {
                Ok(())
            } else {
                let message = format!("{} shows something else already", target.display());
                Err(Fault::new(Kind::Exists, message))
            };
        }
        let elsewhere = self.mounts()?.iter().any(|mount| shown(mount) && mount.at != staging);
        if capability.one_pod && elsewhere {
            return Err(Fault::precondition(format!(
                "{id} is for one pod, and another one has it"
            )));
        }
        make_target(target, &from).map_err(io_while("make the target path"))?;
        self.machine.bind(&from, target, read_only).map_err(io_while("show the volume"))?;
        if let Some(pod) = pod(&request.context) {
            record.pods.insert(request.target_path.clone(), pod);
            self.remember(&record)?;
        }
        Ok(())
    }

    pub(crate) fn unpublish(&self, request: &UndoRequest) -> Result<(), Fault> {
        let id = required("volume_id", &request.volume_id)?;
        let target = Path::new(required("target_path", &request.path)?);
        let _held = self.locks.take(id)?;
        self.machine.unmount(target).map_err(io_while("unmount the target path"))?;
        let removed = match fs::symlink_metadata(target) {
            Ok(found) if found.is_dir() => fs::remove_dir(target),
            // What `make_target` made; a mount would not be taken away by this either.
            Ok(found) if found.is_file() && found.len() == 0 => fs::remove_file(target),
            Ok(_) => {
                return Err(Fault::precondition(format!(
                    "{} is nothing that a volume was shown at: it was left as it is",
                    target.display()
                )));
            }
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_while("remove the target path")(error));
            }
            Ok(()) | Err(_) => {}
        }
        self.end_inline(id)?;
        let Some(mut record) = self.volumes.get(id) else { return Ok(()) };
        self.close_after_pods(&record);
        if record.pods.remove(&request.path).is_some() {
            self.remember(&record)?;
        }
        Ok(())
    }

    pub(crate) fn stats(&self, request: &StatsRequest) -> Result<StatsReply, Fault> {
        let id = required("volume_id", &request.volume_id)?;
        let path = Path::new(required("volume_path", &request.volume_path)?);
        let inline = self.inline_mapping(id)?;
        let mapping = if inline.is_some() {
            inline
        } else {
            self.volume(id).and_then(|_| self.mapping(id))?
        };
        let mount = self.mount_at(path)?;
        let (Some(mapping), Some(mount)) = (mapping, mount) else {
            let message = format!("{id} is not to be seen at {}", path.display());
            return Err(Fault::new(Kind::NotFound, message));
        };
        let condition = if self.is_frozen(id, &mapping) {
            let key = self.volumes.get(id).map(|record| record.key).unwrap_or_default();
            let message = format!("frozen: the key {key} is disabled");
            Condition { abnormal: true, message }
        } else {
            Condition { abnormal: false, message: "as it should be".to_owned() }
        };
        let usage = if mount.device == mapping.number {
            let fill = self.machine.fill(path).map_err(io_while("ask how full the volume is"))?;
            vec![
                usage(BYTES, fill.total, fill.available, fill.used),
                usage(
                    INODES,
                    fill.files,
                    fill.free_files,
                    fill.files.saturating_sub(fill.free_files),
                ),
            ]
        } else {
            vec![usage(BYTES, mapping.len, 0, 0)]
        };
        Ok(StatsReply { usage, condition: Some(condition) })
    }

    pub(crate) fn expand_on_node(&self, request: &NodeExpandRequest) -> Result<ExpandReply, Fault> {
        let id = required("volume_id", &request.volume_id)?;
        let path = Path::new(required("volume_path", &request.volume_path)?);
        let _held = self.locks.take(id)?;
        let mut record = self.volume(id)?;
        let wanted = size(request.capacity_range.as_ref(), record.capacity)?;
        let found = self.mapping(id)?;
        if found.is_none() && record.role.is_some() {
            // The next pod that opens it finds it larger.
            self.enlarge(&mut record, wanted)?;
            return Ok(expanded(&record));
        }
        let (Some(found), Some(mount)) = (found, self.mount_at(path)?) else {
            let message = format!("{id} is not to be seen at {}", path.display());
            return Err(Fault::new(Kind::NotFound, message));
        };
        self.enlarge(&mut record, wanted)?;
        let file = self.volumes.find(id)?;
        let device = self.machine.attach(&file).map_err(io_while("attach the volume"))?;
        self.machine.grow(&file).map_err(io_while("tell the kernel the volume's length"))?;
        let disk = Disk::open(&device).map_err(io_while("open the volume's device"))?;
        let unlocked = self.unlock(&mut record, &disk, Opener::Driver);
        let unlocked = unlocked.map_err(|fault| waits_for_pod(&record, fault))?;
        let mapping = self.mapped(&record, &device, &disk, &unlocked)?;
        let fs = fs_of(unlocked.token.content).filter(|_| mount.device == found.number);
        if let Some(fs) = fs {
            let grown = self.machine.grow_fs(fs, &mapping.path(), path);
            grown.map_err(io_while("let the file system fill its device"))?;
        }
        Ok(expanded(&record))
    }

    pub(crate) fn node_info(&self) -> NodeInfo {
        NodeInfo {
            node_id: self.config.node_id.clone(),
            max_volumes: 0,
            topology: Some(self.place()),
        }
    }
}

fn expanded(record: &VolumeRecord) -> ExpandReply {
    ExpandReply { capacity_bytes: i64::try_from(record.capacity).unwrap_or(i64::MAX) }
}

const UUID_PREFIX: &str = "CRYPT-LUKS2-";

/// As cryptsetup names them, so that its `status` and `close` know ours.
fn mapping_uuid(header: &Header, name: &str) -> String {
    format!("{UUID_PREFIX}{}-{name}", header.uuid().replace('-', ""))
}

/// Whether a mapping is a volume of this driver: not one of a stranger, nor of cryptsetup on this node.
pub(crate) fn is_ours(mapping: &Mapping, name: &str) -> bool {
    let end = mapping.uuid.strip_prefix(UUID_PREFIX).and_then(|rest| rest.strip_suffix(name));
    name.starts_with("lkv-") && end.is_some_and(|rest| rest.ends_with('-'))
}

/// Whether a mount shows a volume: its file system, or its device.
pub(crate) fn shows(mount: &Mount, mapping: &Mapping) -> bool {
    let device = mapping.path();
    let node = device.file_name().map(|name| Path::new("/").join(name));
    mount.device == mapping.number || node.is_some_and(|node| mount.root == node)
}

/// A folder to mount at, or a file to show a device in.
fn make_target(target: &Path, from: &Path) -> io::Result<()> {
    if from.is_dir() {
        return fs::create_dir_all(target);
    }
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::options().create(true).append(true).open(target).map(drop)
}

fn content_of(fs: Fs) -> Content {
    match fs {
        Fs::Ext4 => Content::Ext4,
        Fs::Xfs => Content::Xfs,
    }
}

fn fs_of(content: Content) -> Option<Fs> {
    match content {
        Content::Ext4 => Some(Fs::Ext4),
        Content::Xfs => Some(Fs::Xfs),
        Content::Block | Content::None => None,
    }
}

fn usage(unit: i32, total: u64, available: u64, used: u64) -> Usage {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Usage { available: number(available), total: number(total), used: number(used), unit }
}
