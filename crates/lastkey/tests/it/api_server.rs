//! A real API server: the `kube-apiserver` in the folder that `KUBEBUILDER_ASSETS` names, or else
//! the one of tests/go/kube, over an etcd from there or from the path. Where neither can be had
//! each test says SKIPPED on the terminal.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use lastkey_checks::snapshot::yaml::{self, Node, Value as Yaml};
use lastkey_connect::guard::Guard;
use lastkey_kube::{Access, Cluster, Form, KubeError};
use serde_json::Value;

use crate::process::{HANG, go_build, not_run, until};

/// Token of an administrator of the cluster.
pub(crate) const TOKEN: &str = "administrator";
/// Token of somebody who may nothing.
pub(crate) const STRANGER: &str = "stranger";
/// What it writes into tokens as their issuer.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub(crate) struct ApiServer {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) url: String,
    /// Its etcd.
    pub(crate) store: String,
    children: Vec<Child>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A tree of YAML as JSON.
pub(crate) fn json(node: &Node) -> Value {
    match &node.value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => (*value).into(),
        Yaml::Int(value) => (*value).into(),
        Yaml::Text(text) => text.as_str().into(),
        Yaml::List(items) => items.iter().map(json).collect(),
        Yaml::Map(entries) => {
            entries.iter().map(|(name, node)| (name.to_string(), json(node))).collect()
        }
    }
}

/// Where the objects of a kind are created.
fn path_of(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap();
    let version = object["apiVersion"].as_str().unwrap();
    let root = if version.contains('/') { "/apis" } else { "/api" };
    let plural = match kind {
        "NetworkPolicy" => "networkpolicies".to_owned(),
        "StorageClass" => "storageclasses".to_owned(),
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies".to_owned(),
        other => other.to_lowercase() + "s",
    };
    let is_global = ["Namespace", "ClusterRole", "ClusterRoleBinding", "CSIDriver", "StorageClass"]
        .contains(&kind)
        || kind.starts_with("ValidatingAdmission");
    if is_global {
        return format!("{root}/{version}/{plural}");
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    format!("{root}/{version}/namespaces/{namespace}/{plural}")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The programs; built once.
fn programs() -> &'static Result<(PathBuf, PathBuf), String> {
    static FOUND: OnceLock<Result<(PathBuf, PathBuf), String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(assets) = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) {
            return Ok((assets.join("kube-apiserver"), assets.join("etcd")));
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let etcd = env::split_paths(&path).map(|folder| folder.join("etcd"));
        let etcd = etcd.into_iter().find(|etcd| etcd.is_file()).ok_or("needs etcd")?;
        let server = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kube-apiserver");
        go_build("tests/go/kube", &server)?;
        Ok((server, etcd))
    })
}

impl ApiServer {
    /// Starts one; `None` where there is none to start.
    pub(crate) fn found(test: &str) -> Option<Self> {
        Self::found_with(test, &[])
    }

    /// The same, with further flags.
    pub(crate) fn found_with(test: &str, flags: &[String]) -> Option<Self> {
        match programs() {
            Ok((server, etcd)) => Some(Self::start(server, etcd, flags)),
            Err(reason) => {
                not_run(&format!("SKIPPED {test}: {reason}"));
                None
            }
        }
    }

    fn start(server: &Path, etcd: &Path, flags: &[String]) -> Self {
        // A port that was free may be taken by the time that it is listened on.
        let mut said = String::new();
        for _ in 0..5 {
            match Self::try_start(server, etcd, flags) {
                Ok(this) => return this,
                Err(complaint) => said = complaint,
            }
        }
        panic!("no API server starts: {said}")
    }

    /// What they said when one of them ended.
    fn try_start(server: &Path, etcd: &Path, flags: &[String]) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let spawn = |program: &Path, arguments: &[String]| {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(there);
            let log = File::options().create(true).append(true).open(there.join("log")).unwrap();
            command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
        };
        let store = format!("http://127.0.0.1:{client}");
        let peers = format!("http://127.0.0.1:{peer}");
        let etcd = spawn(
            etcd,
            &[
                "--data-dir=etcd".to_owned(),
                format!("--listen-client-urls={store}"),
                format!("--advertise-client-urls={store}"),
                format!("--listen-peer-urls={peers}"),
            ],
        );
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(there.join("sa.key"), key.serialize_pem()).unwrap();
        fs::write(there.join("sa.pub"), key.public_key_pem()).unwrap();
        let tokens = format!("{TOKEN},admin,1,system:masters\n{STRANGER},bob,2,\n");
        fs::write(there.join("tokens.csv"), tokens).unwrap();
        let mut arguments = flags.to_vec();
        arguments.extend([
            format!("--etcd-servers={store}"),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--cert-dir=certs".to_owned(),
            "--service-account-key-file=sa.pub".to_owned(),
            "--service-account-signing-key-file=sa.key".to_owned(),
            format!("--service-account-issuer={ISSUER}"),
            "--token-auth-file=tokens.csv".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--allow-privileged=true".to_owned(),
        ]);
        let server = spawn(server, &arguments);
        let url = format!("https://127.0.0.1:{port}");
        let mut this = Self { folder, url, store, children: vec![server, etcd] };
        let begun = Instant::now();
        while !this.is_ready() {
            let has_ended = this.children.iter_mut().any(|it| it.try_wait().unwrap().is_some());
            if has_ended || begun.elapsed() > HANG {
                return Err(fs::read_to_string(this.folder.path().join("log")).unwrap());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }

    fn is_ready(&self) -> bool {
        // It may be there before it is written.
        fs::read_to_string(self.authority()).is_ok_and(|pem| pem.contains("-----END CERTIFICATE"))
            && self.ask(async |api| api.document("/readyz").await.is_ok())
            && self.ask(async |api| {
                api.get("/api/v1/namespaces/default", Form::Metadata).await.is_ok()
            })
    }

    /// The certificate that vouches for it.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("certs/apiserver.crt")
    }

    /// Writes the kubeconfig of a token.
    pub(crate) fn kubeconfig(&self, token: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{token}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
             clusters: [{{name: it, cluster: {{server: '{}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: it, user: {{token: '{token}'}}}}]\n\
             contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n",
            self.url,
            self.authority().display()
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// Creates the objects of a text of YAML, or only asks whether it would (`dryRun=All`). A field
    /// that it does not know is refused.
    pub(crate) fn create(&self, text: &str, is_dry: bool) -> Result<(), KubeError> {
        for (line, document) in yaml::documents(text) {
            self.create_object(&json(&yaml::parse(document, line).unwrap()), is_dry)?;
        }
        Ok(())
    }

    /// The same for one object.
    pub(crate) fn create_object(&self, object: &Value, is_dry: bool) -> Result<(), KubeError> {
        let dry = if is_dry { "&dryRun=All" } else { "" };
        let path = format!("{}?fieldValidation=Strict{dry}", path_of(object));
        self.ask(async |api| api.create(&path, object).await).map(drop)
    }

    /// Asks it as its administrator.
    pub(crate) fn ask<R>(&self, question: impl AsyncFnOnce(&Cluster) -> R) -> R {
        let token = self.folder.path().join("administrator");
        fs::write(&token, TOKEN).unwrap();
        let access = Access::with_token_file(self.url.clone(), Some(&self.authority()), token);
        let api = Cluster::new(&Guard::default(), access.unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(question(&api))
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        until(what, is_so);
    }
}
