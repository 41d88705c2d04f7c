//! What nothing remembers: closed where it is certainly ours and nobody uses it, and told of otherwise.

use lastkey_kernel::DeviceNumber;
use lastkey_kernel::mapper::Mapping;

use super::Node;

impl Node {
    fn mapping(&self, name: &str) -> Option<Mapping> {
        self.machine.0.lock().unwrap().mappings.get(name).cloned()
    }

    /// The folder of a volume is gone, as its driver finds it.
    fn lose(self, id: &str) -> Self {
        std::fs::remove_dir_all(self.folder.path().join("volumes").join(id)).unwrap();
        self.restart()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Mapping)) {
        change(self.machine.0.lock().unwrap().mappings.get_mut(name).unwrap());
    }
}

#[test]
fn mapping_without_a_record_is_closed_once_nobody_uses_it() {
    let mut node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.publish(&id, "pod", 1).unwrap();
    node = node.lose(&id);
    node.keep();
    assert!(node.mapping(&id).is_some(), "it is mounted");
    assert!(node.driver.complaint(&id).unwrap().contains("unmount it"));
    node.machine.0.lock().unwrap().mounts.clear();
    node.change(&id, |mapping| mapping.opens = 1);
    node.keep();
    assert!(node.mapping(&id).is_some(), "somebody has it open");
    node.change(&id, |mapping| mapping.opens = 0);
    node.keep();
    assert!(node.mapping(&id).is_none());
    // The deleted file is still there behind its device: whoever misses the data may copy it.
    assert_eq!(node.machine.done("release"), 0);
    assert!(node.driver.complaint(&id).unwrap().contains("losetup -d"));
    node.machine.0.lock().unwrap().loops.clear();
    node.keep();
    assert_eq!(node.driver.complaint(&id), None);
}

#[test]
fn mapping_that_is_not_certainly_ours_is_left_alone() {
    let mut node = Node::set();
    let (id, other) = (node.create("claim"), node.create("other"));
    node.stage(&id).unwrap();
    node.stage(&other).unwrap();
    node = node.lose(&id);
    node.machine.0.lock().unwrap().mounts.clear();
    let ours = node.mapping(&id).unwrap();
    for change in [
        (|mapping: &mut Mapping| mapping.uuid = "LVM-1".to_owned()) as fn(&mut Mapping),
        |mapping| mapping.uuid = format!("{}0", mapping.uuid),
        |mapping| mapping.below = None,
        |mapping| mapping.below = Some(DeviceNumber { major: 8, minor: 0 }),
    ] {
        node.change(&id, change);
        node.keep();
        assert!(node.mapping(&id).is_some());
        node.change(&id, |mapping| *mapping = ours.clone());
    }
    // The device below is the file of another volume that is gone.
    let minor = node.mapping(&other).unwrap().below;
    node = node.lose(&other);
    node.change(&id, |mapping| mapping.below = minor);
    node.change(&other, |mapping| mapping.opens = 1);
    node.keep();
    assert!(node.mapping(&id).is_some());
    node.change(&id, |mapping| *mapping = ours.clone());
    node.keep();
    assert!(node.mapping(&id).is_none() && node.mapping(&other).is_some());
}

#[test]
fn volume_with_a_record_is_no_zombie() {
    let mut node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.machine.0.lock().unwrap().mounts.clear();
    node = node.restart();
    node.keep();
    assert!(node.mapping(&id).is_some());
    let held = node.driver.locks.take(&id).unwrap();
    node.keep();
    drop(held);
    assert_eq!(node.machine.done("close"), 0);
}

#[test]
fn inline_volume_whose_file_is_gone_goes_with_its_device() {
    let node = Node::set();
    super::life::inline(&node, "csi-1", "4Mi").unwrap();
    node.keep();
    assert!(node.mapping("lke-csi-1").is_some());
    std::fs::remove_file(node.folder.path().join("inline/lke-csi-1")).unwrap();
    node.keep();
    assert!(node.mapping("lke-csi-1").is_some(), "a pod has it");
    node.machine.0.lock().unwrap().mounts.clear();
    node.keep();
    assert!(node.mapping("lke-csi-1").is_none());
    assert_eq!(node.machine.done("release"), 1);
    assert!(node.machine.0.lock().unwrap().loops.is_empty());
}
