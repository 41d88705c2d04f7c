//! The whole life of a volume, cut short anywhere; and volumes that live as long as a pod.

use std::sync::Arc;

use lastkey_luks::{Copies, DATA_OFFSET, Header, Medium as _};
use lastkey_wire::grpc::csi::{CapacityRange, Id, NodeExpandRequest, PublishRequest, UndoRequest};

use super::{MIB, Node, kind, mount, request, text};
use crate::disk::Disk;
use crate::fault::{Fault, Kind};
use crate::inline::InlineBounds;

/// Calls of a life, in order. Each can be called again.
const CALLS: usize = 8;

impl Node {
    fn call(&self, number: usize, id: &mut String) -> Result<(), Fault> {
        let undo = |path: String| UndoRequest { volume_id: id.clone(), path };
        match number {
            0 => {
                *id = self.driver.create_volume(&request("claim"))?.volume.unwrap().id;
                Ok(())
            }
            1 => self.stage(id),
            2 => self.publish(id, "pod", 1),
            3 => {
                let range = CapacityRange { required_bytes: 2 * MIB, limit_bytes: 0 };
                let capacity_range = Some(range);
                let (volume_id, volume_path) = (id.clone(), text(&self.path(id)));
                let expand = NodeExpandRequest { volume_id, volume_path, capacity_range };
                self.driver.expand_on_node(&expand).map(drop)
            }
            4 => {
                self.keep();
                Ok(())
            }
            5 => self.driver.unpublish(&undo(text(&self.path("pod")))),
            6 => self.driver.unstage(&undo(text(&self.path(id)))),
            _ => self.driver.delete_volume(&Id { id: id.clone() }),
        }
    }
}

#[test]
fn every_call_can_be_cut_short_anywhere_and_repeated_by_another_process() {
    for broken in 0..CALLS {
        for budget in 0..8 {
            let mut node = Node::set();
            let mut id = String::new();
            for number in 0..broken {
                node.call(number, &mut id).unwrap();
            }
            node.machine.0.lock().unwrap().budget = Some(budget);
            let cut = node.call(broken, &mut id);
            node.machine.0.lock().unwrap().budget = None;
            node = node.restart();
            for number in broken..CALLS {
                let done = node.call(number, &mut id);
                assert!(
                    done.is_ok(),
                    "{broken} after {budget} steps ({cut:?}), then {number}: {done:?}"
                );
            }
            assert_eq!(node.machine.done("make ext4"), 1, "{broken} after {budget} steps");
            assert!(node.driver.volumes.all().is_empty());
            assert_eq!(node.keys.0.lock().unwrap().ended.len(), 1);
            assert!(node.machine.0.lock().unwrap().mappings.is_empty());
        }
    }
}

#[test]
fn data_key_that_does_not_open_is_refused_and_nothing_is_written() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.unstage(&id);
    let disk = node.disk(&id);
    let mut header = Header::read(&disk).unwrap().unwrap();
    let (number, mut token) = header.tokens().unwrap().remove(0);
    token.wrapped = b"key-1@1|of another volume|".to_vec();
    header.put_token(Some(number), &token).unwrap();
    header.store(&disk).unwrap();
    assert_eq!(kind(node.stage(&id)), Kind::Precondition);
    let found = Header::read(&node.disk(&id)).unwrap().unwrap();
    assert_eq!(found.tokens().unwrap().remove(0).1, token);
    assert_eq!((node.machine.done("open"), node.machine.done("make")), (1, 1));
}

pub(super) fn inline(node: &Node, id: &str, size: &str) -> Result<(), Fault> {
    inline_at(node, id, size, "inline")
}

fn inline_at(node: &Node, id: &str, size: &str, target: &str) -> Result<(), Fault> {
    let context = [("csi.storage.k8s.io/ephemeral", "true"), ("size", size)];
    let context = context.map(|(name, value)| (name.to_owned(), value.to_owned()));
    node.driver.publish(PublishRequest {
        volume_id: id.to_owned(),
        target_path: text(&node.path(target)),
        capability: Some(mount(1)),
        context: context.into(),
        ..PublishRequest::default()
    })
}

#[test]
fn inline_volume_lives_as_long_as_its_pod_and_asks_no_key_service() {
    let mut node = Node::set();
    node.keys.0.lock().unwrap().mood = crate::fake::Mood::Away;
    let data = node.folder.path().join("inline/lke-csi-1");
    for budget in 0..8 {
        node.machine.0.lock().unwrap().budget = Some(budget);
        let cut = inline(&node, "csi-1", "4Mi");
        node.machine.0.lock().unwrap().budget = None;
        inline(&node, "csi-1", "4Mi").unwrap();
        inline(&node, "csi-1", "4Mi").unwrap();
        assert!(data.exists(), "{cut:?}");
        let target = text(&node.path("inline"));
        let undo = UndoRequest { volume_id: "csi-1".to_owned(), path: target };
        node.driver.unpublish(&undo).unwrap();
        node.driver.unpublish(&undo).unwrap();
        assert!(!data.exists());
        assert!(node.machine.0.lock().unwrap().mappings.is_empty());
    }
    // What a restart of the node leaves, nobody opens.
    inline(&node, "csi-1", "4Mi").unwrap();
    assert!(Header::read(&Disk::open(&data).unwrap()).unwrap().is_none());
    node = node.restart();
    assert!(data.exists(), "a driver that is restarted takes nothing from a pod");
    node.machine.reboot();
    node = node.restart();
    assert!(!data.exists());
    for (id, size) in [("../x", "4Mi"), ("csi-1", "0"), ("csi-1", "4Mio"), ("", "4Mi")] {
        assert_eq!(kind(inline(&node, id, size)), Kind::Invalid, "{id} {size}");
    }
    assert_eq!(kind(inline(&node, "csi-2", "900Ti")), Kind::Exhausted);
}

