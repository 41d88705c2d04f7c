//! Use cases: renew a lease, end it, list the leases of a role.
//!
//! Room      `service`.
//! Holds     a holder does with his own lease what he likes; somebody else needs the right to end
//!           it. What is to be dropped is written down first, and forgotten when it is gone.

use std::sync::Arc;

use lastkey_core::ids::Name;
use lastkey_core::lease::{Lease, LeaseId, LeasePod, LeaseStep};
use lastkey_core::permit::{
    Action, GetDatabaseCredentials, ReadDatabaseRoles, RevokeDatabaseCredentials,
};
use lastkey_core::ports::{Expected, Write};
use lastkey_core::principal::Principal;
use lastkey_core::record::{PathRange, RecordPath};

use super::issue::pod_of;
use super::{Held, LeaseView, is_in_use, lease_in, resource, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::describe::check_limit;
use crate::sealing::detached;
use crate::view::Page;

/// How a lease is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its account is dropped.
    Drop,
    /// Its account is left to whoever runs the database, for example when that is gone for good.
    Forget,
}

/// Whether it is the caller's own: the pod's, or that of whoever is no pod.
fn is_own(lease: &Lease, who: &Principal) -> bool {
    let pod = pod_of(who);
    let uid = |pod: &LeasePod| (pod.cluster.clone(), pod.uid.clone());
    lease.holder == who.name() && lease.pod.as_ref().map(uid) == pod.as_ref().map(uid)
}

