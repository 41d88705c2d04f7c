//! Volumes: made of secrets once, kept, and answered from memory until something changes.
//!
//! Room      `node`.
//! Holds     What is kept for a volume is answered to whoever asks for the same volume with a
//!           token that the service has accepted for it, and to nobody else. One volume is made
//!           once, however many ask for it at once. While the service is away, a volume that was
//!           mounted keeps what it has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lastkey_crypto::digest::{sha256, sha256_of};
use lastkey_crypto::wrap::WrapError;
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::csi_provider::{File, MountRequest, MountResponse, ObjectVersion};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::dialect::Personality;
use super::held::{Held, Slot, end_of, is_of_pod};
use super::logged;
use super::metrics::Metrics;
use super::outage::Shelf;
use super::plan::{Plan, Source};
use super::reading::{Failed, INTERNAL, Read};
use super::refusal::{Refusal, Whom, of_accounts};
use super::render::{Rendered, Values, render_all};
use super::request::Asked;
use super::volume::{PODS, VolumeError, ephemeral, replace};
use crate::ports::{Holder, SecretOps, TokenJudge, VolumeHerald, VolumeNews, Which};

/// A driver waits two minutes, and shows nobody why it stopped.
const BUDGET: Duration = Duration::from_secs(60);
/// What nobody is told about is looked at so often, when the kubelet asks.
const RECHECK: Duration = Duration::from_secs(60);
/// The driver has written what it was answered after this time.
const WRITTEN: Duration = Duration::from_secs(2);
/// Nearly always after this one: who writes the volume sooner is written over by what the driver was
/// answered.
const SETTLED: Duration = Duration::from_millis(250);
/// Until then it is looked so often whether it has.
const LOOK: Duration = Duration::from_millis(50);
/// A volume of which nobody sees here whether it is mounted is forgotten when nobody has asked for
/// it in this time.
pub(super) const FORGOTTEN: Duration = Duration::from_secs(3_600);
/// How long is waited for what a volume has, once there is no more time to make it.
const GRACE: Duration = Duration::from_secs(1);

/// Files for the driver.
enum Answer {
    /// As they should be now.
    Current(MountResponse),
    /// As the volume has them already: nobody said how they should be.
    AsItWas(MountResponse),
}

/// What the operator chose.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Version of the program, for the driver.
    pub version: String,
    /// The role of classes that name none; `{namespace}` and `{serviceaccount}` stand for those
    /// of the pod.
    pub role: Option<String>,
    /// The kubelet's folder, where it can be seen from here.
    pub kubelet: Option<PathBuf>,
    /// Whether mounted volumes are renewed there; else they change when the kubelet asks again.
    pub push: bool,
    /// Audiences of tokens that mean us, the preferred one first.
    pub audiences: Vec<String>,
    /// Longest answer that the driver reads, in bytes, of [`ProviderConfig::VOLUME_BYTES`].
    pub max_volume_bytes: usize,
}

impl ProviderConfig {
    /// What the longest answer may be set to: from a quarter of a MiB to what the secrets of a volume
    /// may have together.
    pub const VOLUME_BYTES: RangeInclusive<usize> = 256 << 10..=16 << 20;
    /// What a driver reads whose `--max-call-recv-msg-size` nobody has set.
    pub const USUAL_VOLUME_BYTES: usize = 4 << 20;
}

/// What is done for pods that start while the service is away.
#[derive(Clone)]
pub struct OutageConfig {
    /// How long a value that the service gave may be given again.
    pub bound: Duration,
    /// Verifies their tokens.
    pub judge: Arc<dyn TokenJudge>,
}

/// The provider.
pub struct Provider {
    pub(super) config: ProviderConfig,
    pub(super) service: Arc<dyn SecretOps>,
    volumes: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
    pub(super) outage: Option<(Shelf, Arc<dyn TokenJudge>)>,
    /// Secrets of whose changes the service does not tell this node.
    pub(super) untold: Mutex<HashSet<String>>,
    /// A volume is there, or holds something else.
    pub(super) wake: Notify,
    pub(super) begun_at: Instant,
    /// Whether the service tells this node of changes.
    pub(super) is_told: AtomicBool,
    herald: Option<Arc<dyn VolumeHerald>>,
    pub(super) metrics: Arc<Metrics>,
}

