//! The root account of a database: its password, and what is done with it.
//!
//! Room      `service`.
//! Holds     while the password is being changed the old and the new one are kept, and one of them
//!           opens; the database says which.

use lastkey_core::database::{Database, Endpoint, Login};
use lastkey_core::ids::Name;
use lastkey_core::outside::DatabaseError;
use lastkey_core::ports::{Expected, StoreError, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::version::WrappedKey;
use lastkey_secret::SecretVec;

use crate::engine::Engine;
use crate::error::Error;
use crate::root::SecretPlace;

/// A database with the password of its root account.
pub(crate) struct Root {
    pub(crate) database: Database,
    password: SecretVec,
}

impl Engine {
    /// A database, with the password that opens it.
    ///
    /// # Errors
    /// [`Error::Outside`] when there is none of this name, or it lets us in by neither password;
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn root_of(&self, name: &Name) -> Result<Root, Error> {
        let path = RecordPath::database(name);
        let Some(stored) = self.store.get(&path).await? else {
            return Err(Error::Outside(format!("there is no database {name} any more").into()));
        };
        let Record::Database(database) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        let Some(next) = &database.next_root_password else {
            let password = self.open_root(name, &database.root_password)?;
            return Ok(Root { database, password });
        };
        let root = Root { password: self.open_root(name, next)?, database: database.clone() };
        let is_set = match root.try_own(self).await {
            Ok(()) => true,
            Err(DatabaseError::Login(_)) => false,
            Err(error) => return Err(root.failed(&error)),
        };
        // The change of the password was cut off: now it is known how far it had come.
        let settled = if is_set {
            let root_rotated_at = Some(self.clock.wall());
            Database { root_password: next.clone(), root_rotated_at, ..database.clone() }
        } else {
            database.clone()
        };
        let settled = Database { next_root_password: None, ..settled };
        let record = Some(Record::Database(settled.clone()));
        let write = Write { path, expected: Expected::At(stored.revision), record };
        self.store.commit(vec![write]).await?;
        if is_set {
            return Ok(Root { database: settled, ..root });
        }
        let password = self.open_root(name, &settled.root_password)?;
        Ok(Root { database: settled, password })
    }

    fn open_root(&self, name: &Name, wrapped: &WrappedKey) -> Result<SecretVec, Error> {
        let place = SecretPlace::DatabaseRoot(name);
        self.keyring.materials.unwrap_secret(place, wrapped).map_err(Error::Internal)
    }
}

impl Root {
    /// A root account whose password is known.
    pub(super) const fn known(database: Database, password: SecretVec) -> Self {
        Self { database, password }
    }

    /// Where it is.
    pub(crate) fn at(&self) -> Endpoint<'_> {
        Endpoint {
            kind: self.database.kind,
            address: &self.database.address,
            authority: self.database.authority.as_deref(),
        }
    }

    /// Its account and password.
    pub(crate) fn login(&self) -> Login<'_> {
        Login { account: &self.database.root, password: &self.password }
    }

    /// What is said when it did not do something.
    pub(crate) fn failed(&self, error: &DatabaseError) -> Error {
        Error::Outside(format!("database {}: {error}", self.database.name).into())
    }

    /// Whether the root account opens.
    pub(crate) async fn try_own(&self, engine: &Engine) -> Result<(), DatabaseError> {
        engine.ports.databases.log_in(self.at(), self.login()).await
    }

    /// Gives an account a password.
    pub(crate) async fn set_password(
        &self,
        engine: &Engine,
        account: &str,
        password: &SecretVec,
    ) -> Result<(), Error> {
        let account = Login { account, password };
        let set = engine.ports.databases.set_password(self.at(), self.login(), account).await;
        set.map_err(|error| self.failed(&error))
    }

    /// Logs in as an account.
    pub(crate) async fn log_in(
        &self,
        engine: &Engine,
        account: &str,
        password: &SecretVec,
    ) -> Result<(), Error> {
        let tried = engine.ports.databases.log_in(self.at(), Login { account, password }).await;
        tried.map_err(|error| self.failed(&error))
    }

    /// Lets an account log in no more.
    pub(crate) async fn lock(&self, engine: &Engine, account: &str) -> Result<(), Error> {
        let locked = engine.ports.databases.lock(self.at(), self.login(), account).await;
        locked.map_err(|error| self.failed(&error))
    }
}
