//! Use case: an account of a database for whoever asks, by a role.
//!
//! Room      `service`.
//! Holds     a pod has one lease for each role: it is given the same account however often it asks,
//!           and asking renews it. The lease is written before the account is made, and the password
//!           leaves when the account was seen to open by it. A token that is bound to no pod gets none:
//!           nobody would say when it is not needed any more.

use std::sync::Arc;
use std::time::Duration;

use lastkey_core::database::{Database, Login};
use lastkey_core::ids::Name;
use lastkey_core::lease::{DatabaseRole, GRACE, Lease, LeaseId, LeasePod, LeaseStep, MAKING};
use lastkey_core::outside::{DatabaseError, NewAccount};
use lastkey_core::permit::GetDatabaseCredentials;
use lastkey_core::ports::{Expected, Revision, Write};
use lastkey_core::principal::{Kind, Principal};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_secret::SecretVec;

use super::{ATTEMPTS, Held, LeaseView, lease_in, resource, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::databases::Root;
use crate::root::{SecretPlace, draw_id};
use crate::sealing::detached;

/// An account, and what opens it.
#[derive(Debug)]
pub struct Credentials {
    /// Its lease.
    pub lease: LeaseView,
    /// Its password.
    pub password: SecretVec,
    /// Where its database is, as the operator wrote it.
    pub address: String,
}

/// The pod that calls.
pub(super) fn pod_of(who: &Principal) -> Option<LeasePod> {
    match &who.identity().kind {
        Kind::Workload(one) => one.pod.as_ref().map(|pod| LeasePod {
            cluster: one.cluster.clone(),
            uid: pod.uid.clone(),
            name: pod.name.clone(),
            account_uid: one.service_account_uid.clone(),
        }),
        Kind::System | Kind::User | Kind::Node | Kind::Federated { .. } => None,
    }
}

/// Refuses a session by a token of a ServiceAccount that is bound to no pod.
fn need_pod_of_workload(who: &Principal) -> Result<(), Error> {
    match &who.identity().kind {
        Kind::Workload(one) if one.pod.is_none() => {
            let problem = "it is bound to no pod, and an account of a database lives as long as its \
                           pod: ask from a pod, or keep account and password in a secret";
            Err(Error::invalid("token", problem))
        }
        Kind::Workload(_) | Kind::System | Kind::User | Kind::Node | Kind::Federated { .. } => {
            Ok(())
        }
    }
}

impl Engine {
    /// An account of a database. A pod is given the one that it has, and that lives on.
    ///
    /// # Errors
    /// [`Error::Outside`] when the database refuses or cannot be reached; [`Error::LimitExceeded`]
    /// when the role has as many leases as it may; [`Error::Invalid`] for a token that is bound to no
    /// pod; [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn issue_credentials(
        self: &Arc<Self>,
        call: &Call,
        role: Name,
    ) -> Result<Credentials, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<GetDatabaseCredentials>(&engine, &call);
            trail.target = Some(target(&role, None));
            let outcome = engine.try_issue(&mut trail, &role).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_issue(&self, trail: &mut Trail<'_>, name: &Name) -> Result<Credentials, Error> {
        self.permit::<GetDatabaseCredentials>(trail, resource(name))?;
        let role = self.database_role(name).await?.ok_or_else(|| {
            trail.reason = "no such role of a database".into();
            Error::Denied
        })?;
        need_pod_of_workload(&trail.call().caller.principal)?;
        trail.call().go_on()?;
        let pod = pod_of(&trail.call().caller.principal);
        let id = match &pod {
            Some(pod) => LeaseId::of_pod(name, pod),
            None => self.draw_lease_id()?,
        };
        trail.target = Some(target(name, Some(id)));
        let turn = self.leases.take(id).await;
        trail.intend(self).await?;
        for _ in 0..ATTEMPTS {
            match self.issue_once(trail, &role, id, pod.as_ref()).await {
                // Another server works on it: it is looked at anew.
                Err(Error::Conflict) => {}
                issued => {
                    drop(turn);
                    return issued;
                }
            }
        }
        Err(Error::Conflict)
    }

    /// A role of a database, if it is there.
    pub(super) async fn database_role(&self, name: &Name) -> Result<Option<DatabaseRole>, Error> {
        let found = self.read_one::<DatabaseRole>(&RecordPath::database_role(name)).await?;
        Ok(found.map(|(role, _)| role))
    }

    fn draw_lease_id(&self) -> Result<LeaseId, Error> {
        let drawn = draw_id(&mut *self.ports.entropy.open());
        drawn.map(LeaseId).map_err(|error| Error::Internal(error.into()))
    }

    async fn issue_once(
        &self,
        trail: &Trail<'_>,
        role: &DatabaseRole,
        id: LeaseId,
        pod: Option<&LeasePod>,
    ) -> Result<Credentials, Error> {
        if let Some(held) = self.held_lease(&role.name, id).await? {
            match held.lease.step {
                LeaseStep::InUse => return self.live_on(role, held).await,
                LeaseStep::Making => return self.make_account(role, held).await,
                // It was revoked, and whoever asks now may have another one.
                LeaseStep::Ending => self.end_lease(held).await?,
            }
        }
        let held = self.begin_lease(trail, role, id, pod).await?;
        self.make_account(role, held).await
    }

    /// Writes a lease down, before there is an account.
    async fn begin_lease(
        &self,
        trail: &Trail<'_>,
        role: &DatabaseRole,
        id: LeaseId,
        pod: Option<&LeasePod>,
    ) -> Result<Held, Error> {
        let _turn = self.leases.beginning.lock().await;
        self.check_database(&role.database).await?;
        let most = usize::try_from(role.max_leases).unwrap_or(usize::MAX);
        let there = self.store.scan(&PathRange::leases(&role.name, None, most)).await?;
        let there = there.into_iter().map(lease_in).collect::<Result<Vec<_>, _>>()?;
        role.has_room(&there, trail.call().caller.principal.name())?;
        let now = self.clock.observe().elapsed;
        let place = SecretPlace::Lease(&role.name, id);
        let password = {
            let (drawn, mut entropy) = (self.draw_password()?, self.ports.entropy.open());
            let wrapped = self.keyring.materials.wrap_secret(place, &drawn, &mut *entropy);
            wrapped.map_err(Error::Internal)?
        };
        let lease = Lease {
            role: role.name.clone(),
            id,
            database: role.database.clone(),
            group: role.group.clone(),
            account: id.account(self.instance),
            password,
            holder: trail.call().caller.principal.name().to_owned(),
            pod: pod.cloned(),
            step: LeaseStep::Making,
            ttl_secs: role.ttl_secs,
            ends: now.after(MAKING),
            last_end: match pod {
                Some(_) => None,
                None => Some(now.after(Duration::from_secs(role.max_ttl_secs))),
            },
            due: now.after(MAKING),
            created_at: trail.at(),
            failures: 0,
            problem: None,
        };
        let path = RecordPath::lease(&role.name, id);
        let record = Some(Record::Lease(Box::new(lease.clone())));
        self.store.commit(vec![Write { path, expected: Expected::Absent, record }]).await?;
        Ok(Held { lease, revision: Revision(1) })
    }

    /// Makes the account of a lease, tries it, and lets the lease live.
    pub(super) async fn make_account(
        &self,
        role: &DatabaseRole,
        held: Held,
    ) -> Result<Credentials, Error> {
        let password = self.password_of(&held.lease)?;
        let root = self.reachable_root(&held.lease.database).await?;
        let made = self.made(role, &held.lease, &root, &password).await;
        // It may have been made: it stays as it is, and is taken up by who asks next.
        let is_known = !matches!(made, Err(DatabaseError::Away(_)));
        let made = self.settled(&root, made);
        let address = root.database.address.clone();
        drop(root);
        if let Err(error) = made {
            if is_known && let Err(left) = self.end_lease(held).await {
                tracing::warn!(error = %left, "an account that is not used is dropped later");
            }
            return Err(error);
        }
        self.leases.count(|totals| totals.made += 1);
        let clock = self.clock.observe();
        let after = held.lease.clone().renewed(clock.elapsed);
        let held = self.change_lease(held, after).await?;
        Ok(Credentials { lease: LeaseView::of(held.lease, &clock), password, address })
    }

    async fn made(
        &self,
        role: &DatabaseRole,
        lease: &Lease,
        root: &Root,
        password: &SecretVec,
    ) -> Result<(), DatabaseError> {
        let login = Login { account: &lease.account, password };
        let comment =
            format!("Lastkey: {} of {}", target(&lease.role, Some(lease.id)), lease.holder);
        let new = NewAccount {
            login,
            group: &lease.group,
            lasts: lasts(lease),
            statements: &role.statements,
            comment: &comment,
        };
        self.ports.databases.make_account(root.at(), root.login(), new).await?;
        self.ports.databases.log_in(root.at(), login).await
    }

    /// The account of a lease that is in use; it lives on when it is time for that.
    async fn live_on(&self, role: &DatabaseRole, held: Held) -> Result<Credentials, Error> {
        let is_due = held.lease.pod.is_some() && held.lease.due <= self.clock.observe().elapsed;
        let held = if is_due { self.renew(role, held).await? } else { held };
        let password = self.password_of(&held.lease)?;
        let path = RecordPath::database(&held.lease.database);
        let Some((database, _)) = self.read_one::<Database>(&path).await? else {
            return Err(Error::Outside("its database is not known here any more".into()));
        };
        let lease = LeaseView::of(held.lease, &self.clock.observe());
        Ok(Credentials { lease, password, address: database.address })
    }

    /// Lets a lease live on. One that has time left stays as it is when its database cannot be
    /// reached. An account that somebody has dropped is made again.
    pub(super) async fn renew(&self, role: &DatabaseRole, held: Held) -> Result<Held, Error> {
        let clock = self.clock.observe();
        let after = held.lease.clone().renewed(clock.elapsed);
        let lasts = clock.elapsed.until(after.ends).saturating_add(GRACE);
        match self.extend(&held.lease, lasts).await {
            Ok(true) => {
                self.leases.count(|totals| totals.renewed += 1);
                self.change_lease(held, after).await
            }
            Ok(false) => {
                tracing::warn!(
                    account = held.lease.account,
                    "an account was gone; it is made again"
                );
                let (name, id) = (held.lease.role.clone(), held.lease.id);
                self.make_account(role, held).await?;
                self.held_lease(&name, id).await?.ok_or(Error::Conflict)
            }
            Err(error) => {
                let has_time = held.lease.ends > clock.elapsed;
                let after = held.lease.clone().failed(clock.elapsed, error.to_string());
                let held = self.change_lease(held, after).await?;
                if has_time { Ok(held) } else { Err(error) }
            }
        }
    }

    async fn extend(&self, lease: &Lease, lasts: Duration) -> Result<bool, Error> {
        let root = self.reachable_root(&lease.database).await?;
        let databases = &self.ports.databases;
        let done = databases.extend_account(root.at(), root.login(), &lease.account, lasts).await;
        self.settled(&root, done)
    }
}

/// How long an account opens that is made now.
fn lasts(lease: &Lease) -> Duration {
    Duration::from_secs(lease.ttl_secs).saturating_add(GRACE)
}
