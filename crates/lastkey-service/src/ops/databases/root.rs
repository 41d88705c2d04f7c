//! The root account of a database: its password, and what is done with it.
//!
//! Room      `service`.
//! Holds     one at a time uses the root account of a database. A password that was drawn is never
//!           forgotten before another one opens: while it is being set the old and the new one are
//!           kept, and the new one is set until it opens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lastkey_core::database::{Database, Endpoint, Login};
use lastkey_core::ids::Name;
use lastkey_core::outside::DatabaseError;
use lastkey_core::ports::{Expected, StoreError, Write};
use lastkey_core::record::{Record, RecordPath};
use lastkey_core::version::WrappedKey;
use lastkey_secret::SecretVec;
use tokio::sync::OwnedMutexGuard;

use crate::engine::Engine;
use crate::error::Error;
use crate::root::SecretPlace;

/// Whose turn it is with which root account, on this server.
#[derive(Debug, Default)]
pub(crate) struct RootTurns(Mutex<HashMap<Name, Arc<tokio::sync::Mutex<()>>>>);

/// The right to use one root account, or to change its password.
pub(super) type RootTurn = OwnedMutexGuard<()>;

impl RootTurns {
    async fn take(&self, name: &Name) -> RootTurn {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(name.clone()).or_default())
        };
        turn.lock_owned().await
    }
}

/// A database with the password of its root account, for as long as it is our turn.
pub(crate) struct Root {
    pub(crate) database: Database,
    password: SecretVec,
    turn: RootTurn,
}

impl Engine {
    /// A database, with the password that opens it.
    ///
    /// # Errors
    /// [`Error::Outside`] when there is none of this name, or it lets us in by neither password;
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub(crate) async fn root_of(&self, name: &Name) -> Result<Root, Error> {
        let turn = self.root_turns.take(name).await;
        self.settled_root(name, turn).await
    }

    /// The same, by whoever has the turn.
    pub(super) async fn settled_root(&self, name: &Name, turn: RootTurn) -> Result<Root, Error> {
        let path = RecordPath::database(name);
        let Some(stored) = self.store.get(&path).await? else {
            return Err(Error::Outside(format!("there is no database {name} any more").into()));
        };
        let Record::Database(database) = stored.record else {
            return Err(StoreError::Corrupt(stored.path).into());
        };
        let password = self.open_root(name, &database.root_password)?;
        let Some(next) = database.next_root_password.clone() else {
            return Ok(Root { database, password, turn });
        };
        // The change of the password was cut off.
        let root = Root { password: self.open_root(name, &next)?, database, turn };
        root.own_or_set(self, &password).await.map_err(|error| root.failed(&error))?;
        let settled = Database {
            root_password: next,
            next_root_password: None,
            root_rotated_at: Some(self.clock.wall()),
            ..root.database.clone()
        };
        let record = Some(Record::Database(settled.clone()));
        let write = Write { path, expected: Expected::At(stored.revision), record };
        self.store.commit(vec![write]).await?;
        Ok(Root { database: settled, ..root })
    }

    fn open_root(&self, name: &Name, wrapped: &WrappedKey) -> Result<SecretVec, Error> {
        let place = SecretPlace::DatabaseRoot(name);
        self.keyring.materials.unwrap_secret(place, wrapped).map_err(Error::Internal)
    }
}

impl Root {
    /// The turn, for whoever goes on with it.
    pub(super) fn into_turn(self) -> RootTurn {
        self.turn
    }

    /// Where it is.
    pub(crate) fn at(&self) -> Endpoint<'_> {
        endpoint(&self.database)
    }

    /// Its account and password.
    pub(crate) fn login(&self) -> Login<'_> {
        Login { account: &self.database.root, password: &self.password }
    }

    /// What is said when it did not do something.
    pub(crate) fn failed(&self, error: &DatabaseError) -> Error {
        failed(&self.database.name, error)
    }

    /// Logs in by the password; where it does not open, sets it by the old one and tries again.
    async fn own_or_set(&self, engine: &Engine, old: &SecretVec) -> Result<(), DatabaseError> {
        let databases = &engine.ports.databases;
        match databases.log_in(self.at(), self.login()).await {
            Err(DatabaseError::Login(_)) => {}
            opened => return opened,
        }
        let old = Login { password: old, ..self.login() };
        databases.set_password(self.at(), old, self.login()).await?;
        databases.log_in(self.at(), self.login()).await
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

/// Where a database is.
pub(super) fn endpoint(database: &Database) -> Endpoint<'_> {
    Endpoint {
        kind: database.kind,
        address: &database.address,
        authority: database.authority.as_deref(),
    }
}

/// What is said when a database did not do something.
pub(super) fn failed(name: &Name, error: &DatabaseError) -> Error {
    Error::Outside(format!("database {name}: {error}").into())
}
