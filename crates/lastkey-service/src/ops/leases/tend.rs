//! What runs beside the calls: leases are renewed while their pods live, and ended when their time,
//! their pod or their role is gone.
//!
//! Room      `service`.
//! Holds     a database that cannot be reached keeps nobody waiting but those who need it: each has
//!           a task of its own. What could not be done is tried again, however long that takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lastkey_core::ids::Name;
use lastkey_core::lease::{Act, Circumstances, Lease, LeaseId, LeaseStep};
use lastkey_core::outside::{Bound, Standing};
use lastkey_core::permit::KeepDatabaseCredentials;
use lastkey_core::record::{PathRange, Record};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Held, resource, target};
use crate::audited::Trail;
use crate::engine::Engine;
use crate::error::Error;
use crate::jobs::scheduled_call;

/// How often leases are looked at. A pod that is gone is known by then.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// How often databases are compared with their leases, in seconds.
const MEND_SECS: u64 = 600;
/// How long after the start no pod counts as gone whose cluster has not spoken yet, in seconds: as
/// long as what a cluster said counts while it is not heard.
const EARLY_SECS: u64 = 900;
/// How soon that is tried again when one of them could not be, in seconds.
const MEND_AGAIN_SECS: u64 = 60;

/// Runs until it is told to stop.
pub(crate) async fn run(engine: Arc<Engine>, mut stop: oneshot::Receiver<()>) {
    loop {
        engine.tend_leases().await;
        tokio::select! {
            biased;
            _ = &mut stop => return,
            () = engine.leases.wake.notified() => {}
            () = sleep(LOOK_PERIOD) => {}
        }
    }
}

/// What is to be done in one database.
#[derive(Default)]
struct Work {
    leases: Vec<(Name, LeaseId)>,
    is_compared: bool,
}

impl Engine {
    /// Does everything that is due with leases.
    pub async fn tend_leases(self: &Arc<Self>) {
        let work = match self.lease_work().await {
            Ok(work) => work,
            Err(error) => {
                tracing::error!(%error, "leases could not be read");
                return;
            }
        };
        let mut working = JoinSet::new();
        for (database, work) in work {
            let engine = Arc::clone(self);
            working.spawn(async move { engine.work_in(&database, work).await });
        }
        while let Some(done) = working.join_next().await {
            if !matches!(done, Ok(true)) {
                // One was not compared: all are again, in a minute.
                let now = self.clock.observe().elapsed.0;
                let before = now.saturating_sub(MEND_SECS).saturating_add(MEND_AGAIN_SECS);
                self.leases.mended_at.store(before.max(1), Ordering::Relaxed);
            }
        }
    }

    async fn lease_work(&self) -> Result<HashMap<Name, Work>, Error> {
        let (leases, roles) = (self.all_leases().await?, self.role_places().await?);
        let now = self.clock.observe().elapsed.0;
        let before = self.leases.mended_at.load(Ordering::Relaxed);
        let is_compared = before == 0 || before.saturating_add(MEND_SECS) <= now;
        if is_compared {
            self.leases.mended_at.store(now.max(1), Ordering::Relaxed);
        }
        let mut work: HashMap<Name, Work> = HashMap::new();
        if is_compared {
            let databases = roles.values().chain(leases.iter().map(|lease| &lease.database));
            for database in databases {
                work.entry(database.clone()).or_default().is_compared = true;
            }
        }
        for lease in &leases {
            if self.act_on(lease, roles.contains_key(&lease.role)) != Act::Wait {
                let work = work.entry(lease.database.clone()).or_default();
                work.leases.push((lease.role.clone(), lease.id));
            }
        }
        let of = |step| leases.iter().filter(|lease| lease.step == step).count() as u64;
        let (in_use, ending) = (of(LeaseStep::InUse), of(LeaseStep::Ending));
        self.leases.count(|totals| (totals.in_use, totals.ending) = (in_use, ending));
        Ok(work)
    }

    /// The roles of databases, and of which.
    async fn role_places(&self) -> Result<HashMap<Name, Name>, Error> {
        let stored = self.store.scan(&PathRange::kind("database-role", None, usize::MAX)).await?;
        let place = |record| {
            let Record::DatabaseRole(role) = record else { return None };
            Some((role.name, role.database))
        };
        Ok(stored.into_iter().filter_map(|stored| place(stored.record)).collect())
    }

    fn act_on(&self, lease: &Lease, has_role: bool) -> Act {
        let clock = self.clock.observe();
        let standing = self.standing_of(lease);
        let (now, is_held) = (clock.elapsed, clock.hold.is_some());
        let (began_at, order) = (&self.leases.began_at, Ordering::Relaxed);
        let began = began_at.compare_exchange(0, now.0.max(1), order, order);
        let is_early =
            began.is_ok() || began.is_err_and(|began| now.0 < began.saturating_add(EARLY_SECS));
        lease.next_act(Circumstances { now, is_held, is_early, has_role, standing })
    }

    /// What its cluster says of the pod of a lease.
    pub(super) fn standing_of(&self, lease: &Lease) -> Standing {
        let Some(pod) = &lease.pod else { return Standing::NotAsked };
        let bound = Bound {
            cluster: &pod.cluster,
            pod: Some(&pod.uid),
            account: &pod.account_uid,
            since: lease.created_at,
        };
        self.ports.clusters.standing(&bound, self.clock.wall())
    }

    /// Does it; no when the database was to be compared with its leases and was not.
    async fn work_in(&self, database: &Name, work: Work) -> bool {
        for (role, id) in work.leases {
            // The rest of them would fail like the one before.
            if self.leases.is_paused(database) {
                return !work.is_compared;
            }
            if let Err(error) = self.tend_one(&role, id).await {
                tracing::warn!(%role, lease = %id, %error, "a lease: due, but failed");
            }
        }
        if !work.is_compared {
            return true;
        }
        let compared = self.compare(database).await;
        if let Err(error) = &compared {
            tracing::warn!(%database, %error, "a database was not compared with its leases");
        }
        compared.is_ok()
    }

    async fn tend_one(&self, role: &Name, id: LeaseId) -> Result<(), Error> {
        let _turn = self.leases.take(id).await;
        let Some(held) = self.held_lease(role, id).await? else { return Ok(()) };
        let has_role = self.database_role(role).await?.is_some();
        let reason = match self.act_on(&held.lease, has_role) {
            Act::Wait => return Ok(()),
            Act::Renew => "its pod is there",
            Act::End(reason) => reason,
        };
        let call = scheduled_call(self);
        let mut trail = Trail::of::<KeepDatabaseCredentials>(self, &call);
        trail.target = Some(target(role, Some(id)));
        let outcome = self.try_tend(&mut trail, held, reason).await;
        trail.close(self, outcome).await
    }

    async fn try_tend(
        &self,
        trail: &mut Trail<'_>,
        held: Held,
        reason: &'static str,
    ) -> Result<(), Error> {
        self.permit::<KeepDatabaseCredentials>(trail, resource(&held.lease.role))?;
        trail.reason = reason.into();
        trail.intend(self).await?;
        let role = self.database_role(&held.lease.role).await?;
        match (self.act_on(&held.lease, role.is_some()), role) {
            (Act::Renew, Some(role)) => self.renew(&role, held).await.map(drop),
            (Act::End(_), _) => self.end_lease(held).await,
            (Act::Wait | Act::Renew, _) => Ok(()),
        }
    }
}
