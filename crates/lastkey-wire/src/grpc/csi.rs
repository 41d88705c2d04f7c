//! Messages of the Container Storage Interface, as far as a driver of encrypted volumes reads them.
//!
//! Room      `wire`.
//! Source    CSI 1.13, `csi.proto` (services `csi.v1.Identity`, `csi.v1.Controller`,
//!           `csi.v1.Node`).
//! Holds     Fields of secrets are not read at all, but for those of a publish, where a kubelet may put
//!           tokens: what is not needed is not kept. What has tokens is not printed.

use std::collections::BTreeMap;
use std::fmt;

use prost::{Message, Oneof};

/// The service that says who the driver is, as it stands in request paths.
pub const IDENTITY: &str = "csi.v1.Identity";
/// The service that makes volumes.
pub const CONTROLLER: &str = "csi.v1.Controller";
/// The service that mounts them.
pub const NODE: &str = "csi.v1.Node";

/// A request or an answer without fields.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Nothing {}

/// Who the driver is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PluginInfo {
    /// Name, as a StorageClass gives it.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Version of the driver.
    #[prost(string, tag = "2")]
    pub vendor_version: String,
}

/// What the driver is made of.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PluginCapabilities {
    /// One entry for each thing.
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<PluginCapability>,
}

/// A thing that the driver is made of.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PluginCapability {
    /// A service, or a way of expansion.
    #[prost(oneof = "PluginCapabilityKind", tags = "1, 2")]
    pub kind: Option<PluginCapabilityKind>,
}

/// A service, or a way of expansion.
#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
pub enum PluginCapabilityKind {
    /// 1 the controller service, 2 topology.
    #[prost(message, tag = "1")]
    Service(Kind),
    /// 1 while in use, 2 otherwise.
    #[prost(message, tag = "2")]
    Expansion(Kind),
}

/// The number of a capability.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Kind {
    /// The number; each service has its own.
    #[prost(int32, tag = "1")]
    pub number: i32,
}

/// Whether the driver is ready.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ProbeReply {
    /// Left out: ready.
    #[prost(message, optional, tag = "1")]
    pub ready: Option<Flag>,
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Flag {
    /// The value.
    #[prost(bool, tag = "1")]
    pub value: bool,
}

/// `google.protobuf.Int64Value`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Int64 {
    /// The value.
    #[prost(int64, tag = "1")]
    pub value: i64,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Time {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
}

/// What the controller or the node can do: each an entry of one number.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ServiceCapabilities {
    /// One entry for each.
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<ServiceCapability>,
}

/// One thing that a service can do.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ServiceCapability {
    /// Its number.
    #[prost(message, optional, tag = "1")]
    pub rpc: Option<Kind>,
}

/// Asks for a volume.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateVolumeRequest {
    /// What makes repeated calls one.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How large.
    #[prost(message, optional, tag = "2")]
    pub capacity_range: Option<CapacityRange>,
    /// What it must be usable for.
    #[prost(message, repeated, tag = "3")]
    pub capabilities: Vec<VolumeCapability>,
    /// Of the StorageClass.
    #[prost(btree_map = "string, string", tag = "4")]
    pub parameters: BTreeMap<String, String>,
    /// What is to be in it.
    #[prost(message, optional, tag = "6")]
    pub content_source: Option<ContentSource>,
    /// Where it must be reachable.
    #[prost(message, optional, tag = "7")]
    pub accessibility: Option<TopologyRequirement>,
    /// Of the VolumeAttributesClass.
    #[prost(btree_map = "string, string", tag = "8")]
    pub mutable_parameters: BTreeMap<String, String>,
}

/// What a new volume is to hold.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContentSource {
    /// A snapshot or a volume.
    #[prost(oneof = "ContentSourceKind", tags = "1, 2")]
    pub kind: Option<ContentSourceKind>,
}

/// A snapshot or a volume.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum ContentSourceKind {
    /// A snapshot.
    #[prost(message, tag = "1")]
    Snapshot(Id),
    /// A volume.
    #[prost(message, tag = "2")]
    Volume(Id),
}

/// The id of a volume or snapshot alone: also the request that deletes one.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Id {
    /// The id.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// How large a volume is to be, in bytes; 0 is no bound.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct CapacityRange {
    /// At least.
    #[prost(int64, tag = "1")]
    pub required_bytes: i64,
    /// At most.
    #[prost(int64, tag = "2")]
    pub limit_bytes: i64,
}

