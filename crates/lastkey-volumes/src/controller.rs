//! `csi.v1.Controller`: volumes are made, deleted, listed.
//!
//! Room      `volumes`.
//! Source    CSI 1.13, "Controller Service RPC".

use std::collections::BTreeMap;
use std::io;

use lastkey_luks::{DATA_OFFSET, Medium as _};
use lastkey_wire::grpc::csi::{
    Confirmed, ContentSource, ContentSourceKind, CreateVolumeReply, CreateVolumeRequest,
    GetCapacityReply, GetCapacityRequest, Id, Int64, ListVolumesReply, ListVolumesRequest,
    Topology, TopologyRequirement, ValidateReply, ValidateRequest, Volume,
};

use crate::back_end::Fill;
use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, Kind, io_while, key_fault};
use crate::locks::Held;
use crate::record::{Fs, Source, VolumeRecord, Wraps};
use crate::request::{Capability, Class, SECTOR_LEN, required, size};
use crate::snapshots::copy_fault;

/// Stays free for what else lies on the file system: one part in so many.
const RESERVE: u64 = 64;

/// Where the content of a new volume comes from.
struct Origin {
    source: Source,
    capacity: u64,
    lineage: Option<String>,
    bound_to: Option<String>,
    fs: Option<Fs>,
    formatted: bool,
    wraps: Option<Wraps>,
    /// In which role pods open what it is made of.
    role: Option<String>,
}

impl Driver {
    pub(crate) fn create_volume(
        &self,
        request: &CreateVolumeRequest,
    ) -> Result<CreateVolumeReply, Fault> {
        let name = required("name", &request.name)?;
        let capabilities = Capability::parse_all(&request.capabilities)?;
        let class = Class::parse(&request.parameters)?;
        if let Some(name) = request.mutable_parameters.keys().next() {
            return Err(Fault::invalid(format!("the attribute {name:.64} cannot be chosen here")));
        }
        self.require_reachable(request.accessibility.as_ref())?;
        self.require_not_ours(&class)?;
        let _held = self.locks.take(&format!("name {name}"))?;
        let fs = capabilities.iter().find_map(Capability::fs).or(class.fs);
        let source = source(request.content_source.as_ref())?;
        let key = self.resolve_key(class.key.as_deref())?;
        let mut record = match self.volumes.named(name) {
            Some(record) => same(record, request, &class, &key, fs, source.as_ref())?,
            None => {
                self.require_counted(&key)?;
                // Until the copy is whole, its source is neither deleted nor changed.
                let _source = source.as_ref().map(|from| self.locks.take(from.id())).transpose()?;
                let origin = source.map(|source| self.origin(source)).transpose()?;
                require_opener(&class, origin.as_ref())?;
                let least = origin.as_ref().map_or(0, |origin| origin.capacity);
                let capacity = size(request.capacity_range.as_ref(), least)?;
                let record = VolumeRecord {
                    id: Self::fresh_id("lkv")?,
                    name: name.to_owned(),
                    capacity,
                    key,
                    lineage: origin.as_ref().and_then(|origin| origin.lineage.clone()),
                    fs: origin.as_ref().and_then(|origin| origin.fs).or(fs),
                    discards: class.discards,
                    source: origin.as_ref().map(|origin| origin.source.clone()),
                    bound_to: origin.as_ref().and_then(|origin| origin.bound_to.clone()),
                    formatted: origin.as_ref().is_some_and(|origin| origin.formatted),
                    wraps: origin.as_ref().and_then(|origin| origin.wraps.clone()),
                    ready: false,
                    escrow: None,
                    claim: class.claim.map(|(namespace, name)| format!("{namespace}/{name}")),
                    pods: BTreeMap::new(),
                    deleting: false,
                    role: class.role,
                    staged: None,
                };
                self.add(&record, origin.as_ref())?;
                record
            }
        };
        self.complete(&mut record)?;
        Ok(CreateVolumeReply { volume: Some(self.describe(&record)) })
    }

