//! `etcd rewrite`: exactly what is stale, through the API server, and not before it knows the key.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use lastkey_checks::coverage::key_id_hash;
use serde_json::{Value, json};

use super::store::{Etcd, golden, put};

/// Stands in for an API server: a patch of a Secret seals it under the golden key.
struct Api {
    url: String,
    state: Arc<State>,
}

struct State {
    etcd: String,
    /// The key id of which its metrics tell.
    knows: Mutex<&'static str>,
    /// Requests that were made, and what was accepted as an answer.
    asked: Mutex<Vec<String>>,
    migrating: Mutex<Migrating>,
}

/// What becomes of a StorageVersionMigration here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Migrating {
    /// There is no such thing.
    NotServed,
    /// It may not be made.
    Forbidden,
    /// Nobody carries it out.
    Unclaimed,
    Failing,
    /// It is carried out.
    Done,
    /// The same; an earlier run has made it.
    DoneByThen,
}

impl Api {
    fn start(etcd: &Etcd, knows: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            etcd: etcd.url.clone(),
            knows: Mutex::new(knows),
            asked: Mutex::default(),
            migrating: Mutex::new(Migrating::NotServed),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                // A client that hangs up ends its own connection.
                std::thread::spawn(move || drop(serve(stream.unwrap(), &state)));
            }
        });
        let config = format!(
            "current-context: c\nclusters: [{{name: c, cluster: {{server: '{url}'}}}}]\ncontexts: [{{name: c, context: {{cluster: c}}}}]\n"
        );
        fs::write(etcd.path("kubeconfig"), config).unwrap();
        Self { url, state }
    }

    fn patches(&self) -> Vec<String> {
        self.requests("PATCH")
    }

    fn requests(&self, method: &str) -> Vec<String> {
        let asked = self.state.asked.lock().unwrap();
        asked.iter().filter(|line| line.starts_with(method)).cloned().collect()
    }
}

fn serve(stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let (mut head, mut len) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let low = line.to_ascii_lowercase();
            if let Some(value) = low.strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body)?;
        let (status, answer) = state.answer(&head, &body);
        let len = answer.len();
        write!(writer, "HTTP/1.1 {status}\r\ncontent-length: {len}\r\n\r\n{answer}")?;
    }
}

impl State {
    fn answer(&self, head: &str, body: &[u8]) -> (&'static str, String) {
        let line = head.lines().next().unwrap();
        let (method, rest) = line.split_once(' ').unwrap();
        let target = rest.split(' ').next().unwrap();
        let metadata_only = head.contains("as=PartialObjectMetadata");
        self.asked.lock().unwrap().push(format!("{method} {target}"));
        if target == "/metrics" {
            let hash = key_id_hash(&self.knows.lock().unwrap());
            let name = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds";
            return ("200 OK", format!("{name}{{key_id_hash=\"{hash}\"}} 1.7e+09\n"));
        }
        let path = target.split('?').next().unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        if let ["", "apis", "storagemigration.k8s.io", version, rest @ ..] = parts.as_slice() {
            return self.answer_about_migrations(method, version, rest, body);
        }
        match (method, parts.as_slice()) {
            ("PATCH", ["", "api", "v1", "namespaces", _, "secrets", "gone"]) => {
                ("404 Not Found", "{\"reason\":\"NotFound\"}".to_owned())
            }
            ("PATCH", ["", "api", "v1", "namespaces", namespace, "secrets", name]) => {
                assert!(metadata_only && body == b"{}", "{head}");
                let (_, sealed) = golden().remove(0);
                put(&self.etcd, &format!("/registry/secrets/{namespace}/{name}"), &sealed);
                ("200 OK", "{}".to_owned())
            }
            ("GET", [.., "namespaces", "default", "endpointslices", "kubernetes"]) => {
                let slice = r#"{"ports":[{"port":1}],"endpoints":[{"addresses":["127.0.0.1"]}]}"#;
                ("200 OK", slice.to_owned())
            }
            _ => ("403 Forbidden", "{\"reason\":\"Forbidden\",\"message\":\"no\"}".to_owned()),
        }
    }

