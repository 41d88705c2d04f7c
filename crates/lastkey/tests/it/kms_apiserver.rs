//! A real Kubernetes API server in front of the plugin: its own code encrypts, stores, reloads
//! and reports, over an etcd of its own (tests/go).
//!
//! Holds     Heavy tests build it; others use what was built before. Without Go each test says
//!           SKIPPED on the terminal.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lastkey_node::kmsv2::ciphertext::Ciphertext;
use lastkey_wire::grpc::kmsv2::EncryptedObject;
use prost::Message as _;
use serde_json::{Value, json};

use crate::http::base64;
use crate::kms_client::KmsClient;
use crate::process::{HANG, Running, command, go_build, lastkey};
use crate::world::Server;

/// Longer than a poll of the API server's files or of the plugin's Status takes.
const PATIENCE: Duration = Duration::from_secs(100);

/// Its informer of Services has no API server to ask.
const READY: &str = "/readyz?exclude=informer-sync";

/// The API server, built; none when that cannot be.
fn binary(test: &str, build: bool) -> Option<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("apiserver");
    let found = if build {
        BUILT.get_or_init(|| go_build("tests/go", &path).map(|()| path.clone())).clone()
    } else if path.exists() {
        Ok(path)
    } else {
        Err("no API server was built yet; `make test-all` builds it".to_owned())
    };
    match found {
        Ok(path) => Some(Box::leak(path.into_boxed_path())),
        Err(reason) => {
            // Straight to the terminal: the harness keeps what the print macros say.
            let said = format!("\nSKIPPED {test}: {reason}\n");
            std::io::stderr().write_all(said.as_bytes()).unwrap();
            None
        }
    }
}

/// One answer of the API server or of its etcd.
fn ask(method: &str, base: &str, path: &str, body: &str) -> (u16, Value) {
    let host = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    // HTTP/1.0: the answer ends with the connection, and is never in pieces.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
}

/// A server with a key, a plugin, and an API server that encrypts by it.
struct Site {
    folder: tempfile::TempDir,
    server: Server,
    plugin: Running,
    api: Option<ApiServer>,
    binary: &'static Path,
}

struct ApiServer {
    process: Running,
    api: String,
    etcd: String,
}

impl ApiServer {
    /// Over an etcd that runs already, or one of its own.
    fn start(binary: &Path, data: &Path, encryption: &Path, etcd: Option<&str>) -> Self {
        fs::create_dir_all(data).unwrap();
        let mut start = command(binary);
        start.arg("--data").arg(data).arg("--encryption").arg(encryption);
        if let Some(etcd) = etcd {
            start.args(["--etcd", etcd]);
        }
        let process = Running::start(&mut start);
        let line = process.says("\"api\"").unwrap_or_else(|| panic!("{}", process.complaint()));
        let told: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        Self { api: text("api"), etcd: text("etcd"), process }
    }

    /// Makes a Secret; whether that worked.
    fn write_secret(&self, name: &str, value: &str) -> bool {
        let body = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
            "data": { "password": base64(value.as_bytes()) },
        });
        let path = "/api/v1/namespaces/shop/secrets";
        ask("POST", &self.api, path, &body.to_string()).0 == 201
    }

    #[track_caller]
    fn read_secret(&self, name: &str) -> String {
        let path = format!("/api/v1/namespaces/shop/secrets/{name}");
        let (status, secret) = ask("GET", &self.api, &path, "");
        assert_eq!(status, 200, "{secret}");
        let value = STANDARD.decode(secret["data"]["password"].as_str().unwrap()).unwrap();
        String::from_utf8(value).unwrap()
    }

    /// Whether its plugin has told it this key id, to which its health is a reason to ask.
    fn knows(&self, hash: &str) -> bool {
        ask("GET", &self.api, READY, "");
        ask("GET", &self.api, "/metrics", "").1.as_str().unwrap().contains(hash)
    }
}