impl Provider {
    /// A provider that asks this service.
    ///
    /// # Errors
    /// Without randomness for the key of what it remembers.
    pub fn new(
        config: ProviderConfig,
        service: Arc<dyn SecretOps>,
        outage: Option<OutageConfig>,
    ) -> Result<Self, WrapError> {
        let metrics = Arc::new(Metrics::new(&config.version));
        Self::counting(config, service, outage, metrics)
    }

    /// Tells what becomes of mounted volumes.
    #[must_use]
    pub fn announced_by(mut self, herald: Arc<dyn VolumeHerald>) -> Self {
        self.herald = Some(herald);
        self
    }

    /// A provider of the same node that asks another service; both count together.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn beside(
        &self,
        service: Arc<dyn SecretOps>,
        outage: Option<OutageConfig>,
    ) -> Result<Self, WrapError> {
        let metrics = Arc::clone(&self.metrics);
        let beside = Self::counting(self.config.clone(), service, outage, metrics)?;
        Ok(Self { herald: self.herald.clone(), ..beside })
    }

    fn counting(
        config: ProviderConfig,
        service: Arc<dyn SecretOps>,
        outage: Option<OutageConfig>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, WrapError> {
        let outage = outage.map(|one| Shelf::new(one.bound).map(|shelf| (shelf, one.judge)));
        let outage = outage.transpose()?;
        let (volumes, untold, wake) = (Mutex::default(), Mutex::default(), Notify::new());
        let (begun_at, is_told) = (Instant::now(), AtomicBool::new(false));
        Ok(Self {
            config,
            service,
            volumes,
            outage,
            untold,
            wake,
            begun_at,
            is_told,
            herald: None,
            metrics,
        })
    }

    /// The files of a volume.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn mount(
        &self,
        personality: Personality,
        request: &MountRequest,
    ) -> Result<MountResponse, Refusal> {
        self.mount_asked(personality, &Asked::parse(request)?).await
    }

    /// The same of a request that was taken apart.
    pub(super) async fn mount_asked(
        &self,
        personality: Personality,
        asked: &Asked,
    ) -> Result<MountResponse, Refusal> {
        let slot = self.slot(personality, asked);
        let answer = self.mount_at(&slot, personality, asked).await;
        match &answer {
            // What kept it as it was is put right.
            Ok(Answer::Current(_)) if slot.is_kept() => self.announce(&slot, None),
            Ok(Answer::Current(_) | Answer::AsItWas(_)) => {}
            // Of a volume that is mounted the driver tells nobody.
            Err(refusal) => self.announce(&slot, Some(refusal.to_string())),
        }
        answer.map(|(Answer::Current(response) | Answer::AsItWas(response))| response)
    }

    async fn mount_at(
        &self,
        slot: &Slot,
        personality: Personality,
        asked: &Asked,
    ) -> Result<Answer, Refusal> {
        let plan = plan_of(personality, asked)?;
        let token = asked.token(&self.audiences(personality, &plan))?;
        let has_pod = is_of_pod(token, asked)?;
        let mounting = self.mount_in(slot, personality, (&plan, asked), (token, has_pod));
        if let Ok(mounted) = timeout(BUDGET, mounting).await {
            return mounted;
        }
        let kept = match timeout(GRACE, slot.held.lock()).await {
            Ok(held) => self.stays(slot, held.as_ref(), asked),
            Err(_) => None,
        };
        kept.ok_or_else(|| {
            Refusal::Unready(format!(
                "{}: Lastkey did not answer within {} s; the pod starts when it does",
                asked.who(),
                BUDGET.as_secs()
            ))
        })
    }

    async fn mount_in(
        &self,
        slot: &Slot,
        personality: Personality,
        (plan, asked): (&Plan, &Asked),
        (token, has_pod): (&SecretVec, bool),
    ) -> Result<Answer, Refusal> {
        let mut held = slot.held.lock().await;
        let token_hash = token.expose(sha256);
        if let Some(held) = &*held
            && self.is_good(held, asked, &token_hash)
        {
            self.metrics.answered_from_memory();
            return Ok(Answer::Current(self.answer(slot, held)));
        }
        match self.make(personality, plan, asked, (token, has_pod), held.as_ref()).await {
            Ok(made) => {
                logged::made(plan, &made);
                let answer = self.answer(slot, &made);
                *held = Some(made);
                Ok(Answer::Current(answer))
            }
            Err(Failed { refusal, is_away: true, .. }) => {
                self.stays(slot, held.as_ref(), asked).ok_or(refusal)
            }
            Err(Failed { refusal, is_away: false, .. }) => Err(refusal),
        }
    }

    /// What a pod has already, while the service is away: when the volume is the same, it stays as
    /// it is.
    fn stays(&self, slot: &Slot, held: Option<&Held>, asked: &Asked) -> Option<Answer> {
        let held = held.filter(|held| held.asked.fingerprint == asked.fingerprint)?;
        tracing::warn!(pod = asked.pod, "the service is away; a volume stays as it is");
        Some(Answer::AsItWas(self.answer(slot, held)))
    }

    /// Whether a volume answers what is asked, without asking the service.
    fn is_good(&self, held: &Held, asked: &Asked, token: &[u8; 32]) -> bool {
        let untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told = !held.is_untold && held.seen.keys().all(|name| !untold.contains(name));
        held.asked.fingerprint == asked.fingerprint
            && held.token_hash == *token
            && SystemTime::now() < held.token_ends_at
            && held.behind_since.is_none()
            && (is_told || held.made_at.elapsed() < RECHECK)
            && held.ask_again_at.is_none_or(|at| Instant::now() < at)
    }

    /// The driver writes what it is answered.
    fn answer(&self, slot: &Slot, held: &Held) -> MountResponse {
        if let Some(before) = slot.tell(held, true) {
            self.wake.notify_one();
            if !before.delivered.is_empty() && before.delivered != held.versions {
                self.announce(slot, None);
            }
        }
        logged::size(slot, held);
        slot.note_answer();
        response(&held.files)
    }

    /// The volumes that there are.
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.values().cloned().collect()
    }

    /// Makes a volume anew after one of its secrets has changed, and puts it where it is mounted;
    /// whether that was done, or is left to the kubelet.
    ///
    /// # Errors
    /// [`Failed`]; the volume stays as it is, and is known to be behind: it is made anew when the
    /// kubelet asks next, whatever is in memory.
    pub(super) async fn renew(&self, slot: &Slot) -> Result<bool, Failed> {
        let mut held = slot.held.lock().await;
        let Some(before) = &mut *held else { return Ok(false) };
        let patience = WRITTEN.saturating_sub(before.made_at.elapsed());
        let made = match self.made_anew(before).await {
            Ok(made) => made,
            Err(failed) => {
                before.behind_since.get_or_insert_with(Instant::now);
                return Err(failed);
            }
        };
        if let Some(since) = slot.since_answer() {
            sleep(SETTLED.saturating_sub(since)).await;
        }
        let is_delivered = self.deliver(&made, patience).await;
        if slot.tell(&made, is_delivered).is_some() {
            self.wake.notify_one();
        }
        *held = Some(made);
        Ok(is_delivered)
    }

    /// Tells the people of a pod what became of its volume, and why it was kept if it was: once,
    /// however often the kubelet asks.
    pub(super) fn announce(&self, slot: &Slot, kept_because: Option<String>) {
        if let (Some(herald), Some(pod)) = (&self.herald, slot.told().pod) {
            if !slot.keep(kept_because.as_deref()) && kept_because.is_some() {
                return;
            }
            let Holder { namespace, pod, pod_uid, .. } = pod;
            herald.tell(VolumeNews { namespace, pod, pod_uid, kept_because });
        }
    }

    async fn made_anew(&self, before: &Held) -> Result<Held, Failed> {
        let (personality, asked) = (before.personality, &before.asked);
        let plan = plan_of(personality, asked)?;
        let token = (&before.token, before.has_pod);
        self.make(personality, &plan, asked, token, Some(before)).await
    }

    /// Writes a mounted volume; whether that was done. One that the driver is about to write for the
    /// first time is waited for.
    async fn deliver(&self, made: &Held, patience: Duration) -> bool {
        let kubelet = self.config.kubelet.as_ref().filter(|_| self.config.push);
        let Some(kubelet) = kubelet else { return false };
        let place = (made.asked.target.as_str(), made.asked.pod_uid.as_str());
        let until = Instant::now() + patience;
        let error = loop {
            match replace(kubelet, place, &made.files) {
                Ok(()) => return true,
                Err(VolumeError::NotMounted) if Instant::now() < until => sleep(LOOK).await,
                Err(error) => break error,
            }
        };
        let (pod, cause) = (made.asked.pod.as_str(), std::error::Error::source(&error));
        tracing::warn!(pod, %error, cause, "a volume changes when the kubelet asks for it again");
        false
    }

    fn audiences(&self, personality: Personality, plan: &Plan) -> Vec<String> {
        let theirs = personality.audience().map(str::to_owned);
        plan.audience.iter().chain(&self.config.audiences).cloned().chain(theirs).collect()
    }

    /// The place of a volume. The driver says where that is, so no pod names another's.
    fn slot(&self, personality: Personality, asked: &Asked) -> Arc<Slot> {
        let now = Instant::now();
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = volumes.entry(place(personality, asked));
        let slot = slot.or_insert_with(|| Arc::new(Slot::new(now)));
        *slot.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Arc::clone(slot)
    }

    /// Forgets a volume, which is made by another service from now on.
    pub(super) fn let_go(&self, personality: Personality, asked: &Asked) {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if volumes.remove(&place(personality, asked)).is_some() {
            // The service is told who holds what now.
            self.wake.notify_one();
        }
    }

    /// Forgets volumes that are not mounted any more. Where that is not seen, those that nobody has
    /// asked for in a while.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.retain(|_, slot| {
            let asked_at = *slot.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
            let is_recent = now.duration_since(asked_at) < FORGOTTEN;
            self.is_mounted(slot).unwrap_or(is_recent)
        });
    }

    /// Whether this provider was asked for every volume that may be one of its own, where that can
    /// be seen from here.
    pub(super) fn knows_all(&self) -> Option<bool> {
        let there = ephemeral(self.config.kubelet.as_ref()?).ok()?;
        let target = |slot: Arc<Slot>| {
            let held = slot.held.try_lock().ok()?;
            held.as_ref().map(|held| PathBuf::from(&held.asked.target))
        };
        let known: HashSet<_> = self.slots().into_iter().filter_map(target).collect();
        // A folder in which none of ours is may be another kubelet's, or nobody's.
        let is_seen = there.iter().any(|volume| known.contains(volume));
        is_seen.then(|| there.iter().all(|volume| known.contains(volume)))
    }

    /// Whether a volume that was made is in its place, where that can be seen from here.
    fn is_mounted(&self, slot: &Slot) -> Option<bool> {
        let kubelet = self.config.kubelet.as_ref()?;
        // One that is being made is there.
        let Ok(held) = slot.held.try_lock() else { return Some(true) };
        let held = held.as_ref()?;
        let target = Path::new(&held.asked.target);
        if !target.starts_with(kubelet) || !kubelet.join(PODS).is_dir() {
            return None;
        }
        Some(held.made_at.elapsed() <= BUDGET || target.try_exists().ok()?)
    }

    async fn make(
        &self,
        personality: Personality,
        plan: &Plan,
        asked: &Asked,
        (token, has_pod): (&SecretVec, bool),
        before: Option<&Held>,
    ) -> Result<Held, Failed> {
        let role = self.role(plan, asked)?;
        let token_hash = token.expose(sha256);
        if !has_pod && let Some(refusal) = of_accounts(plan, asked) {
            return Err(refusal.into());
        }
        let kept = before.and_then(|held| held.session_for(&token_hash, &role));
        let whom = Whom { asked, role: &role };
        let read = self.read(plan, whom, (token, has_pod), kept).await?;
        let Read { values, session, is_live } = read;
        let ask_after = values.values().flatten().filter_map(|read| read.ask_after).min();
        let most = self.config.max_volume_bytes;
        let (mut files, values) = rendered(plan, asked, values, most).await?;
        keep_bytes(&mut files, before);
        let (seen, versions) = versions_of(&values);
        Ok(Held {
            personality,
            asked: asked.again(),
            token: token.expose(SecretVec::copy_of),
            token_hash,
            token_ends_at: end_of(token),
            has_pod,
            session: session.filter(|_| is_live),
            role,
            files,
            seen,
            versions,
            made_at: Instant::now(),
            behind_since: None,
            ask_again_at: ask_after.map(|pause| Instant::now() + pause),
            is_untold: !is_live || !has_pod || values.keys().any(is_untold),
        })
    }

    fn role(&self, plan: &Plan, asked: &Asked) -> Result<String, Refusal> {
        if let Some(role) = plan.role.as_ref().filter(|role| !role.is_empty()) {
            return Ok(role.clone());
        }
        let role = self.config.role.as_ref().ok_or_else(|| {
            Refusal::Invalid(format!(
                "{}: the class names no role: add the parameter `role`, or start the provider with \
                 --role for all classes",
                asked.class_of_whom()
            ))
        })?;
        let role = role.replace("{namespace}", &asked.namespace);
        Ok(role.replace("{serviceaccount}", &asked.service_account))
    }
}

