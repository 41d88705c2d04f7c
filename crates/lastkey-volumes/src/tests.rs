//! The driver over a machine and a key service in memory: what may be repeated, what may never
//! happen twice, and who hears what.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lastkey_crypto::entropy::SystemEntropy;
use lastkey_kernel::mapper::Mapping;
use lastkey_luks::{DATA_OFFSET, Format, Header, Medium as _, State};
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::csi::{
    AccessType, CapacityRange, ContentSource, ContentSourceKind, CreateSnapshotRequest,
    CreateVolumeRequest, Id, Kind as Number, MountVolume, NodeExpandRequest, Nothing,
    PublishRequest, StageRequest, StatsRequest, UndoRequest, VolumeCapability,
};

use crate::back_end::{BackEnd, Files};
use crate::disk::Disk;
use crate::driver::{Config, Driver};
use crate::fake::{FakeKeys, FakeMachine, Mood};
use crate::fault::{Fault, Kind};
use crate::inline::InlineBounds;

mod devices;
mod keys;
mod life;
mod still;
mod workload;
mod zombies;

const MIB: i64 = 1 << 20;

struct Node {
    folder: tempfile::TempDir,
    machine: Arc<FakeMachine>,
    keys: Arc<FakeKeys>,
    driver: Arc<Driver>,
    back_end: Place,
}

/// Where volumes lie, by the folder of the driver.
type Place = fn(&Path) -> Arc<dyn BackEnd>;

impl Node {
    fn set() -> Self {
        Self::over(|folder| Arc::new(Files::new(folder.to_owned())))
    }

    fn over(back_end: Place) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Arc::new(FakeMachine::default());
        let keys = Arc::new(FakeKeys::with(&[("alias/volumes", "key-1"), ("alias/b", "key-2")]));
        let driver = driver(folder.path(), &machine, &keys, back_end);
        Self { folder, machine, keys, driver, back_end }
    }

    /// Another process over what the last one left.
    fn restart(self) -> Self {
        let Self { folder, machine, keys, driver: last, back_end } = self;
        drop(last);
        let driver = driver(folder.path(), &machine, &keys, back_end);
        Self { folder, machine, keys, driver, back_end }
    }

    /// A round of the kill switch, to its end.
    fn guard(&self) {
        self.driver.guard_once().into_iter().for_each(|thread| thread.join().unwrap());
    }

    /// A round over data keys, escrow and reports.
    fn keep(&self) {
        self.driver.keep_until(&|| false);
    }

    fn disable(&self, key: &str) {
        self.keys.0.lock().unwrap().disabled.insert(key.to_owned());
    }

    fn create(&self, name: &str) -> String {
        self.driver.create_volume(&request(name)).unwrap().volume.unwrap().id
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("pods").join(name)
    }

    fn stage(&self, id: &str) -> Result<(), Fault> {
        self.driver.stage(&StageRequest {
            volume_id: id.to_owned(),
            staging_path: text(&self.path(id)),
            capability: Some(mount(1)),
            ..StageRequest::default()
        })
    }

    fn unstage(&self, id: &str) {
        let path = text(&self.path(id));
        self.driver.unstage(&UndoRequest { volume_id: id.to_owned(), path }).unwrap();
    }

    fn publish(&self, id: &str, target: &str, mode: i32) -> Result<(), Fault> {
        self.driver.publish(PublishRequest {
            volume_id: id.to_owned(),
            staging_path: text(&self.path(id)),
            target_path: text(&self.path(target)),
            capability: Some(mount(mode)),
            ..PublishRequest::default()
        })
    }

    fn snapshot(&self, id: &str) -> String {
        let (source_volume_id, name) = (id.to_owned(), "snap".to_owned());
        let request = CreateSnapshotRequest { source_volume_id, name };
        self.driver.create_snapshot(&request).unwrap().snapshot.unwrap().id
    }

    fn disk(&self, id: &str) -> Disk {
        Disk::open(&self.driver.volumes.data(id)).unwrap()
    }
}