impl Site {
    fn found(test: &str, build: bool) -> Option<Self> {
        let binary = binary(test, build)?;
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        server.create(r#"{"alias": "alias/etcd"}"#);
        let socket = folder.path().join("kms.sock");
        let plugin = plugin(&server, &socket, "alias/etcd");
        let site = Self { folder, server, plugin, api: None, binary };
        site.encrypt_by(&["lastkey"]);
        Some(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the EncryptionConfiguration as an operator should: a new file, then renamed.
    /// Provider `lastkey` is `kms.sock`, any other is `NAME.sock`.
    fn encrypt_by(&self, providers: &[&str]) {
        let files: Vec<_> = providers
            .iter()
            .map(|name| {
                let file = if *name == "lastkey" { "kms" } else { name };
                (*name, format!("{file}.sock"))
            })
            .collect();
        self.write_encryption("encryption", &files);
    }

    /// The same of one API server: providers and their sockets.
    fn write_encryption(&self, name: &str, providers: &[(&str, String)]) {
        let mut text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
                        resources:\n- resources: [secrets, widgets.example.com, \
                        customresourcedefinitions.apiextensions.k8s.io]\n  providers:\n"
            .to_owned();
        for (name, file) in providers {
            text.push_str(&format!(
                "  - kms: {{apiVersion: v2, name: {name}, endpoint: 'unix://{}'}}\n",
                self.path(file).display()
            ));
        }
        text.push_str("  - identity: {}\n");
        let fresh = self.path(&format!("{name}.new"));
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.path(&format!("{name}.yaml"))).unwrap();
    }

    /// A further control-plane node over the etcd of the first: an API server and its own plugin.
    fn join(&self, number: usize) -> (Running, ApiServer) {
        let socket = format!("kms-{number}.sock");
        let plugin = plugin(&self.server, &self.path(&socket), "alias/etcd");
        let name = format!("encryption-{number}");
        self.write_encryption(&name, &[("lastkey", socket)]);
        let (data, etcd) = (self.path(&format!("api-{number}")), &self.api().etcd);
        let encryption = self.path(&format!("{name}.yaml"));
        let api = ApiServer::start(self.binary, &data, &encryption, Some(etcd));
        self.wait("the next API server is ready", || ask("GET", &api.api, READY, "").0 == 200);
        (plugin, api)
    }

    fn start(&mut self) {
        let (data, encryption) = (self.path("api"), self.path("encryption.yaml"));
        let api = ApiServer::start(self.binary, &data, &encryption, None);
        self.api = Some(api);
        self.wait("the API server is ready", || self.get(READY).0 == 200);
    }

    fn api(&self) -> &ApiServer {
        self.api.as_ref().unwrap()
    }

    fn get(&self, path: &str) -> (u16, Value) {
        ask("GET", &self.api().api, path, "")
    }

    #[track_caller]
    fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            let log = || self.api().process.complaint();
            assert!(started.elapsed() < PATIENCE, "never: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Makes a Secret; whether that worked.
    fn write_secret(&self, name: &str, value: &str) -> bool {
        self.api().write_secret(name, value)
    }

    #[track_caller]
    fn read_secret(&self, name: &str) -> String {
        self.api().read_secret(name)
    }

    fn make_widgets(&self) {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "widgets.example.com" },
            "spec": {
                "group": "example.com", "scope": "Cluster",
                "names": { "plural": "widgets", "singular": "widget", "kind": "Widget" },
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true
                    } }
                }]
            }
        });
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let (status, answer) = ask("POST", &self.api().api, path, &definition.to_string());
        assert_eq!(status, 201, "{answer}");
        self.wait("widgets are served", || self.write_widget("first", "hunter2"));
    }

    fn write_widget(&self, name: &str, value: &str) -> bool {
        let body = json!({
            "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": name },
            "spec": { "password": value },
        });
        ask("POST", &self.api().api, "/apis/example.com/v1/widgets", &body.to_string()).0 == 201
    }

    /// What lies in etcd under a key.
    #[track_caller]
    fn raw(&self, key: &str) -> Vec<u8> {
        let body = json!({ "key": base64(key.as_bytes()) }).to_string();
        let (status, answer) = ask("POST", &self.api().etcd, "/v3/kv/range", &body);
        assert_eq!(status, 200, "{answer}");
        STANDARD.decode(answer["kvs"][0]["value"].as_str().unwrap()).unwrap()
    }

    /// What the API server has stored of a Secret, and by which provider.
    #[track_caller]
    fn stored(&self, name: &str) -> (String, EncryptedObject) {
        let value = self.raw(&format!("/registry/secrets/shop/{name}"));
        let rest = value.strip_prefix(b"k8s:enc:kms:v2:").expect("it is encrypted");
        let end = rest.iter().position(|byte| *byte == b':').unwrap();
        let provider = String::from_utf8(rest[..end].to_vec()).unwrap();
        (provider, EncryptedObject::decode(&rest[end + 1..]).unwrap())
    }

    fn metrics(&self) -> String {
        self.get("/metrics").1.as_str().unwrap().to_owned()
    }
}

