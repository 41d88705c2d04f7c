//! Whole devices, which are files here: what the kernel calls them changes with each start.

use std::fs::{self, FileType};
use std::path::PathBuf;
use std::sync::Arc;

use lastkey_luks::{Header, Medium as _};
use lastkey_wire::grpc::csi::{
    ContentSource, ContentSourceKind, CreateVolumeRequest, GetCapacityRequest, Id,
};

use super::{MIB, Node, kind, request};
use crate::back_end::{BackEnd as _, Fill};
use crate::disk::Disk;
use crate::escrow::EscrowHeader;
use crate::fault::{Fault, Kind};
use crate::mark;
use crate::raw::Raw;

const LEN: u64 = 18 << 20;

/// All of it is there, as on a device.
fn filled(byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(LEN).unwrap()]
}

impl Node {
    /// A driver over devices of these names.
    fn with_devices(names: &[&str]) -> Self {
        let node = Self::over(|folder| {
            Arc::new(Raw::of(folder.join("list"), folder.to_owned(), FileType::is_file))
        });
        names.iter().for_each(|name| node.attach(name));
        node
    }

    /// An empty device more.
    fn attach(&self, name: &str) {
        let device = self.device(name);
        fs::write(&device, filled(0)).unwrap();
        let list = self.folder.path().join("list");
        let before = fs::read_to_string(&list).unwrap_or_default();
        fs::write(list, format!("{before}{}\n", device.display())).unwrap();
    }

    fn device(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("device-{name}"))
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.device(from), self.device(to)).unwrap();
    }

    /// As after a restart of the machine that found them in another order.
    fn exchange(&self, one: &str, other: &str) {
        self.rename(one, "between");
        self.rename(other, one);
        self.rename("between", other);
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.device(name)).unwrap()
    }

    /// Which device is a volume's.
    fn bearer(&self, id: &str, names: &[&str]) -> String {
        let is_its = |name: &&&str| mark::is_on(&self.device(name), id).unwrap();
        let found: Vec<&&str> = names.iter().filter(is_its).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        (*found[0]).to_owned()
    }

    fn clone_of(&self, id: &str) -> String {
        let kind = ContentSourceKind::Volume(Id { id: id.to_owned() });
        let content_source = Some(ContentSource { kind: Some(kind) });
        let clone = CreateVolumeRequest { content_source, ..request("clone") };
        self.driver.create_volume(&clone).unwrap().volume.unwrap().id
    }

    /// What the service keeps of the header of a volume that was used.
    fn escrow(&self, id: &str) -> EscrowHeader {
        self.stage(id).unwrap();
        self.keep();
        self.unstage(id);
        EscrowHeader::parse(&self.keys.0.lock().unwrap().headers[id]).unwrap()
    }

    fn restore(&self, header: &EscrowHeader, name: &str, unseen: bool) -> Result<(), Fault> {
        header.restore_on(&*self.keys, &self.device(name), unseen, FileType::is_file)
    }

    fn delete(&self, id: &str) -> Result<(), Fault> {
        self.driver.delete_volume(&Id { id: id.to_owned() })
    }
}

/// Both bear the same header, with the token of the volume: by that alone, deleting the snapshot
/// wiped whichever of them its link led to.
#[test]
fn exchanged_names_of_a_volume_and_its_snapshot_do_not_exchange_them() {
    let node = Node::with_devices(&["a", "b"]);
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.unstage(&id);
    let snapshot = node.snapshot(&id);
    let (of_volume, of_snapshot) =
        (node.bearer(&id, &["a", "b"]), node.bearer(&snapshot, &["a", "b"]));
    assert_ne!(of_volume, of_snapshot);
    let before = node.bytes(&of_volume);
    node.exchange("a", "b");
    node.machine.reboot();
    let node = node.restart();
    node.driver.delete_snapshot(&Id { id: snapshot }).unwrap();
    // What was the volume's has the snapshot's name now.
    assert!(node.bytes(&of_snapshot) == before);
    assert!(node.bytes(&of_volume).iter().all(|byte| *byte == 0));
    assert!(node.keys.0.lock().unwrap().ended.is_empty());
    node.stage(&id).unwrap();
    assert_eq!(node.machine.done("make"), 1);
}

