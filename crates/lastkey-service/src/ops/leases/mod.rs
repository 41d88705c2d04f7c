//! Use cases of database roles, and of the accounts that are made by them for one caller.
//!
//! Room      `service`. What is done with a lease when is in `core::lease`; behind the port
//!           `core::outside::Databases`.
//! Source    `docs/databases.md`.
//! Holds     a lease is written before its account is made and removed after its account is gone.
//!           Everything in between can be done twice: whoever finds a lease in the middle goes on.

mod end;
mod issue;
mod mend;
mod roles;
mod tend;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use lastkey_core::ids::Name;
use lastkey_core::lease::{AccountNo, Lease, LeaseId, LeaseStep};
use lastkey_core::outside::DatabaseError;
use lastkey_core::permit::{Resource, ResourceKind};
use lastkey_core::ports::{Expected, Revision, StoreError, Stored, Write};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::time::{ClockRecord, Timestamp};
use lastkey_secret::SecretVec;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;

pub use self::end::Ending;
pub use self::issue::Credentials;
pub use self::mend::Mended;
pub use self::roles::DatabaseRoleRequest;
pub(crate) use self::tend::run as run_leases;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::databases::Root;
use crate::root::SecretPlace;

/// How often a change is made anew when somebody else was faster.
const ATTEMPTS: usize = 8;

/// How long a database that could not be reached is not called: who waits for it is told at once.
const PAUSE: Duration = Duration::from_secs(5);

/// A lease, with its times told by the wall clock.
#[derive(Clone, Debug)]
pub struct LeaseView {
    /// The lease. Its wrapped password is left out by the doors.
    pub lease: Lease,
    /// When it ends unless it is renewed.
    pub ends_at: Timestamp,
    /// How long it lives from now on.
    pub lives: Duration,
    /// After how long its holder asks again, so that it is renewed in time.
    pub ask_after: Duration,
}

impl LeaseView {
    fn of(lease: Lease, clock: &ClockRecord) -> Self {
        let lives = clock.elapsed.until(lease.ends);
        let ask_after = clock.elapsed.until(lease.due).max(SHORTEST_ASK).min(lives);
        Self { ends_at: clock.wall_at(lease.ends), lives, ask_after, lease }
    }
}

/// A holder asks no more often.
const SHORTEST_ASK: Duration = Duration::from_secs(30);

/// How many leases there are, and what was done with them since the server was unsealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseTotals {
    /// Whose accounts open.
    pub in_use: u64,
    /// Whose accounts wait to be dropped.
    pub ending: u64,
    /// That were made.
    pub made: u64,
    /// That were renewed.
    pub renewed: u64,
    /// That were ended.
    pub ended: u64,
    /// What a database did not do when it was asked.
    pub failed: u64,
}

/// Which accounts are being worked on by this server, and which databases cannot be reached.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    turns: Mutex<HashMap<AccountNo, Weak<tokio::sync::Mutex<()>>>>,
    /// One lease is begun at a time: many at once are no more than there may be. Nor is a role
    /// written down, or a database removed, meanwhile: what there is has its database.
    pub(crate) beginning: tokio::sync::Mutex<()>,
    paused: Mutex<HashMap<Name, Instant>>,
    totals: Mutex<LeaseTotals>,
    /// Databases were last compared with their leases then, in service time; 0 for never.
    mended_at: AtomicU64,
    /// They were first looked at then, in service time; 0 for never.
    began_at: AtomicU64,
    /// There is something to be done before the next look.
    wake: Notify,
}

impl Leases {
    /// The right to work on a lease and its account, when nobody else does.
    async fn take(&self, id: LeaseId) -> OwnedMutexGuard<()> {
        self.take_account(id.account_no()).await
    }

