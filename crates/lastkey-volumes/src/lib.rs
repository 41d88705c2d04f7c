//! A CSI driver whose every volume is encrypted under a key of its own.
//!
//! Room      `volumes`. What CSI asks, over two ports: the key service, and the machine (loop
//!           devices, device mapper, mounts). The binary puts `client` and `kernel` behind them.
//! Source    CSI 1.13; docs/formats/luks2-token.md; docs/adr/0045-volumes.md.
//! Holds     A file system is made once in the life of a volume. One call at a time works on a
//!           volume. Every call can be repeated after being cut short anywhere.

mod back_end;
mod controller;
mod disk;
mod door;
mod driver;
mod escrow;
#[cfg(test)]
mod fake;
mod fault;
mod guard;
mod inline;
mod keep;
mod linux;
mod locks;
mod lvm;
mod mark;
mod metrics;
mod node;
pub mod ports;
mod program;
mod raw;
mod record;
mod registration;
mod reports;
mod request;
mod shelf;
mod snapshots;
#[cfg(test)]
mod tests;
mod unlock;
mod workload;
mod zombies;

pub use back_end::{BackEnd, Files, Fill};
pub use disk::Disk;
pub use door::serve;
pub use driver::{Config, Driver};
pub use escrow::EscrowHeader;
pub use fault::{Fault, Kind};
pub use guard::guard;
pub use inline::InlineBounds;
pub use keep::keep;
pub use linux::Linux;
pub use lvm::Lvm;
pub use metrics::Metrics;
pub use raw::Raw;
pub use record::{Fs, SnapshotRecord, Source, VolumeRecord, Wraps};
pub use registration::register;
pub use request::quantity;
