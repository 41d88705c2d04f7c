//! Volumes: made of secrets once, kept, and answered from memory until something changes.
//!
//! Room      `node`.
//! Holds     What is kept for a volume is answered to whoever asks for the same volume with a
//!           token that the service has accepted for it, and to nobody else. One volume is made
//!           once, however many ask for it at once. While the service is away, a volume that was
//!           mounted keeps what it has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_crypto::digest::{sha256, sha256_of};
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::csi_provider::{File, MountRequest, MountResponse, ObjectVersion};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::dialect::Personality;
use super::plan::{Plan, Source, check_apart};
use super::refusal::{Refusal, is_no, of_object, of_session};
use super::render::{Rendered, Values, render};
use super::request::Asked;
use super::volume::replace;
use crate::ports::{Holder, PodSession, ReadSecret, SecretError, SecretOps, Which};

/// A driver waits two minutes, and shows nobody why it stopped.
const BUDGET: Duration = Duration::from_secs(60);
/// A driver reads answers of 4 MiB; this is without what frames them.
const MAX_ANSWER_LEN: usize = (4 << 20) - (64 << 10);
/// What frames a file in an answer, at most.
const FILE_OVERHEAD: usize = 64;
/// A session that ends sooner is not used for another read.
const SESSION_REST: Duration = Duration::from_secs(30);
/// How long a token counts that does not say when it ends.
const UNKNOWN_LIFE: Duration = Duration::from_secs(600);
/// What nobody is told about is looked at so often, when the kubelet asks.
const RECHECK: Duration = Duration::from_secs(60);
/// A volume that nobody has asked for in this time is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// What the operator chose.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Version of the program, for the driver.
    pub version: String,
    /// The role of classes that name none; `{namespace}` and `{serviceaccount}` stand for those
    /// of the pod.
    pub role: Option<String>,
    /// The kubelet's folder; without it mounted volumes change when the kubelet asks again.
    pub kubelet: Option<PathBuf>,
    /// Audiences of tokens that mean us, the preferred one first.
    pub audiences: Vec<String>,
}

/// The provider.
pub struct Provider {
    pub(super) config: ProviderConfig,
    pub(super) service: Arc<dyn SecretOps>,
    volumes: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
    /// Secrets of whose changes the service does not tell this node.
    pub(super) untold: Mutex<HashSet<String>>,
    /// A volume is there, or holds something else.
    pub(super) wake: Notify,
}

/// The place of a volume. Its lock is held while the volume is made.
pub(super) struct Slot {
    held: tokio::sync::Mutex<Option<Held>>,
    asked_at: Mutex<Instant>,
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
}

/// A volume as it was made.
struct Held {
    personality: Personality,
    asked: Asked,
    token: SecretVec,
    token_hash: [u8; 32],
    token_ends_at: SystemTime,
    session: Arc<PodSession>,
    role: String,
    files: Vec<Rendered>,
    seen: BTreeMap<String, Option<u32>>,
    versions: BTreeMap<String, u32>,
    made_at: Instant,
    /// It has stages that nobody tells about.
    is_untold: bool,
}

impl Held {
    fn session_for(&self, token: &[u8; 32], role: &str) -> Option<Arc<PodSession>> {
        let is_good = self.session.ends_at > Instant::now() + SESSION_REST;
        let is_same = self.token_hash == *token && self.role == role;
        (is_good && is_same).then(|| Arc::clone(&self.session))
    }
}

impl Slot {
    fn new(now: Instant) -> Self {
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
    fn tell(&self, held: &Held, is_delivered: bool) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.clone();
        told.pod = Some(held.asked.holder());
        told.seen = held.seen.clone();
        if is_delivered {
            told.delivered = held.versions.clone();
        }
        *told != before
    }
}

impl Provider {
    /// A provider that asks this service.
    #[must_use]
    pub fn new(config: ProviderConfig, service: Arc<dyn SecretOps>) -> Self {
        let (volumes, untold, wake) = (Mutex::default(), Mutex::default(), Notify::new());
        Self { config, service, volumes, untold, wake }
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
        let asked = Asked::parse(request)?;
        let slot = self.slot(personality, &asked);
        let made = timeout(BUDGET, self.mount_in(&slot, personality, &asked)).await;
        made.unwrap_or_else(|_| {
            Err(Refusal::Unready(format!(
                "{}: Lastkey did not answer within {} s; the pod starts when it does",
                asked.who(),
                BUDGET.as_secs()
            )))
        })
    }

