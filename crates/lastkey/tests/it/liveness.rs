//! Sessions live as long as their pods, and keys are fetched where they are published.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fake_cluster::FakeCluster;
use crate::http::{Answer, Http};
use crate::issuer::{ISSUER, Issuer};
use crate::process::until;
use crate::world::{Installation, Server, audit_records, text};

const AUDIENCE: &str = "lastkey-test";
/// A server that asks the cluster `prod`, and a role for its pods.
struct World {
    folder: tempfile::TempDir,
    installation: Installation,
    cluster: FakeCluster,
    issuer: Issuer,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::found(folder.path());
        let issuer = Issuer::new();
        let cluster = FakeCluster::start(&issuer.jwks(), &["pod-uid-1", "pod-uid-2"]);
        Self { folder, installation, cluster, issuer }
    }

    fn serve(&self, more: &str) -> Server {
        let config = self.cluster.config(self.folder.path(), more);
        let before = self.cluster.count("/api/v1/pods?watch=1");
        let accounts = self.cluster.count("/api/v1/serviceaccounts?watch=1");
        let server = self.installation.serve_unsealed(&config);
        self.cluster.wait_for("/api/v1/pods?watch=1", before + 1);
        self.cluster.wait_for("/api/v1/serviceaccounts?watch=1", accounts + 1);
        server
    }

    /// The same with cluster and role written down. Nobody gives a key set: the cluster does.
    fn serve_prepared(&self, more: &str) -> Server {
        let server = self.serve(more);
        let policy = self.folder.path().join("shop.cedar");
        fs::write(&policy, "permit (principal, action, resource);").unwrap();
        server.cli(&format!("cluster add prod --issuer {ISSUER} --audience {AUDIENCE}")).ok();
        let role = "role create shop --cluster prod --namespace shop --service-account api";
        server.cli(&format!("{role} --policy {}", policy.display())).ok();
        server
    }

    fn open(&self, server: &Server, pod: &str) -> Answer {
        exchange(server, &self.issuer.token_of_pod(pod, AUDIENCE, "shop", "api"))
    }

    #[track_caller]
    fn session(&self, server: &Server, pod: &str) -> String {
        let answer = self.open(server, pod);
        assert_eq!(answer.status, 200, "{}", answer.text());
        text(&answer.json()["access_token"])
    }

    /// Reasons of what was opened or refused, the oldest first; the server has to be gone.
    fn reasons(&self) -> Vec<String> {
        let found = audit_records(&self.installation.data, "--action sts:OpenSession");
        let reason = |record: &Value| record["reason"].as_str().unwrap_or_default().to_owned();
        found.iter().rev().map(reason).collect()
    }
}

fn exchange(server: &Server, token: &str) -> Answer {
    let body = json!({ "subject_token": token, "role": "shop" }).to_string();
    server.anybody().answer("POST", "/v1/sts/token", &body)
}

fn who_am_i(server: &Server, session: &str) -> u16 {
    let mut http: Http = server.anybody().with_token(session);
    http.answer("GET", "/v1/sts/whoami", "").status
}

#[test]
fn session_ends_when_its_pod_is_deleted_and_no_other_begins() {
    let world = World::new();
    let server = world.serve_prepared("");
    let (first, second) =
        (world.session(&server, "pod-uid-1"), world.session(&server, "pod-uid-2"));
    assert_eq!(who_am_i(&server, &first), 200);
    world.cluster.delete_pod("pod-uid-1");
    until("the session is over", || who_am_i(&server, &first) == 401);
    assert_eq!(who_am_i(&server, &second), 200);
    world.open(&server, "pod-uid-1").refused(401, "Unauthenticated");
    drop(server);
    let there = "the pod is there";
    assert_eq!(world.reasons(), [there, there, "pod_gone"]);
}

#[test]
fn session_ends_when_its_pod_was_deleted_while_the_server_was_away() {
    let world = World::new();
    let server = world.serve_prepared("");
    let session = world.session(&server, "pod-uid-1");
    drop(server);
    world.cluster.delete_pod("pod-uid-1");
    let server = world.serve("");
    // The watch has ten seconds to tell of pods that are younger than the list.
    until("the session is over", || who_am_i(&server, &session) == 401);
}

#[test]
fn pod_that_is_not_heard_of_yet_is_asked_about() {
    let world = World::new();
    let server = world.serve_prepared("");
    world.open(&server, "pod-uid-3").refused(401, "Unauthenticated");
    world.cluster.take_token_of("pod-uid-3");
    let session = world.session(&server, "pod-uid-3");
    assert_eq!(who_am_i(&server, &session), 200);
    world.cluster.add_pod("pod-uid-3");
    until("the pod is known", || {
        let before = world.cluster.count("/apis/authentication");
        world.session(&server, "pod-uid-3");
        world.cluster.count("/apis/authentication") == before
    });
    drop(server);
    let reasons = world.reasons();
    assert_eq!(reasons[..2], ["not_taken_by_cluster", "the cluster took the token"]);
    assert_eq!(reasons.last().unwrap(), "the pod is there");
}

