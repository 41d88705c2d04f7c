//! A Secrets Store CSI driver 1.6 as a provider sees it, with what is odd about it: the same
//! request, limits and checks, its way to write files, its skipping by time of change, its masking
//! of errors on a remount. In the place of a tmpfs there is a folder.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream as Stream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lastkey_checks::snapshot::yaml;
use lastkey_wire::grpc::csi_provider::{
    MountRequest, MountResponse, VersionRequest, VersionResponse,
};
use lastkey_wire::grpc::health::{self, HealthCheckRequest, HealthCheckResponse};
use serde_json::{Map, Value, json};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::kms_client::{Service, call_by_path};

/// What a driver reads of one answer that is not told otherwise by `--max-call-recv-msg-size`.
const MAX_ANSWER_LEN: usize = 4 << 20;
/// The kubelet's patience.
const LIMIT: Duration = Duration::from_secs(120);
const ATTEMPTS: usize = 3;

/// A pod with one volume.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) account: String,
    /// By audience.
    pub(crate) tokens: Vec<(String, String)>,
    /// What the pod adds to the parameters of its class.
    pub(crate) volume_attributes: Vec<(String, String)>,
}

/// A SecretProviderClass.
#[derive(Clone)]
pub(crate) struct Class {
    pub(crate) provider: String,
    pub(crate) parameters: Vec<(String, String)>,
}

/// What the kubelet is told of a publish.
#[derive(Debug)]
pub(crate) enum Published {
    /// The provider was not asked.
    Skipped,
    /// The files are there; versions by object, as the driver writes them into its status.
    Mounted(BTreeMap<String, String>),
    /// The provider refused, the volume was mounted before, and nobody is told.
    Masked(Status),
}

impl Class {
    /// What the driver takes of a manifest.
    #[track_caller]
    pub(crate) fn of_manifest(text: &str) -> Self {
        let manifest = yaml::parse_small(text, 1_000).unwrap();
        assert_eq!(manifest.get("kind").str(), "SecretProviderClass");
        let parameters = manifest.at("spec.parameters").entries().iter();
        let parameters = parameters.map(|(name, value)| (name.to_string(), value.str().to_owned()));
        Self {
            provider: manifest.at("spec.provider").str().to_owned(),
            parameters: parameters.collect(),
        }
    }
}

/// A driver on a node.
pub(crate) struct Driver {
    runtime: Runtime,
    providers: PathBuf,
    kubelet: PathBuf,
    /// `--rotation-poll-interval`, when rotation is on.
    pub(crate) interval: Option<Duration>,
    /// From Kubernetes 1.35 tokens come among the secrets as well.
    pub(crate) tokens_in_secrets: bool,
    /// `--max-call-recv-msg-size`.
    pub(crate) max_answer: usize,
    mounted: HashSet<PathBuf>,
    /// How often a provider was asked.
    pub(crate) calls: usize,
    written: usize,
}

impl Driver {
    pub(crate) fn new(providers: &Path, kubelet: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self {
            runtime,
            providers: providers.to_owned(),
            kubelet: kubelet.to_owned(),
            interval: Some(Duration::ZERO),
            tokens_in_secrets: false,
            max_answer: MAX_ANSWER_LEN,
            mounted: HashSet::new(),
            calls: 0,
            written: 0,
        }
    }

    /// Where the volume of a pod is.
    pub(crate) fn target(&self, pod: &Pod) -> PathBuf {
        self.kubelet.join("pods").join(&pod.uid).join("volumes/kubernetes.io~csi/secrets/mount")
    }

    /// `Version`, as the driver asks it for the health of a provider.
    pub(crate) fn version(&self, provider: &str) -> Result<VersionResponse, Status> {
        let request = VersionRequest { version: "v1alpha1".to_owned() };
        self.runtime.block_on(call(&self.socket(provider), MAX_ANSWER_LEN, "Version", request))
    }

