//! A volume in memory: what it was made of, and what is known of it.
//!
//! Room      `node`.
//! Holds     Everything that decides whether a volume may be answered again lies here and in
//!           `Provider::is_good` alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_secret::SecretVec;
use tokio::time::Instant;

use super::dialect::Personality;
use super::refusal::Refusal;
use super::render::Rendered;
use super::request::Asked;
use crate::ports::{Holder, PodSession};

/// A session that ends sooner is not used for another read.
const SESSION_REST: Duration = Duration::from_secs(30);
/// How long a token counts that does not say when it ends.
const UNKNOWN_LIFE: Duration = Duration::from_secs(600);

/// The place of a volume. Its lock is held while the volume is made.
pub(super) struct Slot {
    pub(super) held: tokio::sync::Mutex<Option<Held>>,
    pub(super) asked_at: Mutex<Instant>,
    told: Mutex<Told>,
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
            told: Mutex::default(),
        }
    }

    pub(super) fn told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what was made and, when it is in the volume, delivered; whether that is news.
    pub(super) fn tell(&self, held: &Held, is_delivered: bool) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.clone();
        told.pod = Some(held.asked.holder());
        told.is_unsure |= told.seen != held.seen;
        told.seen = held.seen.clone();
        if is_delivered {
            told.delivered = held.versions.clone();
            told.given_in_outage |= held.session.is_none();
        }
        *told != before
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

/// Refuses the token of another pod than the one that the driver speaks of. A token that belongs
/// to no pod is left to the service.
pub(super) fn check_pod(token: &SecretVec, asked: &Asked) -> Result<(), Refusal> {
    let claims = claims_of(token);
    let bound = claims
        .as_ref()
        .and_then(|claims| claims.get("kubernetes.io")?.get("pod")?.get("uid")?.as_str());
    match bound {
        Some(uid) if uid != asked.pod_uid => Err(Refusal::Denied(format!(
            "{}: the token belongs to another pod than the one that the driver speaks of. Is \
             `podInfoOnMount` set in the CSIDriver object secrets-store.csi.k8s.io?",
            asked.who()
        ))),
        Some(_) | None => Ok(()),
    }
}

/// What a token says. Nothing of it is believed before the service has accepted the token.
fn claims_of(token: &SecretVec) -> Option<serde_json::Value> {
    token.expose(|token| {
        let claims = token.split(|byte| *byte == b'.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    })
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
