//! Use cases for what administrators make and name: clusters, providers, roles, policies, nodes,
//! databases and their roles.
//!
//! Room      `service`.
//! Holds     a change of who may come in and as what is judged as a whole before it is written:
//!           every policy compiles and somebody is left who may change policies. Such changes
//!           are made one after the other, also by several servers on one store.

use std::sync::Arc;

use lastkey_core::access::{Cluster, Node, Policy, Provider, Revocation, RevokedWhat, Role, User};
use lastkey_core::database::Database;
use lastkey_core::ids::Name;
use lastkey_core::lease::DatabaseRole;
use lastkey_core::permit::{
    Action, ReadClusters, ReadDatabaseRoles, ReadDatabases, ReadNodes, ReadPolicies, ReadProviders,
    ReadRoles, ReadUsers, Resource, ResourceKind, UpdateCluster, UpdateDatabase,
    UpdateDatabaseRole, UpdateNode, UpdatePolicy, UpdateProvider, UpdateRole, UpdateUser,
};
use lastkey_core::ports::{Expected, Revision, StoreError, Write};
use lastkey_core::record::{PathRange, Record, RecordPath};
use lastkey_core::time::{ClockRecord, Timestamp};

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::describe::check_limit;
use crate::sealing::detached;
use crate::view::Page;

/// Something that administrators make and name.
pub trait Named: Clone + Send + Sync + 'static {
    /// What it is to policy.
    const KIND: ResourceKind;
    /// Word in paths and in the audit log.
    const WORD: &'static str;
    /// What changing it is called.
    type Update: Action;
    /// What reading it is called.
    type Read: Action;

    /// Its name.
    fn name(&self) -> &Name;
    /// It as a record.
    fn into_record(self) -> Record;
    /// A record as one of these.
    fn from_record(record: Record) -> Option<Self>;
}

/// Implements [`Named`] for one type.
macro_rules! named {
    ($($type:ident, $word:literal, $update:ty, $read:ty;)*) => {$(
        impl Named for $type {
            const KIND: ResourceKind = ResourceKind::$type;
            const WORD: &'static str = $word;
            type Update = $update;
            type Read = $read;

            fn name(&self) -> &Name {
                &self.name
            }

            fn into_record(self) -> Record {
                Record::$type(self)
            }

            fn from_record(record: Record) -> Option<Self> {
                if let Record::$type(this) = record { Some(this) } else { None }
            }
        }
    )*};
}

named! {
    Cluster, "cluster", UpdateCluster, ReadClusters;
    Provider, "provider", UpdateProvider, ReadProviders;
    Role, "role", UpdateRole, ReadRoles;
    Policy, "policy", UpdatePolicy, ReadPolicies;
    User, "user", UpdateUser, ReadUsers;
    Node, "node", UpdateNode, ReadNodes;
    Database, "database", UpdateDatabase, ReadDatabases;
    DatabaseRole, "database-role", UpdateDatabaseRole, ReadDatabaseRoles;
}

fn path_of<T: Named>(name: &Name) -> RecordPath {
    RecordPath::from_stored(format!("{}/{name}", T::WORD))
}

/// What a change wants.
pub(crate) struct Planned<T> {
    /// The new form; `None` removes it.
    pub(crate) after: Option<T>,
    /// What is written beside it.
    pub(crate) beside: Vec<Write>,
    /// Sessions that end with the change, those included that were opened just before.
    pub(crate) revokes: Option<RevokedWhat>,
}

impl<T> Planned<T> {
    /// Writes this and nothing beside it.
    pub(crate) const fn put(after: T) -> Self {
        Self { after: Some(after), beside: Vec::new(), revokes: None }
    }

    /// Removes it.
    pub(crate) const fn remove() -> Self {
        Self { after: None, beside: Vec::new(), revokes: None }
    }

    /// The same, and ends these sessions.
    pub(crate) fn revoking(self, what: RevokedWhat) -> Self {
        Self { revokes: Some(what), ..self }
    }
}

/// What a plan may look at.
pub(crate) struct Before<'a, T> {
    /// What is there now.
    pub(crate) current: Option<&'a T>,
    /// Version of the newest text that is kept beside it; 0 when there is none.
    pub(crate) kept: u32,
    /// The wall clock.
    pub(crate) now: Timestamp,
    /// Service time.
    pub(crate) clock: ClockRecord,
    /// Who changes it.
    pub(crate) by: &'a str,
}

