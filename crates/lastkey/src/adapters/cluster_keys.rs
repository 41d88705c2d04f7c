//! Tokens of pods judged without a server, by the key set of their cluster.
//!
//! Room      the binary: `node::ports::TokenJudge` by `trust`.
//! Holds     Every check that a server makes of a token is made here by the same code, the strict
//!           way: bound to a pod, one audience. Only whether the pod still lives is not asked.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use anyhow::Context as _;
use lastkey_core::time::Timestamp;
use lastkey_node::ports::{PodIdentity, TokenJudge};
use lastkey_secret::SecretVec;
use lastkey_trust::jwks::KeySet;
use lastkey_trust::service_account::{ClusterTrust, verify};

/// The keys of a cluster, in a file.
pub(crate) struct ClusterKeys {
    file: PathBuf,
    issuer: String,
    audiences: Vec<String>,
    known: RwLock<(Option<SystemTime>, Vec<ClusterTrust>)>,
}

impl ClusterKeys {
    /// Reads the key set.
    ///
    /// # Errors
    /// When the file cannot be read, or is no key set.
    pub(crate) fn read(
        file: PathBuf,
        issuer: String,
        audiences: Vec<String>,
    ) -> anyhow::Result<Self> {
        let this = Self { file, issuer, audiences, known: RwLock::default() };
        let changed_at = this.changed_at();
        let trusts = this.trusts()?;
        *this.known.write().unwrap_or_else(PoisonError::into_inner) = (changed_at, trusts);
        Ok(this)
    }

    fn changed_at(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.file).and_then(|about| about.modified()).ok()
    }

    /// Trust for each audience.
    fn trusts(&self) -> anyhow::Result<Vec<ClusterTrust>> {
        let name = self.file.display();
        let text = std::fs::read(&self.file).with_context(|| format!("cannot read {name}"))?;
        let trust = |audience: &String| {
            let keys = KeySet::parse(&text).with_context(|| format!("{name} is no key set"))?;
            let (issuer, audience) = (self.issuer.clone(), audience.clone());
            Ok(ClusterTrust::strict(String::new(), issuer, audience, keys))
        };
        self.audiences.iter().map(trust).collect()
    }

    /// The keys may have been rotated.
    fn look_again(&self) {
        let changed_at = self.changed_at();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.0 == changed_at {
            return;
        }
        known.0 = changed_at;
        match self.trusts() {
            Ok(trusts) => known.1 = trusts,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "a changed key set cannot be used; the old one stays");
            }
        }
    }
}

impl TokenJudge for ClusterKeys {
    fn judge(&self, token: &SecretVec) -> Option<PodIdentity> {
        self.look_again();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let now = Timestamp(now.as_secs());
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let claims = known.1.iter().find_map(|trust| verify(token, trust, now).ok())?;
        let (namespace, service_account) = (claims.namespace, claims.service_account.name);
        Some(PodIdentity { namespace, service_account })
    }
}
