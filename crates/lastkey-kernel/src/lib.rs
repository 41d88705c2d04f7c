//! What we need of Linux and no library gives safely: loop devices, the device mapper, the
//! keyring and mounts for encrypted volumes, and pages of our own back.
//!
//! Room      `kernel`. Mostly needs root, and knows nothing of volumes, keys or Kubernetes. No program of
//!           others and no udev between us and the kernel.
//! Holds     `unsafe` stands in `sys.rs` alone, behind functions that check what the kernel would
//!           believe. A volume key reaches the kernel by the keyring, where nobody reads it again,
//!           and is in no table.

mod block;
pub mod code;
pub mod heap;
mod keyring;
pub mod loop_device;
pub mod mapper;
pub mod mounts;
mod sys;

/// A block device by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    /// Of the driver.
    pub major: u32,
    /// Of the device.
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}
