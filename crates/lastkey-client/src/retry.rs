//! Whether, when and how often a call is sent again.
//!
//! Room      `client`. [`RetryPolicy`] is what the program wants; `Retries` keeps the budget
//!           that all calls of one client share.
//! Holds     A server in trouble gets at most one retry for ten successes on top of the reserve,
//!           and no two clients wait in step.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lastkey_crypto::entropy::{Entropy, SystemEntropy};

/// What one retry takes out of the budget, and one success puts back: ten to one.
const RETRY_COST: u32 = 10;
const SUCCESS_REFUND: u32 = 1;
/// A reserve above this would be no budget.
const MAX_RESERVE: u32 = 10_000;

/// When and how often a call is sent again.
///
/// Only calls that may be done twice are sent again: reads and cryptographic operations, never
/// a change of a key. Only failures that may pass lead to it: no connection, a broken one, and
/// the answers `Throttled`, `Unavailable` and `Timeout`. A denial is final at once. Pauses double
/// and are drawn at random from their upper half; `Retry-After` is waited out in full. When the
/// pause would not end before the deadline of the call, the failure is answered without it.
///
/// ```
/// use std::time::Duration;
/// use lastkey_client::RetryPolicy;
///
/// let patient = RetryPolicy::default()
///     .attempts(6)
///     .pauses(Duration::from_millis(100), Duration::from_secs(10));
/// # let _ = patient;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    attempts: u32,
    first_pause: Duration,
    longest_pause: Duration,
    reserve: u32,
}

impl Default for RetryPolicy {
    /// Four attempts, pauses from 50 milliseconds to 2 seconds, a reserve of ten retries.
    fn default() -> Self {
        Self {
            attempts: 4,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(2),
            reserve: 10,
        }
    }
}

impl RetryPolicy {
    /// One attempt, whatever happens.
    #[must_use]
    pub fn never() -> Self {
        Self::default().attempts(1)
    }

    /// The most attempts of one call, the first included; 0 counts as 1.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The pause after the first attempt, which doubles up to the longest one.
    #[must_use]
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_pause, self.longest_pause) = (first, longest.max(first));
        self
    }

    /// Retries that all calls of one client may make before successes pay for more: ten
    /// successes pay for one. At most 10,000.
    #[must_use]
    pub fn reserve(mut self, retries: u32) -> Self {
        self.reserve = retries.min(MAX_RESERVE);
        self
    }
}

/// A policy and what is left of its budget.
pub(crate) struct Retries {
    policy: RetryPolicy,
    left: AtomicU32,
}

impl Retries {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, left: AtomicU32::new(policy.reserve.saturating_mul(RETRY_COST)) }
    }

    /// A call was answered: the budget recovers, up to where it began.
    pub(crate) fn succeeded(&self) {
        let full = self.policy.reserve.saturating_mul(RETRY_COST);
        self.update(|left| Some(left.saturating_add(SUCCESS_REFUND).min(full)));
    }

    /// The pause before the next attempt, after `made` of them; `None` when there is to be none.
    pub(crate) fn pause(&self, made: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if made >= self.policy.attempts || !self.update(|left| left.checked_sub(RETRY_COST)) {
            return None;
        }
        let doublings = made.saturating_sub(1).min(31);
        let pause = self.policy.first_pause.saturating_mul(1 << doublings);
        let pause = jittered(pause.min(self.policy.longest_pause));
        // Everybody who was told the same number of seconds comes back a little apart.
        Some(retry_after.map_or(pause, |asked| asked.saturating_add(pause)))
    }

    fn update(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

/// Between the half and the whole of `pause`.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness the whole pause is as good as any.
    let part = match SystemEntropy.fill(&mut random) {
        Ok(()) => u32::from(u16::from_be_bytes(random)),
        Err(_) => u32::from(u16::MAX),
    };
    let half = pause / 2;
    half.saturating_add(half.saturating_mul(part) / u32::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Retries, RetryPolicy};

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_millis(300);

    fn policy() -> RetryPolicy {
        RetryPolicy::default().attempts(100).pauses(FIRST, LONGEST)
    }

    #[test]
    fn pauses_double_to_the_longest_and_differ() {
        let retries = Retries::new(policy().reserve(1_000));
        for (made, whole) in [(1, FIRST), (2, FIRST * 2), (3, LONGEST), (99, LONGEST)] {
            let drawn: Vec<_> = (0..20).map(|_| retries.pause(made, None).unwrap()).collect();
            assert!(drawn.iter().all(|pause| (whole / 2..=whole).contains(pause)), "{drawn:?}");
            assert!(drawn.iter().any(|pause| *pause != drawn[0]), "{drawn:?}");
        }
    }

    #[test]
    fn what_the_server_asks_for_is_waited_out_in_full() {
        let asked = Duration::from_secs(7);
        let pause = Retries::new(policy()).pause(1, Some(asked)).unwrap();
        assert!((asked + FIRST / 2..=asked + FIRST).contains(&pause), "{pause:?}");
    }

    #[test]
    fn attempts_are_counted_with_the_first() {
        let retries = Retries::new(policy().attempts(3));
        assert!(retries.pause(2, None).is_some());
        assert!(retries.pause(3, None).is_none());
        assert!(Retries::new(RetryPolicy::never()).pause(1, None).is_none());
    }

    #[test]
    fn budget_ends_and_ten_successes_pay_for_one_retry() {
        let retries = Retries::new(policy().reserve(2));
        let count = || (0..10).filter(|_| retries.pause(1, None).is_some()).count();
        assert_eq!(count(), 2);
        (0..9).for_each(|_| retries.succeeded());
        assert_eq!(count(), 0);
        retries.succeeded();
        assert_eq!(count(), 1);
        (0..1_000).for_each(|_| retries.succeeded());
        assert_eq!(count(), 2);
    }

    #[test]
    fn pauses_of_any_length_do_not_overflow() {
        let retries = Retries::new(policy().pauses(Duration::MAX, Duration::MAX));
        assert_eq!(retries.pause(40, Some(Duration::MAX)), Some(Duration::MAX));
    }
}
