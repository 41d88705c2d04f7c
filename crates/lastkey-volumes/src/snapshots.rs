//! Snapshots of `csi.v1.Controller`: copies of a volume's file, by reference where the file system
//! can.
//!
//! Room      `volumes`.
//! Source    CSI 1.13, "CreateSnapshot".

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use lastkey_kernel::mapper::Mapping;
use lastkey_luks::DATA_OFFSET;
use lastkey_wire::grpc::csi::{
    CreateSnapshotRequest, Id, ListSnapshotsReply, ListSnapshotsRequest, Snapshot, SnapshotReply,
    Time,
};

use crate::back_end::Fill;
use crate::controller::page;
use crate::disk::Disk;
use crate::driver::Driver;
use crate::fault::{Fault, Kind, io_while, key_fault};
use crate::record::{SnapshotRecord, VolumeRecord};
use crate::request::required;

impl Driver {
    pub(crate) fn create_snapshot(
        &self,
        request: &CreateSnapshotRequest,
    ) -> Result<SnapshotReply, Fault> {
        let name = required("name", &request.name)?;
        let volume = required("source_volume_id", &request.source_volume_id)?;
        let _named = self.locks.take(&format!("snapshot {name}"))?;
        if let Some(found) = self.snapshots.named(name) {
            if found.volume == volume {
                return Ok(reply(&found));
            }
            let message = format!("there is a snapshot {name:.128} of another volume");
            return Err(Fault::new(Kind::Exists, message));
        }
        let _held = self.locks.take(volume)?;
        let record = self.volume(volume)?;
        if record.capacity.saturating_add(DATA_OFFSET) > self.free()? {
            return Err(Fault::new(Kind::Exhausted, "this node has no room for the snapshot"));
        }
        let snapshot = snapshot_of(&record, name)?;
        let data = self.volumes.find(volume)?;
        let len = record.capacity.saturating_add(DATA_OFFSET);
        let taken = self.while_still(volume, |in_use| {
            let fill = if in_use { Fill::Reference(&data) } else { Fill::Copy(&data) };
            let taken = self.snapshots.add(&snapshot, len, fill);
            taken.map_err(|error| copy_fault(in_use, error))
        });
        if taken.is_err() {
            self.snapshots.abandon(&snapshot.id);
        }
        taken.map(|()| reply(&snapshot))
    }

    /// Runs `copy` while nothing writes to a volume; it is told whether somebody waits.
    pub(crate) fn while_still(
        &self,
        volume: &str,
        copy: impl FnOnce(bool) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let _still = self.locks.take(&still(volume))?;
        let Some(mapping) = self.mapping(volume)? else { return copy(false) };
        if mapping.suspended {
            return Err(Fault::precondition(format!("{volume} is frozen: its key is disabled")));
        }
        let _paused = self.locks.take(&paused(volume))?;
        self.machine.pause(volume).map_err(io_while("pause the volume"))?;
        let copied = copy(true);
        self.machine.go_on(volume).map_err(io_while("let the volume go on"))?;
        copied
    }

    /// Whether a volume stands still because its key is disabled.
    pub(crate) fn is_frozen(&self, volume: &str, mapping: &Mapping) -> bool {
        mapping.suspended && !self.locks.is_taken(&paused(volume))
    }

    pub(crate) fn delete_snapshot(&self, request: &Id) -> Result<(), Fault> {
        let id = required("snapshot_id", &request.id)?;
        let _held = self.locks.take(id)?;
        let Some(record) = self.snapshots.get(id) else { return Ok(()) };
        let data = self.snapshots.find(id)?;
        let _lineage = self.lock_lineage(Some(&record.lineage))?;
        let volume = |other: VolumeRecord| other.lineage.as_ref() == Some(&record.lineage);
        let shared = self.volumes.all().into_iter().any(volume)
            || (self.snapshots.all().iter())
                .any(|other| other.lineage == record.lineage && other.id != record.id);
        if !shared {
            self.report_ended(&record.lineage);
            let ended = self.keys.end_lineage(&record.lineage);
            ended.map_err(|error| key_fault(&record.lineage, error))?;
        }
        let disk = Disk::open(&data).map_err(io_while("open the snapshot"))?;
        disk.blank().map_err(io_while("wipe the header"))?;
        drop(disk);
        self.snapshots.remove(id).map_err(io_while("remove the snapshot"))
    }

    pub(crate) fn list_snapshots(
        &self,
        request: &ListSnapshotsRequest,
    ) -> Result<ListSnapshotsReply, Fault> {
        let wanted = |is: &str, asked: &str| asked.is_empty() || is == asked;
        let mut all = self.snapshots.all();
        all.retain(|one| {
            wanted(&one.volume, &request.source_volume_id) && wanted(&one.id, &request.snapshot_id)
        });
        let ids: Vec<&str> = all.iter().map(|record| record.id.as_str()).collect();
        let (page, next_token) = page(&ids, request.max_entries, &request.starting_token)?;
        let entries = all.iter().skip(page.start).take(page.len()).map(reply).collect();
        Ok(ListSnapshotsReply { entries, next_token })
    }
}

/// Held by who stops a volume for a moment, so that nobody lets it go on meanwhile.
pub(crate) fn still(volume: &str) -> String {
    format!("still {volume}")
}

/// Held while a volume stands still for a copy of it, and not because its key is disabled.
fn paused(volume: &str) -> String {
    format!("paused {volume}")
}

/// A volume in use is copied by reference or not at all.
pub(crate) fn copy_fault(in_use: bool, error: io::Error) -> Fault {
    let is_of_the_moment =
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::TimedOut);
    if in_use && !is_of_the_moment {
        return Fault::precondition(format!(
            "a volume in use can be copied where there are copies by reference alone, as on XFS, on \
             btrfs and in thin pools ({error}); stop the pod first"
        ));
    }
    io_while("copy the volume")(error)
}

fn snapshot_of(record: &VolumeRecord, name: &str) -> Result<SnapshotRecord, Fault> {
    let lineage = record.lineage.clone().ok_or_else(|| {
        Fault::precondition(format!("{} was not made to its end; create it again", record.id))
    })?;
    let taken_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(SnapshotRecord {
        id: Driver::fresh_id("lks")?,
        name: name.to_owned(),
        volume: record.id.clone(),
        capacity: record.capacity,
        taken_at,
        key: record.key.clone(),
        lineage,
        bound_to: record.bound_to.clone().unwrap_or_else(|| record.id.clone()),
        fs: record.fs,
        formatted: record.formatted,
        wraps: record.wraps.clone(),
        claim: record.claim.clone(),
        role: record.role.clone(),
    })
}

fn reply(record: &SnapshotRecord) -> SnapshotReply {
    SnapshotReply {
        snapshot: Some(Snapshot {
            size_bytes: i64::try_from(record.capacity).unwrap_or(i64::MAX),
            id: record.id.clone(),
            source_volume_id: record.volume.clone(),
            creation_time: Some(Time { seconds: i64::try_from(record.taken_at).unwrap_or(0) }),
            ready_to_use: true,
        }),
    }
}
