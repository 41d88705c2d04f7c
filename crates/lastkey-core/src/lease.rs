//! Accounts of databases that are made for one caller: by which role, for how long, and what is to
//! be done with each.
//!
//! Room      `core`.
//! Source    docs/adr/0030-leases-of-database-accounts.md.
//! Holds     a lease is written down before its account is made, and forgotten after its account is
//!           gone: whoever finds one in the middle goes on with it. An account is named by its lease
//!           and the installation, so that one without a lease is known for what it is.

use core::fmt;
use core::time::Duration;

use lastkey_crypto::digest::sha256_of;

use crate::ids::{InstanceId, Name};
use crate::outside::Standing;
use crate::secret_rotation::is_account;
use crate::time::{Elapsed, Timestamp};
use crate::version::WrappedKey;

/// Shortest and longest life of a lease between two renewals, in seconds: 5 minutes, 30 days.
pub const TTL_SECS: core::ops::RangeInclusive<u64> = 300..=30 * 86_400;
/// Life of a lease when nobody says otherwise, in seconds: an hour.
pub const DEFAULT_TTL_SECS: u64 = 3_600;
/// Longest life with all renewals when nobody says otherwise, in seconds: a day. Leases of pods end
/// with their pods.
pub const DEFAULT_MAX_TTL_SECS: u64 = 86_400;
/// Longest life with all renewals, in seconds: a year.
pub const LONGEST_TTL_SECS: u64 = 366 * 86_400;
/// Leases of one role at a time when nobody says otherwise.
pub const DEFAULT_MAX_LEASES: u32 = 1_000;
/// Most leases of one role.
pub const MOST_LEASES: u32 = 10_000;
/// Most statements of a role.
pub const MAX_STATEMENTS: usize = 16;
/// Longest statement, in bytes.
pub const MAX_STATEMENT_LEN: usize = 4_096;

/// What stands for the account in a statement; it becomes the quoted name.
pub const USER_PLACE: &str = "{{user}}";
/// What stands for the group in a statement; it becomes the quoted name.
pub const GROUP_PLACE: &str = "{{group}}";

/// How long an account may be made before it counts as forgotten.
pub const MAKING: Duration = Duration::from_secs(120);
/// How much longer than its lease an account opens, should nobody end it.
pub const GRACE: Duration = Duration::from_secs(60);

/// What accounts of a database are made like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRole {
    /// Its name.
    pub name: Name,
    /// The database, by its name here.
    pub database: Name,
    /// The role there that every account is a member of, acts as, and leaves its objects to.
    pub group: String,
    /// What else is done to a new account, in SQL.
    pub statements: Vec<String>,
    /// Life of a lease between two renewals, in seconds.
    pub ttl_secs: u64,
    /// Longest life of a lease with all renewals, in seconds; those of pods end with their pods.
    pub max_ttl_secs: u64,
    /// Leases at a time.
    pub max_leases: u32,
    /// When it was made, by the wall clock.
    pub created_at: Timestamp,
}

/// Why there can be no more leases of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLease {
    /// There are as many as there may be.
    #[error("the role has as many leases as it may")]
    OfRole,
    /// One holder has as many as it may.
    #[error("one holder has half of the leases that the role may have")]
    OfHolder,
}

/// Why there can be no such role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDatabaseRole {
    /// The group.
    #[error("a group has 1 to 32 bytes, none of them a control character")]
    Group,
    /// The statements.
    #[error(
        "a role has at most 16 statements of 1 to 4096 bytes; in them {{{{user}}}} and \
         {{{{group}}}} stand for the names, quoted, and no other {{{{...}}}} may stand there"
    )]
    Statements,
    /// The life of a lease.
    #[error("a lease lives for 5 minutes to 30 days")]
    Ttl,
    /// The longest life of a lease.
    #[error("the longest life of a lease is at least one life, and at most 366 days")]
    MaxTtl,
    /// How many leases there may be.
    #[error("a role has 1 to 10000 leases at a time")]
    MaxLeases,
}