/// Names the place of a volume.
fn place(personality: Personality, asked: &Asked) -> [u8; 32] {
    let parts = [
        personality.name(),
        &asked.target,
        &asked.pod_uid,
        &asked.namespace,
        &asked.service_account,
        asked.class(),
    ];
    let mut parts: Vec<&[u8]> = parts.iter().flat_map(|part| [part.as_bytes(), b"\0"]).collect();
    if asked.class().is_empty() {
        // A controller has one place for all that it asks for, and names no class.
        parts.push(&asked.fingerprint);
    }
    sha256_of(&parts)
}

/// What the class of a volume asks for.
fn plan_of(personality: Personality, asked: &Asked) -> Result<Plan, Refusal> {
    let plan = personality.plan(&asked.parameters, asked.mode);
    plan.map_err(|refusal| refusal.for_whom(&asked.class_of_whom()))
}

/// What is made with random bytes stays as it is while it is made of the same.
fn keep_bytes(files: &mut [Rendered], before: Option<&Held>) {
    let before = before.map_or(&[][..], |held| &held.files);
    for file in files.iter_mut().filter(|file| file.is_random) {
        let is_same = |old: &&Rendered| old.path == file.path && old.version == file.version;
        if let Some(old) = before.iter().find(is_same) {
            file.contents = old.contents.expose(SecretVec::copy_of);
        }
    }
}

