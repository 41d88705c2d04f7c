//! Automatic rotation: when a key is due, and when it is due again.
//!
//! Room      `core`.
//! Holds     every due time is used once: the next one is always after now, however many
//!           periods were missed while the server was down.

use core::time::Duration;

use crate::limits::{MAX_ROTATION_PERIOD, MIN_ROTATION_PERIOD};
use crate::time::{Elapsed, Timestamp};

/// The period is shorter than an hour or longer than ten years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rotation period is 3600 seconds (1 hour) to 315360000 seconds (10 years)")]
pub struct BadPeriod;

/// How often a key rotates by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(Duration);

impl Period {
    /// A period in whole seconds.
    ///
    /// # Errors
    /// [`BadPeriod`] outside 1 hour to 10 years.
    pub fn from_secs(seconds: u64) -> Result<Self, BadPeriod> {
        let period = Duration::from_secs(seconds);
        if (MIN_ROTATION_PERIOD..=MAX_ROTATION_PERIOD).contains(&period) {
            Ok(Self(period))
        } else {
            Err(BadPeriod)
        }
    }

    /// The period in whole seconds.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// The due time one period after `now`, up to 5 % earlier, so that keys that were created
    /// together do not rotate together and none is used longer than its period.
    #[must_use]
    pub fn next_due(self, now: Elapsed, random: u32) -> Elapsed {
        let longest_lead = self.as_secs() / 20;
        let lead = u64::from(random).saturating_mul(longest_lead) >> 32;
        now.after(self.0.saturating_sub(Duration::from_secs(lead)))
    }
}

/// Automatic rotation of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// How often.
    pub period: Period,
    /// When next, in service time.
    pub due: Elapsed,
    /// When last, by the wall clock.
    pub last: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn period_is_one_hour_to_ten_years() {
        assert_eq!(Period::from_secs(3_599), Err(BadPeriod));
        assert!(Period::from_secs(3_600).is_ok() && Period::from_secs(315_360_000).is_ok());
        assert_eq!(Period::from_secs(315_360_001), Err(BadPeriod));
    }

    #[test]
    fn jitter_only_shortens_and_by_at_most_a_twentieth() {
        let day = Period::from_secs(86_400).unwrap();
        assert_eq!(day.next_due(Elapsed(10), 0), Elapsed(86_410));
        let earliest = day.next_due(Elapsed(10), u32::MAX);
        assert!(earliest > Elapsed(10 + 86_400 - 86_400 / 20 - 1) && earliest < Elapsed(86_410));
    }
}