impl DatabaseRole {
    /// Whether there can be such a role.
    ///
    /// # Errors
    /// [`BadDatabaseRole`].
    pub fn check(&self) -> Result<(), BadDatabaseRole> {
        if !is_account(&self.group) {
            return Err(BadDatabaseRole::Group);
        }
        if self.statements.len() > MAX_STATEMENTS
            || !self.statements.iter().all(|s| is_statement(s))
        {
            return Err(BadDatabaseRole::Statements);
        }
        if !TTL_SECS.contains(&self.ttl_secs) {
            return Err(BadDatabaseRole::Ttl);
        }
        if !(self.ttl_secs..=LONGEST_TTL_SECS).contains(&self.max_ttl_secs) {
            return Err(BadDatabaseRole::MaxTtl);
        }
        if !(1..=MOST_LEASES).contains(&self.max_leases) {
            return Err(BadDatabaseRole::MaxLeases);
        }
        Ok(())
    }

    /// Whether a holder gets another lease, by all that there are of this role. One workload does
    /// not use up the role: it has at most half of the leases, rounded up.
    ///
    /// # Errors
    /// [`NoLease`].
    pub fn has_room(&self, leases: &[Lease], holder: &str) -> Result<(), NoLease> {
        let most = usize::try_from(self.max_leases).unwrap_or(usize::MAX);
        if leases.len() >= most {
            return Err(NoLease::OfRole);
        }
        let held = leases.iter().filter(|lease| lease.holder == holder).count();
        if held >= most.div_ceil(2) { Err(NoLease::OfHolder) } else { Ok(()) }
    }
}

fn is_statement(text: &str) -> bool {
    let bare = text.replace(USER_PLACE, "").replace(GROUP_PLACE, "");
    let has_place = bare.contains("{{") || bare.contains("}}");
    !text.trim().is_empty() && text.len() <= MAX_STATEMENT_LEN && !text.contains('\0') && !has_place
}

/// Identity of one lease within its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub [u8; 16]);

impl LeaseId {
    /// The one lease that a pod has under a role: whoever asks for it twice is given the same.
    #[must_use]
    pub fn of_pod(role: &Name, pod: &LeasePod) -> Self {
        // Neither names nor UIDs have a zero byte, or they could not be told apart.
        let parts = [role.as_str(), &pod.cluster, &pod.uid];
        let parts = parts.iter().flat_map(|part| [part.as_bytes(), b"\0"]);
        let parts: Vec<&[u8]> = core::iter::once(&b"lastkey/lease/v1\0"[..]).chain(parts).collect();
        let mut id = [0; 16];
        id.iter_mut().zip(sha256_of(&parts)).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// Reads what [`fmt::Display`] writes: 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|number| Self(number.to_be_bytes()))
    }

    /// The account of this lease: at most 32 bytes, as every database takes them.
    #[must_use]
    pub fn account(self, instance: InstanceId) -> String {
        format!("{}{:018x}", account_prefix(instance), self.account_no().0)
    }

    /// The number of the account of this lease.
    #[must_use]
    pub fn account_no(self) -> AccountNo {
        AccountNo(u128::from_be_bytes(self.0) >> 56)
    }
}

/// What tells an account of an installation from its others: the first 72 bits of a lease's id. Of
/// all leases of an installation no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountNo(u128);

impl AccountNo {
    /// The number in the name of an account, if it is one that a lease of this installation can
    /// have had.
    #[must_use]
    pub fn in_name(account: &str, instance: InstanceId) -> Option<Self> {
        let digits = account.strip_prefix(&account_prefix(instance))?;
        let is_ours = digits.len() == 18 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        is_ours.then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What the accounts of an installation begin with, and no others.
#[must_use]
pub fn account_prefix(instance: InstanceId) -> String {
    format!("lk_{:010x}_", u128::from_be_bytes(instance.0) >> 88)
}

/// The pod that a lease was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasePod {
    /// Its cluster, by its name here.
    pub cluster: String,
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// UID of its service account.
    pub account_uid: String,
}

/// How far a lease has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStep {
    /// Its account is being made.
    Making,
    /// Its account was made and opens.
    InUse,
    /// Its account is being dropped.
    Ending,
}

