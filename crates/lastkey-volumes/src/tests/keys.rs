//! Keys of volumes: rotations, new data keys, reports, escrow.

use lastkey_crypto::entropy::SystemEntropy;
use lastkey_luks::{Header, KmsToken, Medium as _, State};
use lastkey_node::page::Shown as _;
use lastkey_wire::grpc::csi::{CreateVolumeRequest, Id};

use super::{Node, kind, request};
use crate::disk::Disk;
use crate::escrow::EscrowHeader;
use crate::fake::Mood;
use crate::fault::{Fault, Kind};
use crate::metrics::Metrics;
use crate::unlock::Opener;

impl Node {
    fn rotate(&self, key: &str) -> u32 {
        let mut keys = self.keys.0.lock().unwrap();
        let primary = keys.primary.entry(key.to_owned()).or_insert(1);
        *primary += 1;
        *primary
    }

    fn token(&self, id: &str) -> KmsToken {
        let header = Header::read(&self.disk(id)).unwrap().unwrap();
        header.tokens().unwrap().remove(0).1
    }

    /// Names and versions of the last report about a key.
    fn reported(&self, key: &str) -> Vec<(String, u32)> {
        let keys = self.keys.0.lock().unwrap();
        let things = keys.reports.get(key).cloned().unwrap_or_default();
        things.into_iter().map(|thing| (thing.name, thing.version)).collect()
    }

    /// A volume that was used, and a snapshot of it.
    fn used(&self) -> (String, String) {
        let id = self.create("claim");
        self.stage(&id).unwrap();
        self.unstage(&id);
        let snapshot = self.snapshot(&id);
        (id, snapshot)
    }
}

#[test]
fn what_lies_here_is_reported_under_its_versions_and_once() {
    let mut node = Node::set();
    let (id, snapshot) = node.used();
    let lineage = node.driver.volumes.get(&id).unwrap().lineage.unwrap();
    node.keep();
    let both = vec![(snapshot.clone(), 1), (id.clone(), 1)];
    assert_eq!((node.reported("key-1"), node.reported(&lineage)), (both.clone(), both));
    let reports = node.keys.0.lock().unwrap().reported;
    node.keep();
    assert_eq!(node.keys.0.lock().unwrap().reported, reports);

    // What a driver reported before is taken back by the next one.
    node.driver.delete_snapshot(&Id { id: snapshot }).unwrap();
    node = node.restart();
    node.driver.delete_volume(&Id { id }).unwrap();
    assert!(node.keys.0.lock().unwrap().ended.contains(&lineage));
    node = node.restart();
    node.keep();
    assert!(node.reported("key-1").is_empty() && node.reported(&lineage).is_empty());
    let reports = node.keys.0.lock().unwrap().reported;
    node = node.restart();
    node.keep();
    assert_eq!(node.keys.0.lock().unwrap().reported, reports, "nothing is left to take back");
}

#[test]
fn volume_is_used_first_when_it_is_counted() {
    let node = Node::set();
    let used = node.create("used");
    node.stage(&used).unwrap();
    assert_eq!(node.reported("key-1"), [(used.clone(), 1)], "before anything is on it");
    let refuse = |code| node.keys.0.lock().unwrap().no_reports = code;
    refuse(Some("LimitExceeded"));
    let fresh = node.create("fresh");
    let refused = node.stage(&fresh).unwrap_err();
    assert_eq!(refused.kind, Kind::Precondition);
    assert_eq!(node.machine.done("make"), 1, "only the first one has a file system");
    // Asked again, and for one more, without a question to the service.
    assert_eq!(kind(node.stage(&fresh)), Kind::Precondition);
    let reports = node.keys.0.lock().unwrap().reported;
    let refused = node.driver.create_volume(&request("more")).unwrap_err();
    assert!(refused.message.contains("lastkey key impact key-1"), "{refused}");
    assert_eq!(node.keys.0.lock().unwrap().reported, reports);
    // What was used before is used still, and another key has nothing to do with it.
    node.unstage(&used);
    node.stage(&used).unwrap();
    let parameters = [("kmsKeyId".to_owned(), "b".to_owned())].into();
    node.driver.create_volume(&CreateVolumeRequest { parameters, ..request("b") }).unwrap();

    // Also with nothing left to report it is known, and asked again.
    node.unstage(&used);
    let none = |id| node.driver.delete_volume(&Id { id });
    assert_eq!(kind(none(used)), Kind::Precondition, "its lineage is not known to be free");
    refuse(None);
    none(fresh).unwrap();
    node.keep();
    let more = node.create("more");
    node.stage(&more).unwrap();
    assert_eq!(node.reported("key-1"), [(more, 1)]);
}

