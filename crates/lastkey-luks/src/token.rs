//! The token of a volume: its data key, wrapped, and how far the volume was prepared.
//!
//! Room      `luks`. Parsed from bytes of strangers.
//! Source    docs/formats/luks2-token.md; LUKS2 specification, 3.3.

use serde::{Deserialize, Serialize};

use crate::metadata::{Base64, Number};

/// Type of our tokens, as other tools show it.
pub const TOKEN_TYPE: &str = "lastkey";
const VERSION: u32 = 1;
const MAX_NAME_LEN: usize = 256;
const MAX_WRAPPED_LEN: usize = 1_024;

/// How far a volume was prepared. Goes forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The header is there; nothing of value can be behind it.
    Luks,
    /// A file system was made, or the volume was chosen to have none. Never make one again.
    Fs,
    /// It was mounted, or handed to a pod as a device.
    Ready,
}

/// What lies in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Not decided yet.
    None,
    /// A file system.
    Ext4,
    /// A file system.
    Xfs,
    /// What a pod wrote to the device.
    Block,
}

/// A token of this product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsToken {
    /// Key slots that the data key opens.
    pub slots: Vec<u32>,
    /// The cluster that the data key is bound to.
    pub cluster: String,
    /// The volume that the data key is bound to.
    pub volume: String,
    /// Id of the lineage's key: it goes when the last volume, snapshot or clone does.
    pub lineage: String,
    /// Id of the key that the class or claim names.
    pub key: String,
    /// The data key under `lineage`, and that under `key`.
    pub wrapped: Vec<u8>,
    /// How far the volume was prepared.
    pub state: State,
    /// What lies in it.
    pub content: Content,
}

/// As it stands in the JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<Number>,
    version: u32,
    cluster: String,
    volume: String,
    lineage: String,
    key: String,
    wrapped: Base64,
    state: State,
    content: Content,
}

impl KmsToken {
    pub(crate) fn store(&self) -> Stored {
        Stored {
            kind: TOKEN_TYPE.to_owned(),
            keyslots: self.slots.iter().map(|slot| Number(u64::from(*slot))).collect(),
            version: VERSION,
            cluster: self.cluster.clone(),
            volume: self.volume.clone(),
            lineage: self.lineage.clone(),
            key: self.key.clone(),
            wrapped: Base64(self.wrapped.clone()),
            state: self.state,
            content: self.content,
        }
    }
}

impl Stored {
    /// None for another version, or fields beyond their limits.
    pub(crate) fn parse(self) -> Option<KmsToken> {
        let names = [&self.cluster, &self.volume, &self.lineage, &self.key];
        let fits = names.iter().all(|name| name.len() <= MAX_NAME_LEN)
            && self.wrapped.0.len() <= MAX_WRAPPED_LEN;
        if self.kind != TOKEN_TYPE || self.version != VERSION || !fits {
            return None;
        }
        let slots = self.keyslots.iter().map(|slot| u32::try_from(slot.0).ok());
        Some(KmsToken {
            slots: slots.collect::<Option<_>>()?,
            cluster: self.cluster,
            volume: self.volume,
            lineage: self.lineage,
            key: self.key,
            wrapped: self.wrapped.0,
            state: self.state,
            content: self.content,
        })
    }
}
