//! Use case: compare a database with its leases, and mend what is amiss.
//!
//! Room      `service`.
//! Holds     no account is dropped that a lease names or a trial is making: whoever makes one has
//!           written its lease before and has the turn of it; in that turn leases and accounts are
//!           looked at anew. No clock is asked how old they are. An account that is gone is made
//!           again only for a pod that is known to be there; any other lease without one is ended,
//!           so that what was revoked does not come back by a restored backup.

use std::collections::HashSet;
use std::sync::Arc;

use lastkey_core::ids::Name;
use lastkey_core::lease::{AccountNo, Lease, LeaseId, account_prefix};
use lastkey_core::outside::Standing;
use lastkey_core::permit::{KeepDatabaseCredentials, Resource, ResourceKind, UpdateDatabase};
use lastkey_core::record::RecordPath;

use super::{is_in_use, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::jobs::scheduled_call;
use crate::sealing::detached;

/// What was amiss in a database, and is not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Accounts without a lease, which were dropped.
    pub dropped: Vec<String>,
    /// Leases whose accounts were gone, and were made again.
    pub made_again: Vec<String>,
    /// Leases whose accounts were gone, and which were ended.
    pub ended: Vec<String>,
}

/// What is amiss in a database.
struct Amiss {
    strays: Vec<(AccountNo, String)>,
    bereft: Vec<(Name, LeaseId)>,
}

impl Engine {
    /// Compares a database with its leases, and mends what is amiss.
    ///
    /// # Errors
    /// [`Error::Outside`] when the database refuses or cannot be reached; [`Error::Denied`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn mend_database(self: &Arc<Self>, call: &Call, name: Name) -> Result<Mended, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<UpdateDatabase>(&engine, &call);
            trail.target = Some(format!("database/{name}"));
            let outcome = engine.try_mend(&mut trail, &name).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_mend(&self, trail: &mut Trail<'_>, name: &Name) -> Result<Mended, Error> {
        self.permit::<UpdateDatabase>(trail, database(name))?;
        if self.store.get(&RecordPath::database(name)).await?.is_none() {
            trail.reason = "there is none of this name".into();
            return Err(Error::Denied);
        }
        trail.call().go_on()?;
        let amiss = self.amiss(name).await?;
        trail.intend(self).await?;
        self.mend(name, amiss).await
    }

    /// The same by the scheduler, which says something only when there is something.
    pub(super) async fn compare(&self, name: &Name) -> Result<(), Error> {
        let amiss = self.amiss(name).await?;
        if amiss.strays.is_empty() && amiss.bereft.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            database = %name,
            accounts_without_lease = amiss.strays.len(),
            leases_without_account = amiss.bereft.len(),
            "a database and its leases differ"
        );
        let call = scheduled_call(self);
        let mut trail = Trail::of::<KeepDatabaseCredentials>(self, &call);
        trail.target = Some(format!("database/{name}"));
        let outcome = self.try_compare(&mut trail, name, amiss).await;
        trail.close(self, outcome).await
    }

    async fn try_compare(
        &self,
        trail: &mut Trail<'_>,
        name: &Name,
        amiss: Amiss,
    ) -> Result<(), Error> {
        self.permit::<KeepDatabaseCredentials>(trail, database(name))?;
        trail.reason = "the database and its leases differ".into();
        trail.intend(self).await?;
        self.mend(name, amiss).await.map(drop)
    }

    /// Leases are read before and after accounts are listed: what is made or ended meanwhile is in
    /// one of both, and is not amiss.
    async fn amiss(&self, name: &Name) -> Result<Amiss, Error> {
        let before = self.leases_in(name).await?;
        let accounts = self.accounts_of(name, &account_prefix(self.instance)).await?;
        let after = self.leases_in(name).await?;
        let leased: HashSet<&String> =
            before.iter().chain(&after).map(|lease| &lease.account).collect();
        let stray = |account: &String| {
            let no = AccountNo::in_name(account, self.instance)?;
            (!leased.contains(account)).then(|| (no, account.clone()))
        };
        let strays = accounts.iter().filter_map(stray).collect();
        let bereft = before.iter().filter(|one| is_in_use(one) && !accounts.contains(&one.account));
        let bereft = bereft.map(|lease| (lease.role.clone(), lease.id)).collect();
        Ok(Amiss { strays, bereft })
    }

    async fn leases_in(&self, database: &Name) -> Result<Vec<Lease>, Error> {
        let mut leases = self.all_leases().await?;
        leases.retain(|lease| lease.database == *database);
        Ok(leases)
    }

    /// The accounts of a database whose names begin so.
    async fn accounts_of(&self, database: &Name, prefix: &str) -> Result<Vec<String>, Error> {
        let root = self.reachable_root(database).await?;
        let listed = self.ports.databases.accounts(root.at(), root.login(), prefix).await;
        self.settled(&root, listed)
    }

    async fn mend(&self, name: &Name, amiss: Amiss) -> Result<Mended, Error> {
        let mut mended = Mended::default();
        let mut left = Ok(());
        for (no, account) in amiss.strays {
            // One that has to stay does not keep the rest from being mended.
            match self.drop_stray(name, no, &account).await {
                Ok(true) => mended.dropped.push(account),
                Ok(false) => {}
                Err(error) => left = Err(error),
            }
        }
        for (role, id) in amiss.bereft {
            self.mend_lease(&role, id, &mut mended).await?;
        }
        left.map(|()| mended)
    }

    /// Drops an account that had no lease when it was looked for, and has none still: a pod that
    /// comes back has the same account as before.
    async fn drop_stray(&self, name: &Name, no: AccountNo, account: &str) -> Result<bool, Error> {
        let _turn = self.leases.take_account(no).await;
        if self.leases_in(name).await?.iter().any(|lease| lease.account == account) {
            return Ok(false);
        }
        self.drop_account(name, account, None).await.map(|()| true)
    }

    async fn mend_lease(&self, name: &Name, id: LeaseId, mended: &mut Mended) -> Result<(), Error> {
        let _turn = self.leases.take(id).await;
        let Some(held) = self.held_lease(name, id).await? else { return Ok(()) };
        let Lease { database, account, .. } = &held.lease;
        // It may have been made since the accounts were listed; then nothing is amiss.
        if !is_in_use(&held.lease) || !self.accounts_of(database, account).await?.is_empty() {
            return Ok(());
        }
        let standing = self.standing_of(&held.lease);
        let is_there = matches!(standing, Standing::There | Standing::WasThere);
        let role = self.database_role(name).await?;
        let told = target(name, Some(id));
        match role.filter(|_| is_there) {
            Some(role) => {
                self.renew(&role, held).await?;
                mended.made_again.push(told);
            }
            None => {
                self.end_lease(held).await?;
                mended.ended.push(told);
            }
        }
        Ok(())
    }
}

fn database(name: &Name) -> Resource {
    Resource::Named(ResourceKind::Database, name.as_str().to_owned())
}
