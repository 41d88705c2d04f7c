//! Adapters: between the ports of `core` and the machine, and those of `node` and the client.
//!
//! Room      the binary.

mod cluster_keys;
mod clusters;
mod embedded_keys;
mod machine_clock;
mod machine_seal;
mod memory;
mod remote_keys;
mod remote_secrets;
mod scan_pack_claims;
mod servers;
mod system_entropy;
mod volume_keys;

pub(crate) use cluster_keys::ClusterKeys;
pub(crate) use clusters::WatchedClusters;
pub(crate) use embedded_keys::EmbeddedKeys;
pub(crate) use machine_clock::MachineClock;
pub(crate) use machine_seal::TpmSeal;
pub(crate) use memory::remembered_beside;
pub(crate) use remote_keys::RemoteKeys;
pub(crate) use remote_secrets::RemoteSecrets;
pub(crate) use scan_pack_claims::ScanPackClaims;
pub(crate) use servers::{Access, Token, parse_addr, trust_in};
pub(crate) use system_entropy::SystemEntropySource;
pub(crate) use volume_keys::{
    DATA_KEYS_TAG, LINEAGE_ALIAS, LINEAGE_TAG, VolumeKeyService, data_keys, escrow_name,
};
