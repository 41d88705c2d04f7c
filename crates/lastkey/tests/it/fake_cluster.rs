//! What the server asks of an API server, on loopback: lists and watches of metadata, TokenReview,
//! the key set. What it answers is written as a real API server (1.34) writes it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::HANG;

/// A cluster with one service account, `sa-uid-1`, and whatever pods a test makes.
pub(crate) struct FakeCluster {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pods: Vec<String>,
    /// What watches of pods are told, in order.
    events: Vec<String>,
    jwks: String,
    /// Answers 503 to everything, and ends what is watched.
    is_away: bool,
    /// UIDs of pods whose tokens are taken on review.
    reviewed: Vec<String>,
    /// Targets of all requests.
    asked: Vec<String>,
    is_over: bool,
}

impl FakeCluster {
    pub(crate) fn start(jwks: &str, pods: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let this = Self { url, shared: Arc::clone(&shared) };
        this.change(|state| {
            jwks.clone_into(&mut state.jwks);
            state.pods = pods.iter().map(|uid| (*uid).to_owned()).collect();
        });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                if shared.lock().is_over {
                    return;
                }
                // A client that hangs up ends its own connection.
                thread::spawn(move || drop(serve(stream.unwrap(), &shared)));
            }
        });
        this
    }

    /// Lines of a configuration that let a server ask this cluster as `prod`.
    pub(crate) fn config(&self, folder: &std::path::Path, more: &str) -> String {
        self.config_as("prod", folder, more)
    }

    /// The same by another name.
    pub(crate) fn config_as(&self, name: &str, folder: &std::path::Path, more: &str) -> String {
        let token = folder.join("api-token");
        std::fs::write(&token, "reviewer\n").unwrap();
        format!(
            "[[cluster]]\nname = '{name}'\nserver = '{}'\ntoken_file = '{}'\n{more}\n",
            self.url,
            token.display()
        )
    }

    pub(crate) fn add_pod(&self, uid: &str) {
        self.change(|state| {
            state.pods.push(uid.to_owned());
            state.events.push(event("ADDED", &object(uid)));
        });
    }

    pub(crate) fn delete_pod(&self, uid: &str) {
        self.change(|state| {
            state.pods.retain(|one| one != uid);
            state.events.push(event("DELETED", &object(uid)));
        });
    }

    pub(crate) fn take_token_of(&self, uid: &str) {
        self.change(|state| state.reviewed.push(uid.to_owned()));
    }

    pub(crate) fn publish(&self, jwks: &str) {
        self.change(|state| jwks.clone_into(&mut state.jwks));
    }

    pub(crate) fn go_away(&self) {
        self.change(|state| state.is_away = true);
    }

    /// Waits until requests for targets that begin so have come in so often.
    pub(crate) fn wait_for(&self, start: &str, times: usize) {
        let is_missing =
            |state: &mut State| state.asked.iter().filter(|t| t.starts_with(start)).count() < times;
        let state = self.shared.lock();
        let (state, late) =
            self.shared.changed.wait_timeout_while(state, HANG, is_missing).unwrap();
        assert!(!late.timed_out(), "{start} was not asked for: {:?}", state.asked);
    }

    /// How often targets that begin so were asked for.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.shared.lock().asked.iter().filter(|target| target.starts_with(start)).count()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        self.change(|state| state.is_over = true);
        // Wakes the listener, so that its thread ends.
        drop(TcpStream::connect(self.url.trim_start_matches("http://")));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn object(uid: &str) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": { "name": uid, "uid": uid, "resourceVersion": "7" } })
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut len) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = text.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    assert!(head.contains("Bearer reviewer\r\n"), "no credential: {head}");
    let away = {
        let mut state = shared.lock();
        state.asked.push(target.clone());
        shared.changed.notify_all();
        state.is_away
    };
    let mut stream = reader.into_inner();
    if away {
        return answer(&mut stream, "503 Service Unavailable", "{}");
    }
    if target.contains("watch=1") {
        return watch(&mut stream, shared, target.contains("/pods"));
    }
    let text = document(shared, &target, &body);
    answer(&mut stream, "200 OK", &text)
}

fn document(shared: &Shared, target: &str, body: &[u8]) -> String {
    let state = shared.lock();
    let list = |uids: &[String]| {
        let items: Vec<_> = uids.iter().map(|uid| object(uid)).collect();
        json!({ "metadata": { "resourceVersion": "7" }, "items": items }).to_string()
    };
    match target.split('?').next().unwrap() {
        "/api/v1/pods" => list(&state.pods),
        "/api/v1/serviceaccounts" => list(&["sa-uid-1".to_owned()]),
        "/openid/v1/jwks" => state.jwks.clone(),
        "/apis/authentication.k8s.io/v1/tokenreviews" => {
            let asked: Value = serde_json::from_slice(body).unwrap();
            let pod = pod_of(asked["spec"]["token"].as_str().unwrap());
            let status = if state.reviewed.contains(&pod) {
                json!({ "authenticated": true, "audiences": asked["spec"]["audiences"],
                    "user": { "username": "system:serviceaccount:shop:api", "uid": "sa-uid-1",
                        "extra": { "authentication.kubernetes.io/pod-uid": [pod] } } })
            } else {
                json!({ "user": {}, "error": "[invalid bearer token, Pod is gone]" })
            };
            json!({ "kind": "TokenReview", "status": status }).to_string()
        }
        other => panic!("nobody asks for {other}"),
    }
}

/// The pod in the claims of a token.
fn pod_of(token: &str) -> String {
    use base64::Engine as _;
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["kubernetes.io"]["pod"]["uid"].as_str().unwrap().to_owned()
}

fn answer(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let len = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}")
}

/// How often a watch that has no news says so; a real API server does once a minute.
const BOOKMARKS: Duration = Duration::from_secs(1);

fn watch(stream: &mut TcpStream, shared: &Shared, is_of_pods: bool) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let mut told = 0;
    let mark = event("BOOKMARK", &json!({ "metadata": { "resourceVersion": "7" } }));
    let mut state = shared.lock();
    while !state.is_over && !state.is_away {
        let news: String = match is_of_pods {
            true => state.events.iter().skip(told).cloned().collect(),
            false => String::new(),
        };
        told = state.events.len();
        let news = if news.is_empty() { &mark } else { &news };
        write!(stream, "{:x}\r\n{news}\r\n", news.len())?;
        stream.flush()?;
        state = shared.changed.wait_timeout(state, BOOKMARKS).unwrap().0;
    }
    Ok(())
}
