//! Use cases: make a database known, draw a new password for its root account, remove it.
//!
//! Room      `service`.
//! Holds     a database is asked whether it lets the root account in before it is written down. A
//!           password of our own is kept before it is set.

use std::sync::Arc;

use lastkey_core::database::{Database, DatabaseKind, Login};
use lastkey_core::ids::Name;
use lastkey_core::permit::{Resource, ResourceKind, UpdateDatabase};
use lastkey_core::ports::{Expected, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::secret_rotation::{Recipe, is_account};
use lastkey_core::version::WrappedKey;
use lastkey_secret::SecretVec;

use super::root::{endpoint, failed};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;
use crate::ops::named::Planned;
use crate::ops::secrets::check_place;
use crate::root::SecretPlace;
use crate::sealing::detached;

/// A database that shall be known.
#[derive(Debug)]
pub struct DatabaseRequest {
    /// What it speaks.
    pub kind: DatabaseKind,
    /// Where it is.
    pub address: String,
    /// Whose certificate it shows, in PEM.
    pub authority: Option<String>,
    /// The account by which others are managed.
    pub root: String,
    /// The password of that account.
    pub password: SecretVec,
    /// That password stays, and whoever knows it knows it still.
    pub keeps_password: bool,
}

impl Engine {
    /// Makes a database known, and gives its root account a password that nobody else knows.
    ///
    /// # Errors
    /// [`Error::Outside`] when it does not let the account in; [`Error::AlreadyExists`];
    /// [`Error::Invalid`], [`Error::Denied`], [`Error::Conflict`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn add_database(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
        request: DatabaseRequest,
    ) -> Result<Database, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = engine.database_trail(&call, &name);
            let outcome = engine.try_add_database(&mut trail, &name, request).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    fn database_trail<'a>(&self, call: &'a Call, name: &Name) -> Trail<'a> {
        let mut trail = Trail::of::<UpdateDatabase>(self, call);
        trail.target = Some(format!("database/{name}"));
        trail
    }

    fn permit_database(&self, trail: &mut Trail<'_>, name: &Name) -> Result<(), Error> {
        let resource = Resource::Named(ResourceKind::Database, name.as_str().to_owned());
        self.permit::<UpdateDatabase>(trail, resource).map(|_| ())
    }

    async fn try_add_database(
        &self,
        trail: &mut Trail<'_>,
        name: &Name,
        request: DatabaseRequest,
    ) -> Result<Database, Error> {
        self.permit_database(trail, name)?;
        check_place("address", &request.address, request.authority.as_deref())?;
        if !is_account(&request.root) {
            let problem = "an account has 1 to 32 bytes, none of them a control character";
            return Err(Error::invalid("user", problem));
        }
        let path = RecordPath::database(name);
        if self.store.get(&path).await?.is_some() {
            return Err(Error::AlreadyExists);
        }
        trail.call().go_on()?;
        trail.intend(self).await?;
        let database = Database {
            name: name.clone(),
            kind: request.kind,
            address: request.address,
            authority: request.authority,
            root: request.root,
            root_password: self.wrap_root(name, &request.password)?,
            next_root_password: None,
            root_rotated_at: None,
            created_at: trail.at(),
        };
        let login = Login { account: &database.root, password: &request.password };
        let opened = self.ports.databases.log_in(endpoint(&database), login).await;
        opened.map_err(|error| failed(name, &error))?;
        let record = Some(Record::Database(database.clone()));
        self.store.commit(vec![Write { path, expected: Expected::Absent, record }]).await?;
        if request.keeps_password { Ok(database) } else { self.draw_root(name).await }
    }

    /// Gives the root account of a database a new password, which nobody else knows.
    ///
    /// # Errors
    /// [`Error::Outside`] when the database refuses; [`Error::Denied`], [`Error::Conflict`],
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn rotate_database_root(
        self: &Arc<Self>,
        call: &Call,
        name: Name,
    ) -> Result<Database, Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move {
            let mut trail = engine.database_trail(&call, &name);
            let outcome = engine.try_rotate_root(&mut trail, &name).await;
            trail.close(&engine, outcome).await
        })
        .await?
    }

    async fn try_rotate_root(&self, trail: &mut Trail<'_>, name: &Name) -> Result<Database, Error> {
        self.permit_database(trail, name)?;
        if self.store.get(&RecordPath::database(name)).await?.is_none() {
            trail.reason = "there is none of this name".into();
            return Err(Error::Denied);
        }
        trail.call().go_on()?;
        trail.intend(self).await?;
        self.draw_root(name).await
    }

    /// Draws, keeps, sets and tries a new password.
    async fn draw_root(&self, name: &Name) -> Result<Database, Error> {
        let root = self.root_of(name).await?;
        let drawn = self.draw_password()?;
        let path = RecordPath::database(name);
        let Some(stored) = self.store.get(&path).await? else { return Err(Error::Conflict) };
        if stored.record != Record::Database(root.database.clone()) {
            return Err(Error::Conflict);
        }
        let next_root_password = Some(self.wrap_root(name, &drawn)?);
        let record =
            Some(Record::Database(Database { next_root_password, ..root.database.clone() }));
        let write = Write { path, expected: Expected::At(stored.revision), record };
        self.store.commit(vec![write]).await?;
        // Whatever comes of it: what was drawn is set until it opens.
        if let Err(error) = root.set_password(self, &root.database.root, &drawn).await {
            tracing::warn!(%error, "the password of a root account is set once more");
        }
        Ok(self.settled_root(name, root.into_turn()).await?.database)
    }

    /// A password for an account of a database.
    pub(crate) fn draw_password(&self) -> Result<SecretVec, Error> {
        let recipe = Recipe::new(Recipe::DEFAULT_LENGTH, Recipe::ALPHANUMERIC, None)?;
        let drawn = recipe.draw(&mut *self.ports.entropy.open());
        drawn.map_err(|error| Error::Internal(error.into()))
    }

    fn wrap_root(&self, name: &Name, password: &SecretVec) -> Result<WrappedKey, Error> {
        let (place, mut entropy) = (SecretPlace::DatabaseRoot(name), self.ports.entropy.open());
        let wrapped = self.keyring.materials.wrap_secret(place, password, &mut *entropy);
        wrapped.map_err(Error::Internal)
    }

    /// Forgets a database. Its accounts stay as they are, and nobody knows the password of the root
    /// account any more if it was drawn here.
    ///
    /// # Errors
    /// [`Error::Invalid`] while there are roles or leases of it; [`Error::Denied`],
    /// [`Error::Conflict`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn remove_database(self: &Arc<Self>, call: &Call, name: Name) -> Result<(), Error> {
        let (engine, call) = (Arc::clone(self), call.clone());
        detached(async move { engine.remove_unleased(&call, name).await }).await?
    }

    async fn remove_unleased(self: &Arc<Self>, call: &Call, name: Name) -> Result<(), Error> {
        let resource = Resource::Named(ResourceKind::Database, name.as_str().to_owned());
        // Until it is removed there is no new role or lease of it.
        let _turn = self.leases.beginning.lock().await;
        if self.may::<UpdateDatabase>(call, resource) && self.is_leased(&name).await? {
            let problem = "there are roles of this database, or leases that were not ended: delete \
                           the roles first (`lastkey database role list`)";
            return Err(Error::invalid("name", problem));
        }
        let removed = self.change_named::<Database>(call, name, |before| {
            before.current.ok_or(Error::Denied)?;
            Ok(Planned::remove())
        });
        removed.await.map(|_| ())
    }
}
