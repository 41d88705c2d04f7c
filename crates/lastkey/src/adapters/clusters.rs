//! Clusters that are asked about their own pods: one list and one watch for each kind, of
//! metadata alone, and TokenReview.
//!
//! Room      the binary.
//! Holds     a watch that is silent for longer than a bookmark takes is made anew; what was known
//!           stays meanwhile, and is not called news.

mod census;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use lastkey_core::outside::{Bound, Clusters, Reviewed, Standing};
use lastkey_core::ports::{Cause, Clock};
use lastkey_core::time::Timestamp;
use lastkey_kube::{Change, Cluster, Form, KubeError, Watch};
use lastkey_secret::SecretVec;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::census::Census;

/// Longest silence of a watch. A server that sends bookmarks sends one a minute.
const SILENCE: Duration = Duration::from_secs(90);
/// Pause before a cluster is asked again: the shortest one, and the longest one after failures.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// The clusters of the configuration.
pub(crate) struct WatchedClusters(HashMap<String, Arc<Watched>>);

/// A cluster that is asked.
struct Watched {
    name: String,
    api: Cluster,
    is_required: bool,
    clock: Arc<dyn Clock>,
    pods: RwLock<Census>,
    accounts: RwLock<Census>,
}

impl WatchedClusters {
    /// These clusters, by name; each with its API and whether its word is required.
    pub(crate) fn of(
        clusters: impl IntoIterator<Item = (String, Cluster, bool)>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let watched = clusters.into_iter().map(|(name, api, is_required)| {
            let (pods, accounts) = (RwLock::default(), RwLock::default());
            let (key, clock) = (name.clone(), Arc::clone(clock));
            (key, Arc::new(Watched { name, api, is_required, clock, pods, accounts }))
        });
        Self(watched.collect())
    }

    /// Begins to listen. Ends when the set is dropped.
    pub(crate) fn listen(&self) -> JoinSet<()> {
        let mut listening = JoinSet::new();
        for watched in self.0.values() {
            for kind in [Kind::Pods, Kind::Accounts] {
                listening.spawn(Arc::clone(watched).listen(kind));
            }
        }
        listening
    }
}

/// What is listened to.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Pods,
    Accounts,
}

impl Kind {
    const fn path(self) -> &'static str {
        match self {
            Self::Pods => "/api/v1/pods",
            Self::Accounts => "/api/v1/serviceaccounts",
        }
    }
}

impl Watched {
    const fn census(&self, kind: Kind) -> &RwLock<Census> {
        match kind {
            Kind::Pods => &self.pods,
            Kind::Accounts => &self.accounts,
        }
    }

    fn change<R>(&self, kind: Kind, change: impl FnOnce(&mut Census, Timestamp) -> R) -> R {
        let now = self.clock.read().wall;
        let mut census = self.census(kind).write().unwrap_or_else(PoisonError::into_inner);
        change(&mut census, now)
    }

    async fn listen(self: Arc<Self>, kind: Kind) {
        let mut pause = PAUSES.0;
        let mut version = None;
        loop {
            let heard = self.listen_once(kind, &mut version).await;
            self.change(kind, |census, _| census.close());
            pause = match heard {
                Ok(()) => PAUSES.0,
                Err(error) => {
                    version = None;
                    let (cluster, error) = (&self.name, format!("{:#}", anyhow::Error::new(error)));
                    tracing::warn!(cluster, ?kind, error, "the cluster cannot be watched");
                    (pause * 2).min(PAUSES.1)
                }
            };
            sleep(pause).await;
        }
    }

    /// Lists, unless it is known where the last watch ended, and watches until that ends.
    async fn listen_once(&self, kind: Kind, version: &mut Option<String>) -> Result<(), KubeError> {
        let from = match version.take() {
            Some(from) => from,
            None => {
                let asked_at = self.clock.read().wall;
                let listed = self.api.list(kind.path(), Form::Metadata).await?;
                let found = listed.items.iter().filter_map(Seen::of);
                let found: Vec<_> = found.map(|seen| (seen.uid.to_owned(), seen.ends)).collect();
                self.change(kind, |census, _| census.fill(found, asked_at));
                listed.version
            }
        };
        let watch = match self.api.watch(kind.path(), Form::Metadata, &from).await {
            Err(KubeError::Expired) => return Ok(()),
            watch => watch?,
        };
        self.change(kind, Census::open);
        *version = self.follow(kind, watch, from).await?;
        Ok(())
    }