/// A report that left it out would free the version that it is under.
#[test]
fn volume_is_not_used_first_beside_one_whose_version_is_not_known() {
    let node = Node::set();
    let (unknown, _) = node.used();
    node.keep();
    let before = node.reported("key-1");
    let mut record = node.driver.volumes.get(&unknown).unwrap();
    record.wraps = None;
    node.driver.remember(&record).unwrap();
    let fresh = node.create("fresh");
    let refused = node.stage(&fresh).unwrap_err();
    assert_eq!(refused.kind, Kind::Precondition);
    assert!(refused.message.contains(&unknown), "{refused}");
    assert_eq!((node.reported("key-1"), node.machine.done("make")), (before, 1));
    node.keep();
    node.stage(&fresh).unwrap();
    assert_eq!(node.reported("key-1").len(), 3);
}

/// A crash after the mount and before that was written down.
#[test]
fn volume_that_is_mounted_already_is_one_that_was_used() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    let mut record = node.driver.volumes.get(&id).unwrap();
    record.ready = false;
    node.driver.remember(&record).unwrap();
    node.stage(&id).unwrap();
    node.unstage(&id);
    node.keys.0.lock().unwrap().no_reports = Some("LimitExceeded");
    node.rotate("key-1");
    node.keep();
    node.stage(&id).unwrap();
}

#[test]
fn node_that_may_not_report_uses_volumes() {
    let node = Node::set();
    node.keys.0.lock().unwrap().no_reports = Some("AccessDenied");
    for name in ["a", "b"] {
        node.stage(&node.create(name)).unwrap();
    }
}

/// Many nodes report about one key at once, and each report writes the key.
#[test]
fn report_that_others_overtook_is_made_again_soon() {
    let node = Node::set();
    let (id, snapshot) = node.used();
    node.keys.0.lock().unwrap().no_reports = Some("Conflict");
    node.keep();
    assert_eq!(node.reported("key-1"), [(id.clone(), 1)]);
    node.keys.0.lock().unwrap().no_reports = None;
    node.keep();
    assert_eq!(node.reported("key-1"), [(snapshot, 1), (id, 1)]);
}

#[test]
fn volume_whose_version_is_not_known_takes_nothing_back() {
    let node = Node::set();
    let (id, _) = node.used();
    node.keep();
    let before = node.reported("key-1");
    let mut record = node.driver.volumes.get(&id).unwrap();
    record.wraps = None;
    node.driver.remember(&record).unwrap();
    node.disable("key-1");
    node.keep();
    assert_eq!(node.reported("key-1"), before);
    node.keys.0.lock().unwrap().disabled.clear();
    node.keep();
    assert_eq!(node.driver.volumes.get(&id).unwrap().wraps.unwrap().version, 1);
}

#[test]
fn rotation_reaches_closed_volumes_and_snapshots_and_frees_the_old_version() {
    let node = Node::set();
    let (id, snapshot) = node.used();
    let before = node.token(&id).wrapped;
    assert_eq!(node.rotate("key-1"), 2);
    node.keep();
    assert_ne!(node.token(&id).wrapped, before);
    assert_eq!(node.reported("key-1"), [(snapshot, 2), (id.clone(), 2)]);
    node.keys.0.lock().unwrap().destroyed.insert(("key-1".to_owned(), 1));
    node.stage(&id).unwrap();
    assert_eq!(node.machine.done("make"), 1);
}

#[test]
fn rotation_reaches_a_volume_when_it_is_opened() {
    let node = Node::set();
    let id = node.create("claim");
    node.stage(&id).unwrap();
    node.rotate("key-1");
    node.guard();
    node.unstage(&id);
    node.stage(&id).unwrap();
    assert_eq!(node.driver.volumes.get(&id).unwrap().wraps.unwrap().version, 2);
}