    fn add(&self, record: &VolumeRecord, origin: Option<&Origin>) -> Result<(), Fault> {
        let len = record.capacity.saturating_add(DATA_OFFSET);
        if len > self.free()? {
            let message = format!("{} bytes are more than this node has left", record.capacity);
            return Err(Fault::new(Kind::Exhausted, message));
        }
        let add = |fill: Fill<'_>| {
            let in_use = matches!(fill, Fill::Reference(_));
            self.volumes.add(record, len, fill).map_err(|error| copy_fault(in_use, error))
        };
        match origin.map(|origin| &origin.source) {
            None => add(Fill::Nothing),
            Some(Source::Snapshot(id)) => add(Fill::Copy(&self.snapshots.find(id)?)),
            Some(Source::Volume(id)) => {
                let data = self.volumes.find(id)?;
                let copied = self.while_still(id, |in_use| {
                    add(if in_use { Fill::Reference(&data) } else { Fill::Copy(&data) })
                });
                if copied.is_err() {
                    self.volumes.abandon(&record.id);
                }
                copied
            }
        }
    }

    /// Makes the key of the lineage. An earlier call may have come to the record alone.
    fn complete(&self, record: &mut VolumeRecord) -> Result<(), Fault> {
        if record.lineage.is_some() {
            return Ok(());
        }
        let alias = format!("alias/lastkey-volume/{}", record.id);
        let made = self.keys.make_lineage(&alias, &record.id);
        record.lineage = Some(made.map_err(|error| key_fault(&alias, error))?);
        self.remember(record)
    }

    fn origin(&self, source: Source) -> Result<Origin, Fault> {
        Ok(match &source {
            Source::Volume(id) => {
                let of = self.volume(id)?;
                Origin {
                    capacity: of.capacity,
                    lineage: of.lineage.clone(),
                    bound_to: of.bound_to.clone().or(of.formatted.then(|| of.id.clone())),
                    fs: of.fs,
                    formatted: of.formatted,
                    wraps: of.wraps.clone(),
                    role: of.role.clone(),
                    source,
                }
            }
            Source::Snapshot(id) => {
                let of = self.snapshots.get(id).ok_or_else(|| {
                    Fault::new(Kind::NotFound, format!("there is no snapshot {id:.64}"))
                })?;
                Origin {
                    capacity: of.capacity,
                    lineage: Some(of.lineage.clone()),
                    bound_to: of.formatted.then(|| of.bound_to.clone()),
                    fs: of.fs,
                    formatted: of.formatted,
                    wraps: of.wraps,
                    role: of.role,
                    source,
                }
            }
        })
    }

    /// The data of the key service on a volume that the key service opens would wait for itself.
    fn require_not_ours(&self, class: &Class) -> Result<(), Fault> {
        let Some((namespace, name)) = &class.claim else { return Ok(()) };
        if !self.config.refused_namespaces.contains(namespace) {
            return Ok(());
        }
        Err(Fault::precondition(format!(
            "the claim {name:.253} is in the namespace {namespace:.63}, where the key service runs: a \
             volume that it has to open itself would never open. Use another StorageClass there"
        )))
    }

    pub(crate) fn delete_volume(&self, request: &Id) -> Result<(), Fault> {
        let id = required("volume_id", &request.id)?;
        let _held = self.locks.take(id)?;
        let Some(mut record) = self.volumes.get(id) else { return Ok(()) };
        if self.mapping(id)?.is_some() {
            return Err(Fault::precondition(format!("{id} is in use on this node")));
        }
        let data = self.volumes.find(id)?;
        if !record.deleting {
            record.deleting = true;
            self.remember(&record)?;
        }
        self.machine.detach(&data).map_err(io_while("let go of the device"))?;
        let _lineage = self.lock_lineage(record.lineage.as_deref())?;
        let heirs = self.heirs(&record);
        if let Some(lineage) = record.lineage.as_deref().filter(|_| heirs.is_empty()) {
            self.report_ended(lineage);
            let ended = self.keys.end_lineage(lineage);
            ended.map_err(|error| key_fault(lineage, error))?;
        }
        // Copies by reference keep what they share.
        let disk = Disk::open(&data).map_err(io_while("open the volume"))?;
        disk.blank().map_err(io_while("wipe the header"))?;
        // A logical volume that somebody has open is not removed.
        drop(disk);
        if record.escrow.is_some()
            && let Err(error) = self.keys.drop_header(id)
        {
            // It opens nothing once the lineage's key is gone.
            self.complain(id, &key_fault(&record.key, error));
        }
        self.volumes.remove(id).map_err(io_while("remove the volume"))?;
        tracing::info!(volume = id, lineage = record.lineage, heirs = heirs.len(), "deleted");
        Ok(())
    }

    /// From the look for heirs until the record is gone: of two that are deleted at once, each would
    /// take the other for an heir, and nobody would end the key.
    pub(crate) fn lock_lineage(&self, lineage: Option<&str>) -> Result<Option<Held>, Fault> {
        lineage.map(|lineage| self.locks.take(&format!("lineage {lineage}"))).transpose()
    }

    /// Volumes and snapshots that share the lineage with a volume.
    fn heirs(&self, record: &VolumeRecord) -> Vec<String> {
        let Some(lineage) = &record.lineage else { return Vec::new() };
        let volumes = self.volumes.all().into_iter();
        let volumes = volumes
            .filter(|other| other.lineage.as_ref() == Some(lineage) && other.id != record.id)
            .map(|other| other.id);
        let snapshots = self.snapshots.all().into_iter();
        volumes
            .chain(snapshots.filter(|other| other.lineage == *lineage).map(|other| other.id))
            .collect()
    }

    pub(crate) fn validate_volume(
        &self,
        request: &ValidateRequest,
    ) -> Result<ValidateReply, Fault> {
        let id = required("volume_id", &request.volume_id)?;
        if request.capabilities.is_empty() {
            return Err(Fault::invalid("volume_capabilities are missing"));
        }
        self.volume(id)?;
        Ok(match Capability::parse_all(&request.capabilities) {
            Ok(_) => ValidateReply {
                confirmed: Some(Confirmed {
                    context: request.context.clone(),
                    capabilities: request.capabilities.clone(),
                    parameters: request.parameters.clone(),
                }),
                message: String::new(),
            },
            Err(fault) => ValidateReply { confirmed: None, message: fault.message },
        })
    }

    pub(crate) fn list_volumes(
        &self,
        request: &ListVolumesRequest,
    ) -> Result<ListVolumesReply, Fault> {
        let all = self.volumes.all();
        let ids: Vec<&str> = all.iter().map(|record| record.id.as_str()).collect();
        let (page, next_token) = page(&ids, request.max_entries, &request.starting_token)?;
        let shown = all.iter().skip(page.start).take(page.len());
        let entries = shown.map(|record| CreateVolumeReply { volume: Some(self.describe(record)) });
        Ok(ListVolumesReply { entries: entries.collect(), next_token })
    }

    pub(crate) fn capacity(&self, request: &GetCapacityRequest) -> Result<GetCapacityReply, Fault> {
        Class::parse(&request.parameters)?;
        if !request.capabilities.is_empty() {
            Capability::parse_all(&request.capabilities)?;
        }
        let here = request.topology.as_ref().is_none_or(|place| self.is_here(place));
        let free = if here { self.left_of(self.back_end.largest())? } else { 0 };
        let free = free.saturating_sub(DATA_OFFSET);
        let free = i64::try_from(free / SECTOR_LEN * SECTOR_LEN).unwrap_or(i64::MAX);
        Ok(GetCapacityReply {
            available_capacity: free,
            maximum_volume_size: Some(Int64 { value: free }),
        })
    }

    /// Makes the data of a volume larger, if they are not as large yet.
    pub(crate) fn enlarge(&self, record: &mut VolumeRecord, wanted: u64) -> Result<(), Fault> {
        if wanted <= record.capacity {
            return Ok(());
        }
        let id = record.id.clone();
        // A device may be longer than what was asked of it.
        let there = Disk::open(&self.volumes.find(&id)?).map_err(io_while("open the volume"))?;
        let missing = wanted.saturating_add(DATA_OFFSET).saturating_sub(len_of(&there)?);
        if missing > self.free()? {
            let message = format!("{wanted} bytes are more than this node has left");
            return Err(Fault::new(Kind::Exhausted, message));
        }
        let grown = self.volumes.grow(&id, wanted.saturating_add(DATA_OFFSET));
        grown.map_err(|error| {
            if error.kind() == io::ErrorKind::Unsupported {
                return Fault::new(Kind::OutOfRange, error.to_string());
            }
            io_while("make the volume larger")(error)
        })?;
        record.capacity = wanted;
        self.remember(record)
    }

    /// Room for new data, with a reserve for whatever else lies there, and without what older volumes
    /// may still ask for.
    pub(crate) fn free(&self) -> Result<u64, Fault> {
        self.left_of(self.back_end.room())
    }

    fn left_of(&self, room: io::Result<u64>) -> Result<u64, Fault> {
        let left = || {
            let room = room?;
            let owed = self.volumes.owed()?.saturating_add(self.snapshots.owed()?);
            Ok(room.saturating_sub(room / RESERVE).saturating_sub(owed))
        };
        left().map_err(io_while("ask how much room there is"))
    }

    pub(crate) fn describe(&self, record: &VolumeRecord) -> Volume {
        let kind = record.source.clone().map(|source| match source {
            Source::Snapshot(id) => ContentSourceKind::Snapshot(Id { id }),
            Source::Volume(id) => ContentSourceKind::Volume(Id { id }),
        });
        Volume {
            capacity_bytes: i64::try_from(record.capacity).unwrap_or(i64::MAX),
            id: record.id.clone(),
            context: BTreeMap::new(),
            content_source: kind.map(|kind| ContentSource { kind: Some(kind) }),
            topology: vec![self.place()],
        }
    }

    /// Where this node is.
    pub(crate) fn place(&self) -> Topology {
        Topology { segments: [(self.topology_key(), self.config.node_id.clone())].into() }
    }

    fn is_here(&self, place: &Topology) -> bool {
        place.segments.get(&self.topology_key()).is_none_or(|node| *node == self.config.node_id)
    }

    fn require_reachable(&self, wanted: Option<&TopologyRequirement>) -> Result<(), Fault> {
        let requisite = wanted.map(|wanted| wanted.requisite.as_slice()).unwrap_or_default();
        if requisite.is_empty() || requisite.iter().any(|place| self.is_here(place)) {
            return Ok(());
        }
        let message =
            format!("volumes of the node {} cannot be reached there", self.config.node_id);
        Err(Fault::new(Kind::Exhausted, message))
    }
}

