//! Fakes of the ports: they do what the port says, keep a list of calls, and fail when told to.
//!
//! Room      `testkit`.

mod audit;
mod backups;
mod calls;
mod device;
mod outside;
mod store;

pub use audit::{AuditAway, KeptEvent, MemoryAudit};
pub use backups::FakeBackups;
pub use calls::{Call, Calls};
pub use device::{DeviceFault, FakeDevices};
pub use outside::{FakeClaims, FakeDatabases, FakeWebhooks};
pub use store::{FakeSealedStore, FakeStore, Fault, FaultInjected};