#[test]
fn new_data_key_opens_the_same_volume_and_the_old_one_opens_nothing() {
    let node = Node::set();
    let (id, snapshot) = node.used();
    let header = Header::read(&node.disk(&id)).unwrap().unwrap();
    let old = node.driver.open_header(
        node.driver.volumes.get(&id).unwrap().owner(),
        &node.disk(&id),
        header,
        Opener::Driver,
    );
    let (before, old) = old.unwrap();
    node.keys.0.lock().unwrap().data_keys = 1;
    node.keep();
    let token = node.token(&id);
    assert_eq!(token.slots.len(), 1);
    for data in [node.driver.volumes.data(&id), node.driver.snapshots.data(&snapshot)] {
        let disk = Disk::open(&data).unwrap();
        let header = Header::read(&disk).unwrap().unwrap();
        assert_eq!(header.slots().unwrap().len(), 1);
        assert!(header.open(&disk, &[], &old).is_err());
    }
    let record = node.driver.volumes.get(&id).unwrap();
    assert_eq!(record.wraps.as_ref().unwrap().data_key, 1);
    let again = node.driver.key_again(&record, &node.disk(&id)).unwrap();
    assert!(again.ct_eq(&before.key));
    node.stage(&id).unwrap();
    // Once is enough.
    node.keep();
    assert_eq!(node.token(&id), token);
}

/// A crash after the new slot was written and before the old one was removed.
#[test]
fn renewal_of_a_data_key_that_was_cut_short_leaves_no_slot_behind() {
    let node = Node::set();
    let (id, _) = node.used();
    let disk = node.disk(&id);
    let header = Header::read(&disk).unwrap().unwrap();
    let record = node.driver.volumes.get(&id).unwrap();
    let opened = node.driver.open_header(record.owner(), &disk, header, Opener::Driver);
    let (mut unlocked, data_key) = opened.unwrap();
    let entropy = &mut SystemEntropy;
    let slot = unlocked.header.add_slot(&disk, &unlocked.key, &data_key, entropy).unwrap();
    unlocked.token.slots.push(slot);
    unlocked.put(&disk).unwrap();
    node.stage(&id).unwrap();
    node.unstage(&id);
    node.keys.0.lock().unwrap().data_keys = 1;
    node.keep();
    let header = Header::read(&disk).unwrap().unwrap();
    assert_eq!(header.slots().unwrap(), node.token(&id).slots);
    assert_eq!(header.slots().unwrap().len(), 1);
    node.stage(&id).unwrap();
}

#[test]
fn key_that_is_disabled_or_away_is_not_rotated_and_the_volume_stays() {
    let node = Node::set();
    let (id, _) = node.used();
    let before = node.token(&id);
    node.rotate("key-1");
    node.disable("key-1");
    node.keep();
    node.keys.0.lock().unwrap().disabled.clear();
    for mood in [Mood::Away, Mood::Denied] {
        node.keys.0.lock().unwrap().mood = mood;
        node.keep();
    }
    assert_eq!(node.token(&id), before);
    node.keys.0.lock().unwrap().mood = Mood::Well;
    let held = node.driver.locks.take(&id).unwrap();
    node.keep();
    assert_eq!(node.token(&id), before, "a call works on it");
    drop(held);
    node.keep();
    assert_eq!(node.driver.volumes.get(&id).unwrap().wraps.unwrap().version, 2);
}