fn driver(
    folder: &Path,
    machine: &Arc<FakeMachine>,
    keys: &Arc<FakeKeys>,
    back_end: Place,
) -> Arc<Driver> {
    let back_end = back_end(folder);
    Arc::new(Driver::new(config(folder), keys.clone(), machine.clone(), back_end).unwrap())
}

fn config(folder: &Path) -> Config {
    Config {
        name: "volumes.lastkey.dev".to_owned(),
        node_id: "node-1".to_owned(),
        version: "1".to_owned(),
        cluster: "prod".to_owned(),
        default_key: "alias/volumes".to_owned(),
        folder: folder.to_owned(),
        refused_namespaces: vec!["lastkey".to_owned()],
        audience: "lastkey".to_owned(),
        inline: InlineBounds { each: u64::MAX, total: u64::MAX },
    }
}

fn request(name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: MIB, limit_bytes: 0 }),
        capabilities: vec![mount(1)],
        ..CreateVolumeRequest::default()
    }
}

fn mount(mode: i32) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(Number { number: mode }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn kind<T: std::fmt::Debug>(answer: Result<T, Fault>) -> Kind {
    answer.unwrap_err().kind
}

/// The machine fails at every step of the first stage in turn; a new process goes on.
#[test]
fn stage_that_was_cut_short_anywhere_goes_on_and_formats_once() {
    for budget in 0..20 {
        let mut node = Node::set();
        let id = node.create("claim");
        node.machine.0.lock().unwrap().budget = Some(budget);
        let first = node.stage(&id);
        node.machine.0.lock().unwrap().budget = None;
        let formats = node.machine.done("make ext4");
        node = node.restart();
        node.stage(&id).unwrap();
        if first.is_ok() {
            assert_eq!(node.machine.done("make ext4"), 1);
            return;
        }
        assert!(formats <= 1 && node.machine.done("make ext4") == 1, "{budget}");
        // From now on never again, whatever happens.
        node.unstage(&id);
        node.machine.reboot();
        node = node.restart();
        node.stage(&id).unwrap();
        assert_eq!(node.machine.done("make ext4"), 1, "{budget}");
    }
    panic!("the stage never comes to its end");
}

#[test]
fn lost_header_is_never_written_again() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.unstage(&id);
    for byte in [0, 0xAA] {
        node.disk(&id).write_at(&vec![byte; 32_768], 0).unwrap();
        assert_eq!(kind(node.stage(&id)), Kind::Precondition);
        let mut found = vec![1; 32_768];
        node.disk(&id).read_at(&mut found, 0).unwrap();
        assert!(found.iter().all(|found| *found == byte));
    }
    assert_eq!(node.machine.done("make"), 1);
}

#[test]
fn volume_with_something_on_it_is_not_formatted() {
    let node = Node::set();
    let id = node.create("claim");
    node.disk(&id).write_at(b"somebody's data", DATA_OFFSET + 4_096).unwrap();
    assert_eq!(kind(node.stage(&id)), Kind::Precondition);
    assert!(Header::read(&node.disk(&id)).unwrap().is_none());
    assert_eq!(node.machine.done("make"), 0);
}

#[test]
fn created_volume_is_the_same_when_asked_again_and_another_one_is_refused() {
    let mut node = Node::set();
    let id = node.create("claim");
    assert_eq!(node.create("claim"), id);
    let with = |name: &str, value: &str| CreateVolumeRequest {
        parameters: [(name.to_owned(), value.to_owned())].into(),
        ..request("claim")
    };
    node = node.restart();
    assert_eq!(node.create("claim"), id);
    assert_eq!(kind(node.driver.create_volume(&with("kmsKeyId", "b"))), Kind::Exists);
    assert_eq!(kind(node.driver.create_volume(&with("fsType", "xfs"))), Kind::Exists);
    let range = Some(CapacityRange { required_bytes: 2 * MIB, limit_bytes: 0 });
    let larger = CreateVolumeRequest { capacity_range: range, ..request("claim") };
    assert_eq!(kind(node.driver.create_volume(&larger)), Kind::Exists);
    assert_eq!(node.driver.volumes.all().len(), 1);
}

