//! The watch: the service tells of new versions, and mounted volumes get them at once.
//!
//! Room      `node`.
//! Holds     The question says what this node knows and who on it holds what, so nothing is lost
//!           when the connection, the service or this process was away: it asks again. What cannot
//!           be renewed stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lastkey_crypto::digest::sha256_of;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::held::Slot;
use super::provider::Provider;
use crate::ports::{Holder, News, Question, SecretError, Seen};

/// Names of one question.
const AT_ONCE: usize = 1_000;
/// Volumes come and go in bursts; they are told about together.
const GATHER: Duration = Duration::from_millis(50);
/// Volumes that are made anew at the same time, so that the service is not flooded by one node.
const RENEWED_AT_ONCE: usize = 32;
/// The service does not answer: asked again after this.
const AWAY: Duration = Duration::from_secs(1);
/// It does not tell this node anything: asked again after this.
const DENIED: Duration = Duration::from_secs(60);
/// Volumes that could not be renewed are tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// What the watch remembers from one question to the next.
#[derive(Default)]
struct Memory {
    /// Current versions as the service told them.
    known: BTreeMap<String, Option<u32>>,
    /// The statement that the service has.
    sent: Option<String>,
    /// Secrets whose volumes could not be renewed while the service was away.
    behind: BTreeSet<String>,
}

impl Provider {
    /// Watches until the end of the process.
    pub async fn watch(self: Arc<Self>) {
        let mut memory = Memory::default();
        loop {
            self.sweep();
            let questions = self.questions(&mut memory);
            if questions.is_empty() {
                self.wake.notified().await;
                sleep(GATHER).await;
                continue;
            }
            tokio::select! {
                answer = self.ask(questions) => self.heed(answer, &mut memory).await,
                () = async { self.wake.notified().await; sleep(GATHER).await } => {}
                () = sleep(AGAIN), if !memory.behind.is_empty() => {
                    let names = std::mem::take(&mut memory.behind);
                    self.renew_all(names, &mut memory).await;
                }
            }
        }
    }

    /// What is asked now; nothing while there are no volumes and nobody thinks that there are.
    fn questions(&self, memory: &mut Memory) -> Vec<Question> {
        let (mut seen, mut holders) = (BTreeMap::new(), BTreeSet::new());
        for slot in self.slots() {
            let told = slot.told();
            let Some(pod) = told.pod else { continue };
            for (name, version) in told.seen {
                let known = memory.known.get(&name).copied();
                seen.insert(name, known.unwrap_or(version));
            }
            holders.extend(told.delivered.into_iter().map(|(secret, version)| Holder {
                secret,
                version,
                given_in_outage: told.given_in_outage,
                ..pod.clone()
            }));
        }
        memory.known.retain(|name, _| seen.contains_key(name));
        let holders: Vec<_> = holders.into_iter().collect();
        let digest = digest_of(&holders);
        let is_sent = memory.sent.as_ref() == Some(&digest);
        if seen.is_empty() && (is_sent || (holders.is_empty() && memory.sent.is_none())) {
            return Vec::new();
        }
        let seen: Vec<Seen> = seen.into_iter().collect();
        let mut questions: Vec<_> = seen
            .chunks(AT_ONCE)
            .map(|seen| Question { seen: seen.to_vec(), ..Question::default() })
            .collect();
        if questions.is_empty() {
            questions.push(Question::default());
        }
        if let Some(first) = questions.first_mut() {
            first.holders = (!is_sent).then_some(holders);
            first.holders_digest = Some(digest);
        }
        questions
    }

    /// The first answer that says something, or the last one.
    async fn ask(&self, questions: Vec<Question>) -> Result<(News, String), SecretError> {
        let digest = questions.first().and_then(|one| one.holders_digest.clone());
        let digest = digest.unwrap_or_default();
        let mut asking = JoinSet::new();
        for question in questions {
            let service = Arc::clone(&self.service);
            asking.spawn(async move { service.watch(&question).await });
        }
        let mut last = News::default();
        while let Some(answer) = asking.join_next().await {
            last = answer.map_err(|error| SecretError::Away(error.into()))??;
            if last.holders_wanted || !last.changed.is_empty() {
                break;
            }
        }
        Ok((last, digest))
    }

