//! Volumes that pods open by their own tokens: who may, who may not, and when they are closed.

use lastkey_luks::{Header, State};
use lastkey_wire::grpc::csi::{
    AccessType, CapacityRange, ContentSource, ContentSourceKind, CreateVolumeRequest, Id,
    NodeExpandRequest, Nothing, PublishRequest, UndoRequest, VolumeCapability,
};

use super::{MIB, Node, kind, mount, request, text};
use crate::fake::Mood;
use crate::fault::{Fault, Kind};

const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

fn by_pods(name: &str) -> CreateVolumeRequest {
    let parameters = [("unlockAs", "workload"), ("unlockRole", "team-a")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    CreateVolumeRequest { parameters: parameters.into(), ..request(name) }
}

impl Node {
    /// With a pod that may open what its class names, and one that gets a session and may not.
    fn with_pods() -> Self {
        let node = Self::set();
        let pods =
            [(b"may".to_vec(), true), (b"may-too".to_vec(), true), (b"may-not".to_vec(), false)];
        let mut keys = node.keys.0.lock().unwrap();
        keys.pods = pods.into();
        keys.recovers_nothing = true;
        drop(keys);
        node
    }

    fn create_by_pods(&self) -> String {
        self.driver.create_volume(&by_pods("claim")).unwrap().volume.unwrap().id
    }

    /// What the kubelet sends for a pod with this token.
    fn shown(&self, id: &str, target: &str, token: &str) -> PublishRequest {
        let tokens = format!(r#"{{"lastkey": {{"token": "{token}"}}}}"#);
        PublishRequest {
            volume_id: id.to_owned(),
            staging_path: text(&self.path(id)),
            target_path: text(&self.path(target)),
            capability: Some(mount(1)),
            context: [(TOKENS.to_owned(), tokens)].into(),
            ..PublishRequest::default()
        }
    }

    fn publish_as(&self, id: &str, target: &str, token: &str) -> Result<(), Fault> {
        self.driver.publish(self.shown(id, target, token))
    }

    fn unpublish(&self, id: &str, target: &str) {
        let path = text(&self.path(target));
        self.driver.unpublish(&UndoRequest { volume_id: id.to_owned(), path }).unwrap();
    }

    fn is_open(&self, id: &str) -> bool {
        self.machine.0.lock().unwrap().mappings.contains_key(id)
    }
}

#[test]
fn volume_of_pods_opens_by_the_token_of_each_and_closes_after_the_last() {
    let node = Node::with_pods();
    let id = node.create_by_pods();
    node.stage(&id).unwrap();
    assert!(!node.is_open(&id), "nobody has shown a token");
    assert_eq!(kind(node.publish_as(&id, "a", "may-not")), Kind::Denied);
    assert!(Header::read(&node.disk(&id)).unwrap().is_none(), "nothing is written for this pod");
    assert!(node.machine.0.lock().unwrap().loops.is_empty());

    node.publish_as(&id, "a", "may").unwrap();
    assert!(node.is_open(&id));
    assert_eq!(kind(node.publish_as(&id, "b", "may-not")), Kind::Denied, "it is open already");
    let sessions = node.keys.0.lock().unwrap().sessions;
    node.publish_as(&id, "a", "may").unwrap();
    assert_eq!(node.keys.0.lock().unwrap().sessions, sessions, "the kubelet asked again");
    node.publish_as(&id, "b", "may-too").unwrap();
    assert_eq!((node.machine.done("open"), node.machine.done("make ext4")), (1, 1));

    node.unpublish(&id, "a");
    assert!(node.is_open(&id), "another pod has it");
    node.unpublish(&id, "b");
    node.unpublish(&id, "b");
    let state = node.machine.0.lock().unwrap();
    assert!(state.mappings.is_empty() && state.mounts.is_empty() && state.loops.is_empty());
    drop(state);
    node.publish_as(&id, "c", "may").unwrap();
    node.unpublish(&id, "c");
    node.unstage(&id);
    assert_eq!(node.machine.done("make ext4"), 1);
    node.driver.delete_volume(&Id { id }).unwrap();
}

#[test]
fn pod_without_a_token_or_a_session_is_told_what_is_missing() {
    let node = Node::with_pods();
    let id = node.create_by_pods();
    let refused = node.publish(&id, "a", 1).unwrap_err();
    assert_eq!(refused.kind, Kind::Precondition);
    assert!(refused.message.contains("tokenRequests: [{audience: lastkey}]"), "{refused}");

    let mut of_another = node.shown(&id, "a", "may");
    let about = [("pod.namespace", "shop"), ("serviceAccount.name", "api"), ("pod.name", "api-0")];
    let about = about.map(|(name, word)| (format!("csi.storage.k8s.io/{name}"), word.to_owned()));
    of_another.context.extend(about);
    let mut other = of_another.clone();
    other.context.insert(TOKENS.to_owned(), r#"{"vault": {"token": "may"}}"#.to_owned());
    let refused = node.driver.publish(other).unwrap_err();
    assert!(refused.message.contains("audiences: vault"), "{refused}");

    // A token that opens no session: the message has who it was, and nothing of the token.
    let mut other = of_another.clone();
    let tokens = r#"{"lastkey": {"token": "hunter2"}}"#.to_owned();
    other.context.insert(TOKENS.to_owned(), tokens);
    let refused = node.driver.publish(other).unwrap_err();
    assert_eq!(refused.kind, Kind::Denied);
    let said = refused.message.as_str();
    assert!(said.contains("shop/api (pod api-0)") && said.contains("team-a"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let mut other = of_another;
    other.context.insert(TOKENS.to_owned(), "hunter2".to_owned());
    let refused = node.driver.publish(other).unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid);
    assert!(!refused.message.contains("hunter2"), "{refused}");

    node.keys.0.lock().unwrap().mood = Mood::Away;
    assert_eq!(kind(node.publish_as(&id, "a", "may")), Kind::Away);
    assert!(!node.is_open(&id));
}

#[test]
fn tokens_among_the_secrets_open_too_and_volumes_of_the_driver_need_none() {
    let node = Node::with_pods();
    let id = node.create_by_pods();
    let mut request = node.shown(&id, "a", "may");
    request.secrets = std::mem::take(&mut request.context);
    node.driver.publish(request).unwrap();
    node.keys.0.lock().unwrap().recovers_nothing = false;
    let own = node.create("own");
    node.stage(&own).unwrap();
    node.publish(&own, "b", 1).unwrap();
    node.publish_as(&own, "c", "may-not").unwrap();
}

#[test]
fn raw_volume_of_pods_closes_after_the_last_too() {
    let node = Node::with_pods();
    let id = node.create_by_pods();
    let access_type = Some(AccessType::Block(Nothing {}));
    let block = Some(VolumeCapability { access_type, ..mount(1) });
    let request = PublishRequest { capability: block, ..node.shown(&id, "device", "may") };
    node.driver.publish(request).unwrap();
    assert!(node.is_open(&id));
    node.unpublish(&id, "device");
    assert!(!node.is_open(&id));
    assert_eq!(node.machine.done("make"), 0);
}

/// Also what the driver would do for it by itself later, and may not.
#[test]
fn rotations_and_escrow_wait_for_the_next_pod_where_the_driver_may_not_open() {
    let node = Node::with_pods();
    let id = node.create_by_pods();
    node.keep();
    node.publish_as(&id, "a", "may").unwrap();
    assert!(
        node.keys.0.lock().unwrap().headers.contains_key(&id),
        "in escrow from its first use on"
    );
    node.unpublish(&id, "a");
    node.keys.0.lock().unwrap().primary.insert("key-1".to_owned(), 2);
    node.keep();
    let version = || node.driver.volumes.get(&id).unwrap().wraps.unwrap().version;
    assert_eq!(version(), 1);
    let said = node.driver.complaint(&id).unwrap();
    assert!(said.contains("waits for the next pod"), "{said}");
    node.publish_as(&id, "a", "may").unwrap();
    assert_eq!((version(), node.driver.complaint(&id)), (2, None));
    node.keys.0.lock().unwrap().data_keys = 1;
    node.keep();
    node.unpublish(&id, "a");
    node.publish_as(&id, "a", "may").unwrap();
    assert_eq!(node.driver.volumes.get(&id).unwrap().wraps.unwrap().data_key, 1);
}

#[test]
fn frozen_volume_goes_on_when_a_pod_shows_its_token_again() {
    let node = Node::with_pods();
    let id = node.create_by_pods();
    node.publish_as(&id, "a", "may").unwrap();
    node.disable("key-1");
    node.guard();
    assert_eq!(node.machine.done("freeze"), 1);
    assert_eq!(kind(node.publish_as(&id, "a", "may")), Kind::Precondition);
    node.keys.0.lock().unwrap().disabled.clear();
    for _ in 0..2 {
        node.guard();
    }
    assert_eq!(node.machine.done("thaw"), 0, "the driver may not");
    assert_eq!(kind(node.publish_as(&id, "b", "may-not")), Kind::Denied);
    assert_eq!(node.machine.done("thaw"), 0);
    node.publish_as(&id, "a", "may").unwrap();
    assert_eq!(node.machine.done("thaw"), 1);
}

/// To unmount what stands still would wait for its key; the key is not in the kernel.
#[test]
fn frozen_volume_is_left_to_the_unstage() {
    let node = Node::with_pods();
    let id = node.create_by_pods();
    node.publish_as(&id, "a", "may").unwrap();
    node.disable("key-1");
    node.guard();
    node.unpublish(&id, "a");
    assert!(node.is_open(&id));
    node.unstage(&id);
    assert!(!node.is_open(&id));
}

#[test]
fn copy_of_a_volume_of_pods_is_a_volume_of_pods() {
    let node = Node::with_pods();
    let id = node.create_by_pods();
    node.publish_as(&id, "a", "may").unwrap();
    node.unpublish(&id, "a");
    let snapshot = node.snapshot(&id);
    for (name, source) in [
        ("clone", ContentSourceKind::Volume(Id { id })),
        ("restored", ContentSourceKind::Snapshot(Id { id: snapshot })),
    ] {
        let content_source = Some(ContentSource { kind: Some(source) });
        let by_driver = CreateVolumeRequest { content_source, ..request(name) };
        let refused = node.driver.create_volume(&by_driver).unwrap_err();
        assert_eq!(refused.kind, Kind::Invalid);
        assert!(refused.message.contains("unlockAs: workload"), "{refused}");
        let parameters = by_pods(name).parameters;
        let copy = CreateVolumeRequest { parameters, ..by_driver };
        let copy = node.driver.create_volume(&copy).unwrap().volume.unwrap().id;
        // Also where the driver may open it: a copy under another key is not the way to the data.
        node.keys.0.lock().unwrap().recovers_nothing = false;
        node.keep();
        node.keys.0.lock().unwrap().recovers_nothing = true;
        assert!(node.driver.volumes.get(&copy).unwrap().bound_to.is_some());
        assert_eq!(kind(node.publish_as(&copy, name, "may-not")), Kind::Denied);
        node.publish_as(&copy, name, "may").unwrap();
        let header = Header::read(&node.disk(&copy)).unwrap().unwrap();
        let token = header.tokens().unwrap().remove(0).1;
        assert_eq!((token.volume, token.state), (copy, State::Ready));
    }
    assert_eq!(kind(node.driver.create_volume(&request("claim"))), Kind::Exists);
}

#[test]
fn volume_of_pods_grows_when_it_is_opened_next() {
    let node = Node::with_pods();
    let id = node.create_by_pods();
    let expand = |bytes: i64| {
        let (volume_id, volume_path) = (id.clone(), text(&node.path(&id)));
        let capacity_range = Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 });
        let request = NodeExpandRequest { volume_id, volume_path, capacity_range };
        node.driver.expand_on_node(&request).map(|reply| reply.capacity_bytes)
    };
    assert_eq!(expand(2 * MIB).unwrap(), 2 * MIB, "before a pod has opened it");
    node.publish_as(&id, "a", "may").unwrap();
    let len = || node.machine.0.lock().unwrap().mappings[&id].len;
    assert_eq!(len(), 2 << 20);
    let refused = expand(3 * MIB).unwrap_err();
    assert_eq!(refused.kind, Kind::Denied);
    assert!(refused.message.contains("waits for the next pod"), "{refused}");
    node.unpublish(&id, "a");
    node.publish_as(&id, "a", "may").unwrap();
    assert_eq!(len(), 3 << 20);
    node.keys.0.lock().unwrap().recovers_nothing = false;
    assert_eq!(expand(4 * MIB).unwrap(), 4 * MIB, "where the driver may open it, at once");
    assert_eq!(len(), 4 << 20);
}

/// A process that ends anywhere in the publish, and the next one.
#[test]
fn publish_to_a_pod_that_was_cut_short_anywhere_goes_on() {
    for budget in 0..16 {
        let mut node = Node::with_pods();
        let id = node.create_by_pods();
        node.machine.0.lock().unwrap().budget = Some(budget);
        let cut = node.publish_as(&id, "a", "may");
        node.machine.0.lock().unwrap().budget = None;
        node = node.restart();
        assert_eq!(kind(node.publish_as(&id, "b", "may-not")), Kind::Denied, "{budget}");
        node.publish_as(&id, "a", "may").unwrap();
        assert_eq!(node.machine.done("make ext4"), 1, "{budget}");
        node.unpublish(&id, "a");
        assert!(!node.is_open(&id), "{budget}");
        if cut.is_ok() {
            return;
        }
    }
    panic!("the publish never comes to its end");
}