    /// `grpc.health.v1.Health/Check` of a service, as a probe asks it.
    pub(crate) fn health(&self, provider: &str, service: &str) -> Result<i32, Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let path = format!("/{}/Check", health::SERVICE);
        let socket = self.socket(provider);
        let asked = attempt(&socket, MAX_ANSWER_LEN, path, request);
        self.runtime.block_on(asked).map(|answer: HealthCheckResponse| answer.status)
    }

    fn socket(&self, provider: &str) -> PathBuf {
        self.providers.join(format!("{provider}.sock"))
    }

    /// `NodePublishVolume`, and what the kubelet makes of its answer.
    pub(crate) fn publish(&mut self, pod: &Pod, class: &Class) -> Result<Published, Status> {
        let target = self.target(pod);
        let is_remount = self.mounted.contains(&target);
        if let (Some(interval), Ok(about)) = (self.interval, fs::metadata(&target))
            && SystemTime::now() < about.modified().unwrap() + interval
        {
            return Ok(Published::Skipped);
        }
        fs::create_dir_all(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o750)).unwrap();
        // The kubelet's own notes.
        let notes = json!({ "driverName": "secrets-store.csi.k8s.io",
            "volumeLifecycleMode": "Ephemeral" });
        fs::write(target.with_file_name("vol_data.json"), notes.to_string()).unwrap();
        match self.mount(pod, class, &target) {
            Ok(versions) => {
                self.mounted.insert(target);
                Ok(Published::Mounted(versions))
            }
            Err(status) if is_remount => Ok(Published::Masked(status)),
            Err(status) => {
                // The driver unmounts and leaves the folder; the kubelet removes it when the code
                // is final, and else the next publish finds it fresh and skips.
                if is_final(status.code()) {
                    fs::remove_dir(&target).unwrap();
                }
                Err(status)
            }
        }
    }

    fn mount(
        &mut self,
        pod: &Pod,
        class: &Class,
        target: &Path,
    ) -> Result<BTreeMap<String, String>, Status> {
        let socket = self.socket(&class.provider);
        if !socket.exists() {
            return Err(Status::unknown("provider not found"));
        }
        self.calls += 1;
        let request = self.request(pod, class, target);
        let asked = call(&socket, self.max_answer, "Mount", request);
        let answer: MountResponse = self.runtime.block_on(asked)?;
        let (versions, files) = judged(answer)?;
        self.write(target, &files);
        Ok(versions)
    }

    /// So many at once, as at the start of a pod.
    pub(crate) fn burst(
        &mut self,
        pod: &Pod,
        class: &Class,
        many: usize,
    ) -> Vec<Result<MountResponse, Status>> {
        self.calls += many;
        let (socket, target) = (self.socket(&class.provider), self.target(pod));
        let requests: Vec<_> = (0..many).map(|_| self.request(pod, class, &target)).collect();
        self.runtime.block_on(async {
            let mut all = tokio::task::JoinSet::new();
            for request in requests {
                let socket = socket.clone();
                all.spawn(async move { call(&socket, MAX_ANSWER_LEN, "Mount", request).await });
            }
            all.join_all().await
        })
    }

    /// One request as it is, and the files that are answered.
    pub(crate) fn send(&self, provider: &str, request: MountRequest) -> Result<Files, Status> {
        let socket = self.socket(provider);
        let asked = call(&socket, self.max_answer, "Mount", request);
        let answer: MountResponse = self.runtime.block_on(asked)?;
        judged(answer).map(|(_, files)| files)
    }

    /// What secrets-store-sync-controller 0.0.4 sends for a SecretSync: the account of that by a token
    /// that is bound to no pod, in the name of its own pod, without a class, and a place that is none.
    pub(crate) fn request_of_sync_controller(&self, account: &Pod, class: &Class) -> MountRequest {
        let mut request = self.request(account, class, Path::new("/mnt/secrets-store"));
        let mut attributes: Map<String, Value> = serde_json::from_str(&request.attributes).unwrap();
        for name in ["secretProviderClass", "csi.storage.k8s.io/ephemeral"] {
            attributes.remove(name).unwrap();
        }
        let pod = "secrets-store-sync-controller-manager-7d9c".into();
        attributes.insert("csi.storage.k8s.io/pod.name".to_owned(), pod);
        request.attributes = Value::Object(attributes).to_string();
        request.secrets = "{}".to_owned();
        request
    }

    /// What a driver before 1.5.5 sends: its connection.
    pub(crate) fn call_by_path(&self, provider: &str, method: &str) -> Stream {
        call_by_path(&self.socket(provider), method)
    }

    /// The request of `NodePublishVolume`: the pod's attributes lie over those of its class.
    pub(crate) fn request(&self, pod: &Pod, class: &Class, target: &Path) -> MountRequest {
        let tokens: Map<_, _> = pod
            .tokens
            .iter()
            .map(|(audience, token)| {
                let expiration = "2030-01-01T00:00:00Z";
                (audience.clone(), json!({ "token": token, "expirationTimestamp": expiration }))
            })
            .collect();
        let tokens = Value::Object(tokens).to_string();
        let mut attributes: BTreeMap<&str, &str> =
            class.parameters.iter().map(|(name, value)| (&**name, &**value)).collect();
        attributes.extend(pod.volume_attributes.iter().map(|(name, value)| (&**name, &**value)));
        let name = format!("{}-0", pod.account);
        attributes.extend([
            ("secretProviderClass", "class"),
            ("csi.storage.k8s.io/pod.name", &name),
            ("csi.storage.k8s.io/pod.namespace", &pod.namespace),
            ("csi.storage.k8s.io/pod.uid", &pod.uid),
            ("csi.storage.k8s.io/serviceAccount.name", &pod.account),
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/serviceAccount.tokens", &tokens),
        ]);
        let secrets = if self.tokens_in_secrets {
            json!({ "csi.storage.k8s.io/serviceAccount.tokens": tokens }).to_string()
        } else {
            "null".to_owned()
        };
        MountRequest {
            attributes: serde_json::to_string(&attributes).unwrap(),
            secrets,
            target_path: target.to_str().unwrap().to_owned(),
            permission: "420".to_owned(),
            current_object_version: Vec::new(),
        }
    }

    /// Atomic writer of Kubernetes: a folder of its own for each content, `..data` that points to
    /// it, and links to what is in there.
    fn write(&mut self, target: &Path, files: &Files) {
        let data = target.join("..data");
        let before = fs::read_link(&data).ok();
        let names: HashSet<&str> =
            files.keys().map(|path| path.split('/').next().unwrap()).collect();
        let visible = fs::read_dir(target).unwrap().map(|entry| entry.unwrap().file_name());
        let visible = visible.map(|name| name.into_string().unwrap());
        let stale: Vec<_> =
            visible.filter(|name| !name.starts_with("..") && !names.contains(&**name)).collect();
        // Modes are not compared.
        let is_same = |(path, (_, contents)): (&String, &(u32, Vec<u8>))| {
            fs::read(data.join(path)).is_ok_and(|found| found == *contents)
        };
        if before.is_some() && stale.is_empty() && files.iter().all(is_same) {
            return;
        }
        self.written += 1;
        let fresh = format!("..2026_11_29_23_00_00.{}", self.written);
        for (path, (mode, contents)) in files {
            let path = target.join(&fresh).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        for name in names {
            let link = target.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
        let temporary = target.join("..data_tmp");
        symlink(&fresh, &temporary).unwrap();
        fs::rename(&temporary, &data).unwrap();
        stale.iter().for_each(|name| fs::remove_file(target.join(name)).unwrap());
        if let Some(before) = before {
            match fs::remove_dir_all(target.join(before)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed.unwrap(),
            }
        }
    }
}

/// Mode and content, by path.
pub(crate) type Files = BTreeMap<String, (u32, Vec<u8>)>;
/// Versions by object.
type Versions = BTreeMap<String, String>;

/// What the driver checks of an answer; of equal paths the last one counts.
fn judged(mut answer: MountResponse) -> Result<(Versions, Files), Status> {
    if let Some(error) = answer.error.filter(|error| !error.code.is_empty()) {
        return Err(Status::unknown(format!("provider error code {}", error.code)));
    }
    if answer.object_version.is_empty() {
        return Err(Status::unknown("missing object versions"));
    }
    let mut files = BTreeMap::new();
    for file in &mut answer.files {
        let is_clean = !file.path.is_empty()
            && !file.path.starts_with(['/', '.'])
            && file
                .path
                .split('/')
                .all(|name| !matches!(name, "" | "." | "..") && name.len() < 256);
        let is_hidden = file.path.starts_with('.') && !file.path.starts_with("..");
        if !(is_clean || is_hidden) || file.path.len() > 4_096 {
            return Err(Status::unknown(format!("invalid path {}", file.path)));
        }
        let mode = u32::try_from(file.mode).ok().filter(|mode| *mode <= 0o777);
        let mode = mode.ok_or_else(|| Status::unknown("invalid file mode"))?;
        files.insert(file.path.clone(), (mode, std::mem::take(&mut file.contents)));
    }
    let versions = answer.object_version.iter().map(|one| (one.id.clone(), one.version.clone()));
    Ok((versions.collect(), files))
}

/// `isFinalError` of the kubelet.
fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

async fn call<Q, A>(socket: &Path, most: usize, method: &str, request: Q) -> Result<A, Status>
where
    Q: prost::Message + Clone + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut last = Status::unavailable("never tried");
    for _ in 0..ATTEMPTS {
        let path = format!("/v1alpha1.CSIDriverProvider/{method}");
        let attempt = attempt(socket, most, path, request.clone());
        let answer = timeout(LIMIT, attempt).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("two minutes"))) {
            Err(status) if status.code() == Code::Unavailable => last = status,
            answer => return answer,
        }
    }
    Err(last)
}

async fn attempt<Q, A>(socket: &Path, most: usize, path: String, request: Q) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let away = |error: &dyn std::error::Error| Status::unavailable(error.to_string());
    let stream = UnixStream::connect(socket).await.map_err(|error| away(&error))?;
    let stream = TokioIo::new(stream);
    let opened = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (send, driver) = opened.map_err(|error| away(&error))?;
    tokio::spawn(driver);
    let origin = "http://localhost".parse().unwrap();
    let mut grpc = Grpc::with_origin(Service::over(send), origin).max_decoding_message_size(most);
    grpc.ready().await.map_err(|error| away(&error))?;
    let path: PathAndQuery = path.parse().unwrap();
    let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await;
    answer.map(tonic::Response::into_inner)
}