/// What a volume is used for.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VolumeCapability {
    /// By whom.
    #[prost(message, optional, tag = "3")]
    pub access_mode: Option<Kind>,
    /// How.
    #[prost(oneof = "AccessType", tags = "1, 2")]
    pub access_type: Option<AccessType>,
}

/// As a device, or as a file system.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum AccessType {
    /// As a device.
    #[prost(message, tag = "1")]
    Block(Nothing),
    /// As a file system.
    #[prost(message, tag = "2")]
    Mount(MountVolume),
}

/// How a file system is mounted.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MountVolume {
    /// Empty for the default of the driver.
    #[prost(string, tag = "1")]
    pub fs_type: String,
    /// Options of mount(8).
    #[prost(string, repeated, tag = "2")]
    pub mount_flags: Vec<String>,
    /// A group that shall own everything; not supported here.
    #[prost(string, tag = "3")]
    pub volume_mount_group: String,
}

/// Where volumes must be, or may be.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TopologyRequirement {
    /// In one of these.
    #[prost(message, repeated, tag = "1")]
    pub requisite: Vec<Topology>,
    /// Better in an earlier one of these.
    #[prost(message, repeated, tag = "2")]
    pub preferred: Vec<Topology>,
}

/// A place.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Topology {
    /// Names and values.
    #[prost(btree_map = "string, string", tag = "1")]
    pub segments: BTreeMap<String, String>,
}

/// A volume was made, or was there.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateVolumeReply {
    /// The volume.
    #[prost(message, optional, tag = "1")]
    pub volume: Option<Volume>,
}

/// A volume.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Volume {
    /// What a pod sees, in bytes.
    #[prost(int64, tag = "1")]
    pub capacity_bytes: i64,
    /// Its id.
    #[prost(string, tag = "2")]
    pub id: String,
    /// What comes back with each call of the node.
    #[prost(btree_map = "string, string", tag = "3")]
    pub context: BTreeMap<String, String>,
    /// What it was made of.
    #[prost(message, optional, tag = "4")]
    pub content_source: Option<ContentSource>,
    /// Where it can be reached.
    #[prost(message, repeated, tag = "5")]
    pub topology: Vec<Topology>,
}

/// Asks what a volume can be used for.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ValidateRequest {
    /// The volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// As it was told when the volume was made.
    #[prost(btree_map = "string, string", tag = "2")]
    pub context: BTreeMap<String, String>,
    /// What it shall be used for.
    #[prost(message, repeated, tag = "3")]
    pub capabilities: Vec<VolumeCapability>,
    /// Of the StorageClass.
    #[prost(btree_map = "string, string", tag = "4")]
    pub parameters: BTreeMap<String, String>,
}

/// What a volume can be used for.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ValidateReply {
    /// Left out when it cannot.
    #[prost(message, optional, tag = "1")]
    pub confirmed: Option<Confirmed>,
    /// Why not.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// What was asked, and holds.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Confirmed {
    /// As it was asked.
    #[prost(btree_map = "string, string", tag = "1")]
    pub context: BTreeMap<String, String>,
    /// As it was asked.
    #[prost(message, repeated, tag = "2")]
    pub capabilities: Vec<VolumeCapability>,
    /// As it was asked.
    #[prost(btree_map = "string, string", tag = "3")]
    pub parameters: BTreeMap<String, String>,
}

/// Asks for a page of volumes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListVolumesRequest {
    /// 0 for all.
    #[prost(int32, tag = "1")]
    pub max_entries: i32,
    /// From the page before; empty for the first.
    #[prost(string, tag = "2")]
    // secrets: allow, a token of a page is the id of its last entry
    pub starting_token: String,
}

/// A page of volumes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListVolumesReply {
    /// In the order of their ids.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<CreateVolumeReply>,
    /// Empty on the last page.
    #[prost(string, tag = "2")]
    // secrets: allow, a token of a page is the id of its last entry
    pub next_token: String,
}

/// Asks how much room there is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetCapacityRequest {
    /// What volumes would be used for.
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<VolumeCapability>,
    /// Of the StorageClass.
    #[prost(btree_map = "string, string", tag = "2")]
    pub parameters: BTreeMap<String, String>,
    /// Where.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<Topology>,
}