    async fn heed(
        self: &Arc<Self>,
        answer: Result<(News, String), SecretError>,
        memory: &mut Memory,
    ) {
        match answer {
            Ok((news, digest)) => {
                memory.sent = (!news.holders_wanted).then_some(digest);
                if memory.sent.is_some() {
                    // It is on record now.
                    self.slots().iter().for_each(|slot| slot.confess());
                }
                self.take(news.changed, memory).await;
            }
            Err(SecretError::Away(cause)) => {
                tracing::debug!(cause, "the service does not answer the watch");
                // It may be another process by then, which was told nothing.
                memory.sent = None;
                sleep(AWAY).await;
            }
            // Its certificate is being renewed, or is void.
            Err(SecretError::Refused { code, .. }) if code == "Unauthenticated" => {
                self.mark_untold();
                memory.sent = None;
                sleep(AWAY).await;
            }
            Err(SecretError::Refused { code, message }) => {
                tracing::warn!(
                    code,
                    message,
                    "the service does not tell this node of changes; volumes are renewed when the \
                     kubelet asks. Permit secrets:ListSecrets to nodes"
                );
                self.mark_untold();
                memory.sent = None;
                sleep(DENIED).await;
            }
        }
    }

    /// Nobody tells of any of the secrets: the pods themselves have to look.
    fn mark_untold(&self) {
        let names = self.slots().into_iter().flat_map(|slot| slot.told().seen.into_keys());
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    /// Renews the volumes that hold something else.
    async fn take(self: &Arc<Self>, changed: Vec<Seen>, memory: &mut Memory) {
        {
            let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            // An answer at all: only what is not to be known stays untold.
            untold.retain(|name| memory.known.get(name) == Some(&None));
            for (name, version) in &changed {
                match version {
                    Some(_) => untold.remove(name),
                    // Gone, or not for this node to know: then the pods themselves have to look.
                    None => untold.insert(name.clone()),
                };
            }
        }
        if changed.is_empty() {
            return;
        }
        let names = changed.iter().map(|(name, _)| name.clone()).collect();
        memory.known.extend(changed);
        self.renew_all(names, memory).await;
    }

    /// Renews the volumes that hold another version of one of these secrets than the current one.
    async fn renew_all(self: &Arc<Self>, names: BTreeSet<String>, memory: &mut Memory) {
        let is_behind = |slot: &Arc<Slot>| {
            slot.told().seen.iter().any(|(name, version)| {
                let known = memory.known.get(name).copied().flatten();
                names.contains(name) && known.is_some() && known != *version
            })
        };
        let slots: Vec<_> = self.slots().into_iter().filter(is_behind).collect();
        for some in slots.chunks(RENEWED_AT_ONCE) {
            let mut renewing = JoinSet::new();
            for slot in some {
                let (provider, slot) = (Arc::clone(self), Arc::clone(slot));
                renewing.spawn(async move { provider.renewed_or_told(&slot).await });
            }
            while let Some(done) = renewing.join_next().await {
                if matches!(done, Ok(false)) {
                    memory.behind.extend(names.iter().cloned());
                }
            }
        }
    }

    /// Renews a volume; no when that may succeed later.
    async fn renewed_or_told(&self, slot: &Slot) -> bool {
        let Err(failed) = self.renew(slot).await else { return true };
        let pod = slot.told().pod.map(|pod| pod.pod_uid).unwrap_or_default();
        tracing::warn!(pod, reason = %failed.refusal, "a volume stays as it is");
        !failed.is_away
    }
}

/// Names a statement.
fn digest_of(holders: &[Holder]) -> String {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for one in holders {
        let Holder { secret, version, namespace, service_account, pod, pod_uid, given_in_outage } =
            one;
        let texts = [secret, namespace, service_account, pod, pod_uid];
        parts.extend(texts.map(|text| [text.as_bytes(), b"\0"].concat()));
        parts.push(version.to_be_bytes().to_vec());
        parts.push(vec![u8::from(*given_in_outage)]);
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    sha256_of(&parts).iter().map(|byte| format!("{byte:02x}")).collect()
}