fn source(content: Option<&ContentSource>) -> Result<Option<Source>, Fault> {
    let Some(content) = content else { return Ok(None) };
    Ok(Some(match &content.kind {
        None => return Err(Fault::invalid("the content source names nothing")),
        Some(ContentSourceKind::Snapshot(one)) => {
            Source::Snapshot(required("snapshot_id", &one.id)?.to_owned())
        }
        Some(ContentSourceKind::Volume(one)) => {
            Source::Volume(required("volume_id", &one.id)?.to_owned())
        }
    }))
}

/// What pods open by their own tokens is not opened by the driver because somebody copied it.
fn require_opener(class: &Class, origin: Option<&Origin>) -> Result<(), Fault> {
    let of_pods = origin.filter(|origin| origin.role.is_some() && class.role.is_none());
    of_pods.map_or(Ok(()), |origin| {
        Err(Fault::invalid(format!(
            "{:.64} is opened by the pods that use it, and so is what is made of it: use a StorageClass \
             with unlockAs: workload",
            origin.source.id()
        )))
    })
}

/// The volume of an earlier call, when this one asks for the same.
fn same(
    record: VolumeRecord,
    request: &CreateVolumeRequest,
    class: &Class,
    key: &str,
    fs: Option<Fs>,
    source: Option<&Source>,
) -> Result<VolumeRecord, Fault> {
    let range = request.capacity_range.unwrap_or_default();
    let capacity = i64::try_from(record.capacity).unwrap_or(i64::MAX);
    let fits = capacity >= range.required_bytes
        && (range.limit_bytes == 0 || capacity <= range.limit_bytes);
    let differs = if !fits {
        "size"
    } else if record.key != key {
        "key"
    } else if record.source.as_ref() != source {
        "content source"
    } else if record.role != class.role {
        "opener"
    } else if record.source.is_none() && record.fs != fs {
        "file system"
    } else {
        return Ok(record);
    };
    let message = format!("there is a volume {:.128} of another {differs}", record.name);
    Err(Fault::new(Kind::Exists, message))
}