#[test]
fn key_that_nobody_knows_is_refused_with_the_command_that_makes_it() {
    let node = Node::set();
    let parameters = [("kmsKeyId".to_owned(), "acs:kms:cn:1:key/x".to_owned())].into();
    let refused = node.driver.create_volume(&CreateVolumeRequest { parameters, ..request("c") });
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid);
    let command = "lastkey key create --alias alias/acs:kms:cn:1:key/x";
    assert!(refused.message.contains(command), "{refused}");
    assert!(node.driver.volumes.all().is_empty());
}

#[test]
fn key_service_that_is_away_or_says_no_leaves_everything_as_it_is() {
    let node = Node::set();
    let id = node.create("claim");
    for (mood, expected) in [(Mood::Away, Kind::Away), (Mood::Denied, Kind::Denied)] {
        node.keys.0.lock().unwrap().mood = mood;
        assert_eq!(kind(node.stage(&id)), expected);
        assert_eq!(kind(node.driver.create_volume(&request("other"))), expected);
        assert!(Header::read(&node.disk(&id)).unwrap().is_none());
    }
    node.keys.0.lock().unwrap().mood = Mood::Well;
    node.stage(&id).unwrap();
}

#[test]
fn disabled_key_freezes_and_silence_does_not() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    for mood in [Mood::Away, Mood::Denied] {
        node.keys.0.lock().unwrap().mood = mood;
        node.guard();
        assert_eq!(node.machine.done("freeze"), 0);
    }
    node.keys.0.lock().unwrap().mood = Mood::Well;
    node.disable("key-1");
    node.guard();
    assert_eq!((node.machine.done("freeze"), node.machine.done("thaw")), (1, 0));
    let stats = StatsRequest { volume_id: id.clone(), volume_path: text(&node.path(&id)) };
    let condition = node.driver.stats(&stats).unwrap().condition.unwrap();
    assert!(condition.abnormal && condition.message.contains("key-1"));
    node.keys.0.lock().unwrap().disabled.clear();
    node.guard();
    node.guard();
    assert_eq!((node.machine.done("freeze"), node.machine.done("thaw")), (1, 1));
}

/// Stopped is not without a key: by a snapshot, by a program of the node, by a driver that was killed
/// between the two.
#[test]
fn key_of_a_volume_that_stands_still_is_wiped_too() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.machine.0.lock().unwrap().mappings.get_mut(&id).unwrap().suspended = true;
    node.disable("key-1");
    node.guard();
    assert_eq!(node.machine.done("freeze"), 1);
}

#[test]
fn frozen_volume_goes_on_while_a_call_that_waits_for_it_holds_its_lock() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.disable("key-1");
    let _stage = node.driver.locks.take(&id).unwrap();
    node.guard();
    node.keys.0.lock().unwrap().disabled.clear();
    // A snapshot is being taken.
    let copying = node.driver.locks.take(&format!("still {id}")).unwrap();
    node.guard();
    assert_eq!((node.machine.done("freeze"), node.machine.done("thaw")), (1, 0));
    drop(copying);
    node.guard();
    assert_eq!(node.machine.done("thaw"), 1);
}

#[test]
fn disk_that_hangs_keeps_no_other_volume_from_being_frozen() {
    let node = Node::set();
    node.create("a");
    node.create("b");
    let ids: Vec<String> = node.driver.volumes.all().into_iter().map(|one| one.id).collect();
    ids.iter().for_each(|id| node.stage(id).unwrap());
    node.disable("key-1");
    node.machine.0.lock().unwrap().hung = Some(ids[0].clone());
    let mut threads = node.driver.guard_once();
    threads.pop().unwrap().join().unwrap();
    assert_eq!(node.machine.done(&format!("freeze {}", ids[1])), 1);
    // The next round starts nothing more for the one that hangs.
    let next = node.driver.guard_once();
    assert_eq!((threads.len(), next.len()), (1, 1));
    node.machine.0.lock().unwrap().hung = None;
    node.machine.1.notify_all();
    threads.into_iter().chain(next).for_each(|thread| thread.join().unwrap());
    assert_eq!(node.machine.done(&format!("freeze {}", ids[0])), 1);
}