/// The files, made where nobody else waits for the processor.
async fn rendered(
    plan: &Plan,
    asked: &Asked,
    values: Values,
    most: usize,
) -> Result<(Vec<Rendered>, Values), Refusal> {
    let (wanted, who) = (plan.files.clone(), asked.who());
    let render = move || render_all(&wanted, &values, &who, most).map(|files| (files, values));
    let rendered = tokio::task::spawn_blocking(render).await;
    rendered.map_err(|_| Refusal::Unready(INTERNAL.to_owned()))?
}

/// Current versions as far as they were read, and the version of each secret that a pod is said
/// to hold: of several the current one.
fn versions_of(values: &Values) -> (BTreeMap<String, Option<u32>>, BTreeMap<String, u32>) {
    let (mut seen, mut versions) = (BTreeMap::new(), BTreeMap::new());
    for (source, read) in values {
        let version = read.as_ref().map(|read| read.version);
        let stage = match &source.which {
            Which::Stage(stage) => stage.as_str(),
            Which::Number(_) => "",
            // No secret, so nobody tells of its changes or counts who holds it.
            Which::Account => continue,
        };
        if stage == "current" {
            seen.insert(source.name.clone(), version);
            versions.extend(version.map(|version| (source.name.clone(), version)));
        } else {
            if stage == "previous" {
                // It becomes another one when the current one does.
                seen.entry(source.name.clone()).or_insert(None);
            }
            if let Some(version) = version {
                versions.entry(source.name.clone()).or_insert(version);
            }
        }
    }
    (seen, versions)
}

/// Whether a version may become another one without anybody being told: only what is at `current`,
/// and with it at `previous`, is watched.
fn is_untold(source: &Source) -> bool {
    match &source.which {
        // Asked for again in time.
        Which::Number(_) | Which::Account => false,
        Which::Stage(stage) => !matches!(stage.as_str(), "current" | "previous"),
    }
}

fn response(files: &[Rendered]) -> MountResponse {
    let mut object_version: Vec<_> = files
        .iter()
        .map(|file| ObjectVersion { id: file.path.clone(), version: file.version.clone() })
        .collect();
    if object_version.is_empty() {
        // A driver takes no answer without one; a class may have optional objects alone.
        object_version.push(ObjectVersion { id: "none".to_owned(), version: "0".to_owned() });
    }
    let files = files.iter().map(|file| File {
        path: file.path.clone(),
        mode: i32::try_from(file.mode).unwrap_or(0o400),
        contents: file.contents.expose(<[u8]>::to_vec),
    });
    MountResponse { object_version, error: None, files: files.collect() }
}
