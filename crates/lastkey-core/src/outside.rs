//! What others say and do: issuers, clusters, databases, and programs that rotate secrets.
//!
//! Room      `core`. Ports, and the plain facts that go through them.
//! Holds     whoever is not asked says nothing: without a cluster's word a pod is neither there
//!           nor gone.

use core::time::Duration;

use async_trait::async_trait;
use lastkey_secret::SecretVec;

use crate::database::{Endpoint, Login};
use crate::ports::Cause;
use crate::secret_item::ValueKind;
use crate::time::Timestamp;

/// Documents that issuers publish.
#[async_trait]
pub trait Issuers: Send + Sync {
    /// Reads what lies at a URL. `authority` is PEM; without it those that the machine knows
    /// count.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than 1 MiB.
    async fn read(&self, url: &str, authority: Option<&str>) -> Result<Vec<u8>, Cause>;
}

/// A pod and its account, as a session knows them.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// Name of the cluster here.
    pub cluster: &'a str,
    /// UID of the pod.
    pub pod: Option<&'a str>,
    /// UID of the service account.
    pub account: &'a str,
    /// When somebody last knew that both are there: the session began then.
    pub since: Timestamp,
}

/// What is known of a pod and its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both are there now.
    There,
    /// Both were there when the cluster was last heard, not long ago.
    WasThere,
    /// One of them is gone.
    Gone,
    /// The cluster is asked, and has not spoken of them yet.
    Unknown,
    /// The cluster is not asked.
    NotAsked,
}

/// What a cluster says of a token that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// UID of the account.
    pub account: String,
    /// UID of the pod.
    pub pod: Option<String>,
    /// Audiences of the token among those that were asked for.
    pub audiences: Vec<String>,
}

/// What clusters say.
#[async_trait]
pub trait Clusters: Send + Sync {
    /// Whether pod and account are there. Asked for each request: takes no time.
    fn standing(&self, bound: &Bound<'_>, now: Timestamp) -> Standing;

    /// Whether nothing is opened for a cluster's pods while the cluster cannot be asked.
    fn is_required(&self, cluster: &str) -> bool;

    /// Asks a cluster about a token; `None` when it does not take it.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    async fn review(
        &self,
        cluster: &str,
        token: &SecretVec,
        audiences: &[String],
    ) -> Result<Option<Reviewed>, Cause>;

    /// The keys that a cluster signs tokens with, as it says itself; `None` when it is not asked.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    async fn key_set(&self, cluster: &str) -> Result<Option<Vec<u8>>, Cause>;
}

/// Why a database did not do it. `Display` is for people and holds no password.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The account or its password is wrong, or it may not log in.
    #[error("it does not let {0} in")]
    Login(String),
    /// It said no to something else, in its own words.
    #[error("it refuses: {0}")]
    Refused(String),
    /// No connection, no answer, or the end of it in the middle: it may have been done.
    #[error("it cannot be reached: {0}")]
    Away(String),
    /// The address is none, or the operator does not allow it.
    #[error("{0}")]
    Address(String),
}

/// An account that is made for one caller.
#[derive(Clone, Copy, Debug)]
pub struct NewAccount<'a> {
    /// Its name and password.
    pub login: Login<'a>,
    /// The role there that it is a member of and acts as.
    pub group: &'a str,
    /// How long its password opens.
    pub lasts: Duration,
    /// What else is done to it, with places for the names of account and group.
    pub statements: &'a [String],
    /// What people who look at it are to read.
    pub comment: &'a str,
}

/// Databases. Everything can be done twice: what is done already is no failure.
#[async_trait]
pub trait Databases: Send + Sync {
    /// Logs in and out again.
    ///
    /// # Errors
    /// [`DatabaseError`].
    async fn log_in(&self, at: Endpoint<'_>, login: Login<'_>) -> Result<(), DatabaseError>;

    /// Gives an account a password, and lets it log in.
    ///
    /// # Errors
    /// [`DatabaseError`].
    async fn set_password(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        account: Login<'_>,
    ) -> Result<(), DatabaseError>;

    /// Lets an account log in no more by its password. Connections that are there stay.
    ///
    /// # Errors
    /// [`DatabaseError`].
    async fn lock(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        account: &str,
    ) -> Result<(), DatabaseError>;

    /// Makes an account; one of this name that is there already becomes like it.
    ///
    /// # Errors
    /// [`DatabaseError`].
    async fn make_account(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        new: NewAccount<'_>,
    ) -> Result<(), DatabaseError>;

    /// Finds out whether such an account could be made and dropped again, and makes none.
    ///
    /// # Errors
    /// [`DatabaseError`].
    async fn try_account(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        new: NewAccount<'_>,
    ) -> Result<(), DatabaseError>;

    /// Lets the password of an account open for so long from now on; no when there is none.
    ///
    /// # Errors
    /// [`DatabaseError`].
    async fn extend_account(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        account: &str,
        lasts: Duration,
    ) -> Result<bool, DatabaseError>;

    /// Ends the connections of an account, leaves what it owns to its group and drops it. Nothing
    /// that it owns is dropped with it. Of one whose group is not known here (`None`) the database
    /// is asked; one whose things nobody can take over is locked and stays.
    ///
    /// # Errors
    /// [`DatabaseError`].
    async fn drop_account(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        account: &str,
        group: Option<&str>,
    ) -> Result<(), DatabaseError>;