/// The same with a clone that nobody has used, so that its token is still that of its source, and
/// with a volume and a clone on which there is no header at all.
#[test]
fn exchanged_names_of_a_volume_and_its_clone_do_not_exchange_them() {
    for is_used in [true, false] {
        let node = Node::with_devices(&["a", "b"]);
        let id = node.create("claim");
        if is_used {
            node.stage(&id).unwrap();
            node.unstage(&id);
        }
        let clone = node.clone_of(&id);
        let at = node.bearer(&clone, &["a", "b"]);
        let before = node.bytes(&at);
        node.exchange("a", "b");
        let node = node.restart();
        node.delete(&id).unwrap();
        assert!(node.bytes(&node.bearer(&clone, &["a", "b"])) == before);
        assert!(node.keys.0.lock().unwrap().ended.is_empty());
        node.stage(&clone).unwrap();
        node.unstage(&clone);
        node.delete(&clone).unwrap();
        assert_eq!(node.keys.0.lock().unwrap().ended.len(), 1);
        // Both are free again.
        for name in ["x", "y"] {
            node.create(name);
        }
    }
}

/// Its device is away, and another one has its name: empty, or with something on it.
#[test]
fn nothing_is_done_in_the_name_of_a_volume_that_is_away() {
    let node = Node::with_devices(&["a"]);
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.unstage(&id);
    let snapshot = {
        node.attach("b");
        node.snapshot(&id)
    };
    for name in ["a", "b"] {
        node.rename(name, &format!("away-{name}"));
    }
    for byte in [0, 0xAA] {
        for name in ["a", "b"] {
            fs::write(node.device(name), filled(byte)).unwrap();
        }
        let mut record = node.driver.volume(&id).unwrap();
        for refused in [
            node.stage(&id),
            node.delete(&id),
            node.driver.delete_snapshot(&Id { id: snapshot.clone() }),
            node.driver.enlarge(&mut record, (1 << 20) + 4_096),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind, Kind::Precondition);
            assert!(refused.message.contains("bears the mark"), "{refused}");
        }
        node.keys.0.lock().unwrap().data_keys += 1;
        node.keep();
        for name in ["a", "b"] {
            assert!(node.bytes(name).iter().all(|found| *found == byte));
        }
    }
    assert!(node.keys.0.lock().unwrap().ended.is_empty());
    assert!(!node.driver.volumes.get(&id).unwrap().deleting);
    // And back, by other names.
    node.rename("away-a", "b");
    node.rename("away-b", "a");
    node.keep();
    node.stage(&id).unwrap();
    node.unstage(&id);
    node.driver.delete_snapshot(&Id { id: snapshot }).unwrap();
    node.delete(&id).unwrap();
}

#[test]
fn of_two_devices_with_one_mark_none_is_chosen() {
    let node = Node::with_devices(&["a", "b", "c"]);
    let id = node.create("claim");
    let at = node.bearer(&id, &["a", "b", "c"]);
    let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| *name != at).collect();
    // Copied bit by bit to one, and moved to the other.
    fs::copy(node.device(&at), node.device(others[0])).unwrap();
    node.exchange(&at, others[1]);
    let refused = node.stage(&id).unwrap_err();
    assert_eq!(refused.kind, Kind::Precondition);
    assert!(refused.message.contains("one is a copy of the other"), "{refused}");
    fs::write(node.device(others[0]), filled(0)).unwrap();
    node.stage(&id).unwrap();
}

/// The link leads to one of the two, which says nothing: the kernel may have given its name away.
#[test]
fn copy_of_a_device_stops_its_volume_whichever_has_the_name_of_before() {
    let node = Node::with_devices(&["a", "b"]);
    let id = node.create("claim");
    let at = node.bearer(&id, &["a", "b"]);
    let other = if at == "a" { "b" } else { "a" };
    fs::copy(node.device(&at), node.device(other)).unwrap();
    for refused in [node.stage(&id), node.delete(&id)] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, Kind::Precondition);
        assert!(refused.message.contains("one is a copy of the other"), "{refused}");
    }
    let before = node.bytes(&at);
    // Nor is what was left half of it taken for gone.
    let raw =
        Raw::of(node.folder.path().join("list"), node.folder.path().into(), FileType::is_file);
    assert!(raw.remove(&node.driver.volumes.data(&id), &id).is_err());
    assert!(node.bytes("a") == before && node.bytes("b") == before);
    fs::write(node.device(other), filled(0)).unwrap();
    node.stage(&id).unwrap();
}

#[test]
fn device_that_the_list_names_twice_is_one_device() {
    let node = Node::with_devices(&["a"]);
    let alias = node.folder.path().join("device-alias");
    std::os::unix::fs::symlink(node.device("a"), &alias).unwrap();
    let list = node.folder.path().join("list");
    let before = fs::read_to_string(&list).unwrap();
    fs::write(&list, format!("{}\n{before}", alias.display())).unwrap();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    assert_eq!(kind(node.driver.create_volume(&request("second"))), Kind::Exhausted);
}

