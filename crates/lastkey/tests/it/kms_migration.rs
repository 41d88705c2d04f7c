//! `etcd rewrite` by StorageVersionMigrations of a real kube-apiserver, carried out by the code of a
//! real kube-controller-manager (tests/go/kube/migrator), and without one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lastkey_kube::Form;
use lastkey_node::kmsv2::key_id_hash;
use serde_json::{Value, json};

use crate::api_server::{ApiServer, TOKEN};
use crate::kms_client::KmsClient;
use crate::process::{Ended, Running, command, go_build_package, lastkey, not_run};
use crate::world::Server;

const PATIENCE: Duration = Duration::from_secs(90);
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";

/// A key service, a plugin, and an API server that seals Secrets by it.
struct Site {
    folder: tempfile::TempDir,
    server: Server,
    plugin: Running,
    api: ApiServer,
    kubeconfig: PathBuf,
}

impl Site {
    fn found(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        server.create(r#"{"alias": "alias/etcd"}"#);
        let socket = folder.path().join("kms.sock");
        let plugin = plugin(&server, folder.path());
        KmsClient::connect(&socket).ready();
        let config = folder.path().join("encryption.yaml");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
             resources:\n- resources: [secrets]\n  providers:\n\
             \x20 - kms: {{apiVersion: v2, name: lastkey, endpoint: 'unix://{}'}}\n",
            socket.display()
        );
        fs::write(&config, text).unwrap();
        let flag = format!("--encryption-provider-config={}", config.display());
        let api = ApiServer::found_with(test, &[flag])?;
        // The plugin reads it as soon as it is there.
        let kubeconfig = folder.path().join("kubeconfig");
        fs::copy(api.kubeconfig(TOKEN), &kubeconfig).unwrap();
        Some(Self { folder, server, plugin, api, kubeconfig })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("kms.sock")
    }

    fn write_secret(&self, name: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
            "stringData": { "password": "hunter2" },
        });
        self.api.create_object(&secret, false).unwrap();
    }

    /// Rotates the key, and waits until the API server has the new key id.
    fn rotate(&self) {
        let client = KmsClient::connect(&self.socket());
        let before = client.ready();
        self.server.cli("key rotate alias/etcd").ok();
        let rotated = client
            .wait("rotated", |status| status.as_ref().is_ok_and(|status| status.key_id != before));
        let hash = key_id_hash(&rotated.unwrap().key_id);
        let begin = Instant::now();
        loop {
            // Its health is its reason to ask Status before the minute is over.
            let metrics = self.api.ask(async |api| {
                let _ = api.document("/readyz").await;
                api.document("/metrics").await.unwrap()
            });
            if String::from_utf8_lossy(&metrics).contains(&hash) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "the API server never has the new key id");
            thread::sleep(Duration::from_millis(500));
        }
    }

    fn rewrite(&self, more: &str) -> Ended {
        self.server.cli(&format!(
            "etcd rewrite --endpoints {} --socket {} --kubeconfig {} --api-server {} --resource secrets {more}",
            self.api.store,
            self.socket().display(),
            self.kubeconfig.display(),
            self.api.url
        ))
    }

    /// Waits until the plugin has told the cluster of this.
    fn is_told(&self, reason: &str, words: &str) {
        let begin = Instant::now();
        loop {
            let events = self.api.ask(async |api| api.list(EVENTS, Form::Whole).await.unwrap());
            let told = events.items.iter().filter(|event| event["reason"] == reason);
            if told.filter_map(|event| event["note"].as_str()).any(|note| note.contains(words)) {
                return;
            }
            let log = || self.plugin.complaint();
            assert!(begin.elapsed() < PATIENCE, "no event {reason}: {events:?}\n{}", log());
            thread::sleep(Duration::from_millis(500));
        }
    }

    #[track_caller]
    fn is_proved(&self) {
        let verify = format!(
            "etcd verify --endpoints {} --socket {} --level decrypt --require clear=0,stale=0,unopened=0",
            self.api.store,
            self.socket().display()
        );
        self.server.cli(&verify).ok();
        let left = self.api.ask(async |api| api.list(MIGRATIONS, Form::Whole).await.unwrap());
        assert_eq!(left.items, [Value::Null; 0], "every migration is taken away");
    }
}

/// A plugin that writes events to a cluster which is not there yet.
fn plugin(server: &Server, folder: &Path) -> Running {
    let config = folder.join("kms.toml");
    let text = format!(
        "[server]\nendpoints = ['{}']\ntoken_file = 'token'\n\
         [events]\nkubeconfig = 'kubeconfig'\nnode = 'cp-1'\n\
         [log]\nfilter = 'info,lastkey=debug'\n\
         [[provider]]\nsocket = 'kms.sock'\nkey = 'alias/etcd'\n",
        server.addr
    );
    fs::write(&config, text).unwrap();
    fs::write(folder.join("token"), &server.token).unwrap();
    fs::set_permissions(folder.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
    let plugin = Running::start(lastkey(["kms-plugin", "--config"]).arg(config));
    plugin.says("lastkey kms-plugin serves").unwrap_or_else(|| panic!("{}", plugin.complaint()));
    plugin
}

/// Whatever is written moves the caches on that a migration waits for, as in a cluster that is in
/// use: this etcd may be too old to tell the revision by itself.
fn in_use<R>(site: &Site, work: impl FnOnce() -> R) -> R {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for count in 0..100 {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                site.write_secret(&format!("busy-{count}"));
                thread::sleep(Duration::from_secs(1));
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    })
}

#[test]
#[ignore = "heavy: builds a kube-apiserver and the migrator of its controller manager"]
fn cluster_migrates_to_the_new_key_and_patches_do_it_where_nobody_begins() {
    let test = "cluster_migrates_to_the_new_key_and_patches_do_it_where_nobody_begins";
    let migrator = Path::new(env!("CARGO_TARGET_TMPDIR")).join("migrator");
    if let Err(reason) = go_build_package("tests/go/kube", "./migrator", &migrator) {
        not_run(&format!("SKIPPED {test}: {reason}"));
        return;
    }
    let Some(site) = Site::found(test) else { return };
    (0..20).for_each(|count| site.write_secret(&format!("s-{count}")));
    site.rotate();
    site.is_told("KeyVersionPromoted", "version 2 protects new data");
    let mut runs = Running::start(command(&migrator).arg("--kubeconfig").arg(&site.kubeconfig));
    runs.says("migrator runs").unwrap_or_else(|| panic!("{}", runs.complaint()));
    let migrated = in_use(&site, || site.rewrite("--by migration"));
    assert!(migrated.ok().contains("20 rewritten, 0 left"), "{}", migrated.stderr);
    site.is_proved();

    // A controller manager without the controller: it is noticed, and patches do it.
    runs.stop();
    site.rotate();
    let alone = site.rewrite("--migration-wait 1s");
    assert!(alone.ok().contains("0 left"), "{}", alone.stderr);
    assert!(alone.stderr.contains("nobody in the cluster begins"), "{}", alone.stderr);
    site.is_proved();
}