/// How much room there is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct GetCapacityReply {
    /// In bytes.
    #[prost(int64, tag = "1")]
    pub available_capacity: i64,
    /// The largest volume.
    #[prost(message, optional, tag = "2")]
    pub maximum_volume_size: Option<Int64>,
}

/// A volume was made larger.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ExpandReply {
    /// What a pod sees, in bytes.
    #[prost(int64, tag = "1")]
    pub capacity_bytes: i64,
}

/// Asks for a snapshot.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateSnapshotRequest {
    /// Of this volume.
    #[prost(string, tag = "1")]
    pub source_volume_id: String,
    /// What makes repeated calls one.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// A snapshot was made, or was there; also an entry of a list.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SnapshotReply {
    /// The snapshot.
    #[prost(message, optional, tag = "1")]
    pub snapshot: Option<Snapshot>,
}

/// A snapshot.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Snapshot {
    /// What a volume made of it needs, in bytes.
    #[prost(int64, tag = "1")]
    pub size_bytes: i64,
    /// Its id.
    #[prost(string, tag = "2")]
    pub id: String,
    /// Of this volume.
    #[prost(string, tag = "3")]
    pub source_volume_id: String,
    /// When.
    #[prost(message, optional, tag = "4")]
    pub creation_time: Option<Time>,
    /// Whether volumes can be made of it.
    #[prost(bool, tag = "5")]
    pub ready_to_use: bool,
}

/// Asks for a page of snapshots.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListSnapshotsRequest {
    /// 0 for all.
    #[prost(int32, tag = "1")]
    pub max_entries: i32,
    /// From the page before; empty for the first.
    #[prost(string, tag = "2")]
    // secrets: allow, a token of a page is the id of its last entry
    pub starting_token: String,
    /// Of this volume alone.
    #[prost(string, tag = "3")]
    pub source_volume_id: String,
    /// This one alone.
    #[prost(string, tag = "4")]
    pub snapshot_id: String,
}

/// A page of snapshots.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListSnapshotsReply {
    /// In the order of their ids.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<SnapshotReply>,
    /// Empty on the last page.
    #[prost(string, tag = "2")]
    // secrets: allow, a token of a page is the id of its last entry
    pub next_token: String,
}

/// Asks a node to make a volume ready.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StageRequest {
    /// The volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where.
    #[prost(string, tag = "3")]
    pub staging_path: String,
    /// For what.
    #[prost(message, optional, tag = "4")]
    pub capability: Option<VolumeCapability>,
    /// As it was told when the volume was made.
    #[prost(btree_map = "string, string", tag = "6")]
    pub context: BTreeMap<String, String>,
}

/// Asks a node to undo [`StageRequest`], or what `NodePublishVolume` did at a path.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UndoRequest {
    /// The volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where.
    #[prost(string, tag = "2")]
    pub path: String,
}

/// Asks a node to show a volume to a pod.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct PublishRequest {
    /// The volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where it was made ready.
    #[prost(string, tag = "3")]
    pub staging_path: String,
    /// Where the pod sees it.
    #[prost(string, tag = "4")]
    pub target_path: String,
    /// For what.
    #[prost(message, optional, tag = "5")]
    pub capability: Option<VolumeCapability>,
    /// Without writing.
    #[prost(bool, tag = "6")]
    pub readonly: bool,
    /// Tokens of the pod, from Kubernetes 1.35 on, where the driver wants them here.
    #[prost(btree_map = "string, string", tag = "7")]
    pub secrets: BTreeMap<String, String>,
    /// As it was told when the volume was made, and by kubelet. Has tokens otherwise.
    #[prost(btree_map = "string, string", tag = "8")]
    pub context: BTreeMap<String, String>,
}

impl fmt::Debug for PublishRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishRequest")
            .field("volume_id", &self.volume_id)
            .field("target_path", &self.target_path)
            .finish_non_exhaustive()
    }
}

/// Asks a node how full a volume is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatsRequest {
    /// The volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where a pod sees it, or where it was made ready.
    #[prost(string, tag = "2")]
    pub volume_path: String,
}

/// How full a volume is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatsReply {
    /// Bytes, and inodes where there are any.
    #[prost(message, repeated, tag = "1")]
    pub usage: Vec<Usage>,
    /// Whether something is wrong with it.
    #[prost(message, optional, tag = "2")]
    pub condition: Option<Condition>,
}