#[test]
fn restored_header_comes_with_the_mark_and_on_no_device_of_somebody_else() {
    let node = Node::with_devices(&["a", "b"]);
    let id = node.create("claim");
    let kept = node.escrow(&id);
    let snapshot = node.snapshot(&id);
    let (at, other) = (node.bearer(&id, &["a", "b"]), node.bearer(&snapshot, &["a", "b"]));
    let lost = |name: &str| {
        let disk = Disk::open(&node.device(name)).unwrap();
        disk.write_at(&[0xAA; 32_768], 0).unwrap();
        disk
    };
    lost(&other);
    let before = node.bytes(&other);
    let refused = node.restore(&kept, &other, true).unwrap_err();
    assert!(refused.message.contains(&snapshot), "{refused}");
    assert!(node.bytes(&other) == before);
    // What overwrote the header overwrote the mark, or there is none.
    for byte in [0xAA, 0] {
        lost(&at).write_at(&[byte; 4_096], mark::PLACE).unwrap();
        assert_eq!(kind(node.stage(&id)), Kind::Precondition);
        node.restore(&kept, &at, true).unwrap();
        assert!(mark::is_on(&node.device(&at), &id).unwrap());
        node.stage(&id).unwrap();
        node.unstage(&id);
    }
    Disk::open(&node.device(&at)).unwrap().write_at(&[1], mark::PLACE + 100).unwrap();
    assert_eq!(kind(node.stage(&id)), Kind::Precondition);
    node.restore(&kept, &at, false).unwrap();
    node.stage(&id).unwrap();
    // With both there is nothing to do.
    assert_eq!(kind(node.restore(&kept, &at, true)), Kind::Precondition);
    assert_eq!(node.machine.done("make"), 1, "what is on it was not made again");
}

/// As it was taken before there were marks.
#[test]
fn device_without_a_mark_gets_it_when_its_whole_header_is_the_volumes() {
    let node = Node::with_devices(&["a", "b"]);
    let (id, second) = (node.create("claim"), node.create("second"));
    let (kept, of_second) = (node.escrow(&id), node.escrow(&second));
    let at = node.bearer(&id, &["a", "b"]);
    mark::clear(&Disk::open(&node.device(&at)).unwrap()).unwrap();
    let before = node.bytes(&at);
    let refused = node.stage(&id).unwrap_err();
    assert_eq!(refused.kind, Kind::Precondition);
    let advice = format!("restore-header {id} --device {}", node.device(&at).display());
    assert!(refused.message.contains(&advice), "{refused}");
    assert!(!refused.message.contains("remove the folder"), "{refused}");
    let refused = node.restore(&of_second, &at, true).unwrap_err();
    assert!(refused.message.contains("not of"), "{refused}");
    node.keys.0.lock().unwrap().disabled.insert("key-1".to_owned());
    assert_eq!(kind(node.restore(&kept, &at, false)), Kind::Precondition);
    assert!(node.bytes(&at) == before, "nothing was written");
    node.keys.0.lock().unwrap().disabled.clear();
    node.restore(&kept, &at, false).unwrap();
    node.stage(&id).unwrap();
}

/// A format of ours that was cut short is begun again: the mark says that nobody else's is there.
#[test]
fn format_that_was_cut_short_is_done_again_on_the_device_of_the_volume() {
    let node = Node::with_devices(&["a"]);
    let id = node.create("claim");
    node.disk(&id).write_at(&[7; 4_096], 65_536).unwrap();
    node.disk(&id).write_at(b"LUKS\xba\xbe damaged", 0).unwrap();
    node.stage(&id).unwrap();
    assert!(mark::is_on(&node.device("a"), &id).unwrap());
}

#[test]
fn device_with_something_on_it_anywhere_before_the_data_is_not_taken() {
    let node = Node::with_devices(&["a"]);
    let disk = Disk::open(&node.device("a")).unwrap();
    for at in [0, 5 << 20, (12 << 20) + 3, (16 << 20) - 1, 16 << 20, LEN - 1] {
        disk.write_at(&[1], at).unwrap();
        let refused = node.driver.create_volume(&request("claim"));
        assert_eq!(kind(refused), Kind::Exhausted, "{at}");
        disk.wipe(at, 1).unwrap();
    }
    node.create("claim");
    assert_eq!(kind(node.driver.create_volume(&request("second"))), Kind::Exhausted);
}

#[test]
fn room_is_that_of_the_longest_device_that_would_be_taken() {
    let node = Node::with_devices(&["a", "b"]);
    let capacity = || {
        let told = node.driver.capacity(&GetCapacityRequest::default()).unwrap();
        u64::try_from(told.available_capacity).unwrap()
    };
    let both = capacity();
    let longer = Disk::open(&node.device("b")).unwrap();
    longer.file().set_len(4 * LEN).unwrap();
    assert!(capacity() > both + LEN);
    longer.write_at(b"somebody's", 0).unwrap();
    assert_eq!(capacity(), both);
    node.create("claim");
    assert_eq!(capacity(), 0);
}