    async fn mount_in(
        &self,
        slot: &Slot,
        personality: Personality,
        asked: &Asked,
    ) -> Result<MountResponse, Refusal> {
        let mut held = slot.held.lock().await;
        let plan = personality.plan(&asked.parameters, asked.mode)?;
        let token = asked.token(&self.audiences(personality, &plan))?;
        let token_hash = token.expose(sha256);
        if let Some(held) = &*held
            && self.is_good(held, asked, &token_hash)
        {
            return Ok(self.answer(slot, held));
        }
        match self.make(personality, &plan, asked, token, held.as_ref()).await {
            Ok(made) => {
                note(&plan, asked, &made.files);
                let answer = self.answer(slot, &made);
                *held = Some(made);
                Ok(answer)
            }
            Err(Failed { refusal, is_away: true }) => match &*held {
                // It has these files already: the volume is the same, and so is the pod.
                Some(held) if held.asked.fingerprint == asked.fingerprint => {
                    tracing::warn!(pod = asked.pod, "the service is away; a volume stays as it is");
                    Ok(self.answer(slot, held))
                }
                Some(_) | None => Err(refusal),
            },
            Err(Failed { refusal, is_away: false }) => Err(refusal),
        }
    }

    /// Whether a volume answers what is asked, without asking the service.
    fn is_good(&self, held: &Held, asked: &Asked, token: &[u8; 32]) -> bool {
        let untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told = !held.is_untold && held.seen.keys().all(|name| !untold.contains(name));
        held.asked.fingerprint == asked.fingerprint
            && held.token_hash == *token
            && SystemTime::now() < held.token_ends_at
            && (is_told || held.made_at.elapsed() < RECHECK)
    }

    /// The driver writes what it is answered.
    fn answer(&self, slot: &Slot, held: &Held) -> MountResponse {
        if slot.tell(held, true) {
            self.wake.notify_one();
        }
        response(&held.files)
    }

    /// The volumes that there are.
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.values().cloned().collect()
    }

    /// Makes a volume anew after one of its secrets has changed, and puts it where it is mounted.
    ///
    /// # Errors
    /// [`Failed`]; the volume stays as it is.
    pub(super) async fn renew(&self, slot: &Slot) -> Result<(), Failed> {
        let mut held = slot.held.lock().await;
        let Some(before) = &*held else { return Ok(()) };
        let asked = &before.asked;
        let plan = before.personality.plan(&asked.parameters, asked.mode)?;
        let made = self.make(before.personality, &plan, asked, &before.token, Some(before)).await?;
        if slot.tell(&made, self.deliver(&made)) {
            self.wake.notify_one();
        }
        *held = Some(made);
        Ok(())
    }

    /// Writes a mounted volume; whether that was done.
    fn deliver(&self, made: &Held) -> bool {
        let Some(kubelet) = &self.config.kubelet else { return false };
        let place = (made.asked.target.as_str(), made.asked.pod_uid.as_str());
        let Err(error) = replace(kubelet, place, &made.files) else { return true };
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
        let class = asked.parameters.get("secretProviderClass").map_or("", String::as_str);
        let parts = [
            personality.name(),
            &asked.target,
            &asked.pod_uid,
            &asked.namespace,
            &asked.service_account,
            class,
        ];
        let parts: Vec<&[u8]> = parts.iter().flat_map(|part| [part.as_bytes(), b"\0"]).collect();
        let now = Instant::now();
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = volumes.entry(sha256_of(&parts)).or_insert_with(|| Arc::new(Slot::new(now)));
        *slot.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Arc::clone(slot)
    }

    /// Forgets volumes that nobody has asked for in a while, and those whose pods are gone.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.retain(|_, slot| {
            let asked_at = *slot.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
            now.duration_since(asked_at) < FORGOTTEN && !self.is_unmounted(slot)
        });
    }

    /// Whether the place of a volume that was there is gone, as far as that can be seen from here.
    fn is_unmounted(&self, slot: &Slot) -> bool {
        let Some(kubelet) = &self.config.kubelet else { return false };
        // One that is being made is there.
        let Ok(held) = slot.held.try_lock() else { return false };
        held.as_ref().is_some_and(|held| {
            let target = Path::new(&held.asked.target);
            target.starts_with(kubelet) && held.made_at.elapsed() > BUDGET && !target.exists()
        })
    }

    async fn make(
        &self,
        personality: Personality,
        plan: &Plan,
        asked: &Asked,
        token: &SecretVec,
        before: Option<&Held>,
    ) -> Result<Held, Failed> {
        let role = self.role(plan, asked)?;
        let token_hash = token.expose(sha256);
        let kept = before.and_then(|held| held.session_for(&token_hash, &role));
        let session =
            match kept {
                Some(session) => session,
                None => {
                    let opened = self.service.open_session(token, &role).await;
                    Arc::new(opened.map_err(|error| {
                        Failed::of(of_session(&asked.who(), &role, &error), &error)
                    })?)
                }
            };
        let values = self.read_all(plan, asked, &session).await?;
        let mut files = Vec::new();
        for wanted in &plan.files {
            files.extend(render(wanted, &values, &asked.who())?);
        }
        check_apart(files.iter().map(|file| (file.path.as_str(), file.object.as_str())))?;
        check_len(&files)?;
        let (seen, versions) = versions_of(&values);
        Ok(Held {
            personality,
            asked: asked.again(),
            token: token.expose(SecretVec::copy_of),
            token_hash,
            token_ends_at: end_of(token),
            session,
            role,
            files,
            seen,
            versions,
            made_at: Instant::now(),
            is_untold: values.keys().any(is_untold),
        })
    }

    fn role(&self, plan: &Plan, asked: &Asked) -> Result<String, Refusal> {
        if let Some(role) = plan.role.as_ref().filter(|role| !role.is_empty()) {
            return Ok(role.clone());
        }
        let role = self.config.role.as_ref().ok_or_else(|| {
            Refusal::Invalid(
                "the class names no role: add the parameter `role`, or start the provider with \
                 --role for all classes"
                    .to_owned(),
            )
        })?;
        let role = role.replace("{namespace}", &asked.namespace);
        Ok(role.replace("{serviceaccount}", &asked.service_account))
    }

    /// Reads every secret of a plan once, all at the same time.
    async fn read_all(
        &self,
        plan: &Plan,
        asked: &Asked,
        session: &Arc<PodSession>,
    ) -> Result<Values, Failed> {
        let mut users: BTreeMap<&Source, Vec<(&str, bool)>> = BTreeMap::new();
        for file in &plan.files {
            for source in file.content.sources() {
                users.entry(source).or_default().push((&file.object, file.is_optional));
            }
        }
        let mut reading = JoinSet::new();
        for source in users.keys().copied().cloned() {
            let (service, session) = (Arc::clone(&self.service), Arc::clone(session));
            reading.spawn(async move {
                let read = service.read(&session, &source.name, &source.which).await;
                (source, read)
            });
        }
        let mut values = Values::new();
        while let Some(done) = reading.join_next().await {
            let (source, read) = done.map_err(|_| Refusal::Unready(INTERNAL.to_owned()))?;
            let objects = users.get(&source).map_or(&[][..], Vec::as_slice);
            let value = judged(read, objects, &asked.who())?;
            values.insert(source, value);
        }
        Ok(values)
    }
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

