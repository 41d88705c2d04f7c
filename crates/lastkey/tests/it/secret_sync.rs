//! Kubernetes Secrets that follow managed secrets, at an API server that knows nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::http::base64;
use crate::issuer::{ISSUER, Issuer};
use crate::process::Running;
use crate::world::{Server, text};

/// Secrets by path, as an API server keeps them, and whatever else is created.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<Mutex<BTreeMap<String, Value>>>);

impl Secrets {
    /// Serves them on loopback; the address.
    pub(crate) fn serve(&self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let this = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let this = this.clone();
                // A client that hangs up ends its own connection.
                std::thread::spawn(move || drop(this.answer(stream.unwrap())));
            }
        });
        url
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
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
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap().to_owned());
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (status, answer) = self.done(method, path, body);
        let answer = answer.to_string();
        write!(
            reader.into_inner(),
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
            answer.len()
        )
    }

    fn done(&self, method: &str, path: String, body: Value) -> (&'static str, Value) {
        let mut secrets = self.0.lock().unwrap();
        match method {
            "GET" => match secrets.get(&path) {
                Some(found) => ("200 OK", found.clone()),
                None => ("404 Not Found", json!({ "kind": "Status", "reason": "NotFound" })),
            },
            "POST" => {
                let name = match body["metadata"]["name"].as_str() {
                    Some(name) => name.to_owned(),
                    None => format!("{}{}", text(&body["metadata"]["generateName"]), secrets.len()),
                };
                let mut made = body.clone();
                made["metadata"]["resourceVersion"] = json!("1");
                secrets.insert(format!("{path}/{name}"), made.clone());
                ("201 Created", made)
            }
            "PATCH" => {
                let object = secrets.get_mut(&path).unwrap();
                let [test, annotations, data] = body.as_array().unwrap().as_slice() else {
                    panic!("{body}")
                };
                if test["value"] != object["metadata"]["resourceVersion"] {
                    return ("422 Unprocessable Entity", json!({ "reason": "Invalid" }));
                }
                object["metadata"]["annotations"] = annotations["value"].clone();
                object["data"] = data["value"].clone();
                let revision: u64 = test["value"].as_str().unwrap().parse().unwrap();
                object["metadata"]["resourceVersion"] = json!((revision + 1).to_string());
                ("200 OK", object.clone())
            }
            other => panic!("nobody asks by {other}"),
        }
    }

    fn get(&self, path: &str) -> Value {
        self.0.lock().unwrap().get(path).cloned().unwrap_or_default()
    }

    /// What was created below a path, in the order of its names.
    pub(crate) fn below(&self, path: &str) -> Vec<Value> {
        let all = self.0.lock().unwrap();
        let below = all.iter().filter(|(place, _)| place.starts_with(path));
        below.map(|(_, object)| object.clone()).collect()
    }
}

const DB: &str = "/api/v1/namespaces/shop/secrets/db";

/// The command that lets `shop/db` follow the secret `prod/db`, at the API server of this address.
fn sync_line(folder: &Path, url: &str) -> String {
    let kubeconfig = kubeconfig(folder, url);
    format!("secret sync --secret prod/db=shop/db --kubeconfig {}", kubeconfig.display())
}

