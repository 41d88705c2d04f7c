//! Use case: the keys of clusters and providers, from where these publish them.
//!
//! Room      `service`.
//! Source    OpenID Connect Discovery 1.0; RFC 7517.
//! Holds     what is fetched is what an administrator named; no address comes from a token. An
//!           issuer is asked by one caller at a time, and again after 30 seconds at the earliest.
//!           The last good key set stays when the next one is bad or cannot be had.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lastkey_core::access::{Cluster, MAX_JWKS_LEN, Provider, TokenKeys};
use lastkey_core::ids::Name;
use lastkey_core::permit::RefreshKeys;
use lastkey_core::ports::Cause;
use lastkey_core::record::RecordPath;
use lastkey_trust::oidc::Discovery;

use crate::access::{cluster_trust, provider_trust};
use crate::engine::Engine;
use crate::error::Error;
use crate::jobs::scheduled_call;
use crate::ops::named::{Named, Planned};

/// How long an issuer is not asked again, in seconds.
const PAUSE_SECS: u64 = 30;
/// How often key sets are fetched without a reason, in seconds, so that a key that was withdrawn
/// goes.
const PERIOD_SECS: u64 = 3_600;

/// Where a key set comes from.
#[derive(Clone, Debug)]
pub enum KeysFrom {
    /// It is given, as JSON.
    Given(String),
    /// It is published.
    Published {
        /// Where; when it is left out, the cluster's own API server is asked, or where the
        /// discovery document of the issuer says.
        url: Option<String>,
        /// The authority of the server there, in PEM; those of the machine when it is left out.
        authority: Option<String>,
    },
}

/// Whose keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    Cluster(Name),
    Provider(Name),
}

/// When an issuer was asked last, in seconds since the machine started.
type Asked = Arc<tokio::sync::Mutex<Option<u64>>>;

/// When issuers were asked.
#[derive(Debug, Default)]
pub(crate) struct Fetches(Mutex<HashMap<Whose, Asked>>);

impl Fetches {
    fn of(&self, whose: &Whose) -> Asked {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(whose.clone()).or_default())
    }
}

/// A thing that has keys.
trait HasKeys: Named {
    fn keys(&self) -> &TokenKeys;
    fn with_keys(self, keys: TokenKeys) -> Self;
    /// Whether its keys can be used.
    fn check_keys(&self) -> Result<(), Error>;
}

impl HasKeys for Cluster {
    fn keys(&self) -> &TokenKeys {
        &self.keys
    }

    fn with_keys(self, keys: TokenKeys) -> Self {
        Self { keys, ..self }
    }

    fn check_keys(&self) -> Result<(), Error> {
        cluster_trust(self).map(drop)
    }
}

impl HasKeys for Provider {
    fn keys(&self) -> &TokenKeys {
        &self.keys
    }

    fn with_keys(self, keys: TokenKeys) -> Self {
        Self { keys, ..self }
    }

    fn check_keys(&self) -> Result<(), Error> {
        provider_trust(self).map(drop)
    }
}

impl Engine {
    /// The keys of a cluster or provider that is written down.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they cannot be fetched or are too long.
    pub(crate) async fn keys_from(
        &self,
        from: KeysFrom,
        cluster: Option<&Name>,
        issuer: &str,
    ) -> Result<TokenKeys, Error> {
        let keys = match from {
            KeysFrom::Given(jwks) => TokenKeys { jwks, url: None, authority: None },
            KeysFrom::Published { url, authority } => {
                let fetched = self.fetch_keys(url, authority, cluster, issuer).await;
                fetched.map_err(|cause| Error::invalid("jwks", chain(&*cause)))?
            }
        };
        if keys.jwks.len() > MAX_JWKS_LEN {
            let message = format!("a key set has at most {MAX_JWKS_LEN} bytes");
            return Err(Error::invalid("jwks", message));
        }
        Ok(keys)
    }

