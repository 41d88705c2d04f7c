//! The watch: the service tells of new versions, and mounted volumes get them at once.
//!
//! Room      `node`.
//! Holds     The question says what this node knows and who on it holds what, so nothing is lost
//!           when the connection, the service or this process was away: it asks again. Where
//!           volumes differ in what they have seen, or one was read while a change was told, the
//!           service is asked which is right. What cannot be renewed stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lastkey_crypto::digest::sha256_of;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::held::{Slot, Told};
use super::provider::{FORGOTTEN, Provider};
use crate::ports::{Holder, News, Question, SecretError, Seen};

/// Names of one question.
const AT_ONCE: usize = 1_000;
/// Holders that a service hears of one node. What is beyond is left out, and said to be: changes
/// are told all the same.
const MOST_HOLDERS: usize = 8_192;
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

/// A version that no secret has: who says that he has seen it is told the current one at once.
const IN_DOUBT: Option<u32> = Some(u32::MAX);

/// How long after its start a provider may not have been asked for volumes that are mounted: a
/// driver keeps the kubelet's questions to itself for two minutes after each change, and the
/// kubelet asks every minute to minute and a half.
const LEARNS: Duration = Duration::from_secs(300);

/// What is asked at once, and the volumes that were given something in an outage, as it tells of
/// them.
struct Round {
    questions: Vec<Question>,
    digest: String,
    given_in_outage: Vec<(Arc<Slot>, Told)>,
}

/// What is answered.
#[derive(Default)]
struct Answer {
    news: News,
    /// Whether the statement is known to the service; none while that is not known.
    is_heard: Option<bool>,
}

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

impl Memory {
    /// What the service is asked of a secret, as far as one volume is concerned.
    fn question_of(&self, told: &Told, version: Option<u32>, name: &str) -> Option<u32> {
        match self.known.get(name) {
            None => version,
            Some(Some(known)) if told.is_unsure && version != Some(*known) => IN_DOUBT,
            Some(known) => *known,
        }
    }
}

impl Provider {
    /// Watches until the end of the process.
    pub async fn watch(self: Arc<Self>) {
        let mut memory = Memory::default();
        loop {
            self.sweep();
            let Some(Round { questions, digest, given_in_outage }) = self.round(&mut memory) else {
                tokio::select! {
                    () = self.wake.notified() => sleep(GATHER).await,
                    () = sleep_until(self.begun_at + LEARNS), if self.learns() => {}
                    // Nobody wakes it for volumes that are no longer asked for.
                    () = sleep(FORGOTTEN) => {}
                }
                continue;
            };
            tokio::select! {
                answer = self.ask(questions) => {
                    self.heed(answer, (digest, given_in_outage), &mut memory).await;
                }
                () = async { self.wake.notified().await; sleep(GATHER).await } => {}
                () = sleep(AGAIN), if !memory.behind.is_empty() => {
                    let names = std::mem::take(&mut memory.behind);
                    self.renew_all(names, &mut memory).await;
                }
            }
        }
    }

    /// Whether volumes may be mounted that this provider was not asked for yet.
    fn learns(&self) -> bool {
        self.begun_at.elapsed() < LEARNS && self.knows_all() != Some(true)
    }

    /// What is asked now; nothing while there are no volumes and nobody thinks that there are.
    fn round(&self, memory: &mut Memory) -> Option<Round> {
        let (mut seen, mut holders) = (BTreeMap::new(), BTreeSet::new());
        let mut given_in_outage = Vec::new();
        for slot in self.slots() {
            let told = slot.told();
            let Some(pod) = &told.pod else { continue };
            for (name, version) in &told.seen {
                let asked = memory.question_of(&told, *version, name);
                let before = seen.entry(name.clone()).or_insert(asked);
                if *before != asked {
                    *before = IN_DOUBT;
                }
            }
            holders.extend(told.delivered.iter().map(|(secret, version)| Holder {
                secret: secret.clone(),
                version: *version,
                given_in_outage: told.given_in_outage,
                ..pod.clone()
            }));
            if told.given_in_outage {
                given_in_outage.push((slot, told));
            }
        }
        memory.known.retain(|name, _| seen.contains_key(name));
        let holders_incomplete = self.learns() || holders.len() > MOST_HOLDERS;
        let holders: Vec<_> = holders.into_iter().take(MOST_HOLDERS).collect();
        let digest = digest_of(&holders, holders_incomplete);
        let is_sent = memory.sent.as_ref() == Some(&digest);
        // Of another provider before this one the service may think that it has volumes: once
        // there are none for certain, it is told.
        if seen.is_empty() && (is_sent || (holders.is_empty() && holders_incomplete)) {
            return None;
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
            first.holders_digest = Some(digest.clone());
            first.holders_incomplete = holders_incomplete;
        }
        Some(Round { questions, digest, given_in_outage })
    }