/// A kubeconfig of an API server in the clear.
pub(crate) fn kubeconfig(folder: &Path, url: &str) -> PathBuf {
    let kubeconfig = folder.join("kubeconfig");
    fs::write(
        &kubeconfig,
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: '{url}'}}}}]\n\
             users: [{{name: u, user: {{token: t}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        ),
    )
    .unwrap();
    kubeconfig
}

#[test]
fn kubernetes_secrets_follow_and_those_of_others_are_left_alone() {
    let (folder, secrets) = (tempfile::tempdir().unwrap(), Secrets::default());
    let server = Server::dev(&folder.path().join("data"));
    let mut http = server.admin();
    let mut put = |fields: &[(&str, &[u8])]| {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(base64(value))));
        let body = json!({ "fields": fields.collect::<serde_json::Map<_, _>>() }).to_string();
        http.done("PUT", "/v1/secrets/prod%2Fdb", &body);
    };
    put(&[("user", b"app"), ("password", b"hunter2"), ("old", b"x")]);
    let line = sync_line(folder.path(), &secrets.serve());
    let once = server.cli(&format!("{line} --once"));
    let told = once.stderr.clone();
    once.ok();
    assert!(told.contains("1 Secrets") && told.contains("etcd"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
    let made = secrets.get(DB);
    assert_eq!(made["data"]["password"], base64(b"hunter2"));
    assert_eq!(made["metadata"]["annotations"]["lastkey.dev/version"], "1");
    // The second time there is nothing to do.
    server.cli(&format!("{line} --once")).ok();
    assert_eq!(secrets.get(DB), made);
    // It follows: what is gone from the secret is gone from the Secret.
    let following = Running::start(&mut server.client(line.split_whitespace()));
    following.logs("in etcd");
    put(&[("user", b"app"), ("password", b"hunter3")]); // lastkey:allow made for this test
    following.logs("version 2 is in shop/db");
    let changed = secrets.get(DB);
    let names: Vec<_> = changed["data"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["password", "user"]);
    drop(following);
    // One that somebody else made.
    let foreign = json!({ "metadata": { "name": "db", "resourceVersion": "9" }, "data": {} });
    secrets.0.lock().unwrap().insert(DB.to_owned(), foreign.clone());
    let refused = server.cli(&format!("{line} --once"));
    assert!(refused.failed(2).contains("--adopt"), "{}", refused.stderr);
    assert_eq!(secrets.get(DB), foreign);
    server.cli(&format!("{line} --once --adopt")).ok();
    assert_eq!(secrets.get(DB)["data"]["password"], base64(b"hunter3"));
}

/// A role whose sessions may read and watch the secret `prod/db`.
pub(crate) struct Role {
    folder: tempfile::TempDir,
    pub(crate) server: Server,
    issuer: Issuer,
}

impl Role {
    pub(crate) fn made() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        let this = Self { folder, server, issuer: Issuer::new() };
        let actions = ["ListSecrets", "DescribeSecret", "GetSecret"];
        let actions = actions.map(|action| format!("Action::\"secrets:{action}\"")).join(", ");
        let policy = format!(
            "permit(principal in Role::\"sync\", action in [{actions}], \
             resource in SecretPath::\"prod\");"
        );
        let (policy, jwks) =
            (this.write("policy", &policy), this.write("jwks", &this.issuer.jwks()));
        this.server
            .cli(&format!("cluster add here --issuer {ISSUER} --audience a --jwks {jwks}"))
            .ok();
        let role = "role create sync --cluster here --namespace shop --service-account api";
        this.server.cli(&format!("{role} --policy {policy}")).ok();
        this
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A new session, in the file `token`.
    pub(crate) fn log_in(&self) -> String {
        let body = json!({ "subject_token": self.issuer.pod_token("a", "shop", "api"),
            "role": "sync" });
        let session = self.server.anybody().done("POST", "/v1/sts/token", &body.to_string());
        self.write("token", &text(&session["access_token"]))
    }

    pub(crate) fn put(&self, value: &[u8]) {
        let body = json!({ "value": base64(value) }).to_string();
        self.server.admin().done("PUT", "/v1/secrets/prod%2Fdb", &body);
    }

    /// A command, by the token in the file alone.
    pub(crate) fn client(&self, line: &str, token: &str) -> Command {
        let line = format!("--token-file {token} {line}");
        let mut command = self.server.client(line.split_whitespace());
        command.env_remove("LASTKEY_TOKEN");
        command
    }

    fn sync(&self, url: &str, token: &str) -> Running {
        Running::start(&mut self.client(&sync_line(self.folder.path(), url), token))
    }
}

#[test]
fn secret_that_is_deleted_leaves_what_was_written_and_goes_on_when_it_is_restored() {
    let (folder, secrets) = (tempfile::tempdir().unwrap(), Secrets::default());
    let server = Server::dev(&folder.path().join("data"));
    let put = |value: &[u8]| {
        let body = json!({ "value": base64(value) }).to_string();
        server.admin().done("PUT", "/v1/secrets/prod%2Fdb", &body);
    };
    put(b"one");
    let line = sync_line(folder.path(), &secrets.serve());
    let following = Running::start(&mut server.client(line.split_whitespace()));
    following.logs("in etcd");
    server.cli("secret delete prod/db").ok();
    following.logs("warning: prod/db: it is deleted");
    assert_eq!(secrets.get(DB)["data"]["value"], base64(b"one"));
    server.cli("secret restore prod/db").ok();
    put(b"two");
    following.logs("version 2 is in shop/db");
    assert_eq!(secrets.get(DB)["data"]["value"], base64(b"two"));
}

#[test]
fn token_that_counts_no_more_is_read_anew() {
    let (role, secrets) = (Role::made(), Secrets::default());
    role.put(b"one");
    let token = role.log_in();
    let following = role.sync(&secrets.serve(), &token);
    following.logs("in etcd");
    role.server.cli(&format!("burn {token}")).ok();
    role.put(b"two");
    following.logs("warning: ");
    role.log_in();
    following.logs("version 2 is in shop/db");
    assert_eq!(secrets.get(DB)["data"]["value"], base64(b"two"));
}

#[test]
#[ignore = "heavy: half a minute of refusals"]
fn sync_that_is_let_do_nothing_ends_and_says_what_to_do() {
    let (role, secrets) = (Role::made(), Secrets::default());
    role.put(b"one");
    let token = role.log_in();
    let mut following = role.sync(&secrets.serve(), &token);
    following.logs("in etcd");
    role.server.cli(&format!("burn {token}")).ok();
    role.put(b"two");
    following.logs("start this again");
    assert_eq!(following.ended().code(), Some(4));
}