#[test]
fn folder_has_one_driver_at_a_time() {
    let node = Node::set();
    let half = node.folder.path().join("volumes/.half-lkv-1");
    std::fs::create_dir(&half).unwrap();
    let files = Arc::new(Files::new(node.folder.path().to_owned()));
    let second =
        Driver::new(config(node.folder.path()), node.keys.clone(), node.machine.clone(), files);
    let refused = second.err().unwrap().to_string();
    assert!(refused.contains("another driver"), "{refused}");
    assert!(half.exists(), "what the first one is making");
    let _next = node.restart();
    assert!(!half.exists());
}

/// A key slot that opens says nothing of where the data lies.
#[test]
fn header_that_puts_the_data_elsewhere_is_not_followed() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.unstage(&id);
    let disk = node.disk(&id);
    let token = Header::read(&disk).unwrap().unwrap().tokens().unwrap().remove(0).1;
    let other = Format { label: "", subsystem: "", sector_size: 512 };
    let key = SecretVec::copy_of(&[1; 64]);
    Header::format(&disk, other, &key, |_| token, &mut SystemEntropy).unwrap();
    let refused = node.stage(&id).unwrap_err();
    assert_eq!(refused.kind, Kind::Precondition);
    assert!(refused.message.contains("lies elsewhere"), "{refused}");
    assert_eq!(node.machine.done("open"), 1);
}

#[test]
fn devices_and_files_of_others_are_left_alone() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    let ours = node.machine.0.lock().unwrap().mappings[&id].clone();
    for (name, uuid) in [("vg-root", "LVM-1"), ("home", "CRYPT-LUKS2-1-home"), (&id, "other")] {
        let other = Mapping { uuid: uuid.to_owned(), ..ours.clone() };
        node.machine.0.lock().unwrap().mappings.insert(name.to_owned(), other);
        node.unstage(name);
        assert!(node.machine.0.lock().unwrap().mappings.contains_key(name), "{name}");
    }
    node.machine.0.lock().unwrap().mappings.insert(id.clone(), ours);
    node.unstage(&id);
    assert!(!node.machine.0.lock().unwrap().mappings.contains_key(&id));

    let target = node.path("file");
    let unpublish =
        || node.driver.unpublish(&UndoRequest { volume_id: id.clone(), path: text(&target) });
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::write(&target, "somebody's").unwrap();
    assert_eq!(kind(unpublish()), Kind::Precondition);
    assert!(target.exists());
    std::fs::write(&target, "").unwrap();
    unpublish().unwrap();
    unpublish().unwrap();
    assert!(!target.exists());
}

#[test]
fn bytes_that_older_volumes_may_still_ask_for_are_not_promised_twice() {
    let node = Node::set();
    let id = node.create("claim");
    let data = node.driver.volumes.data(&id);
    let owed = node.driver.volumes.owed().unwrap();
    // As after a discard of everything.
    let file = std::fs::File::options().write(true).open(&data).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(0).unwrap();
    file.set_len(len).unwrap();
    assert_eq!(node.driver.volumes.owed().unwrap(), len, "{owed} before");
    file.set_len(1 << 43).unwrap();
    assert_eq!(node.driver.free().unwrap(), 0);
    assert_eq!(kind(node.driver.create_volume(&request("other"))), Kind::Exhausted);
}

/// The calls of two threads that delete the last two of a lineage cannot both see the other one.
#[test]
fn lineage_is_looked_at_by_one_deletion_at_a_time() {
    let node = Node::set();
    let id = node.create("claim");
    let snapshot = node.snapshot(&id);
    let lineage = node.driver.volumes.get(&id).unwrap().lineage.unwrap();
    let held = node.driver.locks.take(&format!("lineage {lineage}")).unwrap();
    assert_eq!(kind(node.driver.delete_volume(&Id { id: id.clone() })), Kind::Busy);
    let delete_snapshot = || node.driver.delete_snapshot(&Id { id: snapshot.clone() });
    assert_eq!(kind(delete_snapshot()), Kind::Busy);
    drop(held);
    node.driver.delete_volume(&Id { id }).unwrap();
    delete_snapshot().unwrap();
    assert_eq!(node.keys.0.lock().unwrap().ended.len(), 1);
}