impl Engine {
    /// Ends a lease. A holder may end his own.
    ///
    /// # Errors
    /// [`Error::Outside`] when the database did not drop the account; that is tried again until it
    /// has. [`Error::Denied`], also when there is no such lease; [`Error::Conflict`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn end_credentials(
        self: &Arc<Self>,
        call: &Call,
        role: Name,
        id: LeaseId,
        ending: Ending,
    ) -> Result<(), Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let turn = engine.leases.take(id).await;
            let held = engine.held_lease(&role, id).await?;
            let is_own = held.as_ref().is_some_and(|h| is_own(&h.lease, &call.caller.principal));
            let done = if is_own && ending == Ending::Drop {
                engine.end_as::<GetDatabaseCredentials>(&call, (&role, id), held, ending).await
            } else {
                engine.end_as::<RevokeDatabaseCredentials>(&call, (&role, id), held, ending).await
            };
            drop(turn);
            done
        })
        .await?
    }

    async fn end_as<A: Action>(
        &self,
        call: &Call,
        (role, id): (&Name, LeaseId),
        held: Option<Held>,
        ending: Ending,
    ) -> Result<(), Error> {
        let mut trail = Trail::of::<A>(self, call);
        trail.target = Some(target(role, Some(id)));
        let outcome = self.try_end::<A>(&mut trail, role, held, ending).await;
        trail.close(self, outcome).await
    }

    async fn try_end<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        role: &Name,
        held: Option<Held>,
        ending: Ending,
    ) -> Result<(), Error> {
        self.permit::<A>(trail, resource(role))?;
        let held = held.ok_or_else(|| {
            trail.reason = "no such lease".into();
            Error::Denied
        })?;
        trail.call().go_on()?;
        if ending == Ending::Forget {
            trail.reason = "forgotten: its account was not dropped".into();
        }
        trail.intend(self).await?;
        match ending {
            Ending::Drop => self.end_lease(held).await,
            Ending::Forget => self.forget_lease(held).await,
        }
    }

    /// Drops the account of a lease, and forgets the lease. What fails is tried again later.
    pub(super) async fn end_lease(&self, held: Held) -> Result<(), Error> {
        let now = self.clock.observe().elapsed;
        let held = if held.lease.step == LeaseStep::Ending {
            held
        } else {
            let after = Lease { step: LeaseStep::Ending, due: now, ..held.lease.clone() };
            self.change_lease(held, after).await?
        };
        let Lease { database, account, group, .. } = &held.lease;
        match self.drop_account(database, account, Some(group)).await {
            Ok(()) => {
                self.leases.count(|totals| totals.ended += 1);
                self.forget_lease(held).await
            }
            Err(error) => {
                let after = held.lease.clone().failed(now, error.to_string());
                self.change_lease(held, after).await?;
                Err(error)
            }
        }
    }

    /// Drops an account; `group` is that of its lease, if it has one.
    pub(super) async fn drop_account(
        &self,
        database: &Name,
        account: &str,
        group: Option<&str>,
    ) -> Result<(), Error> {
        let root = self.reachable_root(database).await?;
        let databases = &self.ports.databases;
        let dropped = databases.drop_account(root.at(), root.login(), account, group).await;
        self.settled(&root, dropped)
    }

    async fn forget_lease(&self, held: Held) -> Result<(), Error> {
        let path = RecordPath::lease(&held.lease.role, held.lease.id);
        let write = Write { path, expected: Expected::At(held.revision), record: None };
        self.store.commit(vec![write]).await?;
        Ok(())
    }

    /// Lets a lease of the caller's own live on.
    ///
    /// # Errors
    /// [`Error::Denied`], also when there is no such lease or it is not his;
    /// [`Error::Invalid`] when its account is being made or dropped; [`Error::Outside`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn renew_credentials(
        self: &Arc<Self>,
        call: &Call,
        role: Name,
        id: LeaseId,
    ) -> Result<LeaseView, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let turn = engine.leases.take(id).await;
            let mut trail = Trail::of::<GetDatabaseCredentials>(&engine, &call);
            trail.target = Some(target(&role, Some(id)));
            let outcome = engine.try_renew(&mut trail, &role, id).await;
            drop(turn);
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_renew(
        &self,
        trail: &mut Trail<'_>,
        name: &Name,
        id: LeaseId,
    ) -> Result<LeaseView, Error> {
        self.permit::<GetDatabaseCredentials>(trail, resource(name))?;
        let (role, held) = (self.database_role(name).await?, self.held_lease(name, id).await?);
        let held = held.filter(|held| is_own(&held.lease, &trail.call().caller.principal));
        let (Some(role), Some(held)) = (role, held) else {
            trail.reason = "no such lease of the caller".into();
            return Err(Error::Denied);
        };
        if !is_in_use(&held.lease) {
            return Err(Error::invalid("lease", "its account is being made or dropped"));
        }
        trail.call().go_on()?;
        trail.intend(self).await?;
        let held = self.renew(&role, held).await?;
        if let Some(problem) = held.lease.problem {
            return Err(Error::Outside(problem.into()));
        }
        Ok(LeaseView::of(held.lease, &self.clock.observe()))
    }

    /// The leases of a role, a page at a time.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit outside 1 to 1,000; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list_leases(
        &self,
        call: &Call,
        role: &Name,
        after: Option<LeaseId>,
        limit: usize,
    ) -> Result<Page<LeaseView>, Error> {
        let mut trail = Trail::of::<ReadDatabaseRoles>(self, call);
        trail.target = Some(target(role, None));
        let outcome = self.try_list_leases(&mut trail, role, after, limit).await;
        trail.close(self, outcome).await
    }

    async fn try_list_leases(
        &self,
        trail: &mut Trail<'_>,
        role: &Name,
        after: Option<LeaseId>,
        limit: usize,
    ) -> Result<Page<LeaseView>, Error> {
        let one_more = check_limit(limit)?;
        self.permit::<ReadDatabaseRoles>(trail, resource(role))?;
        trail.call().go_on()?;
        let clock = self.clock.observe();
        let stored = self.store.scan(&PathRange::leases(role, after, one_more)).await?;
        let views = stored.into_iter().map(|stored| Ok(LeaseView::of(lease_in(stored)?, &clock)));
        Ok(Page::cut(views.collect::<Result<Vec<_>, Error>>()?, limit))
    }
}