#[test]
fn copy_that_fails_or_is_cut_short_gives_its_device_back() {
    let node = Node::with_devices(&["a"]);
    let root = node.folder.path().to_owned();
    let raw = Raw::of(root.join("list"), root.clone(), FileType::is_file);
    let record = {
        let id = node.create("claim");
        let record = node.driver.volumes.get(&id).unwrap();
        node.delete(&id).unwrap();
        record
    };
    // A folder cannot be read.
    let failed = node.driver.volumes.add(&record, 17 << 20, Fill::Copy(&root));
    assert!(failed.is_err());
    assert!(node.bytes("a").iter().all(|byte| *byte == 0));

    // The process is killed in the middle.
    let source = root.join("source");
    fs::write(&source, filled(9)).unwrap();
    let half = root.join("volumes/.half-lkv-cut");
    fs::create_dir(&half).unwrap();
    raw.make(&half.join("data"), "lkv-cut", 17 << 20, Fill::Copy(&source)).unwrap();
    assert_eq!(node.bytes("a")[..4_096], [9; 4_096]);
    let node = node.restart();
    assert!(!half.exists());
    node.create("again");
}

#[test]
fn half_made_volume_whose_device_is_another_one_by_now_wipes_nothing() {
    let node = Node::with_devices(&["a"]);
    let half = node.folder.path().join("volumes/.half-lkv-cut");
    fs::create_dir(&half).unwrap();
    std::os::unix::fs::symlink(node.device("a"), half.join("data")).unwrap();
    fs::write(node.device("a"), filled(3)).unwrap();
    let node = node.restart();
    assert!(!half.exists());
    assert!(node.bytes("a").iter().all(|byte| *byte == 3));
}

#[test]
fn half_made_volume_is_not_forgotten_while_a_device_is_absent() {
    let node = Node::with_devices(&["a", "b"]);
    let root = node.folder.path().to_owned();
    let raw = Raw::of(root.join("list"), root.clone(), FileType::is_file);
    let half = root.join("volumes/.half-lkv-cut");
    fs::create_dir(&half).unwrap();
    raw.make(&half.join("data"), "lkv-cut", 17 << 20, Fill::Nothing).unwrap();
    let at = node.bearer("lkv-cut", &["a", "b"]);
    node.rename(&at, "away");
    let node = node.restart();
    assert!(half.exists());
    node.rename("away", &at);
    let node = node.restart();
    assert!(!half.exists());
    assert!(node.bytes(&at).iter().all(|byte| *byte == 0));
}

/// A volume may be shorter than the device that it lies on, and a device than the one copied from.
#[test]
fn copies_have_the_length_of_the_volume_and_not_its_mark() {
    let node = Node::with_devices(&["a"]);
    let root = node.folder.path().to_owned();
    let raw = Raw::of(root.join("list"), root.clone(), FileType::is_file);
    let source = root.join("source");
    fs::write(&source, vec![9; usize::try_from(LEN + MIB.unsigned_abs()).unwrap()]).unwrap();
    let at = root.join("snapshots/.half-lks-1");
    raw.make(&at, "lks-1", 17 << 20, Fill::Copy(&source)).unwrap();
    assert!(mark::is_on(&node.device("a"), "lks-1").unwrap());
    let bytes = node.bytes("a");
    let (begin, end) = (usize::try_from(mark::PLACE).unwrap(), 16 << 20);
    let is = |part: &[u8], wanted: u8| part.iter().all(|byte| *byte == wanted);
    assert!(is(&bytes[..begin], 9) && is(&bytes[end..17 << 20], 9) && is(&bytes[17 << 20..], 0));
    // Taken away again, it is as it was.
    raw.remove(&at, "lks-1").unwrap();
    raw.remove(&at, "lks-1").unwrap();
    assert!(is(&node.bytes("a"), 0));
}

#[test]
fn device_that_is_missing_keeps_nobody_from_the_others() {
    let node = Node::with_devices(&["a", "b"]);
    fs::remove_file(node.device("b")).unwrap();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    assert_eq!(kind(node.driver.create_volume(&request("second"))), Kind::Exhausted);
}

#[test]
fn deletion_that_was_cut_short_after_the_wipe_is_finished() {
    let node = Node::with_devices(&["a"]);
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.unstage(&id);
    let mut record = node.driver.volumes.get(&id).unwrap();
    record.deleting = true;
    node.driver.remember(&record).unwrap();
    node.disk(&id).blank().unwrap();
    let node = node.restart();
    assert!(Header::read(&node.disk(&id)).unwrap().is_none());
    node.delete(&id).unwrap();
    assert!(node.bytes("a").iter().all(|byte| *byte == 0));
    assert_eq!(node.keys.0.lock().unwrap().ended.len(), 1);
}
