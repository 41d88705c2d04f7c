//! A volume in memory: what it was made of, and what is known of it.
//!
//! Room      `node`.
//! Holds     Everything that decides whether a volume may be answered again lies here and in
//!           `Provider::is_good` alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lastkey_secret::SecretVec;
use tokio::time::Instant;

use super::dialect::Personality;
use super::refusal::Refusal;
use super::render::Rendered;
use super::request::Asked;
use crate::ports::{Holder, PodSession};
use crate::tokens::claims_of;

/// A session that ends sooner is not used for another read.
const SESSION_REST: Duration = Duration::from_secs(30);
/// How long a token counts that does not say when it ends.
const UNKNOWN_LIFE: Duration = Duration::from_secs(600);

/// The place of a volume. Its lock is held while the volume is made.
pub(super) struct Slot {
    pub(super) held: tokio::sync::Mutex<Option<Held>>,
    pub(super) asked_at: Mutex<Instant>,
    /// When the driver was last given files to write.
    answered_at: Mutex<Option<Instant>>,
    told: Mutex<Told>,
    /// Why it was last kept as it is, when it should have become another one.
    kept_because: Mutex<Option<String>>,
    /// Whether somebody was told that it is large.
    is_large: AtomicBool,
}

/// What is known of a volume without its lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The pod, with nothing that it holds.
    pub(super) pod: Option<Holder>,
    /// Current versions, as far as they were read.
    pub(super) seen: BTreeMap<String, Option<u32>>,
    /// What is in the volume.
    pub(super) delivered: BTreeMap<String, u32>,
    /// Some of it came from memory while the service was away, which nobody was told yet.
    pub(super) given_in_outage: bool,
    /// It was read beside the watch, which may have been told of a change meanwhile.
    pub(super) is_unsure: bool,
}

/// A volume as it was made.
pub(super) struct Held {
    pub(super) personality: Personality,
    pub(super) asked: Asked,
    pub(super) token: SecretVec,
    pub(super) token_hash: [u8; 32],
    pub(super) token_ends_at: SystemTime,
    /// Whether a pod has it. If none does, nobody is told of it and it is written nowhere: whoever
    /// asked does with the files what he likes.
    pub(super) has_pod: bool,
    /// None while it was made without the service.
    pub(super) session: Option<Arc<PodSession>>,
    pub(super) role: String,
    pub(super) files: Vec<Rendered>,
    pub(super) seen: BTreeMap<String, Option<u32>>,
    pub(super) versions: BTreeMap<String, u32>,
    pub(super) made_at: Instant,
    /// Since when one of its secrets is known to have changed without the volume being renewed.
    pub(super) behind_since: Option<Instant>,
    /// When something in it is to be asked for again, so that it lives on.
    pub(super) ask_again_at: Option<Instant>,
    /// It has stages that nobody tells about.
    pub(super) is_untold: bool,
}

impl Held {
    pub(super) fn session_for(&self, token: &[u8; 32], role: &str) -> Option<Arc<PodSession>> {
        let session = self.session.as_ref()?;
        let is_good = session.ends_at > Instant::now() + SESSION_REST;
        let is_same = self.token_hash == *token && self.role == role;
        (is_good && is_same).then(|| Arc::clone(session))
    }
}

impl Slot {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            held: tokio::sync::Mutex::new(None),
            asked_at: Mutex::new(now),
            answered_at: Mutex::default(),
            told: Mutex::default(),
            kept_because: Mutex::default(),
            is_large: AtomicBool::new(false),
        }
    }

    /// The driver is given files to write.
    pub(super) fn note_answer(&self) {
        let mut at = self.answered_at.lock().unwrap_or_else(PoisonError::into_inner);
        *at = Some(Instant::now());
    }

    /// How long ago the driver was last given files to write.
    pub(super) fn since_answer(&self) -> Option<Duration> {
        let at = self.answered_at.lock().unwrap_or_else(PoisonError::into_inner);
        at.map(|at| at.elapsed())
    }

    /// Notes why the volume is kept as it is, if it is; whether that is news.
    pub(super) fn keep(&self, because: Option<&str>) -> bool {
        let mut last = self.kept_because.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = last.as_deref() != because;
        *last = because.map(str::to_owned);
        is_news
    }

    /// Whether it was kept as it is when it was last to become another one.
    pub(super) fn is_kept(&self) -> bool {
        self.kept_because.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Notes that it is large; whether that is news.
    pub(super) fn grow_large(&self) -> bool {
        !self.is_large.swap(true, Ordering::Relaxed)
    }

    pub(super) fn told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what was made and, when it is in the volume, delivered; if that is news, what was known
    /// before.
    pub(super) fn tell(&self, held: &Held, is_delivered: bool) -> Option<Told> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.has_pod {
            *told = Told::default();
            return None;
        }
        let before = told.clone();
        told.pod = Some(held.asked.holder());
        told.is_unsure |= told.seen != held.seen;
        told.seen = held.seen.clone();
        if is_delivered {
            told.delivered = held.versions.clone();
            told.given_in_outage |= held.session.is_none();
        }
        (*told != before).then_some(before)
    }

    /// It is being compared with what the service has told.
    pub(super) fn compare(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).is_unsure = false;
    }

    /// The service was told this of the volume. What has changed since is still to be told.
    pub(super) fn confess(&self, heard: &Told) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == *heard {
            told.given_in_outage = false;
        }
    }
}

/// When a token that the service has accepted ends, as it says itself.
pub(super) fn end_of(token: &SecretVec) -> SystemTime {
    match claims_of(token).as_ref().and_then(|claims| claims.get("exp")?.as_u64()) {
        Some(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        None => SystemTime::now() + UNKNOWN_LIFE,
    }
}

/// Whether a token is bound to the pod that the driver speaks of. One that is bound to no pod is left
/// to the service, when it is of the account that is spoken of.
///
/// # Errors
/// [`Refusal::Denied`] for the token of another pod or account.
pub(super) fn is_of_pod(token: &SecretVec, asked: &Asked) -> Result<bool, Refusal> {
    let claims = claims_of(token);
    let bound = claims.as_ref().and_then(|claims| claims.get("kubernetes.io"));
    let text = |path: &str| bound.and_then(|bound| bound.pointer(path)?.as_str());
    let account = (text("/namespace"), text("/serviceaccount/name"));
    match (text("/pod/uid"), account) {
        (Some(uid), _) if uid == asked.pod_uid => Ok(true),
        (Some(_), _) => Err(Refusal::Denied(format!(
            "{}: the token belongs to another pod than the one that the driver speaks of. Is \
             `podInfoOnMount` set in the CSIDriver object secrets-store.csi.k8s.io?",
            asked.who()
        ))),
        (None, (Some(namespace), Some(account)))
            if namespace != asked.namespace || account != asked.service_account =>
        {
            Err(Refusal::Denied(format!(
                "{}: the token belongs to another service account than the one that is spoken of",
                asked.who()
            )))
        }
        (None, _) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_a_statement_is_still_to_be_told() {
        let slot = Slot::new(Instant::now());
        slot.told.lock().unwrap().given_in_outage = true;
        let stated = slot.told();
        slot.told.lock().unwrap().delivered.insert("a/b".to_owned(), 2);
        slot.confess(&stated);
        assert!(slot.told().given_in_outage);
        slot.confess(&slot.told());
        assert!(!slot.told().given_in_outage);
    }
}
