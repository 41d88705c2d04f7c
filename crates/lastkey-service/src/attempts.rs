//! Attempts that are limited: buckets that fill again with time.
//!
//! Room      `service`.
//! Holds     what somebody sends who is not known yet takes no memory that does not come back.

use core::hash::Hash;
use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lastkey_core::ids::Name;

use crate::error::Error;

/// How many attempts there are at once, and how fast they come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// At once.
    burst: u64,
    /// Until the next one, in seconds; at least 1.
    seconds_each: u64,
}

impl Pace {
    /// For what opens a seal.
    const UNSEAL: Self = Self { burst: 5, seconds_each: 10 };
    /// For records of attempts that cost nothing, so that nobody fills the log with them.
    const REFUSAL: Self = Self { burst: 1, seconds_each: 10 };
    /// For credentials to burn that are none of ours.
    pub(crate) const BURN: Self = Self { burst: 100, seconds_each: 1 };
    /// For one person's password and codes. Whoever knows the password guesses fewer than 1,500
    /// codes a day.
    const PERSON: Self = Self { burst: 5, seconds_each: 60 };
    /// For one caller's claims of what he has seen. Nobody guesses a value by asking.
    const CLAIM: Self = Self { burst: 256, seconds_each: 1 };
    /// For everybody's: what stretching passwords may cost.
    const EVERYBODY: Self = Self { burst: 20, seconds_each: 1 };
    /// For records of what somebody of one address who is not known was refused or told.
    const STRANGER: Self = Self { burst: 100, seconds_each: 10 };
    /// The same from everywhere: some 40 MB a day in the log, whoever sends how much.
    const STRANGERS: Self = Self { burst: 1_000, seconds_each: 1 };
}

/// Attempts to unseal.
#[derive(Debug)]
pub(crate) struct UnsealAttempts {
    /// For passphrases and key files. A share is not guessed, so it takes none of these.
    pub(crate) guesses: Attempts,
    /// For records of what was refused unseen: too early, or no share of this installation.
    pub(crate) refusals: Attempts,
}

impl UnsealAttempts {
    /// Nobody has tried anything.
    pub(crate) const fn none() -> Self {
        Self { guesses: Attempts::full(Pace::UNSEAL), refusals: Attempts::full(Pace::REFUSAL) }
    }
}

/// A bucket of attempts.
#[derive(Debug)]
pub(crate) struct Attempts {
    pace: Pace,
    left: u64,
    /// Seconds since boot when `left` was brought up to date.
    counted_at: u64,
}

impl Attempts {
    /// All of them left.
    pub(crate) const fn full(pace: Pace) -> Self {
        Self { pace, left: pace.burst, counted_at: 0 }
    }

    /// Forgets what was taken.
    pub(crate) const fn refill(&mut self) {
        self.left = self.pace.burst;
    }

    /// Takes one attempt; `now` in seconds since boot.
    ///
    /// # Errors
    /// [`Error::Throttled`].
    pub(crate) fn take(&mut self, now: u64) -> Result<(), Error> {
        self.take_all(1, now)
    }

    /// Takes so many attempts, or none of them.
    ///
    /// # Errors
    /// [`Error::Throttled`].
    fn take_all(&mut self, count: u64, now: u64) -> Result<(), Error> {
        self.catch_up(now);
        let Some(left) = self.left.checked_sub(count) else {
            let missing = count.saturating_sub(self.left);
            let wait = self.pace.seconds_each.saturating_mul(missing);
            let next = self.counted_at.saturating_add(wait);
            let retry_after = Duration::from_secs(next.saturating_sub(now).max(1));
            return Err(Error::Throttled { retry_after });
        };
        self.left = left;
        Ok(())
    }

    fn catch_up(&mut self, now: u64) {
        let gained = now.saturating_sub(self.counted_at) / self.pace.seconds_each;
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(self.pace.burst);
            self.counted_at = now;
        }
    }

    fn give_back(&mut self) {
        self.left = self.left.saturating_add(1).min(self.pace.burst);
    }

    fn is_full(&mut self, now: u64) -> bool {
        self.catch_up(now);
        self.left == self.pace.burst
    }
}