impl Engine {
    /// Changes one of the things that administrators name. Runs to its end even when the caller
    /// goes away.
    ///
    /// # Errors
    /// Those of the plan; [`Error::Invalid`] when a policy does not compile or nobody would be
    /// left who may change policies; [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn change_named<T: Named>(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        plan: impl FnOnce(&Before<'_, T>) -> Result<Planned<T>, Error> + Send + 'static,
    ) -> Result<Option<T>, Error> {
        self.change_named_as::<T, T::Update>(call, name, plan).await
    }

    /// As [`Engine::change_named`], under the name of another action.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn change_named_as<T: Named, A: Action>(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        plan: impl FnOnce(&Before<'_, T>) -> Result<Planned<T>, Error> + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = Trail::of::<A>(&engine, &call);
            trail.target = Some(format!("{}/{name}", T::WORD));
            let outcome = engine.try_change_named::<T, A>(&mut trail, &name, plan).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_change_named<T: Named, A: Action>(
        &self,
        trail: &mut Trail<'_>,
        name: &Name,
        plan: impl FnOnce(&Before<'_, T>) -> Result<Planned<T>, Error> + Send,
    ) -> Result<Option<T>, Error> {
        let resource = Resource::Named(T::KIND, name.as_str().to_owned());
        self.permit::<A>(trail, resource)?;
        let changing = self.access_changes.lock().await;
        let path = path_of::<T>(name);
        let (current, expected) = match self.read_one::<T>(&path).await? {
            Some((current, revision)) => (Some(current), Expected::At(revision)),
            None => (None, Expected::Absent),
        };
        let before = Before {
            current: current.as_ref(),
            kept: if T::KIND == ResourceKind::Policy { self.newest_kept(name).await? } else { 0 },
            now: trail.at(),
            clock: self.clock.observe(),
            by: trail.call().caller.principal.name(),
        };
        let Planned { after, beside, revokes } = plan(&before)?;
        let mut batch = beside;
        let revocation = self.revoke_beside(revokes, &mut batch).await?;
        if current.is_some() || after.is_some() {
            let record = after.clone().map(T::into_record);
            batch.push(Write { path: path.clone(), expected, record });
        }
        let candidate = self.judge(&path, after.clone().map(T::into_record)).await?;
        trail.call().go_on()?;
        trail.intend(self).await?;
        batch.push(candidate.count());
        let committed = self.store.commit(batch).await;
        if T::KIND == ResourceKind::Node {
            self.reload_node(name).await;
        }
        committed?;
        self.install(candidate);
        if let Some(revocation) = &revocation {
            self.sessions.revoke(revocation);
        }
        drop(changing);
        Ok(after)
    }

    /// Adds a revocation of what was opened until now to a batch. It counts once that is
    /// written.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn revoke_beside(
        &self,
        what: Option<RevokedWhat>,
        batch: &mut Vec<Write>,
    ) -> Result<Option<Revocation>, Error> {
        let Some(what) = what else { return Ok(None) };
        let (revocation, write) = self.plan_revocation(self.revocation_of(what).await?).await?;
        batch.push(write);
        Ok(Some(revocation))
    }

    /// One of the things that administrators name.
    ///
    /// # Errors
    /// [`Error::Denied`] when there is none or policy says no; [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn read_named<T: Named>(&self, call: &Call, name: &Name) -> Result<T, Error> {
        let mut trail = Trail::of::<T::Read>(self, call);
        trail.target = Some(format!("{}/{name}", T::WORD));
        let outcome = self.try_read_named(&mut trail, name).await;
        trail.close(self, outcome).await
    }

    async fn try_read_named<T: Named>(
        &self,
        trail: &mut Trail<'_>,
        name: &Name,
    ) -> Result<T, Error> {
        let resource = Resource::Named(T::KIND, name.as_str().to_owned());
        self.permit::<T::Read>(trail, resource)?;
        trail.call().go_on()?;
        let found = self.read_one::<T>(&path_of::<T>(name)).await?;
        found.map(|(found, _)| found).ok_or_else(|| {
            trail.reason = "there is none of this name".into();
            Error::Denied
        })
    }

    /// Things of one kind by name, a page at a time.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit outside 1 to 1,000; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn list_named<T: Named>(
        &self,
        call: &Call,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Page<T>, Error> {
        let mut trail = Trail::of::<T::Read>(self, call);
        let outcome = self.try_list_named(&mut trail, after, limit).await;
        trail.close(self, outcome).await
    }

    async fn try_list_named<T: Named>(
        &self,
        trail: &mut Trail<'_>,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Page<T>, Error> {
        let one_more = check_limit(limit)?;
        self.permit::<T::Read>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        let after = after.map(|name| path_of::<T>(&name));
        let stored = self.store.scan(&PathRange::kind(T::WORD, after, one_more)).await?;
        let items = stored.into_iter().map(|stored| {
            let path = stored.path;
            T::from_record(stored.record).ok_or_else(|| StoreError::Corrupt(path).into())
        });
        Ok(Page::cut(items.collect::<Result<Vec<_>, Error>>()?, limit))
    }

    /// One record of a kind, with its revision.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn read_one<T: Named>(
        &self,
        path: &RecordPath,
    ) -> Result<Option<(T, Revision)>, Error> {
        let Some(stored) = self.store.get(path).await? else {
            return Ok(None);
        };
        let found = T::from_record(stored.record);
        let found = found.ok_or_else(|| Error::from(StoreError::Corrupt(stored.path)))?;
        Ok(Some((found, stored.revision)))
    }
}