impl LeaseStep {
    /// The word of the doors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Making => "making",
            Self::InUse => "in_use",
            Self::Ending => "ending",
        }
    }
}

/// An account of a database that was made for one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The role that it was made by.
    pub role: Name,
    /// Its id there.
    pub id: LeaseId,
    /// The database.
    pub database: Name,
    /// The group that its objects go to.
    pub group: String,
    /// Its account there.
    pub account: String,
    /// The password of that account.
    pub password: WrappedKey,
    /// Who asked for it, as the audit log names him.
    pub holder: String,
    /// The pod that it ends with.
    pub pod: Option<LeasePod>,
    /// How far it has come.
    pub step: LeaseStep,
    /// Its life between two renewals, in seconds.
    pub ttl_secs: u64,
    /// When it ends unless it is renewed.
    pub ends: Elapsed,
    /// No renewal leads beyond this; `None` when it ends with its pod.
    pub last_end: Option<Elapsed>,
    /// When something is to be done with it next.
    pub due: Elapsed,
    /// When it was made, by the wall clock.
    pub created_at: Timestamp,
    /// How often something could not be done since it last could.
    pub failures: u32,
    /// Why not.
    pub problem: Option<String>,
}

/// What is to be done with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing yet.
    Wait,
    /// It lives on.
    Renew,
    /// Its account is dropped, for this reason.
    End(&'static str),
}

/// What a lease's next act depends on.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Service time.
    pub now: Elapsed,
    /// Whether the clock is on hold.
    pub is_held: bool,
    /// Whether the server began so recently that a cluster may not have been heard yet.
    pub is_early: bool,
    /// Whether its role is there still.
    pub has_role: bool,
    /// What the cluster says of its pod.
    pub standing: Standing,
}

impl Lease {
    /// What is to be done with it now. While the clock is on hold nothing ends by time alone.
    #[must_use]
    pub fn next_act(&self, at: Circumstances) -> Act {
        let is_due = self.due <= at.now;
        match self.step {
            LeaseStep::Ending if is_due => Act::End("its account was not dropped before"),
            LeaseStep::Making if is_due && !at.is_held => Act::End("its account was never used"),
            LeaseStep::Ending | LeaseStep::Making => Act::Wait,
            LeaseStep::InUse if !at.has_role => Act::End("its role was removed"),
            LeaseStep::InUse => match (self.pod.is_some(), at.standing) {
                (true, Standing::Gone) => Act::End("its pod is gone"),
                // While its pod is there it does not end, also when it could not be renewed in time.
                (true, Standing::There | Standing::WasThere) => {
                    if is_due {
                        Act::Renew
                    } else {
                        Act::Wait
                    }
                }
                // Nobody knows of it because nobody was asked: as after an outage.
                (true, Standing::Unknown) if at.is_early => Act::Wait,
                (_, _) if self.ends <= at.now && !at.is_held => Act::End("its time is over"),
                (_, _) => Act::Wait,
            },
        }
    }

    /// The same, alive from now on for another life.
    #[must_use]
    pub fn renewed(self, now: Elapsed) -> Self {
        let ends = now.after(Duration::from_secs(self.ttl_secs));
        let ends = self.last_end.map_or(ends, |last| ends.min(last));
        // Of a life that is half over the other half is left to try again in.
        let due = if self.pod.is_some() {
            now.after(Duration::from_secs(self.ttl_secs / 2))
        } else {
            ends
        };
        Self { step: LeaseStep::InUse, ends, due, failures: 0, problem: None, ..self }
    }

    /// The same, to be looked at again after a pause that doubles with each failure.
    #[must_use]
    pub fn failed(self, now: Elapsed, problem: String) -> Self {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(MOST_DOUBLINGS));
        let failures = self.failures.saturating_add(1);
        Self { due: now.after(pause), failures, problem: Some(problem), ..self }
    }
}

