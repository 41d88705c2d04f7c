//! Ten-line adapters between the ports of `core` and the machine.
//!
//! Room      the binary.

mod clusters;
mod machine_clock;
mod system_entropy;

pub(crate) use clusters::WatchedClusters;
pub(crate) use machine_clock::MachineClock;
pub(crate) use system_entropy::SystemEntropySource;
