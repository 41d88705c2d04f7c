//! Adapters: between the ports of `core` and the machine, and those of `node` and the client.
//!
//! Room      the binary.

mod clusters;
mod embedded_keys;
mod machine_clock;
mod machine_seal;
mod remote_keys;
mod system_entropy;

pub(crate) use clusters::WatchedClusters;
pub(crate) use embedded_keys::EmbeddedKeys;
pub(crate) use machine_clock::MachineClock;
pub(crate) use machine_seal::TpmSeal;
pub(crate) use remote_keys::{Access, RemoteKeys, Token};
pub(crate) use system_entropy::SystemEntropySource;