#[test]
fn lost_header_comes_back_from_escrow_where_its_data_is_and_nowhere_else() {
    let node = Node::set();
    let (id, _) = node.used();
    node.keep();
    let kept = node.keys.0.lock().unwrap().headers[&id].clone();
    let kept = EscrowHeader::parse(&kept).unwrap();
    let file = node.driver.volumes.data(&id);
    let restore = |unseen| kept.restore(&*node.keys, &file, unseen);
    assert_eq!(kind(restore(true)), Kind::Precondition, "there is a header");
    let before = node.token(&id);
    let whole = Header::read(&node.disk(&id)).unwrap().unwrap();
    node.disk(&id).write_at(&[0xAA; 32_768], 0).unwrap();
    // What lies there is no file system under this key.
    assert_eq!(kind(restore(false)), Kind::Precondition);
    assert!(Header::read(&node.disk(&id)).unwrap().is_none(), "nothing was written");
    restore(true).unwrap();
    let token = node.token(&id);
    assert_eq!((token.state, token.content), (State::Ready, before.content));
    assert_eq!((token.volume, token.lineage), (before.volume, before.lineage));
    assert_eq!(Header::read(&node.disk(&id)).unwrap().unwrap().uuid(), whole.uuid());
    node.stage(&id).unwrap();
    assert_eq!(node.machine.done("make"), 1, "what is on it was not made again");

    node.unstage(&id);
    node.driver.delete_volume(&Id { id: id.clone() }).unwrap();
    assert!(node.keys.0.lock().unwrap().headers.is_empty());
}

#[test]
fn claims_of_the_key_service_itself_are_refused() {
    let node = Node::set();
    let claim = |namespace: &str| CreateVolumeRequest {
        parameters: [
            ("csi.storage.k8s.io/pvc/namespace".to_owned(), namespace.to_owned()),
            ("csi.storage.k8s.io/pvc/name".to_owned(), "data".to_owned()),
        ]
        .into(),
        ..request("claim")
    };
    let refused = node.driver.create_volume(&claim("lastkey")).unwrap_err();
    assert_eq!(refused.kind, Kind::Precondition);
    assert!(refused.message.contains("another StorageClass"), "{refused}");
    let id = node.driver.create_volume(&claim("shop")).unwrap().volume.unwrap().id;
    assert_eq!(node.driver.volumes.get(&id).unwrap().claim.as_deref(), Some("shop/data"));
}

/// The word of before stands at the service: a key that nothing is under any more would be kept for
/// ever.
#[test]
fn report_that_nothing_is_left_is_not_forgotten_when_it_is_refused() {
    let mut node = Node::set();
    let (id, snapshot) = node.used();
    node.keep();
    node.driver.delete_snapshot(&Id { id: snapshot }).unwrap();
    node.driver.delete_volume(&Id { id }).unwrap();
    node.keys.0.lock().unwrap().no_reports = Some("AccessDenied");
    node.keep();
    assert_eq!(node.reported("key-1").len(), 2);
    let reports = node.keys.0.lock().unwrap().reported;
    node.keep();
    assert_eq!(node.keys.0.lock().unwrap().reported, reports, "each is a line in a log");
    assert_eq!(node.driver.complaints_len(), 1);
    node = node.restart();
    node.keys.0.lock().unwrap().no_reports = None;
    node.keep();
    assert!(node.reported("key-1").is_empty());
}

#[test]
fn complaints_end_with_what_they_are_about() {
    let node = Node::set();
    let id = node.create("claim");
    let (lineage, wrong) = {
        let lineage = node.driver.volumes.get(&id).unwrap().lineage.unwrap();
        (lineage, Fault::precondition("the service does not drop its header"))
    };
    // Nobody answers for the report that nothing is left, and the deletion is asked for again.
    node.keys.0.lock().unwrap().mood = Mood::Away;
    assert_eq!(kind(node.driver.delete_volume(&Id { id: id.clone() })), Kind::Away);
    assert!(node.driver.complaint(&format!("report of {lineage}")).is_some());
    node.keys.0.lock().unwrap().mood = Mood::Well;
    node.driver.complain(&id, &wrong);
    node.driver.complain("key-1", &wrong);
    node.driver.delete_volume(&Id { id: id.clone() }).unwrap();
    assert_eq!(node.driver.complaint(&format!("report of {lineage}")), None);
    node.driver.complain(&id, &wrong);
    node.keep();
    assert_eq!(node.driver.complaints_len(), 0);
}

#[test]
fn key_without_a_primary_version_makes_nothing_due() {
    let node = Node::set();
    let (id, _) = node.used();
    node.keep();
    let before = node.token(&id);
    let attached = node.machine.done("attach");
    node.keys.0.lock().unwrap().has_no_primary = true;
    node.keep();
    node.keep();
    assert_eq!((node.token(&id), node.machine.done("attach")), (before, attached));
    assert_eq!(node.driver.complaints_len(), 0);
}