/// How long after the first failure it is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Doublings: from ten seconds to more than ten minutes.
const MOST_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn pod(uid: &str) -> LeasePod {
        let (cluster, name) = ("prod".to_owned(), "api-1".to_owned());
        LeasePod { cluster, uid: uid.to_owned(), name, account_uid: "a".to_owned() }
    }

    fn role() -> DatabaseRole {
        DatabaseRole {
            name: name("app"),
            database: name("shop"),
            group: "shop_rw".to_owned(),
            statements: vec!["ALTER ROLE {{user}} SET search_path = shop".to_owned()],
            ttl_secs: 300,
            max_ttl_secs: 300,
            max_leases: 1,
            created_at: Timestamp(0),
        }
    }

    fn lease(step: LeaseStep, of_pod: bool) -> Lease {
        Lease {
            role: name("app"),
            id: LeaseId([7; 16]),
            database: name("shop"),
            group: "shop_rw".to_owned(),
            account: "lk_a".to_owned(),
            password: WrappedKey { epoch: 1, sealed: vec![0; 48] },
            holder: "user:eve".to_owned(),
            pod: of_pod.then(|| pod("u")),
            step,
            ttl_secs: 600,
            ends: Elapsed(1_000),
            last_end: (!of_pod).then_some(Elapsed(1_300)),
            due: Elapsed(700),
            created_at: Timestamp(0),
            failures: 0,
            problem: None,
        }
    }

    fn at(now: u64, standing: Standing) -> Circumstances {
        Circumstances {
            now: Elapsed(now),
            is_held: false,
            is_early: false,
            has_role: true,
            standing,
        }
    }

    fn ends(act: Act) -> bool {
        matches!(act, Act::End(_))
    }

    #[test]
    fn lease_of_a_pod_ends_with_it_and_not_before() {
        let lease = lease(LeaseStep::InUse, true);
        for standing in [Standing::There, Standing::WasThere] {
            assert_eq!(lease.next_act(at(699, standing)), Act::Wait);
            assert_eq!(lease.next_act(at(700, standing)), Act::Renew);
            assert_eq!(lease.next_act(at(9_999, standing)), Act::Renew);
        }
        assert!(ends(lease.next_act(at(1, Standing::Gone))));
        // Nobody's pod is believed to be there.
        for standing in [Standing::Unknown, Standing::NotAsked] {
            assert_eq!(lease.next_act(at(999, standing)), Act::Wait);
            assert!(ends(lease.next_act(at(1_000, standing))));
        }
        let early = |standing| Circumstances { is_early: true, ..at(1_000, standing) };
        assert_eq!(lease.next_act(early(Standing::Unknown)), Act::Wait);
        for standing in [Standing::Gone, Standing::NotAsked] {
            assert!(ends(lease.next_act(early(standing))));
        }
    }

    #[test]
    fn lease_of_anybody_else_ends_by_time_alone() {
        let lease = lease(LeaseStep::InUse, false);
        assert_eq!(lease.next_act(at(999, Standing::NotAsked)), Act::Wait);
        assert!(ends(lease.next_act(at(1_000, Standing::NotAsked))));
        let held = Circumstances { is_held: true, ..at(2_000, Standing::NotAsked) };
        assert_eq!(lease.next_act(held), Act::Wait);
        let without = Circumstances { has_role: false, ..at(0, Standing::NotAsked) };
        assert!(ends(lease.next_act(without)));
    }

    #[test]
    fn one_holder_has_at_most_half_of_the_leases() {
        let of =
            |holder: &str| Lease { holder: holder.to_owned(), ..lease(LeaseStep::InUse, true) };
        for (most, ours, theirs, expected) in [
            (1, 0, 0, Ok(())),
            (1, 1, 0, Err(NoLease::OfRole)),
            (3, 1, 0, Ok(())),
            (3, 2, 0, Err(NoLease::OfHolder)),
            (4, 2, 1, Err(NoLease::OfHolder)),
            (4, 1, 2, Ok(())),
            (4, 1, 3, Err(NoLease::OfRole)),
        ] {
            let role = DatabaseRole { max_leases: most, ..role() };
            let mut leases: Vec<_> = (0..ours).map(|_| of("us")).collect();
            leases.extend((0..theirs).map(|_| of("them")));
            assert_eq!(role.has_room(&leases, "us"), expected, "{most} {ours} {theirs}");
        }
    }

    #[test]
    fn account_is_ours_by_its_name_alone() {
        let (instance, id) = (InstanceId([1; 16]), LeaseId([0xab; 16]));
        let account = id.account(instance);
        assert_eq!(AccountNo::in_name(&account, instance), Some(id.account_no()));
        assert_eq!(AccountNo::in_name(&account, InstanceId([2; 16])), None);
        let shorter = account.split_at(31).0;
        for other in [shorter, "lk_x", "", &format!("{shorter}+")] {
            assert_eq!(AccountNo::in_name(other, instance), None, "{other}");
        }
    }

    #[test]
    fn what_was_begun_and_not_ended_is_taken_up_when_due() {
        for step in [LeaseStep::Making, LeaseStep::Ending] {
            assert_eq!(lease(step, true).next_act(at(699, Standing::There)), Act::Wait);
            assert!(ends(lease(step, true).next_act(at(700, Standing::There))));
        }
    }

    #[test]
    fn renewal_stops_where_the_longest_life_ends() {
        let once = lease(LeaseStep::InUse, false).renewed(Elapsed(600));
        assert_eq!((once.ends, once.due), (Elapsed(1_200), Elapsed(1_200)));
        let twice = once.renewed(Elapsed(1_100));
        assert_eq!(twice.ends, Elapsed(1_300));
        let pod = lease(LeaseStep::Making, true).renewed(Elapsed(5_000));
        assert_eq!(
            (pod.step, pod.ends, pod.due),
            (LeaseStep::InUse, Elapsed(5_600), Elapsed(5_300))
        );
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        let mut lease = lease(LeaseStep::Ending, false);
        for pause in [10, 20, 40, 80, 160, 320, 640, 640] {
            lease = lease.failed(Elapsed(100), "no".to_owned());
            assert_eq!(lease.due, Elapsed(100 + pause));
        }
    }

    #[test]
    fn pod_has_one_lease_for_each_role_and_every_account_its_name() {
        let id = LeaseId::of_pod(&name("app"), &pod("u"));
        assert_eq!(id, LeaseId::of_pod(&name("app"), &pod("u")));
        assert_ne!(id, LeaseId::of_pod(&name("app"), &pod("v")));
        assert_ne!(id, LeaseId::of_pod(&name("ap"), &pod("u")));
        assert_eq!(LeaseId::parse(&id.to_string()), Some(id));
        assert_eq!(LeaseId::parse(&format!("+{}", "0".repeat(31))), None);
        let account = LeaseId([0xab; 16]).account(InstanceId([0x12; 16]));
        assert_eq!(account, "lk_1212121212_ababababababababab");
        assert_eq!(account.len(), 32);
    }

    #[test]
    fn role_that_cannot_be_is_refused_by_its_part() {
        let good = role;
        assert_eq!(good().check(), Ok(()));
        for statement in ["", " ", "GRANT x TO {{name}}", "SELECT '{{'", "a\0b", &"x".repeat(4_097)]
        {
            let bad = DatabaseRole { statements: vec![statement.to_owned()], ..good() };
            assert_eq!(bad.check(), Err(BadDatabaseRole::Statements), "{statement:.9}");
        }
        let bad = DatabaseRole { group: "a\nb".to_owned(), ..good() };
        assert_eq!(bad.check(), Err(BadDatabaseRole::Group));
        assert_eq!(DatabaseRole { ttl_secs: 299, ..good() }.check(), Err(BadDatabaseRole::Ttl));
        let bad = DatabaseRole { ttl_secs: 301, ..good() };
        assert_eq!(bad.check(), Err(BadDatabaseRole::MaxTtl));
        let bad = DatabaseRole { max_leases: 0, ..good() };
        assert_eq!(bad.check(), Err(BadDatabaseRole::MaxLeases));
    }
}
