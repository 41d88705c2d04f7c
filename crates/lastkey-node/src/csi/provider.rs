//! Volumes: made of secrets once, kept, and answered from memory until something changes.
//!
//! Room      `node`.
//! Holds     What is kept for a volume is answered to whoever asks for the same volume with a
//!           token that the service has accepted for it, and to nobody else. One volume is made
//!           once, however many ask for it at once. While the service is away, a volume that was
//!           mounted keeps what it has.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_crypto::digest::{sha256, sha256_of};
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::csi_provider::{File, MountRequest, MountResponse, ObjectVersion};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::dialect::Personality;
use super::plan::{Plan, Source, check_apart};
use super::refusal::{Refusal, is_no, of_object, of_session};
use super::render::{Rendered, Values, render};
use super::request::Asked;
use crate::ports::{PodSession, ReadSecret, SecretError, SecretOps, Which};

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
/// Stages that nobody is told about are looked at so often.
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
    /// Audiences of tokens that mean us, the preferred one first.
    pub audiences: Vec<String>,
}

/// The provider.
pub struct Provider {
    pub(super) config: ProviderConfig,
    service: Arc<dyn SecretOps>,
    volumes: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
}

/// The place of a volume. Its lock is held while the volume is made.
struct Slot {
    held: tokio::sync::Mutex<Option<Held>>,
    asked_at: Mutex<Instant>,
}

/// A volume as it was made.
struct Held {
    fingerprint: [u8; 32],
    /// SHA-256 of the token that the service accepted.
    token: [u8; 32],
    token_ends_at: SystemTime,
    session: Arc<PodSession>,
    role: String,
    files: Vec<Rendered>,
    /// When stages that nobody tells about are to be looked at.
    recheck_at: Option<Instant>,
}

impl Held {
    /// Whether it answers what is asked, without asking the service.
    fn answers(&self, asked: &Asked, token: &[u8; 32], now: SystemTime) -> bool {
        self.fingerprint == asked.fingerprint
            && self.token == *token
            && now < self.token_ends_at
            && self.recheck_at.is_none_or(|at| Instant::now() < at)
    }

    fn session_for(&self, token: &[u8; 32], role: &str) -> Option<Arc<PodSession>> {
        let is_good = self.session.ends_at > Instant::now() + SESSION_REST;
        let is_same = self.token == *token && self.role == role;
        (is_good && is_same).then(|| Arc::clone(&self.session))
    }
}

impl Provider {
    /// A provider that asks this service.
    #[must_use]
    pub fn new(config: ProviderConfig, service: Arc<dyn SecretOps>) -> Self {
        Self { config, service, volumes: Mutex::default() }
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
            && held.answers(asked, &token_hash, SystemTime::now())
        {
            return Ok(response(&held.files));
        }
        match self.make(&plan, asked, token, held.as_ref()).await {
            Ok(made) => {
                let answer = response(&made.files);
                note(&plan, asked, &made.files);
                *held = Some(made);
                Ok(answer)
            }
            Err(Failed { refusal, is_away: true }) => match &*held {
                // It has these files already: the volume is the same, and so is the pod.
                Some(held) if held.fingerprint == asked.fingerprint => {
                    tracing::warn!(pod = asked.pod, "the service is away; a volume stays as it is");
                    Ok(response(&held.files))
                }
                Some(_) | None => Err(refusal),
            },
            Err(Failed { refusal, is_away: false }) => Err(refusal),
        }
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
        volumes.retain(|_, slot| {
            let asked_at = *slot.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
            now.duration_since(asked_at) < FORGOTTEN
        });
        let slot = volumes.entry(sha256_of(&parts)).or_insert_with(|| {
            let (held, asked_at) = (tokio::sync::Mutex::new(None), Mutex::new(now));
            Arc::new(Slot { held, asked_at })
        });
        *slot.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Arc::clone(slot)
    }

    async fn make(
        &self,
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
        let recheck_at =
            plan.files.iter().any(|file| file.content.sources().into_iter().any(is_untold));
        Ok(Held {
            fingerprint: asked.fingerprint,
            token: token_hash,
            token_ends_at: end_of(token),
            session,
            role,
            files,
            recheck_at: recheck_at.then(|| Instant::now() + RECHECK),
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
struct Failed {
    refusal: Refusal,
    is_away: bool,
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