    /// The same by the account alone, which may have no lease.
    async fn take_account(&self, no: AccountNo) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let taken = turns.get(&no).and_then(Weak::upgrade);
            taken.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(no, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    fn count(&self, change: impl FnOnce(&mut LeaseTotals)) {
        change(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether a database could not be reached just now.
    fn is_paused(&self, database: &Name) -> bool {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        paused.get(database).is_some_and(|until| Instant::now() < *until)
    }

    /// Remembers whether a database could be reached.
    fn note(&self, database: &Name, is_away: bool) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if is_away {
            paused.insert(database.clone(), Instant::now() + PAUSE);
        } else {
            paused.remove(database);
        }
    }
}

/// A lease as it is stored.
struct Held {
    lease: Lease,
    revision: Revision,
}

impl Engine {
    /// How many leases there are, and what was done with them since the server was unsealed.
    #[must_use]
    pub fn lease_totals(&self) -> LeaseTotals {
        *self.leases.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease, as it is stored now.
    async fn held_lease(&self, role: &Name, id: LeaseId) -> Result<Option<Held>, Error> {
        let Some(stored) = self.store.get(&RecordPath::lease(role, id)).await? else {
            return Ok(None);
        };
        let Record::Lease(lease) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        Ok(Some(Held { lease: *lease, revision: stored.revision }))
    }

    /// Puts another form of a lease in its place.
    async fn change_lease(&self, held: Held, after: Lease) -> Result<Held, Error> {
        let path = RecordPath::lease(&held.lease.role, held.lease.id);
        let record = Some(Record::Lease(Box::new(after.clone())));
        let write = Write { path, expected: Expected::At(held.revision), record };
        self.store.commit(vec![write]).await?;
        Ok(Held { lease: after, revision: Revision(held.revision.0.saturating_add(1)) })
    }

    /// The root account of a database that can be reached.
    async fn reachable_root(&self, database: &Name) -> Result<Root, Error> {
        let root = self.root_of(database).await?;
        // Others may have waited for the same root account and learned that nobody answers.
        if self.leases.is_paused(database) {
            let problem = "it could not be reached a moment ago; ask again in a few seconds";
            return Err(Error::Outside(format!("database {database}: {problem}").into()));
        }
        Ok(root)
    }

    /// What came of something that a database was to do for a lease.
    fn settled<T>(&self, root: &Root, done: Result<T, DatabaseError>) -> Result<T, Error> {
        let is_away = matches!(done, Err(DatabaseError::Away(_)));
        self.leases.note(&root.database.name, is_away);
        done.map_err(|error| {
            self.leases.count(|totals| totals.failed += 1);
            root.failed(&error)
        })
    }

    /// The password of a lease's account.
    fn password_of(&self, lease: &Lease) -> Result<SecretVec, Error> {
        let place = SecretPlace::Lease(&lease.role, lease.id);
        let opened = self.keyring.materials.unwrap_secret(place, &lease.password);
        opened.map_err(Error::Internal)
    }

    /// Every lease of this installation.
    async fn all_leases(&self) -> Result<Vec<Lease>, Error> {
        let mut leases = Vec::new();
        let mut after = None;
        loop {
            let range = PathRange::kind("lease", after, LEASE_PAGE);
            let page = self.store.scan(&range).await?;
            after = page.last().map(|stored| stored.path.clone());
            for stored in page {
                leases.push(lease_in(stored)?);
            }
            if after.is_none() {
                return Ok(leases);
            }
        }
    }
}

/// The lease in a record that is one.
fn lease_in(stored: Stored) -> Result<Lease, Error> {
    let Record::Lease(lease) = stored.record else {
        return Err(StoreError::Corrupt(stored.path).into());
    };
    Ok(*lease)
}

/// Leases read in one scan.
const LEASE_PAGE: usize = 256;

/// What the audit log calls a role of a database, or a lease of it.
fn target(role: &Name, id: Option<LeaseId>) -> String {
    match id {
        Some(id) => format!("database-role/{role}#{id}"),
        None => format!("database-role/{role}"),
    }
}

fn resource(role: &Name) -> Resource {
    Resource::Named(ResourceKind::DatabaseRole, role.as_str().to_owned())
}

/// Whether the account of a lease opens, or may open by now.
const fn is_in_use(lease: &Lease) -> bool {
    matches!(lease.step, LeaseStep::InUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turn_is_given_to_one_at_a_time_and_nothing_is_left_of_it() {
        let leases = Leases::default();
        let turn = leases.take(LeaseId([1; 16])).await;
        let other = leases.take(LeaseId([2; 16])).await;
        let waiting = leases.take(LeaseId([1; 16]));
        tokio::pin!(waiting);
        assert!(futures_poll(&mut waiting).await.is_none());
        drop(turn);
        drop(waiting.await);
        drop(other);
        drop(leases.take(LeaseId([3; 16])).await);
        assert_eq!(leases.turns.lock().unwrap().len(), 1);
    }

    /// What a future answers without waiting.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn database_that_is_away_is_left_alone_for_a_while() {
        let (leases, shop) = (Leases::default(), Name::parse("shop").unwrap());
        leases.note(&shop, true);
        assert!(leases.is_paused(&shop) && !leases.is_paused(&Name::parse("other").unwrap()));
        tokio::time::advance(PAUSE).await;
        assert!(!leases.is_paused(&shop));
        leases.note(&shop, true);
        leases.note(&shop, false);
        assert!(!leases.is_paused(&shop));
    }
}