#[test]
fn rotation_that_this_node_may_not_follow_is_complained_of_and_the_volume_opens() {
    let node = Node::set();
    let (id, snapshot) = node.used();
    node.driver.delete_snapshot(&Id { id: snapshot }).unwrap();
    node.keep();
    node.rotate("key-1");
    node.keys.0.lock().unwrap().protects_nothing = true;
    node.keep();
    assert!(node.driver.complaint(&id).unwrap().contains("AccessDenied"));
    let attached = node.machine.done("attach");
    node.keep();
    assert_eq!(node.machine.done("attach"), attached, "it is not asked again at once");
    assert!(node.driver.complaint(&id).is_some());
    node.stage(&id).unwrap();
    assert_eq!(node.driver.volumes.get(&id).unwrap().wraps.unwrap().version, 1);
}

/// The key service wraps, and the header has no room for what it gives.
#[test]
fn device_that_does_not_take_a_rotation_is_no_late_rotation() {
    let node = Node::set();
    let (id, _) = node.used();
    let disk = node.disk(&id);
    let mut header = Header::read(&disk).unwrap().unwrap();
    let (_, mut filler) = header.tokens().unwrap().remove(0);
    (filler.volume, filler.slots) = ("x".to_owned(), Vec::new());
    // Until no byte more fits.
    for len in [1_024, 512, 256, 128, 64, 3, 0] {
        filler.wrapped = vec![0; len];
        loop {
            let mut next = header.clone();
            if next.put_token(None, &filler).and_then(|_| next.store(&disk)).is_err() {
                break;
            }
            header = next;
        }
    }
    let (last, mut longer) = header.tokens().unwrap().pop().unwrap();
    for len in [64, 16, 4, 1] {
        loop {
            let before = longer.cluster.clone();
            longer.cluster.extend(std::iter::repeat_n('x', len));
            let mut next = header.clone();
            if next.put_token(Some(last), &longer).and_then(|_| next.store(&disk)).is_err() {
                longer.cluster = before;
                break;
            }
            header = next;
        }
    }
    node.stage(&id).unwrap();
    node.unstage(&id);
    node.keys.0.lock().unwrap().primary.insert("key-1".to_owned(), 1_000_000);
    node.keep();
    assert_eq!(kind(node.stage(&id)), Kind::Precondition);
    assert_eq!(node.driver.volumes.get(&id).unwrap().wraps.unwrap().version, 1);
}

#[test]
fn metrics_count_volumes_by_state_and_name_none() {
    let node = Node::set();
    let (closed, snapshot) = node.used();
    let open = node.create("open");
    node.stage(&open).unwrap();
    let metrics = Metrics::new(node.driver.clone());
    let shows = |line: &str| {
        let text = metrics.metrics();
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    };
    shows("lastkey_volumes_volumes{state=\"closed\"} 1");
    shows("lastkey_volumes_volumes{state=\"open\"} 1");
    shows("lastkey_volumes_volumes{state=\"frozen\"} 0");
    shows("lastkey_volumes_snapshots 1");
    shows("lastkey_volumes_without_escrow 2");
    shows("lastkey_volumes_unlock_seconds_count 2");
    node.keep();
    shows("lastkey_volumes_without_escrow 0");
    shows("lastkey_volumes_behind 0");
    shows("lastkey_volumes_complaints 0");
    node.rotate("key-1");
    node.disable("key-1");
    node.guard();
    shows("lastkey_volumes_behind 3");
    shows("lastkey_volumes_volumes{state=\"frozen\"} 1");
    node.keys.0.lock().unwrap().mood = Mood::Away;
    node.keep();
    let complaints = node.driver.complaints_len();
    assert_ne!(complaints, 0);
    shows(&format!("lastkey_volumes_complaints {complaints}"));
    let text = metrics.metrics();
    assert!(text.contains("lastkey_volumes_key_service_calls_total{outcome=\"away\"}"), "{text}");
    for name in [closed, snapshot, open, "key-1".to_owned(), "claim".to_owned()] {
        assert!(!text.contains(&name), "{name}");
    }
    assert!(metrics.readiness().0);
}