    /// The first answer that says something, or the last one.
    async fn ask(&self, questions: Vec<Question>) -> Result<Answer, SecretError> {
        let mut asking = JoinSet::new();
        for question in questions {
            let service = Arc::clone(&self.service);
            asking.spawn(async move {
                let is_statement = question.holders_digest.is_some();
                (is_statement, service.watch(&question).await)
            });
        }
        let mut last = Answer::default();
        while let Some(answer) = asking.join_next().await {
            let (is_statement, news) = answer.map_err(|error| SecretError::Away(error.into()))?;
            last.news = news?;
            if is_statement {
                last.is_heard = Some(!last.news.holders_wanted);
            }
            if last.news.holders_wanted || !last.news.changed.is_empty() {
                break;
            }
        }
        Ok(last)
    }

    async fn heed(
        self: &Arc<Self>,
        answer: Result<Answer, SecretError>,
        (digest, given_in_outage): (String, Vec<(Arc<Slot>, Told)>),
        memory: &mut Memory,
    ) {
        match answer {
            Ok(Answer { news, is_heard }) => {
                if !self.is_told.swap(true, Ordering::Relaxed) {
                    tracing::info!("the service tells this node of changes");
                }
                match is_heard {
                    Some(true) => {
                        memory.sent = Some(digest);
                        // It is on record now.
                        given_in_outage.iter().for_each(|(slot, told)| slot.confess(told));
                    }
                    Some(false) => memory.sent = None,
                    // Another question was answered first: it is said again.
                    None => {}
                }
                self.take(news.changed, memory).await;
            }
            Err(SecretError::Away(cause)) => {
                if self.is_told.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        cause,
                        "the service does not answer; mounted volumes stay as they are"
                    );
                }
                // It may be another process by then, which was told nothing.
                memory.sent = None;
                sleep(AWAY).await;
            }
            // Its certificate is being renewed, or is void, or there is none.
            Err(SecretError::Refused { code, .. }) if code == "Unauthenticated" => {
                self.mark_untold();
                memory.sent = None;
                if self.slots().iter().any(|slot| slot.told().pod.is_some()) {
                    sleep(AWAY).await;
                } else {
                    // There is nothing to tell before a pod has something.
                    drop(timeout(DENIED, self.wake.notified()).await);
                }
            }
            Err(SecretError::Refused { code, message }) => {
                tracing::warn!(
                    code,
                    message,
                    "the service does not tell this node of changes; volumes are renewed when the \
                     kubelet asks. Permit secrets:ListSecrets to nodes"
                );
                self.is_told.store(false, Ordering::Relaxed);
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
        let told_at = Instant::now();
        let slots: Vec<_> = self.slots().into_iter().filter(is_behind).collect();
        for some in slots.chunks(RENEWED_AT_ONCE) {
            let mut renewing = JoinSet::new();
            for slot in some {
                let (provider, slot) = (Arc::clone(self), Arc::clone(slot));
                renewing.spawn(async move { provider.renewed_or_told(&slot, told_at).await });
            }
            while let Some(done) = renewing.join_next().await {
                if matches!(done, Ok(false)) {
                    memory.behind.extend(names.iter().cloned());
                }
            }
        }
    }

    /// Renews a volume; no when that may succeed later.
    async fn renewed_or_told(&self, slot: &Slot, told_at: Instant) -> bool {
        slot.compare();
        let failed = match self.renew(slot).await {
            Ok(is_delivered) => {
                self.metrics.renewed(told_at.elapsed());
                if is_delivered {
                    self.announce(slot, None);
                }
                return true;
            }
            Err(failed) => failed,
        };
        self.metrics.not_renewed();
        let pod = slot.told().pod.map(|pod| pod.pod_uid).unwrap_or_default();
        tracing::warn!(pod, reason = %failed.refusal, "a volume stays as it is");
        if !failed.is_away {
            self.announce(slot, Some(failed.refusal.to_string()));
        }
        !failed.is_away
    }
}

