//! A real API server: `KUBEBUILDER_ASSETS` names the folder with `kube-apiserver` and `etcd`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lastkey_connect::guard::Guard;
use lastkey_kube::{Access, Cluster, Form};

/// Token of an administrator of the cluster.
pub(crate) const TOKEN: &str = "administrator";
/// What it writes into tokens as their issuer.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct ApiServer {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) url: String,
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

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl ApiServer {
    pub(crate) fn start(assets: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let spawn = |program: &str, arguments: &[String]| {
            let mut command = Command::new(assets.join(program));
            command.args(arguments).current_dir(there);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let store = format!("http://127.0.0.1:{client}");
        let peers = format!("http://127.0.0.1:{peer}");
        let etcd = spawn(
            "etcd",
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
        fs::write(there.join("tokens.csv"), format!("{TOKEN},admin,1,system:masters\n")).unwrap();
        let server = spawn(
            "kube-apiserver",
            &[
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
            ],
        );
        let url = format!("https://127.0.0.1:{port}");
        let this = Self { folder, url, children: vec![server, etcd] };
        this.until("it is ready", || {
            this.authority().exists()
                && this.ask(async |api| api.document("/readyz").await.is_ok())
                && this.ask(async |api| {
                    api.get("/api/v1/namespaces/default", Form::Metadata).await.is_ok()
                })
        });
        this
    }

    /// The certificate that vouches for it.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("certs/apiserver.crt")
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
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < PATIENCE, "waited too long until {what}");
            thread::yield_now();
        }
    }
}