#[test]
fn inline_volumes_take_no_more_of_a_node_than_was_said() {
    let mut node = Node::set();
    let bound = |node: &mut Node, each, total| {
        Arc::get_mut(&mut node.driver).unwrap().config.inline = InlineBounds { each, total };
    };
    // Each takes the room of a header as well.
    let total = (12 << 20) + 2 * DATA_OFFSET;
    bound(&mut node, 8 << 20, total);
    let refused = inline(&node, "csi-1", "500Gi").unwrap_err();
    assert_eq!(refused.kind, Kind::OutOfRange);
    assert!(refused.message.contains("8388608") && refused.message.contains("--inline-limit"));
    inline_at(&node, "csi-1", "8Mi", "one").unwrap();
    let refused = inline_at(&node, "csi-2", "5Mi", "two").unwrap_err();
    assert_eq!(refused.kind, Kind::Exhausted);
    assert!(refused.message.contains(&total.to_string()));
    assert!(refused.message.contains("--inline-total"), "{}", refused.message);
    assert!(!node.folder.path().join("inline/lke-csi-2").exists());
    // One that was cut short has its bytes until it is gone.
    let gone = |node: &Node, id: &str, target: &str| {
        let path = text(&node.path(target));
        node.driver.unpublish(&UndoRequest { volume_id: id.to_owned(), path }).unwrap();
    };
    node.machine.0.lock().unwrap().budget = Some(1);
    inline_at(&node, "csi-3", "4Mi", "three").unwrap_err();
    node.machine.0.lock().unwrap().budget = None;
    assert_eq!(kind(inline_at(&node, "csi-2", "4Mi", "two")), Kind::Exhausted);
    gone(&node, "csi-3", "three");
    inline_at(&node, "csi-2", "4Mi", "two").unwrap();
    // What is there counts for the next process as well, and stays when the bound is lowered.
    node = node.restart();
    bound(&mut node, 4 << 20, total);
    assert_eq!(kind(inline_at(&node, "csi-3", "1Mi", "three")), Kind::Exhausted);
    inline_at(&node, "csi-1", "8Mi", "one").unwrap();
    gone(&node, "csi-1", "one");
    inline_at(&node, "csi-3", "4Mi", "three").unwrap();
}

/// One that is busy: the file is open for something that does not let go.
#[test]
fn inline_volume_of_before_that_does_not_go_stops_no_driver() {
    let mut node = Node::set();
    let folder = node.folder.path().join("inline");
    // A folder is no file that can be removed.
    std::fs::create_dir(folder.join("lke-a")).unwrap();
    std::fs::write(folder.join("lke-b"), "").unwrap();
    node = node.restart();
    assert!(folder.join("lke-a").exists() && !folder.join("lke-b").exists());
    node.create("claim");
}

/// The header on the disk is that of another volume: what this one would do for its own, mend a copy
/// and remember that there is one, is not done.
#[test]
fn header_of_another_volume_is_left_as_it_is() {
    let node = Node::set();
    let (other, id) = (node.create("other"), node.create("claim"));
    node.stage(&other).unwrap();
    node.unstage(&other);
    std::fs::copy(node.driver.volumes.data(&other), node.driver.volumes.data(&id)).unwrap();
    node.disk(&id).write_at(&[0xAA; 4_096], 16_384).unwrap();
    let before = std::fs::read(node.driver.volumes.data(&id)).unwrap();
    assert_eq!(kind(node.stage(&id)), Kind::Precondition);
    assert!(std::fs::read(node.driver.volumes.data(&id)).unwrap() == before);
    assert!(!node.driver.volumes.get(&id).unwrap().formatted);
}

#[test]
fn damaged_copy_of_a_header_is_mended_once_the_header_was_opened() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.unstage(&id);
    node.disk(&id).write_at(&[0xAA; 4_096], 16_384).unwrap();
    let before = std::fs::read(node.driver.volumes.data(&id)).unwrap();
    node.keys.0.lock().unwrap().mood = crate::fake::Mood::Away;
    assert_eq!(kind(node.stage(&id)), Kind::Away);
    assert!(std::fs::read(node.driver.volumes.data(&id)).unwrap() == before);
    node.keys.0.lock().unwrap().mood = crate::fake::Mood::Well;
    node.stage(&id).unwrap();
    assert_eq!(Header::read(&node.disk(&id)).unwrap().unwrap().copies(), Copies::Both);
}