/// Which part of a sorted list a page is, and the token of the next one.
pub(crate) fn page(
    ids: &[&str],
    max_entries: i32,
    token: &str,
) -> Result<(std::ops::Range<usize>, String), Fault> {
    let max = usize::try_from(max_entries).map_err(|_| Fault::invalid("max_entries is below 0"))?;
    let start = if token.is_empty() {
        0
    } else {
        // A token is the last id of the page before, so that deletions move nothing.
        let is_id = token.len() == 36 && token.starts_with("lk");
        if !is_id {
            return Err(Fault::new(Kind::Busy, "the starting token is of no list; begin again"));
        }
        ids.partition_point(|id| *id <= token)
    };
    let left = ids.len().saturating_sub(start);
    let len = if max == 0 { left } else { left.min(max) };
    let end = start.saturating_add(len);
    let more = end < ids.len() && len > 0;
    let last = ids.get(end.wrapping_sub(1)).filter(|_| more);
    Ok((start..end, last.map(|id| (*id).to_owned()).unwrap_or_default()))
}

/// Length of a device or file, in bytes.
pub(crate) fn len_of(disk: &Disk) -> Result<u64, Fault> {
    disk.len().map_err(io_while("tell the length of the volume"))
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn pages_follow_each_other_also_when_entries_go() {
        let id = |n: u32| format!("lkv-{n:032}");
        let all: Vec<String> = (0..5).map(id).collect();
        let ids: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(page(&ids, 0, "").unwrap(), (0..5, String::new()));
        let (first, next) = page(&ids, 2, "").unwrap();
        assert_eq!((first, next.as_str()), (0..2, id(1).as_str()));
        let fewer = [ids[0], ids[3], ids[4]];
        assert_eq!(page(&fewer, 2, &next).unwrap(), (1..3, String::new()));
        assert_eq!(page(&ids, 9, &id(4)).unwrap(), (5..5, String::new()));
        assert!(page(&ids, -1, "").is_err());
        assert!(page(&ids, 0, "invalid-token").is_err());
    }
}