/// How full a volume is, in one unit.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Usage {
    /// For pods.
    #[prost(int64, tag = "1")]
    pub available: i64,
    /// In all.
    #[prost(int64, tag = "2")]
    pub total: i64,
    /// Taken.
    #[prost(int64, tag = "3")]
    pub used: i64,
    /// 1 bytes, 2 inodes.
    #[prost(int32, tag = "4")]
    pub unit: i32,
}

/// Whether something is wrong with a volume.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Condition {
    /// Something is.
    #[prost(bool, tag = "1")]
    pub abnormal: bool,
    /// What.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Who a node is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NodeInfo {
    /// Its id.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// 0 for no bound.
    #[prost(int64, tag = "2")]
    pub max_volumes: i64,
    /// Where it is.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<Topology>,
}

/// Asks a node for a larger volume.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NodeExpandRequest {
    /// The volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where a pod sees it, or where it was made ready.
    #[prost(string, tag = "2")]
    pub volume_path: String,
    /// How large.
    #[prost(message, optional, tag = "3")]
    pub capacity_range: Option<CapacityRange>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes written by hand from the encoding rules of protocol buffers: tag, length, value.
    #[test]
    fn messages_have_the_field_numbers_of_the_protocol() {
        let request = CreateVolumeRequest {
            name: "n".to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: 1, limit_bytes: 2 }),
            capabilities: vec![VolumeCapability {
                access_mode: Some(Kind { number: 1 }),
                access_type: Some(AccessType::Mount(MountVolume {
                    fs_type: "ext4".to_owned(),
                    ..MountVolume::default()
                })),
            }],
            parameters: [("a".to_owned(), "b".to_owned())].into(),
            content_source: Some(ContentSource {
                kind: Some(ContentSourceKind::Volume(Id { id: "v".to_owned() })),
            }),
            accessibility: None,
            mutable_parameters: BTreeMap::new(),
        };
        let bytes =
            b"\x0a\x01n\x12\x04\x08\x01\x10\x02\x1a\x0c\x12\x06\x0a\x04ext4\x1a\x02\x08\x01\
                      \x22\x06\x0a\x01a\x12\x01b\x32\x05\x12\x03\x0a\x01v";
        assert_eq!(CreateVolumeRequest::decode(&bytes[..]).unwrap(), request);
        let publish = PublishRequest {
            volume_id: "v".to_owned(),
            staging_path: "s".to_owned(),
            target_path: "t".to_owned(),
            capability: None,
            readonly: true,
            secrets: [("c".to_owned(), "d".to_owned())].into(),
            context: [("a".to_owned(), "b".to_owned())].into(),
        };
        let bytes = b"\x0a\x01v\x1a\x01s\x22\x01t\x30\x01\x3a\x06\x0a\x01c\x12\x01d\
                      \x42\x06\x0a\x01a\x12\x01b";
        assert_eq!(publish.encode_to_vec(), bytes);
        let said = format!("{publish:?}");
        assert_eq!(said, r#"PublishRequest { volume_id: "v", target_path: "t", .. }"#);
        let stage = b"\x0a\x01v\x1a\x01s\x22\x04\x1a\x02\x08\x01\x32\x06\x0a\x01a\x12\x01b";
        let read = StageRequest::decode(&stage[..]).unwrap();
        assert_eq!((read.volume_id.as_str(), read.staging_path.as_str()), ("v", "s"));
        assert_eq!(read.capability.unwrap().access_mode, Some(Kind { number: 1 }));
        assert_eq!(read.context.len(), 1);
        let usage = Usage { available: 1, total: 2, used: 3, unit: 1 };
        let condition = Condition { abnormal: true, message: "m".to_owned() };
        let stats = StatsReply { usage: vec![usage], condition: Some(condition) };
        let bytes = b"\x0a\x08\x08\x01\x10\x02\x18\x03\x20\x01\x12\x05\x08\x01\x12\x01m";
        assert_eq!(stats.encode_to_vec(), bytes);
    }

    #[test]
    fn secrets_of_a_stage_are_not_read() {
        let stage = b"\x0a\x01v\x2a\x10\x0a\x03key\x12\x09plaintext";
        let read = StageRequest::decode(&stage[..]).unwrap();
        assert_eq!(read, StageRequest { volume_id: "v".to_owned(), ..StageRequest::default() });
    }
}