const INTERNAL: &str = "the provider has failed; look at its log";

/// A value, or none when every object that it is for may do without.
fn judged(
    read: Result<ReadSecret, SecretError>,
    objects: &[(&str, bool)],
    who: &str,
) -> Result<Option<Arc<ReadSecret>>, Failed> {
    let error = match read {
        Ok(read) => return Ok(Some(Arc::new(read))),
        Err(error) => error,
    };
    let may_be_missing = match &error {
        SecretError::Refused { code, .. } => is_no(code) || code == "SecretState",
        SecretError::Away(_) => false,
    };
    match objects.iter().find(|(_, is_optional)| !(may_be_missing && *is_optional)) {
        None => Ok(None),
        Some((object, _)) => Err(Failed::of(of_object(object, who, &error), &error)),
    }
}

/// Why a volume was not made, and whether that may pass by itself.
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    pub(super) is_away: bool,
}

impl Failed {
    fn of(refusal: Refusal, error: &SecretError) -> Self {
        Self { refusal, is_away: matches!(error, SecretError::Away(_)) }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, is_away: false }
    }
}

/// Whether a version may become another one without anybody being told: only what is at `current`,
/// and with it at `previous`, is watched.
fn is_untold(source: &Source) -> bool {
    match &source.which {
        Which::Number(_) => false,
        Which::Stage(stage) => !matches!(stage.as_str(), "current" | "previous"),
    }
}

/// When a token that the service has accepted ends, as it says itself.
fn end_of(token: &SecretVec) -> SystemTime {
    let claims = token.expose(|token| {
        let claims = token.split(|byte| *byte == b'.').nth(1)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        serde_json::from_slice::<serde_json::Value>(&claims).ok()?.get("exp")?.as_u64()
    });
    match claims {
        Some(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        None => SystemTime::now() + UNKNOWN_LIFE,
    }
}

fn check_len(files: &[Rendered]) -> Result<(), Refusal> {
    let len = |file: &Rendered| file.contents.len() + 2 * file.path.len() + FILE_OVERHEAD;
    let total: usize = files.iter().map(len).sum();
    let largest = files.iter().max_by_key(|file| len(file));
    match largest.filter(|_| total > MAX_ANSWER_LEN) {
        None => Ok(()),
        Some(largest) => Err(Refusal::Invalid(format!(
            "the files of the volume have {total} bytes, and a driver takes {MAX_ANSWER_LEN}; the \
             largest is {} of object {} with {} bytes. Mount less, or in several volumes",
            largest.path,
            largest.object,
            largest.contents.len()
        ))),
    }
}

/// Tells the log what was made, and what of the class nobody heeded.
fn note(plan: &Plan, asked: &Asked, files: &[Rendered]) {
    let ignored: Vec<_> = plan.ignored.iter().map(String::as_str).collect();
    if !ignored.is_empty() {
        let ignored = ignored.join(", ");
        tracing::warn!(
            namespace = asked.namespace,
            pod = asked.pod,
            ignored,
            "parameters of the class are not heeded"
        );
    }
    tracing::info!(
        namespace = asked.namespace,
        service_account = asked.service_account,
        pod = asked.pod,
        pod_uid = asked.pod_uid,
        files = files.len(),
        "a volume was made"
    );
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
