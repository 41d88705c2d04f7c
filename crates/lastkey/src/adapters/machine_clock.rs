//! The machine's clocks: wall clock, time since boot, and which boot it is.
//!
//! Room      the binary.

use std::time::{SystemTime, UNIX_EPOCH};

use lastkey_core::ports::Clock;
use lastkey_core::time::{Reading, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// The clocks of this machine.
#[derive(Debug)]
pub(crate) struct MachineClock {
    boot: [u8; 16],
}

impl MachineClock {
    /// Learns which boot this is. Where the kernel does not say (no /proc), every start counts
    /// as a boot of its own, which only makes the clock more careful.
    pub(crate) fn of_this_boot() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let boot = u128::from_str_radix(&hex, 16)
            .unwrap_or_else(|_| u128::from(std::process::id()) << 64 | wall_nanos());
        Self { boot: boot.to_be_bytes() }
    }
}

impl Clock for MachineClock {
    fn read(&self) -> Reading {
        let since_boot = clock_gettime(ClockId::Boottime).tv_sec;
        let since_boot = u64::try_from(since_boot).unwrap_or(0);
        Reading { wall: self.wall(), since_boot, boot: self.boot }
    }

    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(since.as_secs())
    }
}

fn wall_nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}
