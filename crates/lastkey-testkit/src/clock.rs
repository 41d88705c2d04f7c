//! A clock that shows what the test says.
//!
//! Room      `testkit`.

use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lastkey_core::ports::Clock;
use lastkey_core::time::{Reading, Timestamp};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct FixedClock(Mutex<Reading>);

impl FixedClock {
    /// A clock that shows this reading.
    #[must_use]
    pub const fn at(reading: Reading) -> Self {
        Self(Mutex::new(reading))
    }

    /// Shows another reading.
    pub fn set(&self, reading: Reading) {
        *self.shown() = reading;
    }

    /// Lets time pass, in whole seconds, on both clocks.
    pub fn pass(&self, time: Duration) {
        let mut shown = self.shown();
        shown.wall.0 = shown.wall.0.saturating_add(time.as_secs());
        shown.since_boot = shown.since_boot.saturating_add(time.as_secs());
    }

    /// Moves the wall clock alone, by seconds forward or back.
    pub fn jump_wall(&self, seconds: i64) {
        let mut shown = self.shown();
        shown.wall = shown.wall.offset(seconds);
    }

    /// Boots the machine after it was off for some whole seconds.
    pub fn reboot(&self, off: Duration) {
        let mut shown = self.shown();
        shown.wall.0 = shown.wall.0.saturating_add(off.as_secs());
        shown.since_boot = 0;
        let number = u128::from_be_bytes(shown.boot).wrapping_add(1);
        shown.boot = number.to_be_bytes();
    }

    fn shown(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FixedClock {
    /// 2025-01-01T00:00:00Z, one hour after boot.
    fn default() -> Self {
        let wall = Timestamp(1_735_689_600);
        Self::at(Reading { wall, since_boot: 3_600, boot: [1; 16] })
    }
}

impl Clock for FixedClock {
    fn read(&self) -> Reading {
        *self.shown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_stands_still_until_it_is_moved() {
        let clock = FixedClock::default();
        let before = clock.read();
        assert_eq!(clock.read(), before);
        clock.pass(Duration::from_secs(60));
        assert_eq!(clock.read().wall.seconds_since(before.wall), 60);
        assert_eq!(clock.read().since_boot, before.since_boot + 60);
    }

    #[test]
    fn jump_moves_the_wall_clock_alone() {
        let clock = FixedClock::default();
        let before = clock.read();
        clock.jump_wall(-10);
        let after = clock.read();
        assert_eq!(after.wall.seconds_since(before.wall), -10);
        assert_eq!((after.since_boot, after.boot), (before.since_boot, before.boot));
    }

    #[test]
    fn reboot_starts_a_new_boot_at_zero() {
        let clock = FixedClock::default();
        let before = clock.read();
        clock.reboot(Duration::from_secs(30));
        let after = clock.read();
        assert_eq!((after.since_boot, after.wall.seconds_since(before.wall)), (0, 30));
        assert_ne!(after.boot, before.boot);
    }
}