/// Names a statement.
fn digest_of(holders: &[Holder], is_incomplete: bool) -> String {
    let mut parts: Vec<Vec<u8>> = vec![vec![u8::from(is_incomplete)]];
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::advance;

    use super::super::tests::{mounted, provider, request, token};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn statement_is_on_record_when_its_own_question_was_answered() {
        let (_, provider) = provider(None);
        mounted(&provider, &request("u", &token("u", 1))).await;
        let statement = Question {
            seen: vec![("a/b".to_owned(), Some(1))],
            holders_digest: Some("x".to_owned()),
            ..Question::default()
        };
        // The other question is answered at once, and this one is given up.
        let other = Question { seen: vec![("o".to_owned(), None)], ..Question::default() };
        let answer = provider.ask(vec![statement, other]).await.unwrap();
        assert_eq!((answer.is_heard, answer.news.changed.len()), (None, 1));
        let mut memory = Memory::default();
        for (is_heard, is_said_again) in
            [(None, true), (Some(true), false), (None, false), (Some(false), true)]
        {
            let Round { digest, given_in_outage, .. } = provider.round(&mut memory).unwrap();
            let answer = Answer { is_heard, ..Answer::default() };
            provider.heed(Ok(answer), (digest, given_in_outage), &mut memory).await;
            let next = provider.round(&mut memory).unwrap();
            assert_eq!(next.questions[0].holders.is_some(), is_said_again, "{is_heard:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn statement_is_complete_when_the_kubelet_had_the_time_to_ask() {
        let (_, provider) = provider(None);
        let mut memory = Memory::default();
        assert!(provider.round(&mut memory).is_none());
        mounted(&provider, &request("u", &token("u", 1))).await;
        let first = provider.round(&mut memory).unwrap();
        assert!(first.questions[0].holders_incomplete);
        memory.sent = Some(first.digest);
        advance(LEARNS).await;
        let whole = provider.round(&mut memory).unwrap();
        let question = &whole.questions[0];
        assert!(!question.holders_incomplete && question.holders.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn statement_is_complete_at_once_when_every_volume_that_the_kubelet_has_is_known() {
        let kubelet = tempfile::tempdir().unwrap();
        let volume =
            |pod: &str| kubelet.path().join(format!("pods/{pod}/volumes/kubernetes.io~csi/v"));
        let note = |pod: &str, mode: &str| {
            fs::create_dir_all(volume(pod).join("mount")).unwrap();
            let notes = format!(r#"{{"volumeLifecycleMode":"{mode}"}}"#);
            fs::write(volume(pod).join("vol_data.json"), notes).unwrap();
        };
        fs::create_dir_all(kubelet.path().join("pods/without/volumes")).unwrap();
        note("disk", "Persistent");
        note("u", "Ephemeral");
        let (_, provider) = provider(Some(kubelet.path().to_owned()));
        let is_complete = || {
            let round = provider.round(&mut Memory::default());
            round.map(|round| !round.questions[0].holders_incomplete)
        };
        assert_eq!(is_complete(), None, "nothing is said of nothing while there may be something");
        let mut asked = request("u", &token("u", 1));
        asked.target_path = volume("u").join("mount").to_str().unwrap().to_owned();
        mounted(&provider, &asked).await;
        assert_eq!(is_complete(), Some(true));
        note("other", "Ephemeral");
        assert_eq!(is_complete(), Some(false));
        // The kubelet is writing.
        fs::write(volume("disk").join("vol_data.json"), "{").unwrap();
        fs::remove_dir_all(volume("other")).unwrap();
        assert_eq!(is_complete(), Some(false));
        fs::remove_dir_all(volume("disk")).unwrap();
        assert_eq!(is_complete(), Some(true));
        // A folder in which none of the volumes is that are known may be another kubelet's.
        fs::remove_dir_all(kubelet.path().join("pods/u")).unwrap();
        assert_eq!(is_complete(), Some(false));
        note("u", "Ephemeral");
        assert_eq!(is_complete(), Some(true));
        // One of which nobody ever asks is that of another provider.
        note("other", "Ephemeral");
        advance(LEARNS - Duration::from_secs(1)).await;
        assert_eq!(is_complete(), Some(false));
        advance(Duration::from_secs(1)).await;
        assert_eq!(is_complete(), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn holders_that_are_too_many_do_not_keep_a_node_from_asking() {
        let (_, provider) = provider(None);
        let objects: Vec<_> = (0..500).map(|one| format!("- {{secret: a/{one}}}")).collect();
        for one in 0..17 {
            let pod = format!("pod-{one}");
            let mut asked = request(&pod, &token(&pod, 1));
            let mut attributes: serde_json::Value =
                serde_json::from_str(&asked.attributes).unwrap();
            attributes["objects"] = objects.join("\n").into();
            asked.attributes = attributes.to_string();
            mounted(&provider, &asked).await;
        }
        advance(LEARNS).await;
        let round = provider.round(&mut Memory::default()).unwrap();
        let question = &round.questions[0];
        assert_eq!(question.holders.as_ref().map(Vec::len), Some(MOST_HOLDERS));
        assert!(question.holders_incomplete);
    }

    #[tokio::test(start_paused = true)]
    async fn provider_without_volumes_says_so_once_and_not_before_it_knows() {
        let (service, provider) = provider(None);
        let watching = tokio::spawn(Arc::clone(&provider).watch());
        sleep(LEARNS / 2).await;
        assert!(service.asked.lock().unwrap().is_empty());
        sleep(LEARNS).await;
        let asked = service.asked.lock().unwrap().clone();
        watching.abort();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].holders.as_deref(), Some(&[][..]));
    }
}
