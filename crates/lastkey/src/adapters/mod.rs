//! Adapters: between the ports of `core` and the machine, and those of `node` and the client.
//!
//! Room      the binary.

mod clusters;
mod machine_clock;
mod remote_keys;
mod system_entropy;

pub(crate) use clusters::WatchedClusters;
pub(crate) use machine_clock::MachineClock;
pub(crate) use remote_keys::{Access, RemoteKeys, Token};
pub(crate) use system_entropy::SystemEntropySource;
