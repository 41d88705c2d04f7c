//! Databases whose accounts the server manages.
//!
//! Room      `connect`. Implements `core::outside::Databases`.
//! Source    `docs/rotation.md`, "Addresses"; docs/adr/0040-databases.md.
//! Holds     a database is reached by TLS, on loopback, or by a unix socket, through the guard.
//!           Names are quoted. A password leaves as an answer to a challenge or as what the database
//!           keeps of it; a MySQL may be given the password itself, over TLS or a socket, and nobody is
//!           in the clear. A PostgreSQL that does not know it is not believed. Nothing takes longer than the
//!           deadline.

mod address;
mod mariadb;
mod postgres;
mod scram;
mod tls;

use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::database::{DatabaseKind, Endpoint, Login};
use lastkey_core::outside::{DatabaseError, Databases, NewAccount};

use crate::guard::{Guard, OutboundError};

/// From the first packet to the last answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Databases behind a guard.
#[derive(Clone, Debug)]
pub struct GuardedDatabases {
    guard: Guard,
}

impl GuardedDatabases {
    /// Those that a guard lets through.
    #[must_use]
    pub const fn behind(guard: Guard) -> Self {
        Self { guard }
    }

    async fn open(&self, at: Endpoint<'_>, login: Login<'_>) -> Result<Session, DatabaseError> {
        Ok(match at.kind {
            DatabaseKind::PostgreSql => {
                Session::PostgreSql(postgres::Session::open(&self.guard, at, login).await?)
            }
            DatabaseKind::MariaDb => {
                Session::MariaDb(mariadb::Session::open(&self.guard, at, login).await?)
            }
        })
    }
}

/// A connection to one of them, logged in.
enum Session {
    PostgreSql(postgres::Session),
    MariaDb(mariadb::Session),
}

/// How the same database is opened once more.
type Again<'a> = (&'a Guard, Endpoint<'a>, Login<'a>);

/// Does the same with whichever it is.
macro_rules! with {
    ($session:expr, $act:ident($($argument:expr),*)) => {
        match $session {
            Session::PostgreSql(session) => session.$act($($argument),*).await,
            Session::MariaDb(mut session) => session.$act($($argument),*).await,
        }
    };
}

/// Lets something take so long and no longer.
async fn in_time<T>(
    act: impl Future<Output = Result<T, DatabaseError>> + Send,
) -> Result<T, DatabaseError> {
    let ended = tokio::time::timeout(DEADLINE, act).await;
    ended.map_err(|_| DatabaseError::Away("it did not answer in time".to_owned()))?
}

#[async_trait]
impl Databases for GuardedDatabases {
    async fn log_in(&self, at: Endpoint<'_>, login: Login<'_>) -> Result<(), DatabaseError> {
        in_time(async { self.open(at, login).await.map(drop) }).await
    }

    async fn set_password(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        account: Login<'_>,
    ) -> Result<(), DatabaseError> {
        in_time(async { with!(self.open(at, root).await?, set_password(account)) }).await
    }

    async fn lock(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        account: &str,
    ) -> Result<(), DatabaseError> {
        in_time(async { with!(self.open(at, root).await?, lock(account)) }).await
    }

    async fn make_account(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        new: NewAccount<'_>,
    ) -> Result<(), DatabaseError> {
        in_time(async { with!(self.open(at, root).await?, make_account(new)) }).await
    }

    async fn try_account(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        new: NewAccount<'_>,
    ) -> Result<(), DatabaseError> {
        in_time(async { with!(self.open(at, root).await?, try_account(new)) }).await
    }

    async fn extend_account(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        account: &str,
        lasts: Duration,
    ) -> Result<bool, DatabaseError> {
        in_time(async { with!(self.open(at, root).await?, extend(account, lasts)) }).await
    }

    async fn drop_account(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        account: &str,
        group: Option<&str>,
    ) -> Result<(), DatabaseError> {
        let again: Again<'_> = (&self.guard, at, root);
        in_time(async { with!(self.open(at, root).await?, drop_account(account, group, again)) })
            .await
    }

    async fn accounts(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        prefix: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        in_time(async { with!(self.open(at, root).await?, accounts(prefix)) }).await
    }
}

/// What the guard said, for people.
fn refused(error: &OutboundError) -> DatabaseError {
    match error {
        OutboundError::Address(_)
        | OutboundError::NotAllowed(_)
        | OutboundError::Forbidden(..)
        | OutboundError::Pem(_) => DatabaseError::Address(error.to_string()),
        OutboundError::Reach(..)
        | OutboundError::Tls(..)
        | OutboundError::Timeout(_)
        | OutboundError::TooLong(..)
        | OutboundError::Redirect(_)
        | OutboundError::Protocol(..) => DatabaseError::Away(error.to_string()),
    }
}