    /// Serves v1beta1 alone.
    fn answer_about_migrations(
        &self,
        method: &str,
        version: &str,
        rest: &[&str],
        body: &[u8],
    ) -> (&'static str, String) {
        let migrating = *self.migrating.lock().unwrap();
        if migrating == Migrating::NotServed || version != "v1beta1" {
            return ("404 Not Found", "{\"reason\":\"NotFound\"}".to_owned());
        }
        let made = |status: Value| {
            let hash = key_id_hash("m1");
            let metadata = json!({
                "name": "lastkey-secrets-x7b2", "annotations": { "lastkey.dev/key-id-hash": hash },
            });
            let spec = json!({ "resource": { "group": "", "resource": "secrets" } });
            json!({ "metadata": metadata, "spec": spec, "status": status })
        };
        let ended = |kind: &str, message: &str| json!({ "conditions": [{ "type": kind, "status": "True", "message": message }] });
        let answer = match (method, rest) {
            ("GET", []) => json!({ "resources": [
                { "name": "storageversionmigrations", "verbs": ["create", "get", "list"] },
            ] }),
            ("GET", ["storageversionmigrations"]) => {
                let is_there = migrating == Migrating::DoneByThen;
                let items = if is_there { vec![made(json!({}))] } else { Vec::new() };
                json!({ "items": items, "metadata": {} })
            }
            ("POST", ["storageversionmigrations"]) if migrating == Migrating::Forbidden => {
                let said = "{\"reason\":\"Forbidden\",\"message\":\"not you\"}";
                return ("403 Forbidden", said.to_owned());
            }
            ("POST", ["storageversionmigrations"]) => {
                let asked: Value = serde_json::from_slice(body).unwrap();
                assert_eq!(asked["apiVersion"], "storagemigration.k8s.io/v1beta1");
                assert_eq!(asked["spec"], made(Value::Null)["spec"]);
                assert_eq!(
                    asked["metadata"]["annotations"],
                    made(Value::Null)["metadata"]["annotations"]
                );
                made(Value::Null)
            }
            ("GET", ["storageversionmigrations", "lastkey-secrets-x7b2"]) => match migrating {
                Migrating::Failing => made(ended("Failed", "the quota is over")),
                Migrating::Done | Migrating::DoneByThen => {
                    let (_, sealed) = golden().remove(0);
                    put(&self.etcd, "/registry/secrets/shop/clear", &sealed);
                    made(ended("Succeeded", ""))
                }
                Migrating::NotServed | Migrating::Forbidden | Migrating::Unclaimed => {
                    made(json!({}))
                }
            },
            ("DELETE", ["storageversionmigrations", "lastkey-secrets-x7b2"]) => json!({}),
            other => panic!("{other:?}"),
        };
        ("200 OK", answer.to_string())
    }
}

#[test]
fn api_servers_are_those_of_the_one_object_that_they_write() {
    let Some(etcd) = Etcd::start() else { return };
    let api = Api::start(&etcd, "m1");
    etcd.put("/registry/secrets/shop/clear", b"k8s\0secret");
    let line =
        "etcd rewrite --endpoints URL --kubeconfig kubeconfig --key-id m1 --resource secrets";
    assert!(etcd.lastkey(line).failed(3).contains("--api-server"));
    let asked = api.state.asked.lock().unwrap().clone();
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(asked, [format!("GET {path}")]);
}

#[test]
fn stale_objects_are_rewritten_once_and_the_rest_is_left_alone() {
    let Some(etcd) = Etcd::start() else { return };
    let api = Api::start(&etcd, "m1");
    let (_, sealed) = golden().remove(0);
    etcd.put("/registry/secrets/shop/fine", &sealed);
    etcd.put("/registry/secrets/shop/clear", b"k8s\0secret");
    etcd.put("/registry/secrets/shop/local", b"k8s:enc:aescbc:v1:key1:xx");
    etcd.put("/registry/pods/shop/web", b"k8s\0pod");
    let line = format!(
        "etcd rewrite --endpoints URL --key-id m1 --kubeconfig kubeconfig --api-server {} --rate 1000",
        api.url
    );
    assert!(etcd.lastkey(&format!("{line} --dry-run")).ok().starts_with("2 objects"));
    assert_eq!(api.patches(), [""; 0]);
    let verify = "etcd verify --endpoints URL --key-id m1 --require clear=0,stale=0";
    etcd.lastkey(verify).failed(1);
    assert!(etcd.lastkey(&line).ok().contains("2 rewritten, 0 left"));
    assert_eq!(
        api.patches(),
        ["clear", "local"].map(|name| format!("PATCH /api/v1/namespaces/shop/secrets/{name}"))
    );
    etcd.lastkey(verify).ok();
    assert!(etcd.lastkey(&line).ok().starts_with("0 objects"));
    assert_eq!(api.patches().len(), 2, "what is done is done");
}