#[test]
fn source_of_a_clone_is_held_before_it_is_looked_at() {
    let node = Node::set();
    let id = node.create("claim");
    let content_source =
        Some(ContentSource { kind: Some(ContentSourceKind::Volume(Id { id: id.clone() })) });
    let clone = CreateVolumeRequest { content_source, ..request("clone") };
    let held = node.driver.locks.take(&id).unwrap();
    assert_eq!(kind(node.driver.create_volume(&clone)), Kind::Busy);
    assert!(node.driver.volumes.named("clone").is_none());
    drop(held);
    node.driver.create_volume(&clone).unwrap();
}

#[test]
fn mapping_of_another_device_is_closed_and_never_used() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.machine.0.lock().unwrap().mounts.clear();
    node.machine.0.lock().unwrap().mappings.get_mut(&id).unwrap().below = None;
    node.stage(&id).unwrap();
    assert_eq!((node.machine.done("close"), node.machine.done("open")), (1, 2));
    node.machine.0.lock().unwrap().mounts.clear();
    node.machine.0.lock().unwrap().mappings.get_mut(&id).unwrap().uuid = "other".to_owned();
    node.stage(&id).unwrap();
    assert_eq!((node.machine.done("close"), node.machine.done("open")), (2, 3));
    node.stage(&id).unwrap();
    assert_eq!(node.machine.done("open"), 3);
    assert_eq!(node.machine.done("make"), 1);
}

#[test]
fn copies_bind_their_data_key_anew_and_the_last_one_ends_the_lineage() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.unstage(&id);
    let snapshot = node.snapshot(&id);
    let kind = ContentSourceKind::Snapshot(Id { id: snapshot.clone() });
    let content_source = Some(ContentSource { kind: Some(kind) });
    let parameters = [("kmsKeyId".to_owned(), "b".to_owned())].into();
    let clone = CreateVolumeRequest { content_source, parameters, ..request("clone") };
    let clone = node.driver.create_volume(&clone).unwrap().volume.unwrap().id;
    node.driver.delete_volume(&Id { id }).unwrap();
    node.stage(&clone).unwrap();
    assert_eq!(node.machine.done("make"), 1, "the copy has a file system");
    let header = Header::read(&node.disk(&clone)).unwrap().unwrap();
    let token = header.tokens().unwrap().remove(0).1;
    assert_eq!((token.volume.as_str(), token.key.as_str()), (clone.as_str(), "key-2"));
    assert_eq!(token.state, State::Ready);
    assert!(node.keys.0.lock().unwrap().ended.is_empty());
    node.unstage(&clone);
    node.driver.delete_volume(&Id { id: clone.clone() }).unwrap();
    assert!(node.keys.0.lock().unwrap().ended.is_empty());
    node.driver.delete_snapshot(&Id { id: snapshot }).unwrap();
    assert_eq!(node.keys.0.lock().unwrap().ended.len(), 1);
    node.driver.delete_volume(&Id { id: clone }).unwrap();
}

#[test]
fn volume_in_use_is_not_deleted_and_one_for_one_pod_is_shown_once() {
    let node = Node::set();
    let id = node.create("claim");
    assert_eq!(kind(node.publish(&id, "a", 1)), Kind::Precondition);
    node.stage(&id).unwrap();
    assert_eq!(kind(node.driver.delete_volume(&Id { id: id.clone() })), Kind::Precondition);
    node.publish(&id, "a", 6).unwrap();
    node.publish(&id, "a", 6).unwrap();
    assert_eq!(kind(node.publish(&id, "b", 6)), Kind::Precondition);
    node.publish(&id, "b", 7).unwrap();
    assert_eq!(kind(node.publish(&id, "b", 2)), Kind::Exists);
    assert_eq!(node.machine.done("bind"), 2);
}

