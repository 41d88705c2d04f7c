//! The provider over a service in the same process.
//!
//! Room      `node`, tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_secret::SecretVec;
use lastkey_wire::grpc::csi_provider::MountRequest;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Personality, Provider, ProviderConfig, Providers, Refusal};
use crate::page::Shown as _;
use crate::ports::{
    News, PodSession, Question, ReadSecret, ReadValue, SecretError, SecretOps, VolumeHerald,
    VolumeNews, Which,
};

/// Gives `value N` at version N of any secret.
#[derive(Default)]
pub(super) struct Service {
    version: AtomicU32,
    calls: AtomicUsize,
    /// Reads that are under way, and most that there were.
    reads: AtomicUsize,
    most_reads: AtomicUsize,
    /// What it was asked by the watch; it answers the next change.
    pub(super) asked: Mutex<Vec<Question>>,
    changed: Notify,
    /// Reads are refused with this code.
    refuses: Mutex<Option<&'static str>>,
    is_away: AtomicBool,
    /// Sessions that were opened, and how many of the first of them were ended.
    sessions: AtomicUsize,
    ended: AtomicUsize,
    /// How long what was read is on its way.
    pub(super) delay: Mutex<Duration>,
}

impl Service {
    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl SecretOps for Service {
    async fn open_session(&self, _: &SecretVec, _: &str) -> Result<PodSession, SecretError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let ends_at = Instant::now() + Duration::from_secs(900);
        let number = self.sessions.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(PodSession { bearer: SecretVec::take(number.to_string().into_bytes()), ends_at })
    }

    async fn read(
        &self,
        session: &PodSession,
        _: &str,
        of: &Which,
    ) -> Result<ReadSecret, SecretError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let number = session.bearer.expose(|text| String::from_utf8_lossy(text).parse::<usize>());
        let is_ended = number.unwrap() <= self.ended.load(Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            return Err(SecretError::Away("nobody is there".into()));
        }
        let refuses = is_ended.then_some("Unauthenticated");
        if let Some(code) = refuses.or(*self.refuses.lock().unwrap()) {
            let message = "access denied".to_owned();
            return Err(SecretError::Refused { code: code.to_owned(), message });
        }
        let reads = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_reads.fetch_max(reads, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.reads.fetch_sub(1, Ordering::SeqCst);
        let version = self.version.load(Ordering::SeqCst) + 1;
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        let value = ReadValue::Opaque(SecretVec::take(format!("value {version}").into_bytes()));
        let ask_after = (*of == Which::Account).then_some(Duration::from_secs(600));
        Ok(ReadSecret { version, made_at: String::new(), value, ask_after })
    }

    async fn watch(&self, question: &Question) -> Result<News, SecretError> {
        let seen = question.seen.clone();
        self.asked.lock().unwrap().push(question.clone());
        if seen.is_empty() {
            return Ok(News::default());
        }
        loop {
            let version = Some(self.version.load(Ordering::SeqCst) + 1);
            let changed: Vec<_> = seen
                .iter()
                .filter(|(_, known)| *known != version)
                .map(|(name, _)| (name.clone(), version))
                .collect();
            if !changed.is_empty() {
                return Ok(News { changed, holders_wanted: false });
            }
            self.changed.notified().await;
        }
    }
}

pub(super) fn provider(kubelet: Option<PathBuf>) -> (Arc<Service>, Arc<Provider>) {
    let (service, provider) = made(kubelet);
    (service, Arc::new(provider))
}

fn made(kubelet: Option<PathBuf>) -> (Arc<Service>, Provider) {
    let service = Arc::new(Service::default());
    let config = ProviderConfig {
        version: "test".to_owned(),
        role: None,
        kubelet,
        push: true,
        audiences: vec!["lastkey".to_owned()],
        max_volume_bytes: ProviderConfig::USUAL_VOLUME_BYTES,
    };
    let port: Arc<dyn SecretOps> = service.clone();
    (service, Provider::new(config, port, None).unwrap())
}