    /// Follows a watch to its end; where it goes on, if that is known.
    async fn follow(
        &self,
        kind: Kind,
        mut watch: Watch,
        mut from: String,
    ) -> Result<Option<String>, KubeError> {
        loop {
            let object = match timeout(SILENCE, watch.next()).await {
                Err(_) | Ok(Ok(None)) => return Ok(Some(from)),
                Ok(Err(KubeError::Expired)) => return Ok(None),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(Some(Change::Bookmark(version)))) => {
                    self.change(kind, Census::hear);
                    from = version;
                    continue;
                }
                Ok(Ok(Some(Change::Is(object)))) => {
                    if let Some(seen) = Seen::of(&object) {
                        self.change(kind, |census, now| census.see(seen.uid, seen.ends, now));
                    }
                    object
                }
                Ok(Ok(Some(Change::Was(object)))) => {
                    if let Some(seen) = Seen::of(&object) {
                        self.change(kind, |census, now| census.bury(seen.uid, now));
                    }
                    object
                }
            };
            let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            version.unwrap_or_default().clone_into(&mut from);
        }
    }
}

/// What is read of an object.
struct Seen<'a> {
    uid: &'a str,
    /// When it shall be gone, if it is being deleted.
    ends: Option<Timestamp>,
}

impl<'a> Seen<'a> {
    fn of(object: &'a Value) -> Option<Self> {
        let text = |name: &str| object.pointer(&format!("/metadata/{name}"))?.as_str();
        let uid = text("uid")?;
        Some(Self { uid, ends: text("deletionTimestamp").and_then(read_time) })
    }
}

fn read_time(text: &str) -> Option<Timestamp> {
    let format = &time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::parse(text, format).ok()?;
    u64::try_from(at.unix_timestamp()).ok().map(Timestamp)
}

#[async_trait]
impl Clusters for WatchedClusters {
    fn standing(&self, bound: &Bound<'_>, now: Timestamp) -> Standing {
        let Some(watched) = self.0.get(bound.cluster) else { return Standing::NotAsked };
        let ask = |kind, uid| {
            let census = watched.census(kind).read().unwrap_or_else(PoisonError::into_inner);
            census.standing(uid, bound.since, now)
        };
        let pod = bound.pod.map_or(Standing::There, |pod| ask(Kind::Pods, pod));
        match (pod, ask(Kind::Accounts, bound.account)) {
            (Standing::Gone, _) | (_, Standing::Gone) => Standing::Gone,
            (Standing::Unknown | Standing::NotAsked, _)
            | (_, Standing::Unknown | Standing::NotAsked) => Standing::Unknown,
            (Standing::WasThere, _) | (_, Standing::WasThere) => Standing::WasThere,
            (Standing::There, Standing::There) => Standing::There,
        }
    }

    fn is_required(&self, cluster: &str) -> bool {
        self.0.get(cluster).is_some_and(|watched| watched.is_required)
    }

    async fn review(
        &self,
        cluster: &str,
        token: &SecretVec,
        audiences: &[String],
    ) -> Result<Option<Reviewed>, Cause> {
        let watched = self.0.get(cluster).ok_or("this cluster is not asked")?;
        let reviewed = watched.api.review_token(token, audiences).await.inspect_err(|error| {
            tracing::warn!(cluster, %error, "the cluster cannot be asked about a token");
        })?;
        Ok(reviewed.map(|one| Reviewed {
            username: one.username,
            account: one.uid,
            pod: one.pod_uid,
            audiences: one.audiences,
        }))
    }

    async fn key_set(&self, cluster: &str) -> Result<Option<Vec<u8>>, Cause> {
        let Some(watched) = self.0.get(cluster) else { return Ok(None) };
        Ok(Some(watched.api.document("/openid/v1/jwks").await?.to_vec()))
    }
}
