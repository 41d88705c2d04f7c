//! What the driver remembers of a volume and of a snapshot: JSON beside the data, no secret.
//!
//! Room      `volumes`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fs {
    /// ext4
    Ext4,
    /// XFS
    Xfs,
}

impl Fs {
    /// As mount(8) names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// What a volume was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A snapshot, by its id.
    Snapshot(String),
    /// A volume, by its id.
    Volume(String),
}

impl Source {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Snapshot(id) | Self::Volume(id) => id,
        }
    }
}

/// Under what the data key of a header is wrapped, as it was read last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wraps {
    /// Id of the key of the class.
    pub key: String,
    /// Its version.
    pub version: u32,
    /// Version of the lineage's key.
    pub lineage_version: u32,
    /// Which data key it is: as many were asked for when it was drawn.
    pub data_key: u32,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// Its id, and the name of its mapping.
    pub id: String,
    /// What the caller named it.
    pub name: String,
    /// What a pod sees, in bytes.
    pub capacity: u64,
    /// Id of the key of its class.
    pub key: String,
    /// Id of the lineage's key; none until it was made.
    pub lineage: Option<String>,
    /// The class's file system; the capability may say another one.
    pub fs: Option<Fs>,
    /// Whether free blocks are told to the disk.
    pub discards: bool,
    /// What it was made of.
    pub source: Option<Source>,
    /// The volume that its data key is bound to, until it was bound anew.
    pub bound_to: Option<String>,
    /// Whether a header was written once. From then on none is ever written where none is found.
    pub formatted: bool,
    /// Under what its data key is; none before there is a header, and until that was looked at.
    #[serde(default)]
    pub wraps: Option<Wraps>,
    /// Whether it was mounted once, or handed to a pod as a device.
    #[serde(default)]
    pub ready: bool,
    /// Which wrapping the header in escrow has.
    #[serde(default)]
    pub escrow: Option<Wraps>,
    /// The claim that it was made for: namespace and name.
    #[serde(default)]
    pub claim: Option<String>,
    /// Pods that see it, by the path.
    #[serde(default)]
    pub pods: BTreeMap<String, String>,
    /// Whether its deletion has begun: it needs no key any more.
    #[serde(default)]
    pub deleting: bool,
    /// The role that pods open it in, by their tokens; none when the driver opens it.
    #[serde(default)]
    pub role: Option<String>,
    /// Where it is mounted for the pods that opened it.
    #[serde(default)]
    pub staged: Option<PathBuf>,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRecord {
    /// Its id.
    pub id: String,
    /// What the caller named it.
    pub name: String,
    /// The volume that it was taken of.
    pub volume: String,
    /// What a volume made of it shows at least, in bytes.
    pub capacity: u64,
    /// When, in seconds since 1970.
    pub taken_at: u64,
    /// Of the volume.
    pub key: String,
    /// Of the volume.
    pub lineage: String,
    /// The volume that the data key in it is bound to.
    pub bound_to: String,
    /// Of the volume.
    pub fs: Option<Fs>,
    /// Of the volume.
    pub formatted: bool,
    /// Under what the data key in it is.
    #[serde(default)]
    pub wraps: Option<Wraps>,
    /// Of the volume.
    #[serde(default)]
    pub claim: Option<String>,
    /// Of the volume.
    #[serde(default)]
    pub role: Option<String>,
}