    /// The accounts whose names begin so.
    ///
    /// # Errors
    /// [`DatabaseError`].
    async fn accounts(
        &self,
        at: Endpoint<'_>,
        root: Login<'_>,
        prefix: &str,
    ) -> Result<Vec<String>, DatabaseError>;
}

/// What a program that rotates a secret is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookStep {
    /// Make a value, or leave that to the service.
    Create,
    /// Set it where it is to count.
    Set,
    /// Try whether it works.
    Test,
    /// Take note that it is current.
    Finish,
}

impl HookStep {
    /// The word in a call.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Set => "set",
            Self::Test => "test",
            Self::Finish => "finish",
        }
    }
}

/// One call of such a program.
#[derive(Clone, Copy, Debug)]
pub struct HookCall<'a> {
    /// Where it listens.
    pub url: &'a str,
    /// Whose certificate it shows, in PEM; without it those that the machine knows count.
    pub authority: Option<&'a str>,
    /// What the call is signed with.
    pub signing: &'a SecretVec,
    /// Identity of the rotation, in hexadecimal.
    pub rotation: &'a str,
    /// When it is called, by the wall clock.
    pub at: Timestamp,
    /// What it is to do.
    pub step: HookStep,
    /// The secret.
    pub secret: &'a str,
    /// The version, once it has a number.
    pub version: Option<u32>,
    /// The value, once there is one.
    pub value: Option<(ValueKind, &'a SecretVec)>,
}

/// Why a program did not do it, in words that a person may read.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It said no.
    #[error("{0}")]
    No(String),
    /// It was not called, or its answer did not come: it may have been done.
    #[error("{0}")]
    Away(String),
}

/// Programs that rotate secrets.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Whether the operator allows this address. Calls nobody.
    ///
    /// # Errors
    /// [`HookError::Away`].
    fn check(&self, url: &str, authority: Option<&str>) -> Result<(), HookError>;

    /// Calls one; what it made when it was asked to create and did so.
    ///
    /// # Errors
    /// [`HookError`].
    async fn call(&self, call: HookCall<'_>) -> Result<Option<(ValueKind, SecretVec)>, HookError>;
}

/// Nobody is asked.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

#[async_trait]
impl Issuers for Nobody {
    async fn read(&self, _: &str, _: Option<&str>) -> Result<Vec<u8>, Cause> {
        Err("nothing is fetched here".into())
    }
}

#[async_trait]
impl Clusters for Nobody {
    fn standing(&self, _: &Bound<'_>, _: Timestamp) -> Standing {
        Standing::NotAsked
    }

    fn is_required(&self, _: &str) -> bool {
        false
    }

    async fn review(
        &self,
        _: &str,
        _: &SecretVec,
        _: &[String],
    ) -> Result<Option<Reviewed>, Cause> {
        Err("no cluster is asked here".into())
    }

    async fn key_set(&self, _: &str) -> Result<Option<Vec<u8>>, Cause> {
        Ok(None)
    }
}

/// What is said where no database is called.
fn no_database() -> DatabaseError {
    DatabaseError::Address("no database is called here".to_owned())
}

#[async_trait]
impl Databases for Nobody {
    async fn log_in(&self, _: Endpoint<'_>, _: Login<'_>) -> Result<(), DatabaseError> {
        Err(no_database())
    }

    async fn set_password(
        &self,
        _: Endpoint<'_>,
        _: Login<'_>,
        _: Login<'_>,
    ) -> Result<(), DatabaseError> {
        Err(no_database())
    }

    async fn lock(&self, _: Endpoint<'_>, _: Login<'_>, _: &str) -> Result<(), DatabaseError> {
        Err(no_database())
    }

    async fn make_account(
        &self,
        _: Endpoint<'_>,
        _: Login<'_>,
        _: NewAccount<'_>,
    ) -> Result<(), DatabaseError> {
        Err(no_database())
    }

    async fn try_account(
        &self,
        _: Endpoint<'_>,
        _: Login<'_>,
        _: NewAccount<'_>,
    ) -> Result<(), DatabaseError> {
        Err(no_database())
    }

    async fn extend_account(
        &self,
        _: Endpoint<'_>,
        _: Login<'_>,
        _: &str,
        _: Duration,
    ) -> Result<bool, DatabaseError> {
        Err(no_database())
    }

    async fn drop_account(
        &self,
        _: Endpoint<'_>,
        _: Login<'_>,
        _: &str,
        _: Option<&str>,
    ) -> Result<(), DatabaseError> {
        Err(no_database())
    }

    async fn accounts(
        &self,
        _: Endpoint<'_>,
        _: Login<'_>,
        _: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        Err(no_database())
    }
}

#[async_trait]
impl Webhooks for Nobody {
    fn check(&self, _: &str, _: Option<&str>) -> Result<(), HookError> {
        Err(HookError::Away("no program is called here".to_owned()))
    }

    async fn call(&self, call: HookCall<'_>) -> Result<Option<(ValueKind, SecretVec)>, HookError> {
        self.check(call.url, call.authority).map(|()| None)
    }
}