#[test]
fn cluster_that_is_away_opens_nothing_for_pods_that_are_not_known() {
    let world = World::new();
    let server = world.serve_prepared("");
    world.cluster.go_away();
    world.open(&server, "pod-uid-3").refused(503, "Unavailable");
    // What was heard a moment ago counts still.
    let session = world.session(&server, "pod-uid-1");
    assert_eq!(who_am_i(&server, &session), 200);
    drop(server);
    let reasons = world.reasons();
    assert!(reasons[1].starts_with("the pod"), "{reasons:?}");
}

#[test]
fn log_says_when_liveness_was_not_checked() {
    let world = World::new();
    let server = world.serve_prepared("liveness = 'preferred'");
    world.cluster.go_away();
    world.session(&server, "pod-uid-3");
    drop(server);
    // And without a cluster that is asked, too.
    let server = world.installation.serve_unsealed("");
    world.session(&server, "pod-uid-1");
    drop(server);
    let reasons = world.reasons();
    let end = |reason: &str| format!("liveness was not checked: the cluster is {reason}");
    assert_eq!(reasons, [end("away"), end("not asked")]);
}

#[test]
fn key_that_the_cluster_publishes_later_is_fetched_once_and_taken() {
    let world = World::new();
    let server = world.serve_prepared("");
    world.session(&server, "pod-uid-1");
    let fetched = world.cluster.count("/openid");
    let next = Issuer::with_key_id("k2");
    world.cluster.publish(&next.jwks());
    let token = next.token_of_pod("pod-uid-1", AUDIENCE, "shop", "api");
    assert_eq!(exchange(&server, &token).status, 200);
    // A flood of unknown keys asks nobody again.
    let stranger = Issuer::with_key_id("k3").token_of_pod("pod-uid-1", AUDIENCE, "shop", "api");
    for _ in 0..20 {
        exchange(&server, &stranger).refused(401, "Unauthenticated");
    }
    assert_eq!(world.cluster.count("/openid"), fetched + 1);
    // The key before is published no longer.
    world.open(&server, "pod-uid-1").refused(401, "Unauthenticated");
    let shown = server.cli("cluster show prod --output json").json();
    assert_eq!((&shown["key_ids"], &shown["jwks_url"]), (&json!(["k2"]), &json!("cluster:")));
    drop(server);
    let refreshed = audit_records(&world.installation.data, "--action sys:RefreshKeys");
    assert_eq!(refreshed.len(), 2, "{refreshed:?}");
    assert_eq!(refreshed[0]["who"], "system:scheduler");
}

/// A server that answers one document to everybody.
fn publish(document: String) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4_096];
            let _ = std::io::Read::read(&mut stream, &mut head);
            // Whoever has read enough hangs up.
            let _ = std::io::Write::write_all(&mut stream, document.as_bytes());
        }
    });
    url
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn add_by(server: &Server, url: &str) -> crate::process::Ended {
    server
        .cli(&format!("provider add ci --issuer https://ci.example --audience a --jwks-url {url}"))
}

#[test]
fn jwks_by_url_is_read_and_bad_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let server = installation.serve_unsealed("");
    let keys = Issuer::new().jwks();
    add_by(&server, &publish(ok(&keys))).ok();
    let shown: Value = server.cli("provider show ci --output json").json();
    assert_eq!(shown["key_ids"], json!(["k1"]));
    let ten_megabytes = format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(10 << 20));
    let redirect = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n";
    for (url, why) in [
        (publish(ok(&ten_megabytes)), "longer than"),
        (publish(ok(&format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(70_000)))), "65536"),
        (publish(redirect.to_owned()), "redirect"),
        (publish(ok("no keys")), "not a JSON Web Key Set"),
        (publish("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()), "404"),
        ("http://ci.example/keys".to_owned(), "loopback"),
        ("https://169.254.169.254/latest".to_owned(), "not called"),
        ("file:///etc/passwd".to_owned(), "no address"),
    ] {
        let refused = add_by(&server, &url);
        assert!(refused.failed(1).contains(why), "{url}: {}", refused.stderr);
    }
    // What was good stays.
    assert_eq!(server.cli("provider show ci --output json").json(), shown);
}

#[test]
fn hosts_that_the_configuration_does_not_name_are_not_asked() {
    let folder: tempfile::TempDir = tempfile::tempdir().unwrap();
    let installation = Installation::found(Path::new(folder.path()));
    let server = installation.serve_unsealed("connect.allow = ['ci.example']");
    let refused = add_by(&server, &publish(ok(&Issuer::new().jwks())));
    assert!(refused.failed(1).contains("connect.allow"), "{}", refused.stderr);
}
