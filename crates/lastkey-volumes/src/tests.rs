//! The driver over a machine and a key service in memory: what may be repeated, what may never
//! happen twice, and who hears what.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lastkey_luks::{DATA_OFFSET, Header, Medium as _, State};
use lastkey_wire::grpc::csi::{
    AccessType, CapacityRange, ContentSource, ContentSourceKind, CreateSnapshotRequest,
    CreateVolumeRequest, ExpandRequest, Id, Kind as Number, MountVolume, NodeExpandRequest,
    Nothing, PublishRequest, StageRequest, StatsRequest, UndoRequest, VolumeCapability,
};

use crate::disk::Disk;
use crate::driver::{Config, Driver};
use crate::fake::{FakeKeys, FakeMachine, Mood};
use crate::fault::{Fault, Kind};

const MIB: i64 = 1 << 20;

struct Node {
    folder: tempfile::TempDir,
    machine: Arc<FakeMachine>,
    keys: Arc<FakeKeys>,
    driver: Driver,
}

impl Node {
    fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Arc::new(FakeMachine::default());
        let keys = Arc::new(FakeKeys::with(&[("alias/volumes", "key-1"), ("alias/b", "key-2")]));
        let driver = driver(folder.path(), &machine, &keys);
        Self { folder, machine, keys, driver }
    }

    /// Another process over what the last one left.
    fn restart(&mut self) {
        self.driver = driver(self.folder.path(), &self.machine, &self.keys);
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
        self.driver.publish(&PublishRequest {
            volume_id: id.to_owned(),
            staging_path: text(&self.path(id)),
            target_path: text(&self.path(target)),
            capability: Some(mount(mode)),
            ..PublishRequest::default()
        })
    }

    fn disk(&self, id: &str) -> Disk {
        Disk::open(&self.driver.volumes.data(id)).unwrap()
    }
}

fn driver(folder: &Path, machine: &Arc<FakeMachine>, keys: &Arc<FakeKeys>) -> Driver {
    let config = Config {
        name: "volumes.lastkey.dev".to_owned(),
        node_id: "node-1".to_owned(),
        version: "1".to_owned(),
        cluster: "prod".to_owned(),
        default_key: "alias/volumes".to_owned(),
        folder: folder.to_owned(),
    };
    Driver::new(config, keys.clone(), machine.clone()).unwrap()
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
        node.restart();
        node.stage(&id).unwrap();
        if first.is_ok() {
            assert_eq!(node.machine.done("make ext4"), 1);
            return;
        }
        assert!(formats <= 1 && node.machine.done("make ext4") == 1, "{budget}");
        // From now on never again, whatever happens.
        node.unstage(&id);
        node.machine.reboot();
        node.restart();
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
    node.restart();
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
        node.driver.guard_once();
        assert_eq!(node.machine.done("freeze"), 0);
    }
    node.keys.0.lock().unwrap().mood = Mood::Well;
    node.keys.0.lock().unwrap().disabled.insert("key-1".to_owned());
    node.driver.guard_once();
    node.driver.guard_once();
    assert_eq!((node.machine.done("freeze"), node.machine.done("thaw")), (1, 0));
    let stats = StatsRequest { volume_id: id.clone(), volume_path: text(&node.path(&id)) };
    let condition = node.driver.stats(&stats).unwrap().condition.unwrap();
    assert!(condition.abnormal && condition.message.contains("key-1"));
    node.keys.0.lock().unwrap().disabled.clear();
    node.driver.guard_once();
    node.driver.guard_once();
    assert_eq!((node.machine.done("freeze"), node.machine.done("thaw")), (1, 1));
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
    let (source_volume_id, name) = (id.clone(), "snap".to_owned());
    let snapshot = CreateSnapshotRequest { source_volume_id, name };
    let snapshot = node.driver.create_snapshot(&snapshot).unwrap().snapshot.unwrap();
    let kind = ContentSourceKind::Snapshot(Id { id: snapshot.id.clone() });
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
    node.driver.delete_snapshot(&Id { id: snapshot.id }).unwrap();
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
    assert_eq!(kind(node.stage(&id)), Kind::Precondition);
    assert_eq!(node.machine.done("make"), 0, "a pod's bytes are on the device");
}

#[test]
fn expansion_reaches_file_mapping_and_file_system() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    let capacity_range = Some(CapacityRange { required_bytes: 3 * MIB, limit_bytes: 0 });
    let expand = ExpandRequest { volume_id: id.clone(), capacity_range };
    assert!(node.driver.expand_volume(&expand).unwrap().node_expansion_required);
    node.driver.expand_volume(&expand).unwrap();
    let volume_path = text(&node.path(&id));
    let on_node = NodeExpandRequest { volume_id: id.clone(), volume_path, capacity_range };
    assert_eq!(node.driver.expand_on_node(&on_node).unwrap().capacity_bytes, 3 * MIB);
    assert_eq!(node.machine.0.lock().unwrap().mappings[&id].len, 3 << 20);
    let less = Some(CapacityRange { required_bytes: 0, limit_bytes: MIB });
    let shrink = ExpandRequest { volume_id: id, capacity_range: less };
    assert_eq!(kind(node.driver.expand_volume(&shrink)), Kind::OutOfRange);
}

#[test]
fn unknown_volumes_are_deleted_and_not_found() {
    let node = Node::set();
    node.driver.delete_volume(&Id { id: "nobody".to_owned() }).unwrap();
    assert_eq!(kind(node.driver.delete_volume(&Id { id: String::new() })), Kind::Invalid);
    assert_eq!(kind(node.stage("nobody")), Kind::NotFound);
    assert_eq!(kind(node.publish("nobody", "a", 1)), Kind::NotFound);
    let capacity_range = Some(CapacityRange::default());
    let expand = ExpandRequest { volume_id: "nobody".to_owned(), capacity_range };
    assert_eq!(kind(node.driver.expand_volume(&expand)), Kind::NotFound);
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