#[test]
fn nothing_is_rewritten_while_an_api_server_knows_another_key() {
    let Some(etcd) = Etcd::start() else { return };
    let api = Api::start(&etcd, "older");
    etcd.put("/registry/secrets/shop/clear", b"k8s\0secret");
    let line = format!(
        "etcd rewrite --endpoints URL --key-id m1 --kubeconfig kubeconfig --api-server {} --wait 0s",
        api.url
    );
    assert!(etcd.lastkey(&line).failed(1).contains("does not know the current key"));
    assert_eq!(api.patches(), [""; 0]);
    // Once it does, the same command goes on.
    *api.state.knows.lock().unwrap() = "m1";
    etcd.lastkey(&line).ok();
    assert_eq!(api.patches().len(), 1);
}

#[test]
fn what_the_api_server_refuses_is_said_and_what_is_left_is_named() {
    let Some(etcd) = Etcd::start() else { return };
    let api = Api::start(&etcd, "m1");
    etcd.put("/registry/secrets/shop/gone", b"k8s\0secret");
    let line = format!(
        "etcd rewrite --endpoints URL --key-id m1 --kubeconfig kubeconfig --api-server {}",
        api.url
    );
    let ended = etcd.lastkey(&line);
    assert!(ended.failed(1).contains("left: /api/v1/namespaces/shop/secrets/gone"));
    etcd.put("/registry/configmaps/shop/c", b"k8s\0map");
    etcd.lastkey(&line).failed(4);
    etcd.lastkey(&line.replace("kubeconfig --api", "nowhere --api")).failed(2);
    etcd.lastkey("etcd rewrite --endpoints URL --kubeconfig kubeconfig").failed(2);
    etcd.lastkey(&line.replace("--endpoints URL", "--snapshot x")).failed(2);
}

#[test]
fn cluster_that_migrates_is_left_to_it_and_the_migration_is_taken_away() {
    let Some(etcd) = Etcd::start() else { return };
    let api = Api::start(&etcd, "m1");
    let line = format!(
        "etcd rewrite --endpoints URL --key-id m1 --kubeconfig kubeconfig --api-server {}",
        api.url
    );
    for (migrating, made) in [(Migrating::Done, 1), (Migrating::DoneByThen, 1)] {
        *api.state.migrating.lock().unwrap() = migrating;
        etcd.put("/registry/secrets/shop/clear", b"k8s\0secret");
        assert!(etcd.lastkey(&line).ok().contains("1 rewritten, 0 left"), "{migrating:?}");
        assert_eq!(api.requests("POST").len(), made, "{migrating:?}: one is enough");
    }
    assert_eq!(api.requests("DELETE").len(), 2);
    assert_eq!(api.patches(), [""; 0]);
    // Who wants patches gets them.
    etcd.put("/registry/secrets/shop/clear", b"k8s\0secret");
    assert!(etcd.lastkey(&format!("{line} --by patches")).ok().contains("1 rewritten, 0 left"));
    assert_eq!((api.requests("POST").len(), api.patches().len()), (1, 1));
}

#[test]
fn what_a_migration_does_not_do_patches_do_and_a_person_is_told_why() {
    let Some(etcd) = Etcd::start() else { return };
    let api = Api::start(&etcd, "m1");
    let line = format!(
        "etcd rewrite --endpoints URL --key-id m1 --kubeconfig kubeconfig --api-server {} --migration-wait 0s",
        api.url
    );
    for (migrating, words, code) in [
        (Migrating::NotServed, "serves no StorageVersionMigration", 1),
        (Migrating::Forbidden, "not you", 4),
        (Migrating::Failing, "the migration failed: the quota is over", 1),
        (Migrating::Unclaimed, "nobody in the cluster begins", 1),
    ] {
        *api.state.migrating.lock().unwrap() = migrating;
        etcd.put("/registry/secrets/shop/clear", b"k8s\0secret");
        let alone = etcd.lastkey(&format!("{line} --by migration"));
        assert!(alone.failed(code).contains(words), "{migrating:?}: {}", alone.stderr);
        assert_eq!(api.patches(), [""; 0], "{migrating:?}");
        let ended = etcd.lastkey(&line);
        assert!(ended.ok().contains("1 rewritten, 0 left"), "{migrating:?}");
        let is_told = migrating == Migrating::NotServed || ended.stderr.contains(words);
        assert!(is_told, "{migrating:?}: {}", ended.stderr);
        assert_eq!(api.patches().len(), 1, "{migrating:?}");
        api.state.asked.lock().unwrap().clear();
    }
}