    async fn fetch_keys(
        &self,
        url: Option<String>,
        authority: Option<String>,
        cluster: Option<&Name>,
        issuer: &str,
    ) -> Result<TokenKeys, Cause> {
        let of_cluster = match (&url, cluster) {
            (Some(url), Some(name)) if url == TokenKeys::FROM_CLUSTER => Some(name),
            (None, Some(name)) => Some(name),
            (Some(_) | None, _) => None,
        };
        if let Some(name) = of_cluster
            && let Some(bytes) = self.ports.clusters.key_set(name.as_str()).await?
        {
            let url = Some(TokenKeys::FROM_CLUSTER.to_owned());
            return Ok(TokenKeys { jwks: String::from_utf8(bytes)?, url, authority: None });
        }
        let (issuers, ca) = (&self.ports.issuers, authority.as_deref());
        let url = match url {
            Some(url) => url,
            None => {
                let place = Discovery::address_of(issuer);
                let place = place.ok_or("the issuer is no https:// address; name its key set")?;
                Discovery::parse(&issuers.read(&place, ca).await?, issuer)?.jwks_uri
            }
        };
        let jwks = String::from_utf8(issuers.read(&url, ca).await?)?;
        Ok(TokenKeys { jwks, url: Some(url), authority })
    }

    /// Fetches the keys of a cluster or provider again, unless that was tried just now or they
    /// were given by hand. Whoever comes meanwhile waits for the same answer; whoever goes away
    /// meanwhile ends neither the fetch nor the pause after it.
    pub(crate) async fn refresh_keys(self: &Arc<Self>, whose: Whose) {
        let mut last = self.fetches.of(&whose).lock_owned().await;
        let now = self.ports.clock.read().since_boot;
        if last.is_some_and(|at| now.saturating_sub(at) < PAUSE_SECS) {
            return;
        }
        // Nobody reads it before the fetch has ended, however that ends.
        *last = Some(now);
        let engine = Arc::clone(self);
        let fetch = tokio::spawn(async move {
            engine.refresh_now(&whose).await;
            drop(last);
        });
        // A fetch that fails has said so itself.
        drop(fetch.await);
    }

    async fn refresh_now(self: &Arc<Self>, whose: &Whose) {
        let refreshed = match whose {
            Whose::Cluster(name) => self.refresh::<Cluster>(name, Some(name)).await,
            Whose::Provider(name) => self.refresh::<Provider>(name, None).await,
        };
        match refreshed {
            Ok(true) => tracing::info!(?whose, "new keys were published, and taken over"),
            Ok(false) => {}
            Err(cause) => {
                let error = chain(&*cause);
                tracing::warn!(?whose, error, "the keys could not be fetched; the last ones stay");
            }
        }
    }

    /// Whether other keys were found.
    async fn refresh<T: HasKeys>(
        self: &Arc<Self>,
        name: &Name,
        cluster: Option<&Name>,
    ) -> Result<bool, Cause> {
        let path = RecordPath::from_stored(format!("{}/{name}", T::WORD));
        let Some((known, _)) = self.read_one::<T>(&path).await? else { return Ok(false) };
        let TokenKeys { jwks, url, authority } = known.keys().clone();
        let Some(url) = url else { return Ok(false) };
        let fetched = self.fetch_keys(Some(url), authority, cluster, "").await?;
        if fetched.jwks == jwks {
            return Ok(false);
        }
        if fetched.jwks.len() > MAX_JWKS_LEN {
            return Err("the key set is too long".into());
        }
        // A bad set leaves no trace but a line of the server's log.
        known.with_keys(fetched.clone()).check_keys()?;
        let call = scheduled_call(self);
        let changed = self.change_named_as::<T, RefreshKeys>(&call, name.clone(), |before| {
            match before.current {
                // An administrator may have named another place meanwhile.
                Some(now) if now.keys().url == fetched.url => {
                    Ok(Planned::put(now.clone().with_keys(fetched)))
                }
                Some(_) | None => Err(Error::Conflict),
            }
        });
        Ok(changed.await.map(|_| true)?)
    }

    /// Fetches the keys whose time has come, each in a task of its own.
    pub(crate) fn refresh_due_keys(self: &Arc<Self>) {
        let access = self.access.get();
        let clusters = access.clusters.keys().cloned().map(Whose::Cluster);
        let providers = access.providers.keys().cloned().map(Whose::Provider);
        let now = self.ports.clock.read().since_boot;
        for whose in clusters.chain(providers) {
            let asked = self.fetches.of(&whose);
            // Whoever holds it is fetching.
            let is_due = asked
                .try_lock()
                .is_ok_and(|last| last.is_none_or(|at| now.saturating_sub(at) >= PERIOD_SECS));
            if is_due {
                let engine = Arc::clone(self);
                drop(tokio::spawn(async move { engine.refresh_keys(whose).await }));
            }
        }
    }
}

/// A failure with its causes, for an administrator.
fn chain(error: &(dyn core::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
