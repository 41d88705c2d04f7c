//! Two clocks: the wall clock for people, and elapsed service time for what destroys or expires.
//!
//! Room      `core`. Readings come in as arguments; [`ClockRecord`] is what is kept between them.
//! Holds     elapsed time never goes back, and never follows a jump of the wall clock: a jump
//!           puts the record on hold, and while it is on hold nothing is destroyed or expires.

use core::time::Duration;

/// A moment of the wall clock, in whole seconds since 1970-01-01T00:00:00Z. For people only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Seconds from `earlier` to here; negative when the wall clock went back.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> i64 {
        i64::try_from(i128::from(self.0) - i128::from(earlier.0)).unwrap_or(i64::MAX)
    }

    /// The moment `seconds` away, stopping at the ends of the range.
    #[must_use]
    pub fn offset(self, seconds: i64) -> Self {
        Self(self.0.saturating_add_signed(seconds))
    }
}

/// Service time in whole seconds since `init`; goes on while the server is down, but never back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Elapsed(pub u64);

impl Elapsed {
    /// This moment and `duration` more, in whole seconds, stopping at the end of the range.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// Time from here until `later`; zero when that has passed.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_secs(later.0.saturating_sub(self.0))
    }
}

/// What the machine's clocks say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: Timestamp,
    /// Time since boot, suspend included (`CLOCK_BOOTTIME`), in whole seconds.
    pub since_boot: u64,
    /// Which boot `since_boot` counts from (`/proc/sys/kernel/random/boot_id`).
    pub boot: [u8; 16],
}

/// Why elapsed time is on hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Wall clock when the jump was seen.
    pub seen_at: Timestamp,
    /// Size of the jump in seconds; negative when the wall clock went back.
    pub jump: i64,
    /// Seconds that elapsed time takes on when an operator confirms the wall clock.
    pub pending: u64,
}

/// Elapsed time as it is kept between readings and over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockRecord {
    /// Service time at the last reading.
    pub elapsed: Elapsed,
    /// The last reading.
    pub last: Reading,
    /// Set from a jump until an operator confirms.
    pub hold: Option<Hold>,
    /// What the wall clock is ahead of elapsed time, in seconds; not written.
    ///
    /// Both clocks are cut to whole seconds and tick at moments of their own, so that their
    /// difference goes to and fro by one. It is kept until it has moved by more: what is due has
    /// one time on the wall clock, however often it is asked for.
    ahead: i64,
}

impl ClockRecord {
    /// Within one boot the wall clock may differ from the monotonic one by this much.
    const TOLERANCE: i64 = 300;
    /// A longer pause over a reboot cannot be told from a jump of the wall clock. A seventh of the
    /// shortest deletion window: no single reboot can use one up.
    const LONGEST_TRUSTED_PAUSE: i64 = 86_400;

    /// The record of a new installation.
    #[must_use]
    pub fn start(now: Reading) -> Self {
        Self::kept(Elapsed(0), now, None)
    }

    /// The record as it was written.
    #[must_use]
    pub fn kept(elapsed: Elapsed, last: Reading, hold: Option<Hold>) -> Self {
        Self { elapsed, last, hold, ahead: Self::difference(last.wall, elapsed) }
    }

    fn difference(wall: Timestamp, elapsed: Elapsed) -> i64 {
        wall.seconds_since(Timestamp(elapsed.0))
    }

    /// The record after one more reading.
    #[must_use]
    pub fn advance(&self, now: Reading) -> Self {
        let wall_step = now.wall.seconds_since(self.last.wall);
        let (step, jump) = if now.boot == self.last.boot {
            let step = now.since_boot.saturating_sub(self.last.since_boot);
            let drift = wall_step.saturating_sub_unsigned(step);
            (step, (drift.abs() > Self::TOLERANCE).then_some((drift, 0)))
        } else if (-Self::TOLERANCE..=Self::LONGEST_TRUSTED_PAUSE).contains(&wall_step) {
            (u64::try_from(wall_step).unwrap_or(0), None)
        } else {
            (0, Some((wall_step, u64::try_from(wall_step).unwrap_or(0))))
        };
        let elapsed = Elapsed(self.elapsed.0.saturating_add(step));
        let hold =
            jump.map_or(self.hold, |(jump, pending)| Some(self.held(now.wall, jump, pending)));
        Self { elapsed, last: now, hold, ahead: self.ahead }.settled()
    }

    /// With the difference of the clocks as it is now, if it has moved by more than a tick.
    fn settled(self) -> Self {
        let ahead = Self::difference(self.last.wall, self.elapsed);
        Self { ahead: if self.ahead.abs_diff(ahead) > 1 { ahead } else { self.ahead }, ..self }
    }

    /// Ends a hold: the operator says that the wall clock is right.
    #[must_use]
    pub fn confirm(&self) -> Self {
        let pending = self.hold.map_or(0, |hold| hold.pending);
        let elapsed = Elapsed(self.elapsed.0.saturating_add(pending));
        Self { elapsed, hold: None, ..*self }.settled()
    }

    /// What the wall clock said last, unless it jumped and nobody has confirmed it.
    #[must_use]
    pub fn trusted_wall(&self) -> Option<Timestamp> {
        self.hold.is_none().then_some(self.last.wall)
    }

