//! Volumes that stand still for a copy of them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use lastkey_node::page::Shown as _;
use lastkey_wire::grpc::csi::{CreateSnapshotRequest, StatsRequest};

use super::{Node, config, kind, text};
use crate::back_end::{BackEnd, Files, Fill};
use crate::driver::Driver;
use crate::fake::FakeMachine;
use crate::fault::{Fault, Kind};
use crate::metrics::Metrics;

/// Copies by a program that hangs, and says what pods wait for meanwhile.
struct Hanging {
    files: Files,
    machine: Arc<FakeMachine>,
}

impl BackEnd for Hanging {
    fn make(&self, at: &Path, id: &str, len: u64, fill: Fill<'_>) -> io::Result<()> {
        if matches!(fill, Fill::Reference(_)) {
            self.files.make(at, id, len, Fill::Nothing)?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.files.make(at, id, len, fill)
    }

    fn find(&self, at: &Path, id: &str) -> io::Result<()> {
        self.files.find(at, id)
    }

    fn grow(&self, at: &Path, len: u64) -> io::Result<()> {
        self.files.grow(at, len)
    }

    fn remove(&self, at: &Path, id: &str) -> io::Result<()> {
        let state = self.machine.0.lock().unwrap();
        assert!(state.mappings.values().all(|mapping| !mapping.suspended), "somebody waits");
        self.files.remove(at, id)
    }

    fn room(&self) -> io::Result<u64> {
        self.files.room()
    }
}

#[test]
fn volume_that_is_copied_is_not_frozen_and_goes_on_when_the_copy_fails() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    let stats = StatsRequest { volume_id: id.clone(), volume_path: text(&node.path(&id)) };
    let abnormal = || node.driver.stats(&stats).unwrap().condition.unwrap().abnormal;
    let copied = node.driver.while_still(&id, |in_use| {
        assert!(in_use && node.machine.0.lock().unwrap().mappings[&id].suspended);
        node.guard();
        assert_eq!(node.machine.done("thaw"), 0);
        assert!(!abnormal());
        let page = Metrics::new(Arc::clone(&node.driver)).metrics();
        assert!(page.contains("lastkey_volumes_volumes{state=\"open\"} 1"), "{page}");
        Err(Fault::new(Kind::Internal, "the program that copies hangs"))
    });
    assert_eq!(kind(copied), Kind::Internal);
    assert_eq!((node.machine.done("pause"), node.machine.done("go on")), (1, 1));
    node.machine.0.lock().unwrap().mappings.get_mut(&id).unwrap().suspended = true;
    assert!(abnormal(), "nobody copies it any more");
}

/// Pods wait for as long as a volume stands still.
#[test]
fn what_a_failed_copy_left_is_removed_after_the_volume_goes_on() {
    let Node { folder, machine, keys, driver, back_end } = Node::set();
    drop(driver);
    let hanging =
        Hanging { files: Files::new(folder.path().to_owned()), machine: Arc::clone(&machine) };
    let config = config(folder.path());
    let driver = Driver::new(config, keys.clone(), machine.clone(), Arc::new(hanging)).unwrap();
    let node = Node { folder, machine, keys, driver: Arc::new(driver), back_end };
    let id = node.create("claim");
    node.stage(&id).unwrap();
    let snapshot = CreateSnapshotRequest { source_volume_id: id, name: "snap".to_owned() };
    assert_eq!(kind(node.driver.create_snapshot(&snapshot)), Kind::Internal);
    assert_eq!(node.machine.done("go on"), 1);
    let left = std::fs::read_dir(node.folder.path().join("snapshots")).unwrap().count();
    assert_eq!(left, 0, "half of a snapshot is left");
}