#[test]
fn devices_and_file_systems_are_not_mixed_up() {
    let node = Node::set();
    let id = node.create("claim");
    let block = VolumeCapability {
        access_mode: Some(Number { number: 1 }),
        access_type: Some(AccessType::Block(Nothing {})),
    };
    let stage = StageRequest {
        volume_id: id.clone(),
        staging_path: text(&node.path(&id)),
        capability: Some(block),
        ..StageRequest::default()
    };
    node.driver.stage(&stage).unwrap();
    assert_eq!(node.machine.done("make"), 0);
    let publish = PublishRequest {
        volume_id: id.clone(),
        staging_path: stage.staging_path.clone(),
        target_path: text(&node.path("device")),
        capability: stage.capability.clone(),
        readonly: true,
        ..PublishRequest::default()
    };
    assert_eq!(kind(node.driver.publish(publish)), Kind::Invalid);
    assert_eq!(node.machine.done("bind"), 0, "the device could be written to");
    assert_eq!(kind(node.stage(&id)), Kind::Precondition);
    assert_eq!(node.machine.done("make"), 0, "a pod's bytes are on the device");
}

#[test]
fn expansion_reaches_file_mapping_and_file_system() {
    let node = Node::set();
    let id = node.create("claim");
    let expand = |bytes: i64, limit_bytes| {
        let (volume_id, volume_path) = (id.clone(), text(&node.path(&id)));
        let capacity_range = Some(CapacityRange { required_bytes: bytes, limit_bytes });
        let request = NodeExpandRequest { volume_id, volume_path, capacity_range };
        node.driver.expand_on_node(&request).map(|reply| reply.capacity_bytes)
    };
    assert_eq!(kind(expand(3 * MIB, 0)), Kind::NotFound);
    assert_eq!(node.driver.volume(&id).unwrap().capacity, 1 << 20, "it is mounted nowhere");
    node.stage(&id).unwrap();
    assert_eq!(kind(expand(1 << 60, 0)), Kind::Exhausted);
    for _ in 0..2 {
        assert_eq!(expand(3 * MIB, 0).unwrap(), 3 * MIB);
    }
    assert_eq!(node.machine.0.lock().unwrap().mappings[&id].len, 3 << 20);
    assert!(node.disk(&id).len().unwrap() >= (3 << 20) + DATA_OFFSET);
    assert_eq!(kind(expand(0, MIB)), Kind::OutOfRange);
    assert_eq!(expand(MIB, 0).unwrap(), 3 * MIB, "it is never made smaller");
    node.machine.0.lock().unwrap().mappings.get_mut(&id).unwrap().suspended = true;
    assert_eq!(expand(4 * MIB, 0).unwrap(), 4 * MIB);
    let found = node.machine.0.lock().unwrap().mappings[&id].clone();
    assert_eq!((found.len, found.suspended), (4 << 20, false), "one that stood still grows too");
}

#[test]
fn unknown_volumes_are_deleted_and_not_found() {
    let node = Node::set();
    node.driver.delete_volume(&Id { id: "nobody".to_owned() }).unwrap();
    assert_eq!(kind(node.driver.delete_volume(&Id { id: String::new() })), Kind::Invalid);
    assert_eq!(kind(node.stage("nobody")), Kind::NotFound);
    assert_eq!(kind(node.publish("nobody", "a", 1)), Kind::NotFound);
    let (volume_id, volume_path) = ("nobody".to_owned(), "/nowhere".to_owned());
    let expand = NodeExpandRequest { volume_id, volume_path, capacity_range: None };
    assert_eq!(kind(node.driver.expand_on_node(&expand)), Kind::NotFound);
}

#[test]
fn second_call_for_a_volume_is_told_to_come_again() {
    let node = Node::set();
    let id = node.create("claim");
    let held = node.driver.locks.take(&id).unwrap();
    assert_eq!(kind(node.stage(&id)), Kind::Busy);
    assert_eq!(kind(node.driver.delete_volume(&Id { id: id.clone() })), Kind::Busy);
    drop(held);
    node.stage(&id).unwrap();
}