/// Attempts of people, whether there are such people or not: by name and in all.
#[derive(Debug)]
pub(crate) struct AttemptsOfPeople(Mutex<Buckets<Name>>);

/// A bucket for all, and one for each.
#[derive(Debug)]
struct Buckets<K> {
    in_all: Attempts,
    each: Pace,
    by_name: HashMap<K, Attempts>,
}

/// From this many names on, those with a full bucket are forgotten. Together with the limit for
/// everybody that bounds the names: a bucket is full again after minutes.
const MANY_NAMES: usize = 1_000;

impl<K: Clone + Eq + Hash> Buckets<K> {
    fn full(in_all: Pace, each: Pace) -> Self {
        Self { in_all: Attempts::full(in_all), each, by_name: HashMap::new() }
    }

    fn take(&mut self, name: &K, now: u64) -> Result<(), Error> {
        let Self { in_all, each, by_name } = self;
        in_all.take(now)?;
        if by_name.len() >= MANY_NAMES {
            by_name.retain(|_, attempts| !attempts.is_full(now));
        }
        let full = || Attempts::full(*each);
        let taken = by_name.entry(name.clone()).or_insert_with(full).take(now);
        // Who is over his own limit takes nothing from the others.
        taken.inspect_err(|_| in_all.give_back())
    }
}

impl AttemptsOfPeople {
    /// Nobody has tried anything.
    pub(crate) fn none() -> Self {
        Self(Mutex::new(Buckets::full(Pace::EVERYBODY, Pace::PERSON)))
    }

    /// Takes one attempt of somebody of this name.
    ///
    /// # Errors
    /// [`Error::Throttled`].
    pub(crate) fn take(&self, name: &Name, now: u64) -> Result<(), Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(name, now)
    }

    /// Forgets the attempts of somebody who has shown who he is.
    pub(crate) fn forget(&self, name: &Name) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_name.remove(name);
    }
}

/// Attempts of callers who are known, each by his name.
#[derive(Debug)]
pub(crate) struct AttemptsOfCallers(Mutex<HashMap<String, Attempts>>);

impl AttemptsOfCallers {
    /// Nobody has tried anything.
    pub(crate) fn none() -> Self {
        Self(Mutex::default())
    }

    /// Takes so many attempts of somebody, or none of them.
    ///
    /// # Errors
    /// [`Error::Throttled`].
    pub(crate) fn take(&self, who: &str, count: usize, now: u64) -> Result<(), Error> {
        let mut by_name = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if by_name.len() >= MANY_NAMES {
            by_name.retain(|_, attempts| !attempts.is_full(now));
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let full = || Attempts::full(Pace::CLAIM);
        by_name.entry(who.to_owned()).or_insert_with(full).take_all(count, now)
    }
}

/// What those who are not known were refused or told: recorded each by itself up to a limit, by
/// address and in all, and counted above it.
#[derive(Debug)]
pub(crate) struct VisitsOfStrangers(Mutex<Visits>);

#[derive(Debug)]
struct Visits {
    records: Buckets<Option<IpAddr>>,
    counted: u64,
}

impl VisitsOfStrangers {
    /// Nobody has come.
    pub(crate) fn none() -> Self {
        let records = Buckets::full(Pace::STRANGERS, Pace::STRANGER);
        Self(Mutex::new(Visits { records, counted: 0 }))
    }

    /// Whether one of these is recorded by itself; otherwise it is counted.
    pub(crate) fn admit(&self, from: Option<IpAddr>, now: u64) -> bool {
        let mut visits = self.lock();
        let is_admitted = visits.records.take(&from.map(network), now).is_ok();
        if !is_admitted {
            visits.counted = visits.counted.saturating_add(1);
        }
        is_admitted
    }

    /// Takes what was counted since the last time.
    pub(crate) fn take_count(&self) -> u64 {
        std::mem::take(&mut self.lock().counted)
    }

    /// Counts again what was taken and could not be recorded.
    pub(crate) fn give_back(&self, count: u64) {
        let mut visits = self.lock();
        visits.counted = visits.counted.saturating_add(count);
    }