fn plugin(server: &Server, socket: &Path, key: &str) -> Running {
    let with = ["kms-plugin", "--key", key, "--metrics", "127.0.0.1:0", "--socket"];
    let mut command = server.client(with);
    let plugin = Running::start(command.arg(socket));
    plugin.says("lastkey kms-plugin serves").unwrap_or_else(|| panic!("{}", plugin.complaint()));
    KmsClient::connect(socket).ready();
    plugin
}

/// How often a plugin was called so.
fn calls(plugin: &Running, method: &str) -> u64 {
    let line = plugin.says("metrics on http://").unwrap();
    let page = format!("http://{}", line.rsplit_once("http://").unwrap().1.trim());
    let page = ask("GET", &page, "/metrics", "").1;
    let label = format!("method=\"{method}\",code=\"OK\"");
    let mut lines = page.as_str().unwrap().lines();
    let line = lines.find(|line| line.contains("requests_total{") && line.contains(&label));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// From the first Secret over a restart, a rotation and an outage of 30 seconds.
fn journey(site: &mut Site) {
    site.start();
    assert!(site.write_secret("one", "hunter2"));
    site.make_widgets();
    assert_eq!(site.read_secret("one"), "hunter2");
    let widget = site.raw("/registry/example.com/widgets/first");
    assert!(widget.starts_with(b"k8s:enc:kms:v2:lastkey:"));
    let definitions = "/registry/apiextensions.k8s.io/customresourcedefinitions";
    let definition = site.raw(&format!("{definitions}/widgets.example.com"));
    assert!(definition.starts_with(b"k8s:enc:kms:v2:lastkey:"));
    let (provider, object) = site.stored("one");
    let first_id = KmsClient::connect(&site.path("kms.sock")).ready();
    assert_eq!((provider.as_str(), object.key_id.as_str()), ("lastkey", first_id.as_str()));
    assert!(!object.encrypted_data.windows(7).any(|window| window == b"hunter2"));
    let parsed = Ciphertext::parse(&object.encrypted_dek_source).unwrap();
    assert_eq!(parsed.protected_by().unwrap().version, 1);
    assert!(object.annotations["key-version.lastkey.dev"].ends_with(b"/1"));
    let hash = lastkey_node::kmsv2::key_id_hash(&first_id);
    assert!(site.metrics().contains(&format!("key_id_hash=\"{hash}\"")), "the hash is the same");

    // A restart of both: everything is read again, by what the key service unwraps.
    site.api.take().unwrap().process.stop();
    site.plugin.kill();
    site.plugin = plugin(&site.server, &site.path("kms.sock"), "alias/etcd");
    site.start();
    assert_eq!(site.read_secret("one"), "hunter2");
    assert_eq!(site.get("/apis/example.com/v1/widgets/first").1["spec"]["password"], "hunter2");

    // A rotation; the API server is not restarted.
    site.server.cli("key rotate alias/etcd").ok();
    let client = KmsClient::connect(&site.path("kms.sock"));
    let rotated = |status: &Result<lastkey_wire::grpc::kmsv2::StatusResponse, tonic::Status>| {
        status.as_ref().is_ok_and(|status| status.key_id != first_id)
    };
    let second_id = client.wait("rotated", rotated).unwrap().key_id;
    let mut count = 0;
    site.wait("the API server writes under the new key id", || {
        // Its health is its reason to ask Status before the minute is over.
        site.get(READY);
        count += 1;
        let name = format!("rotating-{count}");
        assert!(site.write_secret(&name, "hunter3"), "writes go on");
        site.stored(&name).1.key_id == second_id
    });
    // A write that changes nothing rewrites what is stale, and only that.
    let empty = |name: &str| {
        let path = format!("/api/v1/namespaces/shop/secrets/{name}");
        assert_eq!(ask("PATCH", &site.api().api, &path, "{}").0, 200);
    };
    assert_eq!(site.stored("one").1.key_id, first_id);
    empty("one");
    let rewritten = site.stored("one").1;
    assert_eq!(rewritten.key_id, second_id);
    empty("one");
    assert_eq!(site.stored("one").1, rewritten);

    proof(site);
    outage(site, Duration::from_secs(30));
    assert_eq!(site.read_secret("one"), "hunter2");
}

/// The rest of a rotation: everything written once more, the proof, and the end of the old
/// version, which the service refuses until it has seen the proof.
fn proof(site: &Site) {
    let ApiServer { api, etcd, .. } = site.api();
    let config = format!(
        "current-context: c\nclusters: [{{name: c, cluster: {{server: '{api}'}}}}]\ncontexts: [{{name: c, context: {{cluster: c}}}}]\n"
    );
    fs::write(site.path("kubeconfig"), config).unwrap();
    let (socket, kubeconfig) = (site.path("kms.sock"), site.path("kubeconfig"));
    let verify = format!(
        "etcd verify --endpoints {etcd} --socket {} --level decrypt --report prod --resource widgets.example.com --require clear=0,stale=0,unopened=0",
        socket.display()
    );
    let before = site.server.cli(&verify);
    assert!(before.failed(1).contains("stale=0 does not hold"), "{}", before.stderr);
    let destroy = "key version destroy alias/etcd 1 --yes";
    site.server.cli("key version shadow-disable alias/etcd 1").ok();
    let refused = site.server.cli(destroy);
    assert!(refused.failed(1).contains("KeyNeeded"), "{}", refused.stderr);
    site.server.cli("key version reinstate alias/etcd 1").ok();

    let rewrite = format!(
        "etcd rewrite --endpoints {etcd} --socket {} --kubeconfig {} --api-server {api} --resource secrets --resource widgets.example.com --resource customresourcedefinitions.apiextensions.k8s.io --rate 1000",
        socket.display(),
        kubeconfig.display()
    );
    assert!(site.server.cli(&rewrite).ok().contains("0 left"));
    // The server alone proves it as well: as for a snapshot, far from the plugin.
    let by_server = verify.replace(&format!("--socket {}", socket.display()), "--by-server");
    site.server.cli(&by_server).ok();
    let proved = site.server.cli(&verify);
    assert!(proved.ok().contains("current"), "{}", proved.stderr);
    site.server.cli("key version shadow-disable alias/etcd 1").ok();
    site.server.cli(destroy).ok();
    assert_eq!(site.read_secret("one"), "hunter2");
    assert_eq!(site.get("/apis/example.com/v1/widgets/first").1["spec"]["password"], "hunter2");
}

/// The key service is killed for so long; reads and writes go on all the time.
fn outage(site: &mut Site, length: Duration) {
    let (addr, data) = (site.server.addr.clone(), site.path("data"));
    site.server.process.kill();
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < length {
        count += 1;
        let name = format!("outage-{}-{count}", length.as_secs());
        assert!(site.write_secret(&name, "hunter4"), "after {:?}", started.elapsed());
        assert_eq!(site.read_secret(&name), "hunter4");
        std::thread::sleep(Duration::from_millis(500));
    }
    let (status, health) = site.get("/readyz/kms-providers");
    assert!(status == 500 && health.to_string().contains("has not answered"), "{health}");
    let mut again = lastkey(["dev", "--listen", addr.strip_prefix("http://").unwrap(), "--data"]);
    site.server = Server::dev_by(again.arg(&data), &data);
    site.wait("ready after the outage", || site.get(READY).0 == 200);
}

/// Runs the journey unless another test of this process has: it is one, heavy when the API server
/// has to be built first.
fn journey_once(test: &str, build: bool) {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if *done {
        return;
    }
    if let Some(mut site) = Site::found(test, build) {
        journey(&mut site);
        *done = true;
    }
}

#[test]
fn api_server_that_was_built_writes_and_reads_through_the_plugin() {
    journey_once("api_server_that_was_built_writes_and_reads_through_the_plugin", false);
}

#[test]
#[ignore = "heavy: builds a Kubernetes API server"]
fn api_server_writes_and_reads_through_the_plugin() {
    journey_once("api_server_writes_and_reads_through_the_plugin", true);
}

#[test]
#[ignore = "heavy: builds a Kubernetes API server, and waits for its polls"]
fn api_server_reloads_its_configuration_from_one_provider_to_another_and_back() {
    let test = "api_server_reloads_its_configuration_from_one_provider_to_another_and_back";
    let Some(mut site) = Site::found(test, true) else { return };
    site.server.create(r#"{"alias": "alias/b"}"#);
    let _b = plugin(&site.server, &site.path("b.sock"), "alias/b");
    site.start();
    assert!(site.write_secret("a1", "hunter2"));
    let first_id = site.stored("a1").1.key_id;
    for (step, providers) in [["b", "lastkey"], ["lastkey", "b"]].iter().enumerate() {
        site.encrypt_by(providers);
        let mut count = 0;
        site.wait("the configuration is read again", || {
            count += 1;
            let name = format!("step-{step}-{count}");
            assert!(site.write_secret(&name, "hunter3"), "writes go on");
            site.stored(&name).0 == providers[0]
        });
        assert_eq!(site.read_secret("a1"), "hunter2");
        assert_eq!(site.read_secret(&format!("step-{step}-{count}")), "hunter3");
    }
    assert_eq!(site.stored("a1").1.key_id, first_id);
}

/// What an API server costs the plugin: a seed for all that it writes, and when it comes back that
/// seed, once for each of the threads that fill its cache.
#[test]
#[ignore = "heavy: builds a Kubernetes API server, and makes 10,000 Secrets"]
fn ten_thousand_objects_cost_one_encrypt_and_a_handful_of_decrypts_after_a_restart() {
    const COUNT: usize = 10_000;
    let test = "ten_thousand_objects_cost_one_encrypt_and_a_handful_of_decrypts_after_a_restart";
    let Some(mut site) = Site::found(test, true) else { return };
    site.start();
    for number in 0..COUNT {
        assert!(site.write_secret(&format!("s-{number}"), "hunter2"));
    }
    let both = |site: &Site| ["Encrypt", "Decrypt"].map(|method| calls(&site.plugin, method));
    assert_eq!(both(&site), [1, 0]);
    site.api.take().unwrap().process.stop();
    site.plugin.kill();
    site.plugin = plugin(&site.server, &site.path("kms.sock"), "alias/etcd");
    site.start();
    // Until its cache is filled it says that it is not ready.
    site.wait("all are listed", || {
        let (_, all) = site.get("/api/v1/namespaces/shop/secrets");
        all["items"].as_array().is_some_and(|all| all.len() == COUNT)
    });
    let [encrypts, decrypts] = both(&site);
    assert!(encrypts == 1 && (1..=64).contains(&decrypts), "{encrypts}, {decrypts}");
}

/// Three control-plane nodes: each reads what the others write, before and after it has seen a
/// rotation, and while plugins of its peers are away.
#[test]
#[ignore = "heavy: builds a Kubernetes API server, and starts three"]
fn three_api_servers_with_a_plugin_each_follow_a_rotation_and_read_each_other() {
    let test = "three_api_servers_with_a_plugin_each_follow_a_rotation_and_read_each_other";
    let Some(mut site) = Site::found(test, true) else { return };
    site.start();
    let (mut second_plugin, second) = site.join(2);
    let (third_plugin, third) = site.join(3);
    let all = [site.api(), &second, &third];
    for (number, api) in all.iter().enumerate() {
        assert!(api.write_secret(&format!("by-{number}"), "hunter2"));
    }
    let everybody_reads = |name: &str, value: &str| {
        all.iter().for_each(|api| assert_eq!(api.read_secret(name), value, "{name}"));
    };
    (0..3).for_each(|number| everybody_reads(&format!("by-{number}"), "hunter2"));
    let ids = ["kms.sock", "kms-2.sock", "kms-3.sock"]
        .map(|socket| KmsClient::connect(&site.path(socket)).ready());
    assert!(ids.iter().all(|id| *id == ids[0]), "one key has one id: {ids:?}");

    site.server.cli("key rotate alias/etcd").ok();
    let client = KmsClient::connect(&site.path("kms.sock"));
    let rotated = client
        .wait("rotated", |status| status.as_ref().is_ok_and(|status| status.key_id != ids[0]));
    let hash = lastkey_node::kmsv2::key_id_hash(&rotated.unwrap().key_id);
    site.wait("the first API server has the new key id", || all[0].knows(&hash));
    assert!(all[0].write_secret("ahead", "hunter3"));
    everybody_reads("ahead", "hunter3");
    site.wait("the others have it", || all[1..].iter().all(|api| api.knows(&hash)));

    let config = format!(
        "current-context: c\nclusters: [{{name: c, cluster: {{server: '{}'}}}}]\ncontexts: [{{name: c, context: {{cluster: c}}}}]\n",
        all[1].api
    );
    fs::write(site.path("kubeconfig"), config).unwrap();
    let at = format!("--endpoints {} --socket {}", all[0].etcd, site.path("kms-3.sock").display());
    let rewrite = format!(
        "etcd rewrite {at} --kubeconfig {} --api-server {},{},{} --resource secrets --rate 1000",
        site.path("kubeconfig").display(),
        all[0].api,
        all[1].api,
        all[2].api
    );
    assert!(site.server.cli(&rewrite).ok().contains("3 rewritten, 0 left"));
    site.server
        .cli(&format!("etcd verify {at} --level decrypt --require clear=0,stale=0,unopened=0"))
        .ok();
    second_plugin.kill();
    assert!(all[2].write_secret("while-a-peer-is-away", "hunter4"));
    assert_eq!(all[0].read_secret("while-a-peer-is-away"), "hunter4");
    assert_eq!(all[1].read_secret("by-0"), "hunter2", "what it has read before");
    drop(third_plugin);
}

/// 330 seconds, and the three minutes in which writes stop after a key was disabled: `make test-all`
/// waits for them.
#[test]
#[ignore = "heavy: ten minutes, when LASTKEY_LONG_OUTAGE is set"]
fn api_server_outlives_a_long_outage_and_stops_writing_under_a_disabled_key() {
    let test = "api_server_outlives_a_long_outage_and_stops_writing_under_a_disabled_key";
    if std::env::var_os("LASTKEY_LONG_OUTAGE").is_none() {
        let said = format!("\nSKIPPED {test}: set LASTKEY_LONG_OUTAGE=1 for its ten minutes\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return;
    }
    let Some(mut site) = Site::found(test, true) else { return };
    site.start();
    outage(&mut site, Duration::from_secs(330));
    site.server.cli("key disable alias/etcd").ok();
    let disabled = Instant::now();
    let mut count = 0;
    let stopped = loop {
        count += 1;
        if !site.write_secret(&format!("disabled-{count}"), "hunter5") {
            break disabled.elapsed();
        }
        assert!(disabled.elapsed() < HANG, "writes go on");
        std::thread::sleep(Duration::from_secs(1));
    };
    println!("writes stopped {} s after the key was disabled", stopped.as_secs());
    site.server.cli("key enable alias/etcd").ok();
    site.wait("writes go on", || {
        count += 1;
        site.get(READY);
        site.write_secret(&format!("enabled-{count}"), "hunter6")
    });
}
