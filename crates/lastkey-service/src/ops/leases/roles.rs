//! Use cases: say what accounts of a database are made like; remove that.
//!
//! Room      `service`.
//! Holds     whoever names a database may change that database: its accounts are what the statements
//!           of the role make them. The database has tried the role before it is written down.

use std::sync::Arc;

use lastkey_core::database::{Database, Login};
use lastkey_core::ids::Name;
use lastkey_core::lease::{BadDatabaseRole, DatabaseRole, GRACE, LeaseId, NoLease};
use lastkey_core::outside::NewAccount;
use lastkey_core::permit::{Resource, ResourceKind, UpdateDatabase, UpdateDatabaseRole};
use lastkey_core::ports::{Expected, Write};
use lastkey_core::record::{PathRange, Record, RecordPath};

use super::{resource, target};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::named::Planned;
use crate::root::draw_id;
use crate::sealing::detached;

/// A role that shall be made.
#[derive(Clone, Debug)]
pub struct DatabaseRoleRequest {
    /// The database, by its name here.
    pub database: Name,
    /// The role there that every account is a member of.
    pub group: String,
    /// What else is done to a new account, in SQL.
    pub statements: Vec<String>,
    /// Life of a lease between two renewals, in seconds.
    pub ttl_secs: u64,
    /// Longest life of a lease with all renewals, in seconds.
    pub max_ttl_secs: u64,
    /// Leases at a time.
    pub max_leases: u32,
}

impl From<BadDatabaseRole> for Error {
    fn from(error: BadDatabaseRole) -> Self {
        let field = match error {
            BadDatabaseRole::Group => "group",
            BadDatabaseRole::Statements => "statements",
            BadDatabaseRole::Ttl => "ttl_seconds",
            BadDatabaseRole::MaxTtl => "max_ttl_seconds",
            BadDatabaseRole::MaxLeases => "max_leases",
        };
        Self::invalid(field, error.to_string())
    }
}

impl From<NoLease> for Error {
    fn from(error: NoLease) -> Self {
        Self::LimitExceeded(match error {
            NoLease::OfRole => {
                "this role has as many leases as it may; end some of them, or make a role that may \
                 have more (--max-leases)"
            }
            NoLease::OfHolder => {
                "the caller has half of the leases that this role may have, and the rest is for \
                 others; end some of them, or make a role that may have more (--max-leases)"
            }
        })
    }
}

impl Engine {
    /// Makes a role of a database, after the database has made an account by it and taken that back.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a role that cannot be; [`Error::Denied`], also for a database that is
    /// not there or that the caller may not change; [`Error::Outside`] when the database refuses
    /// such an account; [`Error::AlreadyExists`], [`Error::Conflict`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn add_database_role(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        request: DatabaseRoleRequest,
    ) -> Result<DatabaseRole, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<UpdateDatabaseRole>(&engine, &call);
            trail.target = Some(target(&name, None));
            let outcome = engine.try_add_role(&mut trail, name, request).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_add_role(
        &self,
        trail: &mut Trail<'_>,
        name: Name,
        request: DatabaseRoleRequest,
    ) -> Result<DatabaseRole, Error> {
        self.permit::<UpdateDatabaseRole>(trail, resource(&name))?;
        let allowed = trail.reason.clone();
        let database = request.database.as_str().to_owned();
        self.permit::<UpdateDatabase>(trail, Resource::Named(ResourceKind::Database, database))?;
        trail.reason = allowed;
        let role = DatabaseRole {
            name,
            database: request.database,
            group: request.group,
            statements: request.statements,
            ttl_secs: request.ttl_secs,
            max_ttl_secs: request.max_ttl_secs,
            max_leases: request.max_leases,
            created_at: trail.at(),
        };
        role.check()?;
        self.check_database(&role.database).await.inspect_err(|_| {
            trail.reason = "no such database".into();
        })?;
        let path = RecordPath::database_role(&role.name);
        if self.store.get(&path).await?.is_some() {
            return Err(Error::AlreadyExists);
        }
        if !self.store.scan(&PathRange::leases(&role.name, None, 1)).await?.is_empty() {
            let problem = "leases of a role of this name that was deleted are not ended yet; \
                           `database lease list` shows them";
            return Err(Error::invalid("name", problem));
        }
        trail.call().go_on()?;
        trail.intend(self).await?;
        self.try_role(&role).await?;
        let _turn = self.leases.beginning.lock().await;
        // It may have been removed while it tried the role.
        self.check_database(&role.database).await?;
        let record = Some(Record::DatabaseRole(role.clone()));
        self.store.commit(vec![Write { path, expected: Expected::Absent, record }]).await?;
        Ok(role)
    }

    /// Whether there is such a database.
    ///
    /// # Errors
    /// [`Error::Denied`] when there is none; [`Error::Unavailable`], [`Error::Internal`].
    pub(super) async fn check_database(&self, name: &Name) -> Result<(), Error> {
        let found = self.read_one::<Database>(&RecordPath::database(name)).await?;
        found.map(drop).ok_or(Error::Denied)
    }

    /// Lets the database make an account by a role, and take it back.
    async fn try_role(&self, role: &DatabaseRole) -> Result<(), Error> {
        let drawn = draw_id(&mut *self.ports.entropy.open());
        let id = LeaseId(drawn.map_err(|error| Error::Internal(error.into()))?);
        let (account, password) = (id.account(self.instance), self.draw_password()?);
        // While it is tried it has no lease, and is dropped by nobody else.
        let _turn = self.leases.take(id).await;
        let root = self.reachable_root(&role.database).await?;
        let new = NewAccount {
            login: Login { account: &account, password: &password },
            group: &role.group,
            lasts: GRACE,
            statements: &role.statements,
            comment: "Lastkey: a trial that is taken back",
        };
        let tried = self.ports.databases.try_account(root.at(), root.login(), new).await;
        self.settled(&root, tried)
    }

    /// Removes a role; its leases end and their accounts are dropped.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`],
    /// [`Error::Internal`].
    pub async fn remove_database_role(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
    ) -> Result<(), Error> {
        let removed = self.change_named::<DatabaseRole>(call, name, |before| {
            before.current.ok_or(Error::Denied)?;
            Ok(Planned::remove())
        });
        removed.await?;
        self.leases.wake.notify_one();
        Ok(())
    }

    /// Whether a role or a lease needs a database.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn is_leased(&self, database: &Name) -> Result<bool, Error> {
        let roles = self.store.scan(&PathRange::kind("database-role", None, usize::MAX)).await?;
        let is_its = |record: &Record| matches!(record, Record::DatabaseRole(role) if role.database == *database);
        if roles.iter().any(|stored| is_its(&stored.record)) {
            return Ok(true);
        }
        Ok(self.all_leases().await?.iter().any(|lease| lease.database == *database))
    }
}