    fn lock(&self) -> MutexGuard<'_, Visits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one sender has at least: of IPv6 a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn attempts_run_out_and_come_back_one_by_one() {
        let mut attempts = Attempts::full(Pace::UNSEAL);
        let taken = (0..10).filter(|_| attempts.take(100).is_ok()).count();
        assert_eq!(taken, 5);
        let Err(Error::Throttled { retry_after }) = attempts.take(103) else {
            panic!("a sixth attempt was let through");
        };
        assert_eq!(retry_after, Duration::from_secs(7));
        assert!(attempts.take(110).is_ok() && attempts.take(111).is_err());
    }

    #[test]
    fn one_person_over_his_limit_takes_nothing_from_the_others() {
        let people = AttemptsOfPeople::none();
        let taken = (0..100).filter(|_| people.take(&name("alice"), 1_000).is_ok()).count();
        assert_eq!(taken, 5);
        let others =
            (0..100).filter(|i| people.take(&name(&format!("u{i}")), 1_000).is_ok()).count();
        assert_eq!(others, 15);
        assert!(people.take(&name("alice"), 1_059).is_err());
        assert!(people.take(&name("alice"), 1_060).is_ok());
    }

    #[test]
    fn caller_takes_all_of_what_he_asks_for_or_nothing_and_waits_for_what_is_missing() {
        let callers = AttemptsOfCallers::none();
        let taken = (0..10).filter(|_| callers.take("a", 64, 1_000).is_ok()).count();
        assert_eq!(taken, 4);
        let Err(Error::Throttled { retry_after }) = callers.take("a", 64, 1_000) else {
            panic!("a claim too many was let through");
        };
        assert_eq!(retry_after, Duration::from_secs(64));
        assert!(callers.take("a", 64, 1_063).is_err() && callers.take("a", 63, 1_063).is_ok());
        assert!(callers.take("b", 256, 1_063).is_ok(), "somebody else has his own");
    }

    #[test]
    fn names_without_recent_attempts_are_forgotten() {
        let people = AttemptsOfPeople::none();
        for second in 0..5_000_u64 {
            people.take(&name(&format!("u{second}")), 10_000 + second).unwrap();
        }
        assert!(people.0.lock().unwrap().by_name.len() <= MANY_NAMES);
    }

    #[test]
    fn visits_of_strangers_are_recorded_up_to_a_limit_of_each_and_of_all_and_then_counted() {
        let (strangers, at) = (VisitsOfStrangers::none(), |text: &str| text.parse().ok());
        let recorded = |from: &dyn Fn(u64) -> String, now| {
            (0..200).filter(|n| strangers.admit(at(&from(*n)), now)).count()
        };
        assert_eq!(recorded(&|_| "192.0.2.1".to_owned(), 5_000), 100);
        assert_eq!(strangers.take_count(), 100);
        assert_eq!(recorded(&|_| "::ffff:192.0.2.1".to_owned(), 5_010), 1);
        // Who has one address of IPv6 has very many.
        assert_eq!(recorded(&|n| format!("2001:db8::{n:x}"), 5_010), 100);
        assert_eq!(recorded(&|n| format!("2001:db8:2:{n:x}::1"), 5_010), 200);
        let from_everywhere =
            (0..5_000).filter(|n| strangers.admit(at(&format!("2001:db8:1:{n:x}::1")), 5_010));
        assert_eq!(from_everywhere.count(), 609);
        assert_eq!(strangers.take_count(), 199 + 100 + 4_391);
        strangers.give_back(3);
        assert_eq!(strangers.take_count(), 3);
        assert!(strangers.admit(None, 5_011) && !strangers.admit(None, 5_011));
    }

    #[test]
    fn success_forgets_the_attempts_before_it() {
        let people = AttemptsOfPeople::none();
        for _ in 0..5 {
            people.take(&name("alice"), 1_000).unwrap();
        }
        people.forget(&name("alice"));
        assert!(people.take(&name("alice"), 1_000).is_ok());
    }
}
