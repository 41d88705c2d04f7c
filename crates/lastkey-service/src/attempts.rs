//! Attempts that are limited: buckets that fill again with time.
//!
//! Room      `service`.
//! Holds     what somebody sends who is not known yet takes no memory that does not come back.

use core::hash::Hash;
use core::net::{IpAddr, Ipv6Addr};
use std::collections::{BTreeMap, HashMap};
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
    /// For records of what somebody of one address who is not known, or the bearer of one genuine
    /// thing, was refused or told.
    const VISITOR: Self = Self { burst: 100, seconds_each: 10 };
    /// The same from everywhere, or of all that one voucher vouches for: some 40 MB a day in the
    /// log, whoever sends how much.
    const VISITORS: Self = Self { burst: 1_000, seconds_each: 1 };
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

/// What those who have no session were refused or told: recorded each by itself up to a limit, and
/// counted above it. Who shows nothing genuine is limited by address and in all, and takes nothing
/// from those who do: they are limited each by himself, and with all of the same voucher.
#[derive(Debug)]
pub(crate) struct Visitors(Mutex<Visits>);

#[derive(Debug)]
struct Visits {
    strangers: Buckets<Option<IpAddr>>,
    /// By voucher.
    bearers: HashMap<String, Buckets<String>>,
    counted: Counted,
}

/// How many visits were counted, by their action and whether what was shown was genuine.
pub(crate) type Counted = BTreeMap<(&'static str, bool), u64>;

/// Whose the genuine thing is that somebody shows, though it may not be good for what he wants.
#[derive(Debug)]
pub(crate) struct Bearer {
    /// Who vouches for it.
    pub(crate) voucher: String,
    /// Whose it is.
    pub(crate) name: String,
}

impl Visitors {
    /// Nobody has come.
    pub(crate) fn none() -> Self {
        Self(Mutex::new(Visits {
            strangers: Buckets::full(Pace::VISITORS, Pace::VISITOR),
            bearers: HashMap::new(),
            counted: Counted::new(),
        }))
    }

    /// Whether a visit of somebody who shows nothing genuine is recorded by itself; otherwise it is
    /// counted.
    pub(crate) fn admit_stranger(
        &self,
        action: &'static str,
        from: Option<IpAddr>,
        now: u64,
    ) -> bool {
        let mut visits = self.lock();
        let taken = visits.strangers.take(&from.map(network), now);
        visits.is_recorded((action, false), &taken)
    }

    /// The same of somebody who shows something genuine.
    pub(crate) fn admit_bearer(&self, action: &'static str, bearer: &Bearer, now: u64) -> bool {
        let mut visits = self.lock();
        if visits.bearers.len() >= MANY_NAMES {
            visits.bearers.retain(|_, buckets| !buckets.in_all.is_full(now));
        }
        let full = || Buckets::full(Pace::VISITORS, Pace::VISITOR);
        let buckets = visits.bearers.entry(bearer.voucher.clone()).or_insert_with(full);
        let taken = buckets.take(&bearer.name, now);
        visits.is_recorded((action, true), &taken)
    }

    /// What was counted and is in no record yet.
    pub(crate) fn counted(&self) -> Counted {
        self.lock().counted.clone()
    }

    /// Takes off what is in a record now.
    pub(crate) fn take_off(&self, recorded: &Counted) {
        self.lock().counted.retain(|what, count| {
            *count = count.saturating_sub(recorded.get(what).copied().unwrap_or_default());
            *count > 0
        });
    }

    fn lock(&self) -> MutexGuard<'_, Visits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visits {
    fn is_recorded(&mut self, what: (&'static str, bool), taken: &Result<(), Error>) -> bool {
        if taken.is_err() {
            let count = self.counted.entry(what).or_default();
            *count = count.saturating_add(1);
        }
        taken.is_ok()
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
        let (visitors, at) = (Visitors::none(), |text: &str| text.parse().ok());
        let recorded = |from: &dyn Fn(u64) -> String, now| {
            (0..200).filter(|n| visitors.admit_stranger("a", at(&from(*n)), now)).count()
        };
        let count = || visitors.counted().get(&("a", false)).copied();
        assert_eq!(recorded(&|_| "192.0.2.1".to_owned(), 5_000), 100);
        assert_eq!(count(), Some(100));
        visitors.take_off(&visitors.counted());
        assert_eq!(recorded(&|_| "::ffff:192.0.2.1".to_owned(), 5_010), 1);
        // Who has one address of IPv6 has very many.
        assert_eq!(recorded(&|n| format!("2001:db8::{n:x}"), 5_010), 100);
        assert_eq!(recorded(&|n| format!("2001:db8:2:{n:x}::1"), 5_010), 200);
        let from_everywhere = (0..5_000)
            .filter(|n| visitors.admit_stranger("a", at(&format!("2001:db8:1:{n:x}::1")), 5_010));
        assert_eq!(from_everywhere.count(), 609);
        assert_eq!(count(), Some(199 + 100 + 4_391));
        assert!(visitors.admit_stranger("a", None, 5_011));
        assert!(!visitors.admit_stranger("a", None, 5_011));
    }

    #[test]
    fn what_is_genuine_has_records_that_neither_strangers_nor_other_bearers_take() {
        let visitors = Visitors::none();
        let recorded = |voucher: &str, name: &dyn Fn(u64) -> String, tries: u64| {
            let bearer = |n| Bearer { voucher: voucher.to_owned(), name: name(n) };
            (0..tries).filter(|n| visitors.admit_bearer("a", &bearer(*n), 5_000)).count()
        };
        let strangers = (0..2_000_u32).map(|n| Some(IpAddr::V4(n.into())));
        let strangers = strangers.filter(|from| visitors.admit_stranger("a", *from, 5_000));
        assert_eq!(strangers.count(), 1_000);
        assert_eq!(recorded("prod", &|_| "api".to_owned(), 1_000), 100);
        assert_eq!(recorded("prod", &|_| "web".to_owned(), 1), 1);
        // Whoever has very many names at one voucher takes nothing from another one.
        assert_eq!(recorded("ci", &|n| format!("repo-{n}"), 3_000), 1_000);
        assert_eq!(recorded("prod", &|_| "job".to_owned(), 1), 1);
        let counted = Counted::from([(("a", false), 1_000), (("a", true), 900 + 2_000)]);
        assert_eq!(visitors.counted(), counted);
    }

    #[test]
    fn what_is_counted_while_a_sum_is_written_stays_counted() {
        let visitors = Visitors::none();
        let count =
            |tries| (0..tries).filter(|_| !visitors.admit_stranger("a", None, 5_000)).count();
        assert_eq!(count(103), 3);
        let sum = visitors.counted();
        assert_eq!(count(2), 2);
        visitors.take_off(&sum);
        assert_eq!(visitors.counted(), Counted::from([(("a", false), 2)]));
        visitors.take_off(&visitors.counted());
        assert_eq!(visitors.counted(), Counted::new());
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