/// The token of a pod; `serial` makes another one of the same pod.
pub(super) fn token(pod: &str, serial: u32) -> String {
    let claims = json!({ "exp": 4_000_000_000_u64, "kubernetes.io": { "pod": { "uid": pod } } });
    format!("h.{}.{serial}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The token of an account that is bound to no pod, as a controller asks for it.
fn token_without_pod(account: &str) -> String {
    let bound = json!({ "namespace": "n", "serviceaccount": { "name": account, "uid": "x" } });
    let claims = json!({ "exp": 4_000_000_000_u64, "kubernetes.io": bound });
    format!("h.{}.1", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

pub(super) fn request(pod: &str, token: &str) -> MountRequest {
    let tokens = json!({ "lastkey": { "token": token } }).to_string();
    let attributes = json!({
        "secretProviderClass": "c", "role": "r",
        "objects": "- {secret: a/b}\n- {secret: a/c, optional: true}",
        "csi.storage.k8s.io/pod.uid": pod, "csi.storage.k8s.io/pod.namespace": "n",
        "csi.storage.k8s.io/pod.name": "p", "csi.storage.k8s.io/serviceAccount.name": "s",
        "csi.storage.k8s.io/serviceAccount.tokens": tokens,
    });
    MountRequest {
        attributes: attributes.to_string(),
        secrets: "null".to_owned(),
        target_path: format!("/pods/{pod}"),
        permission: "420".to_owned(),
        current_object_version: Vec::new(),
    }
}

/// What is in the first file.
pub(super) async fn mounted(provider: &Provider, request: &MountRequest) -> String {
    let answer = provider.mount(Personality::Lastkey, request).await.unwrap();
    String::from_utf8(answer.files[0].contents.clone()).unwrap()
}

#[tokio::test]
async fn volume_is_answered_from_memory_for_its_own_token_alone() {
    let (service, provider) = provider(None);
    let first = request("u", &token("u", 1));
    assert_eq!(mounted(&provider, &first).await, "value 1");
    assert_eq!(service.calls(), 3);
    for _ in 0..5 {
        mounted(&provider, &first).await;
    }
    assert_eq!(service.calls(), 3);
    // A new token is shown to the service first, and so is one of another pod or place.
    mounted(&provider, &request("u", &token("u", 2))).await;
    assert_eq!(service.calls(), 6);
    mounted(&provider, &request("v", &token("v", 1))).await;
    assert_eq!(service.calls(), 9);
    let stolen = provider.mount(Personality::Lastkey, &request("v", &token("u", 2))).await;
    assert!(stolen.unwrap_err().to_string().contains("another pod"));
    assert_eq!(service.calls(), 9);
}

#[tokio::test(start_paused = true)]
async fn account_of_a_database_is_asked_for_again_in_time_and_not_before() {
    let (service, provider) = provider(None);
    let mut asked = request("u", &token("u", 1));
    asked.attributes = asked.attributes.replace("secret: a/b", "database: shop-app, path: db");
    mounted(&provider, &asked).await;
    let calls = service.calls();
    tokio::time::sleep(Duration::from_secs(599)).await;
    mounted(&provider, &asked).await;
    assert_eq!(service.calls(), calls);
    tokio::time::sleep(Duration::from_secs(1)).await;
    mounted(&provider, &asked).await;
    assert!(service.calls() > calls);
}

#[tokio::test(start_paused = true)]
async fn watch_renews_what_changed_and_says_who_holds_what() {
    let (service, provider) = provider(None);
    let asked = request("u", &token("u", 1));
    mounted(&provider, &asked).await;
    let watching = tokio::spawn(Arc::clone(&provider).watch());
    tokio::time::sleep(Duration::from_secs(1)).await;
    service.version.store(1, Ordering::SeqCst);
    service.changed.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = service.calls();
    assert_eq!(mounted(&provider, &asked).await, "value 2");
    assert_eq!(service.calls(), calls, "it was made anew before it was asked for");
    // The driver has it now, so the pod holds it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = service.asked.lock().unwrap().clone();
    let versions = |question: &Question| {
        question.holders.as_ref().map(|all| all.iter().map(|one| one.version).collect::<Vec<_>>())
    };
    assert_eq!(versions(all.first().unwrap()), Some(vec![1, 1]));
    assert_eq!(versions(all.last().unwrap()), Some(vec![2, 2]));
    assert!(!watching.is_finished());
    watching.abort();
}

/// A pod starts while a secret changes: what it was given is old by the time that it is there.
#[tokio::test(start_paused = true)]
async fn volume_that_was_read_before_a_change_and_made_after_it_gets_the_new_version() {
    let (service, provider) = provider(None);
    let (first, late) = (request("u", &token("u", 1)), request("v", &token("v", 1)));
    mounted(&provider, &first).await;
    let watching = tokio::spawn(Arc::clone(&provider).watch());
    tokio::time::sleep(Duration::from_secs(1)).await;
    *service.delay.lock().unwrap() = Duration::from_secs(10);
    let (making, asked) = (Arc::clone(&provider), late.clone());
    let making = tokio::spawn(async move { mounted(&making, &asked).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    *service.delay.lock().unwrap() = Duration::ZERO;
    service.version.store(1, Ordering::SeqCst);
    service.changed.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(mounted(&provider, &first).await, "value 2");
    assert_eq!(making.await.unwrap(), "value 1");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = service.calls();
    assert_eq!(mounted(&provider, &late).await, "value 2");
    // The pod has it now, which is told; then there is nothing more to ask.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = service.asked.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((service.calls(), service.asked.lock().unwrap().len()), (calls, asked));
    watching.abort();
}

/// The same where mounted volumes are written: the driver has to write it first.
#[tokio::test(start_paused = true)]
async fn volume_that_the_driver_is_about_to_write_gets_the_new_version_after_that() {
    let folder = tempfile::tempdir().unwrap();
    let (service, provider) = provider(Some(folder.path().to_owned()));
    mounted(&provider, &request("u", &token("u", 1))).await;
    let watching = tokio::spawn(Arc::clone(&provider).watch());
    service.version.store(1, Ordering::SeqCst);
    service.changed.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Read before the change, by the look of it.
    service.version.store(0, Ordering::SeqCst);
    let volume = folder.path().join("pods/v/volumes/kubernetes.io~csi/a/mount");
    let mut late = request("v", &token("v", 1));
    volume.to_str().unwrap().clone_into(&mut late.target_path);
    assert_eq!(mounted(&provider, &late).await, "value 1");
    service.version.store(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::fs::create_dir_all(volume.join("..1")).unwrap();
    std::fs::write(volume.join("..1/b"), "value 1").unwrap();
    std::os::unix::fs::symlink("..1", volume.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/b", volume.join("b")).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(std::fs::read_to_string(volume.join("b")).unwrap(), "value 2");
    watching.abort();
}

/// None of the volumes is more right than another before the service has spoken.
#[tokio::test(start_paused = true)]
async fn volumes_that_have_seen_different_versions_all_get_the_current_one() {
    let (service, provider) = provider(None);
    let requests: Vec<_> = (0..8)
        .map(|one| {
            let pod = format!("pod-{one}");
            request(&pod, &token(&pod, 1))
        })
        .collect();
    for (at, asked) in requests.iter().enumerate() {
        service.version.store(u32::from(at % 2 == 1), Ordering::SeqCst);
        mounted(&provider, asked).await;
    }
    let watching = tokio::spawn(Arc::clone(&provider).watch());
    tokio::time::sleep(Duration::from_secs(1)).await;
    for asked in &requests {
        assert_eq!(mounted(&provider, asked).await, "value 2");
    }
    watching.abort();
}

/// A policy is put right after a new version was refused: that is no change of the secret, so
/// nobody tells of it.
#[tokio::test(start_paused = true)]
async fn volume_whose_renewal_was_refused_is_made_anew_when_the_kubelet_asks() {
    let (service, provider) = provider(None);
    let mut asked = request("u", &token("u", 1));
    asked.attributes = asked.attributes.replace("\\n- {secret: a/c, optional: true}", "");
    mounted(&provider, &asked).await;
    let watching = tokio::spawn(Arc::clone(&provider).watch());
    tokio::time::sleep(Duration::from_secs(1)).await;
    *service.refuses.lock().unwrap() = Some("AccessDenied");
    service.version.store(1, Ordering::SeqCst);
    service.changed.notify_one();
    tokio::time::sleep(Duration::from_secs(90)).await;
    let shown = Providers::new(Arc::clone(&provider));
    assert!(shown.metrics().contains("lastkey_secrets_provider_behind_seconds 90\n"));
    let refused = provider.mount(Personality::Lastkey, &asked).await.unwrap_err();
    assert!(refused.to_string().contains("a/b"), "{refused}");
    *service.refuses.lock().unwrap() = None;
    assert_eq!(mounted(&provider, &asked).await, "value 2");
    assert!(shown.metrics().contains("lastkey_secrets_provider_behind_seconds 0\n"));
    watching.abort();
}

/// The kubelet asks for each volume about once a minute.
#[tokio::test(start_paused = true)]
async fn pods_of_a_full_node_cost_no_request_while_nothing_changes() {
    const PODS: u32 = 250;
    let (service, provider) = provider(None);
    let objects: Vec<_> = (0..10).map(|one| format!("- {{secret: a/{one}}}")).collect();
    let requests: Vec<_> = (0..PODS)
        .map(|one| {
            let pod = format!("pod-{one}");
            let mut asked = request(&pod, &token(&pod, 1));
            let mut attributes: Value = serde_json::from_str(&asked.attributes).unwrap();
            attributes["objects"] = objects.join("\n").into();
            asked.attributes = attributes.to_string();
            asked
        })
        .collect();
    for asked in &requests {
        mounted(&provider, asked).await;
    }
    let watching = tokio::spawn(Arc::clone(&provider).watch());
    // Past the time in which a provider that has just begun speaks of itself.
    tokio::time::sleep(Duration::from_secs(360)).await;
    let before = (service.calls(), service.asked.lock().unwrap().len());
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        for asked in &requests {
            assert_eq!(mounted(&provider, asked).await, "value 1");
        }
    }
    assert_eq!((service.calls(), service.asked.lock().unwrap().len()), before);
    assert!(!watching.is_finished());
    watching.abort();
}

/// `lastkey revoke` ends sessions that were opened until then; their pods may open others.
#[tokio::test(start_paused = true)]
async fn new_version_arrives_in_another_session_when_somebody_has_ended_the_one_before() {
    let (service, provider) = provider(None);
    let asked = request("u", &token("u", 1));
    mounted(&provider, &asked).await;
    let watching = tokio::spawn(Arc::clone(&provider).watch());
    tokio::time::sleep(Duration::from_secs(1)).await;
    service.ended.store(1, Ordering::SeqCst);
    service.version.store(1, Ordering::SeqCst);
    service.changed.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(service.sessions.load(Ordering::SeqCst), 2);
    let calls = service.calls();
    assert_eq!(mounted(&provider, &asked).await, "value 2");
    assert_eq!(service.calls(), calls, "it was there already");
    watching.abort();
    // Where none is taken, another one is tried once and no more.
    service.ended.store(usize::MAX, Ordering::SeqCst);
    service.version.store(2, Ordering::SeqCst);
    let slot = provider.slots().remove(0);
    assert!(provider.renew(&slot).await.is_err());
    assert_eq!(service.sessions.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn optional_object_is_left_out_when_it_may_not_be_read_and_not_without_a_session() {
    for (code, is_mounted) in
        [("AccessDenied", true), ("SecretState", true), ("Unauthenticated", false)]
    {
        let (service, provider) = provider(None);
        let mut asked = request("u", &token("u", 1));
        asked.attributes = asked.attributes.replace("- {secret: a/b}\\n", "");
        *service.refuses.lock().unwrap() = Some(code);
        let answer = provider.mount(Personality::Lastkey, &asked).await;
        assert_eq!(answer.is_ok(), is_mounted, "{code}: {answer:?}");
    }
}

#[tokio::test]
async fn refusal_of_a_class_names_the_class_the_account_and_the_pod() {
    let (_, provider) = provider(None);
    for (objects, problem) in [
        ("- {path: a}", "objects[0].secret is missing"),
        ("- {secret: a/b, path: x}\n- {secret: a/c, path: x}", "both want the file x"),
        ("- {secret: a/b, path: ../x}", "no path for a file"),
        ("- {secret: a/b, fields: all}", "object a/b"),
    ] {
        let mut asked = request("u", &token("u", 1));
        let mut attributes: Value = serde_json::from_str(&asked.attributes).unwrap();
        attributes["objects"] = objects.into();
        attributes["secretProviderClass"] = "shop".into();
        asked.attributes = attributes.to_string();
        let refused = provider.mount(Personality::Lastkey, &asked).await.unwrap_err().to_string();
        for part in [problem, "service account n/s (pod p)"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        assert!(refused.contains("class shop") || problem == "object a/b", "{refused}");
    }
}

#[tokio::test]
async fn requests_that_are_cut_anywhere_are_refused_and_repeat_no_token() {
    let (service, provider) = provider(None);
    let whole = request("u", &token("u", 1)).attributes.clone();
    for len in 0..whole.len() {
        let mut cut = request("u", "");
        cut.attributes = whole.get(..len).unwrap().to_owned();
        let refused = provider.mount(Personality::Lastkey, &cut).await.unwrap_err();
        assert!(!refused.to_string().contains("h.ey"), "{refused}");
    }
    assert_eq!(service.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn volume_that_is_mounted_is_not_forgotten_however_long_nobody_asks() {
    let folder = tempfile::tempdir().unwrap();
    let mounted_at = |target: &Path| {
        let mut asked = request("u", &token("u", 1));
        target.to_str().unwrap().clone_into(&mut asked.target_path);
        asked
    };
    let target = folder.path().join("pods/u");
    std::fs::create_dir_all(&target).unwrap();
    // One that does not see the kubelet's folder goes by the time alone.
    let (_, blind) = provider(None);
    let (_, provider) = provider(Some(folder.path().to_owned()));
    for one in [&blind, &provider] {
        mounted(one, &mounted_at(&target)).await;
    }
    tokio::time::advance(Duration::from_secs(7_200)).await;
    for one in [&blind, &provider] {
        one.sweep();
    }
    assert_eq!((blind.slots().len(), provider.slots().len()), (0, 1));
    std::fs::remove_dir(&target).unwrap();
    provider.sweep();
    assert!(provider.slots().is_empty());
}

#[tokio::test]
async fn secrets_of_a_volume_are_read_a_few_at_a_time() {
    let (service, provider) = provider(None);
    let mut asked = request("u", &token("u", 1));
    let mut attributes: Value = serde_json::from_str(&asked.attributes).unwrap();
    let objects: Vec<_> = (0..100).map(|one| format!("- {{secret: a/{one}}}")).collect();
    attributes["objects"] = objects.join("\n").into();
    asked.attributes = attributes.to_string();
    mounted(&provider, &asked).await;
    assert_eq!(service.calls(), 101);
    assert_eq!(service.most_reads.load(Ordering::SeqCst), 16);
}

/// As the controller for Kubernetes Secrets asks: in the name of its own pod, by the token of an account
/// that is bound to none, and without a class.
fn request_without_pod(account: &str, object: &str) -> MountRequest {
    let mut asked = request("controller", &token_without_pod(account));
    let mut attributes: Value = serde_json::from_str(&asked.attributes).unwrap();
    attributes.as_object_mut().unwrap().remove("secretProviderClass");
    attributes["objects"] = object.into();
    asked.attributes = attributes.to_string();
    asked
}

#[tokio::test(start_paused = true)]
async fn who_has_no_pod_is_answered_and_nobody_is_told_of_it() {
    let (service, provider) = provider(None);
    let watching = tokio::spawn(Arc::clone(&provider).watch());
    let asked = request_without_pod("s", "- {secret: a/b}");
    assert_eq!(mounted(&provider, &asked).await, "value 1");
    let calls = service.calls();
    service.version.store(1, Ordering::SeqCst);
    service.changed.notify_one();
    tokio::time::sleep(Duration::from_secs(59)).await;
    // Nobody tells of changes, so it is read again after a minute and not before.
    assert_eq!(mounted(&provider, &asked).await, "value 1");
    assert_eq!(service.calls(), calls);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(mounted(&provider, &asked).await, "value 2");
    tokio::time::sleep(Duration::from_secs(180)).await;
    let questions = service.asked.lock().unwrap().clone();
    let is_about_nobody = |one: &Question| {
        one.seen.is_empty() && one.holders.as_ref().is_none_or(std::vec::Vec::is_empty)
    };
    assert!(questions.iter().all(is_about_nobody), "{questions:?}");
    assert_eq!(provider.slots().len(), 1);
    // It is forgotten, whether or not anything else happens.
    tokio::time::sleep(Duration::from_secs(7_200)).await;
    assert!(provider.slots().is_empty());
    assert!(!watching.is_finished());
    watching.abort();
}

#[tokio::test]
async fn classes_that_a_controller_does_not_name_are_kept_side_by_side() {
    let (service, provider) = provider(None);
    let both = ["- {secret: a/b}", "- {secret: a/c}"].map(|one| request_without_pod("s", one));
    for asked in &both {
        mounted(&provider, asked).await;
    }
    let calls = service.calls();
    for asked in &both {
        mounted(&provider, asked).await;
    }
    assert_eq!((service.calls(), provider.slots().len()), (calls, 2));
}

#[tokio::test]
async fn without_a_pod_there_is_no_account_of_a_database_and_none_of_another_service_account() {
    let (service, provider) = provider(None);
    for (asked, words) in [
        (
            request_without_pod("s", "- {database: shop-app, path: db}"),
            ["object shop-app", "bound to none"],
        ),
        (
            request_without_pod(
                "s",
                "- {path: dsn, template: '{{ db.username }}', databases: {db: shop-app}}",
            ),
            ["object dsn", "by the role shop-app"],
        ),
        (
            request_without_pod("somebody-else", "- {secret: a/b}"),
            ["service account n/s", "another service account"],
        ),
    ] {
        let refused = provider.mount(Personality::Lastkey, &asked).await.unwrap_err().to_string();
        for word in words {
            assert!(refused.contains(word), "{word}: {refused}");
        }
    }
    assert_eq!(service.calls(), 0);
}

/// A server may take a call and never answer it; a driver waits two minutes and tells nobody.
#[tokio::test(start_paused = true)]
async fn driver_is_answered_in_time_whatever_the_service_does() {
    let (service, provider) = provider(None);
    mounted(&provider, &request("u", &token("u", 1))).await;
    *service.delay.lock().unwrap() = Duration::from_secs(7_200);
    let (asked, begun) = (request("u", &token("u", 2)), Instant::now());
    // A volume that is mounted stays, however many ask for it at once.
    let (first, second, third) = tokio::join!(
        mounted(&provider, &asked),
        mounted(&provider, &asked),
        mounted(&provider, &asked)
    );
    assert_eq!([first, second, third], ["value 1"; 3]);
    assert_eq!(begun.elapsed().as_secs(), 60);
    // The first one of a pod is refused, with a final code.
    let asked = request("v", &token("v", 1));
    let refused = provider.mount(Personality::Lastkey, &asked).await.unwrap_err();
    assert!(matches!(refused, Refusal::Unready(_)), "{refused:?}");
    assert!(refused.to_string().contains("within 60 s"), "{refused}");
    assert_eq!(begun.elapsed().as_secs(), 120);
    // Another class of the same pod is another volume than the one that it has.
    let mut asked = request("u", &token("u", 2));
    asked.attributes = asked.attributes.replace("a/b", "a/d");
    provider.mount(Personality::Lastkey, &asked).await.unwrap_err();
    *service.delay.lock().unwrap() = Duration::ZERO;
    assert_eq!(mounted(&provider, &request("v", &token("v", 1))).await, "value 1");
}

/// Why volumes were kept, or nothing for those that were renewed.
#[derive(Default)]
struct Heard(Mutex<Vec<Option<String>>>);

impl VolumeHerald for Heard {
    fn tell(&self, news: VolumeNews) {
        self.0.lock().unwrap().push(news.kept_because);
    }
}

/// The driver tells nobody when a mounted volume is refused, and the kubelet asks each minute.
#[tokio::test]
async fn refusal_of_a_mounted_volume_is_told_once_and_so_is_what_came_after_it() {
    let heard = Arc::new(Heard::default());
    let (service, provider) = made(None);
    let provider = provider.announced_by(heard.clone());
    let mount = async |serial: u32| {
        let mut asked = request("u", &token("u", serial));
        asked.attributes = asked.attributes.replace("\\n- {secret: a/c, optional: true}", "");
        provider.mount(Personality::Lastkey, &asked).await.is_ok()
    };
    let count = || heard.0.lock().unwrap().len();
    *service.refuses.lock().unwrap() = Some("AccessDenied");
    assert!(!mount(1).await);
    *service.refuses.lock().unwrap() = None;
    assert!(mount(1).await && mount(2).await);
    assert_eq!(count(), 0, "the driver tells of a first mount itself");
    *service.refuses.lock().unwrap() = Some("AccessDenied");
    for _ in 0..3 {
        assert!(!mount(3).await);
    }
    assert_eq!(count(), 1);
    assert!(heard.0.lock().unwrap()[0].as_ref().is_some_and(|why| why.contains("a/b")));
    *service.refuses.lock().unwrap() = Some("KeyState");
    assert!(!mount(3).await);
    assert_eq!(count(), 2, "another reason is news");
    // Nobody says how it should be: it has what it had, and nothing was put right.
    service.is_away.store(true, Ordering::SeqCst);
    assert!(mount(3).await);
    assert_eq!(count(), 2);
    service.is_away.store(false, Ordering::SeqCst);
    *service.refuses.lock().unwrap() = None;
    assert!(mount(3).await && mount(3).await);
    service.version.store(1, Ordering::SeqCst);
    assert!(mount(4).await && mount(5).await);
    let all = heard.0.lock().unwrap().clone();
    assert_eq!(all[2..], [None, None], "put right, and then renewed");
}
