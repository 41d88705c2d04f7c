//! The KMS v2 plugin as it is started on a control-plane node, and its client.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::Code;

use crate::http::Http;
use crate::kms_client::{Connection, KmsClient, annotation, call_by_path, changed};
use crate::process::{Running, lastkey, run};
use crate::world::Server;

const SEED: [u8; 32] = [0x5E; 32];

/// A server with a key, and room for sockets.
struct Site {
    folder: tempfile::TempDir,
    server: Server,
    key: String,
}

impl Site {
    fn found() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        let key = server.create(r#"{"alias": "alias/etcd"}"#);
        Self { folder, server, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `lastkey kms-plugin` for this socket, with more arguments.
    fn command(&self, socket: &Path, more: &[&str]) -> Command {
        let mut command = self.server.client(["kms-plugin", "--key", "alias/etcd", "--socket"]);
        command.arg(socket).args(more);
        command
    }

    fn start(&self, more: &[&str]) -> Plugin {
        Plugin::start(&mut self.command(&self.path("kms.sock"), more), self.path("kms.sock"))
    }

    #[track_caller]
    fn cli(&self, line: &str) {
        self.server.cli(line).ok();
    }
}

struct Plugin {
    process: Running,
    ready: String,
    socket: PathBuf,
}

impl Plugin {
    #[track_caller]
    fn start(command: &mut Command, socket: PathBuf) -> Self {
        let process = Running::start(command);
        let ready = process.says("lastkey kms-plugin serves");
        let ready = ready.unwrap_or_else(|| panic!("not ready: {}", process.complaint()));
        Self { process, ready, socket }
    }

    fn client(&self) -> KmsClient {
        KmsClient::connect(&self.socket)
    }
}

#[test]
fn seeds_are_protected_under_the_key_through_rotation_and_restart() {
    let site = Site::found();
    let mut plugin = site.start(&[]);
    let client = plugin.client();
    let first_id = client.ready();
    let first = client.seals(&SEED);
    assert_eq!(first.key_id, first_id);
    assert!(
        first.ciphertext.len() <= 1_024 && !first.ciphertext.windows(8).any(|w| w == [0x5E; 8])
    );
    let version = format!("{}/1", site.key).into_bytes();
    assert_eq!(first.annotations["key-version.lastkey.dev"], version);
    assert_eq!(client.opens(&first), SEED);

    site.cli("key rotate alias/etcd");
    let second_id = client
        .wait("rotated", |status| status.as_ref().is_ok_and(|status| status.key_id != first_id));
    let second_id = second_id.unwrap().key_id;
    let second = client.seals(&SEED);
    assert_eq!(second.key_id, second_id);
    assert_eq!(client.opens(&first), SEED);

    plugin.process.stop();
    let plugin = site.start(&[]);
    let client = plugin.client();
    assert_eq!(client.ready(), second_id, "the same version has the same name");
    for sealed in [&first, &second] {
        assert_eq!(client.opens(sealed), SEED);
    }
    site.cli("key version make-primary alias/etcd 1");
    let third = client.wait("back at version 1", |status| {
        status.as_ref().is_ok_and(|status| status.key_id != second_id)
    });
    assert_ne!(third.unwrap().key_id, first_id, "a key id never returns");
}

#[test]
fn plugin_serves_while_the_server_is_away_and_stops_when_the_key_is_disabled() {
    let site = Site::found();
    let plugin = site.start(&[]);
    let client = plugin.client();
    client.ready();
    let sealed = client.seals(&SEED);
    site.cli("key disable alias/etcd");
    client
        .wait("refused", |status| {
            status.as_ref().is_err_and(|status| status.code() == Code::FailedPrecondition)
        })
        .unwrap_err();
    assert!(client.encrypt(&SEED).is_err() && client.decrypt(&sealed).is_err());
    site.cli("key enable alias/etcd");
    client.ready();

    let data = site.path("data");
    let Site { folder, mut server, key: _ } = site;
    server.process.kill();
    for _ in 0..100 {
        assert_eq!(client.opens(&client.seals(&SEED)), SEED);
    }
    let told = client
        .wait("coasting", |status| status.as_ref().is_ok_and(|status| status.healthz != "ok"));
    let told = told.unwrap();
    assert!(told.healthz.contains("has not answered for"), "{}", told.healthz);
    assert_eq!(client.seals(&SEED).key_id, told.key_id);
    let addr = server.addr.clone();
    let mut again = lastkey(["dev", "--listen", addr.strip_prefix("http://").unwrap(), "--data"]);
    let _server = Server::dev_by(again.arg(&data), &data);
    assert_eq!(client.ready(), told.key_id);
    drop(folder);
}

#[test]
fn socket_is_there_before_the_server_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::dev(&data);
    server.create(r#"{"alias": "alias/etcd"}"#);
    server.process.stop();
    let socket = folder.path().join("kms.sock");
    let mut command = server.client(["kms-plugin", "--key", "alias/etcd", "--socket"]);
    let plugin = Plugin::start(command.arg(&socket), socket.clone());
    let client = plugin.client();
    let refused = client.status().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(client.encrypt(&SEED).unwrap_err().code(), Code::Unavailable);
    let addr = server.addr.strip_prefix("http://").unwrap().to_owned();
    let mut again = lastkey(["dev", "--listen", &addr, "--data"]);
    let _server = Server::dev_by(again.arg(&data), &data);
    client.ready();
    assert_eq!(client.opens(&client.seals(&SEED)), SEED);
}

#[test]
fn bad_input_gets_a_code_and_the_service_goes_on() {
    let site = Site::found();
    let plugin = site.start(&["--cluster", "prod"]);
    let client = plugin.client();
    client.ready();
    let sealed = client.seals(&SEED);
    let other = {
        let socket = site.path("other.sock");
        let other = Plugin::start(&mut site.command(&socket, &["--cluster", "stage"]), socket);
        let client = other.client();
        client.ready();
        client.seals(&SEED)
    };
    let name = "key-version.lastkey.dev";
    let bad = [
        changed(&sealed, |it| it.key_id = "lk1.unknown".to_owned()),
        changed(&sealed, |it| it.key_id = "k".repeat(1_025)),
        changed(&sealed, |it| it.annotations.clear()),
        changed(&sealed, |it| it.annotations = annotation(name, b"another/1")),
        changed(&sealed, |it| it.annotations = annotation("a.b", &[0; 40_000])),
        changed(&sealed, |it| it.ciphertext.truncate(100)),
        changed(&sealed, |it| it.ciphertext.resize(1_025, 0)),
        changed(&sealed, |it| it.ciphertext.clear()),
        changed(&sealed, |it| it.ciphertext.clone_from(&other.ciphertext)),
        other,
    ];
    for request in &bad {
        let refused = client.decrypt(request).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    for len in [0, 1_025, 60_000] {
        let refused = client.encrypt(&vec![0x5E; len]).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{len}: {refused:?}");
    }
    let refused = client.encrypt(&vec![0x5E; 100_000]).unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert_eq!(client.opens(&sealed), SEED);
    let log = plugin.process.complaint();
    assert!(!log.contains("^^^^") && !log.contains(&"5e".repeat(8)), "{log}");
}

#[test]
fn second_plugin_on_a_socket_is_refused_and_a_killed_one_leaves_nothing_in_the_way() {
    let site = Site::found();
    let mut first = site.start(&[]);
    first.client().ready();
    let second = run(&mut site.command(&first.socket, &[]), b"");
    let complaint = second.failed(1);
    assert!(complaint.contains("another process serves"), "{complaint}");
    first.client().ready();
    first.process.kill();
    assert!(first.socket.exists(), "a killed process cannot tidy up");
    let again = site.start(&[]);
    again.client().ready();
    let elsewhere = site.path("elsewhere");
    std::os::unix::fs::symlink(&again.socket, &elsewhere).unwrap();
    let through = run(&mut site.command(&elsewhere, &[]), b"");
    assert!(through.failed(1).contains("is not a socket of this user"));
}

/// An API server before 1.32: `:authority` is the percent-encoded path.
#[test]
fn old_api_server_is_told_of_in_the_log() {
    let site = Site::found();
    let plugin = site.start(&[]);
    let stream = call_by_path(&plugin.socket, "/v2.KeyManagementService/Sta");
    plugin.process.logs("Kubernetes 1.32 or later is needed");
    drop(stream);
    plugin.client().ready();
}

#[test]
fn one_process_serves_several_providers_and_shows_how_they_are() {
    let site = Site::found();
    site.server.create(r#"{"alias": "alias/second"}"#);
    // A server that takes connections and says nothing, and one that is not there.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fs::write(site.path("token"), &site.server.token).unwrap();
    run(Command::new("chmod").arg("600").arg(site.path("token")), b"").ok();
    let config = format!(
        "[server]\nendpoints = ['http://{gone}', 'http://{}', '{}']\ntoken_file = 'token'\n\
         [metrics]\nlisten = '127.0.0.1:0'\n\
         [[provider]]\nsocket = 'one.sock'\nkey = 'alias/etcd'\n\
         [[provider]]\nname = 'two'\nsocket = 'two.sock'\nkey = 'alias/second'\n",
        silent.local_addr().unwrap(),
        site.server.addr
    );
    fs::write(site.path("kms.toml"), config).unwrap();
    let mut command = lastkey(["kms-plugin", "--config"]);
    let plugin = Plugin::start(command.arg(site.path("kms.toml")), site.path("one.sock"));
    let (one, two) = (plugin.client(), KmsClient::connect(&site.path("two.sock")));
    assert_ne!(one.ready(), two.ready());
    let short = changed(&one.seals(&SEED), |it| it.ciphertext.truncate(150));
    assert_eq!(two.decrypt(&short).unwrap_err().code(), Code::InvalidArgument);

    site.cli("key disable alias/second");
    two.wait("refused", Result::is_err).unwrap_err();
    assert_eq!(one.opens(&one.seals(&SEED)), SEED);
    let addr = plugin.ready.rsplit_once("metrics on ").unwrap().1;
    let page = |path: &str| {
        let mut http = Http::tcp(addr).unwrap();
        let answer = http.answer("GET", path, "");
        (answer.status, answer.text())
    };
    let (status, lines) = page("/readyz");
    assert_eq!((status, lines.as_str()), (503, "one: ok\ntwo: refused\n"));
    assert_eq!(page("/healthz").0, 200);
    let (_, text) = page("/metrics");
    let hash = lastkey_node::kmsv2::key_id_hash(&one.ready());
    assert!(text.contains(&format!("provider=\"one\",key_id_hash=\"{hash}\"")), "{text}");
    assert!(text.contains("method=\"Decrypt\",code=\"InvalidArgument\"} 1"), "{text}");
}

#[test]
fn socket_of_systemd_outlives_the_process() {
    let site = Site::found();
    let socket = site.path("kms.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // What systemd does: the listener as descriptor 3, and two variables about it.
    let start = || {
        let plugin = site.command(&socket, &[]);
        let mut shell = Command::new("sh");
        let line = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
        shell.args(["-c", line, "sh"]).arg(plugin.get_program()).args(plugin.get_args());
        shell.envs(plugin.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let given = listener.try_clone().unwrap();
        Running::start_with(&mut shell, Stdio::from(std::os::fd::OwnedFd::from(given)))
    };
    let mut first = start();
    KmsClient::connect(&socket).ready();
    first.kill();
    // Nobody serves, and still nobody is refused: the connection waits for the next process.
    let mut waiting = UnixStream::connect(&socket).unwrap();
    let _second = start();
    waiting.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    waiting.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "settings of HTTP/2");
    KmsClient::connect(&socket).ready();
}

#[test]
fn wrong_configuration_is_refused_by_a_sentence() {
    let site = Site::found();
    let socket = site.path("s.sock");
    let said = |command: &mut Command| run(command, b"").failed(1).to_owned();
    let said_of = |config: &str| {
        fs::write(site.path("bad.toml"), config).unwrap();
        said(lastkey(["kms-plugin", "--config"]).arg(site.path("bad.toml")))
    };
    let server = "[server]\nendpoints = ['http://127.0.0.1:1']\n";
    for (config, expected) in [
        ("[server]\nendpoints = []\n[[provider]]\nsocket='s'\nkey='k'\n", "names no server"),
        (&format!("{server}provider = []\n"), "unknown field"),
        (&format!("{server}[[provider]]\nsocket='s'\nkey='k'\nkeys='x'\n"), "unknown field"),
        (&format!("{server}[[provider]]\nsocket='s'\nkey=''\n"), "has no key"),
        (
            &format!(
                "{server}[[provider]]\nsocket='s'\nkey='k'\n[[provider]]\nsocket='s'\nkey='l'\n"
            ),
            "two providers have the socket",
        ),
    ] {
        let complaint = said_of(config);
        assert!(complaint.contains(expected), "{expected}: {complaint}");
    }
    let mut half = site.server.client(["kms-plugin", "--key", "alias/etcd"]);
    assert!(said(&mut half).contains("--socket and --key"));
    fs::write(site.path("r.pem"), "no key").unwrap();
    let recovery = site.path("r.pem");
    let mut command = site.command(&socket, &["--recovery-key", recovery.to_str().unwrap()]);
    assert!(said(&mut command).contains("no public key in PEM"));
}

/// Every call is answered, whatever happens to the key service behind the plugin.
#[test]
#[ignore = "heavy: 100,000 calls while the server is killed ten times"]
fn hundred_thousand_calls_outlive_ten_kills_of_the_server() {
    const CALLS: usize = 100_000;
    const CALLERS: usize = 16;
    const KILLS: usize = 10;
    let site = Site::found();
    let plugin = site.start(&[]);
    let key_id = plugin.client().ready();
    let (addr, data) = (site.server.addr.clone(), site.path("data"));
    let Site { folder: _folder, mut server, key: _ } = site;
    let done = Arc::new(AtomicUsize::new(0));
    let (socket, counted) = (plugin.socket.clone(), Arc::clone(&done));
    let calling = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let connection = Connection::open(&socket).await.unwrap();
            let caller = |_| {
                let (connection, key_id) = (connection.clone(), key_id.clone());
                tokio::spawn(call_often(connection, key_id, Arc::clone(&counted), CALLS / CALLERS))
            };
            for caller in (0..CALLERS).map(caller).collect::<Vec<_>>() {
                caller.await.unwrap();
            }
        });
    });
    for kill in 1..=KILLS {
        while done.load(Ordering::Relaxed) < CALLS * kill / (KILLS + 1) {
            assert!(!calling.is_finished(), "the calls ended early");
            std::thread::sleep(Duration::from_millis(1));
        }
        server.process.kill();
        let mut again =
            lastkey(["dev", "--listen", addr.strip_prefix("http://").unwrap(), "--data"]);
        server = Server::dev_by(again.arg(&data), &data);
    }
    calling.join().unwrap();
    assert_eq!(done.load(Ordering::Relaxed), CALLS);
}

async fn call_often(connection: Connection, key_id: String, done: Arc<AtomicUsize>, count: usize) {
    for _ in 0..count / 2 {
        let sealed = connection.encrypt(&SEED).await.unwrap();
        assert_eq!(sealed.key_id, key_id);
        assert_eq!(connection.decrypt(&sealed).await.unwrap().plaintext, SEED);
        done.fetch_add(2, Ordering::Relaxed);
    }
}
