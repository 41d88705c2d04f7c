//! What others say: issuers of their keys, clusters of their pods.
//!
//! Room      `core`. Ports, and the plain facts that go through them.
//! Holds     whoever is not asked says nothing: without a cluster's word a pod is neither there
//!           nor gone.

use async_trait::async_trait;
use lastkey_secret::SecretVec;

use crate::ports::Cause;
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