    /// What the wall clock will show at `due`, if it and elapsed time go on together.
    #[must_use]
    pub fn wall_at(&self, due: Elapsed) -> Timestamp {
        Timestamp(due.0).offset(self.ahead)
    }

    fn held(&self, seen_at: Timestamp, jump: i64, pending: u64) -> Hold {
        let before = self.hold.map_or(0, |hold| hold.pending);
        // A jump back takes away what an earlier jump ahead had left pending: a wall clock that
        // was wrong for a while and then set right must not make time pass when it is confirmed.
        let pending = match u64::try_from(jump) {
            Ok(_) => before.saturating_add(pending),
            Err(_) => before.saturating_sub(jump.unsigned_abs()),
        };
        Hold { seen_at, jump, pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: [u8; 16] = [1; 16];

    fn at(wall: u64, since_boot: u64, boot: [u8; 16]) -> Reading {
        Reading { wall: Timestamp(wall), since_boot, boot }
    }

    fn started() -> ClockRecord {
        ClockRecord::start(at(1_000_000, 50, BOOT))
    }

    #[test]
    fn elapsed_time_follows_the_monotonic_clock_within_one_boot() {
        let later = started().advance(at(1_000_060, 110, BOOT));
        assert_eq!((later.elapsed, later.hold), (Elapsed(60), None));
    }

    #[test]
    fn a_jump_forward_within_one_boot_holds_and_adds_nothing() {
        let jumped = started().advance(at(1_000_000 + 400 * 86_400, 60, BOOT));
        assert_eq!(jumped.elapsed, Elapsed(10));
        assert_eq!(jumped.hold.map(|h| h.jump), Some(400 * 86_400 - 10));
        assert_eq!(jumped.confirm().elapsed, Elapsed(10));
        assert_eq!(jumped.confirm().hold, None);
    }

    #[test]
    fn a_jump_back_holds_and_elapsed_time_does_not_go_back() {
        let jumped = started().advance(at(10, 60, BOOT));
        assert_eq!((jumped.elapsed, jumped.hold.is_some()), (Elapsed(10), true));
    }

    #[test]
    fn a_short_pause_over_a_reboot_counts_and_a_long_one_waits_for_the_operator() {
        let short = started().advance(at(1_000_000 + 3600, 5, [2; 16]));
        assert_eq!((short.elapsed, short.hold), (Elapsed(3600), None));

        let long = started().advance(at(1_000_000 + 30 * 86_400, 5, [2; 16]));
        assert_eq!((long.elapsed, long.hold.is_some()), (Elapsed(0), true));
        assert_eq!(long.confirm().elapsed, Elapsed(30 * 86_400));
    }

    #[test]
    fn a_wrong_clock_that_was_set_right_makes_no_time_pass() {
        let year = 400 * 86_400;
        let wrong = started().advance(at(1_000_000 + year, 5, [2; 16]));
        let right = wrong.advance(at(1_000_060, 65, [2; 16]));
        assert_eq!(right.confirm().elapsed, Elapsed(60));
        let rebooted = wrong.advance(at(1_000_060, 5, [3; 16]));
        assert!(rebooted.hold.is_some());
        assert!(rebooted.confirm().elapsed <= Elapsed(60));
    }

    #[test]
    fn a_second_back_over_a_reboot_is_no_jump() {
        let later = started().advance(at(999_999, 5, [2; 16]));
        assert_eq!((later.elapsed, later.hold), (Elapsed(0), None));
    }

    #[test]
    fn a_hold_stays_until_it_is_confirmed() {
        let held = started().advance(at(10, 60, BOOT)).advance(at(70, 120, BOOT));
        assert_eq!((held.elapsed, held.hold.is_some()), (Elapsed(70), true));
    }

    #[test]
    fn wall_clock_that_jumped_is_not_trusted_until_it_is_confirmed() {
        assert_eq!(started().trusted_wall(), Some(Timestamp(1_000_000)));
        let year = 400 * 86_400;
        let jumped = started().advance(at(1_000_000 + year, 5, [2; 16]));
        assert_eq!(jumped.trusted_wall(), None);
        assert_eq!(jumped.confirm().trusted_wall(), Some(Timestamp(1_000_000 + year)));
    }

    #[test]
    fn a_due_time_is_shown_by_the_wall_clock() {
        assert_eq!(started().wall_at(Elapsed(60)), Timestamp(1_000_060));
    }

    #[test]
    fn a_due_time_stays_while_the_clocks_tick_apart_and_follows_one_that_is_set() {
        let mut clock = started();
        for (wall, since_boot) in [(1_000_001, 50), (1_000_001, 51), (1_000_001, 52)] {
            clock = clock.advance(at(wall, since_boot, BOOT));
            assert_eq!(clock.wall_at(Elapsed(60)), Timestamp(1_000_060));
        }
        let set = clock.advance(at(1_000_101, 52, BOOT));
        assert_eq!(set.wall_at(Elapsed(60)), Timestamp(1_000_159));
        let long = started().advance(at(1_000_000 + 30 * 86_400, 5, [2; 16]));
        assert_eq!(long.wall_at(Elapsed(60)), Timestamp(1_000_060 + 30 * 86_400));
        assert_eq!(long.confirm().wall_at(Elapsed(60)), Timestamp(1_000_060));
    }
}
