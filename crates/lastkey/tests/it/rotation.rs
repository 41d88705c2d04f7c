//! Rotation against a real PostgreSQL: two accounts in turn, under load, and killed anywhere.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Http, base64};
use crate::postgres::Postgres;
use crate::process::until;
use crate::world::{Installation, Server, dev_command, text};

/// A development server, a database, and a secret whose two accounts take turns.
struct House {
    server: Server,
    postgres: Postgres,
    folder: tempfile::TempDir,
}

impl House {
    fn new() -> Option<Self> {
        let postgres = Postgres::start()?;
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        postgres.sql("CREATE ROLE lastkey LOGIN CREATEROLE PASSWORD 'first'");
        postgres.sql("CREATE ROLE shop_a LOGIN PASSWORD 'first'; CREATE ROLE shop_b LOGIN");
        let house = Self { server, postgres, folder };
        fs::write(house.folder.path().join("first"), "first\n").unwrap();
        house.cli(&format!(
            "database add shop --address {} --user lastkey --password-file {}",
            house.postgres.address(),
            house.folder.path().join("first").display(),
        ));
        let fields = [("username", "shop_a"), ("password", "first"), ("host", "db")];
        let fields: serde_json::Map<_, _> = fields
            .map(|(name, value)| (name.to_owned(), Value::from(base64(value.as_bytes()))))
            .into_iter()
            .collect();
        let body = json!({ "fields": fields }).to_string();
        house.server.admin().done("PUT", "/v1/secrets/db", &body);
        house.cli("secret rotation set db --database shop --accounts shop_a,shop_b");
        Some(house)
    }

    #[track_caller]
    fn cli(&self, line: &str) -> String {
        self.server.cli(line).ok()
    }

    /// Logs in with what the secret says now.
    fn logs_in(&self, http: &mut Http) -> bool {
        let (account, password) = login(http);
        self.postgres.lets_in(&account, &password)
    }
}

/// Account and password of the current version.
fn login(http: &mut Http) -> (String, String) {
    let read = http.done("GET", "/v1/secrets/db/value", "");
    let field = |name: &str| String::from_utf8(crate::http::bytes(&read["fields"][name])).unwrap();
    (field("username"), field("password"))
}

#[test]
fn two_accounts_take_turns_in_a_real_database() {
    let Some(house) = House::new() else { return };
    assert!(!house.postgres.lets_in("lastkey", "first"), "the root password is another one");
    let shown = house.cli("database show shop");
    assert!(shown.contains("drawn") && !shown.contains("first"), "{shown}");
    let view = house.server.cli("secret rotate db --output json").json();
    assert_eq!((&view["last"]["version"], &view["overlap"]["version"]), (&json!(2), &json!(1)));
    let (account, password) = login(&mut house.server.admin());
    assert_eq!(account, "shop_b");
    assert!(house.postgres.lets_in("shop_b", &password));
    assert!(house.postgres.lets_in("shop_a", "first"), "the old account counts for a day");
    let stored = house.postgres.one("SELECT rolpassword FROM pg_authid WHERE rolname = 'shop_b'");
    assert!(stored.starts_with("SCRAM-SHA-256$4096:"), "{stored}");
    let refused = house.server.cli("secret rotate db");
    assert!(refused.failed(1).contains("--end-overlap"), "{}", refused.stderr);
    house.cli("secret rotate db --end-overlap");
    let (account, again) = login(&mut house.server.admin());
    assert_eq!(account, "shop_a");
    assert!(house.postgres.lets_in("shop_a", &again));
    assert!(!house.postgres.lets_in("shop_a", "first"));
    house.cli("database rotate-root shop");
    house.cli("secret rotate db --end-overlap");
    assert!(house.logs_in(&mut house.server.admin()));
    assert!(!house.postgres.log().contains(&password), "the server logged a password");
    let log = house.server.process.complaint();
    assert!(!log.contains(&password) && !log.contains(&again), "{log}");
}

#[test]
fn a_database_that_refuses_changes_nothing_and_says_why() {
    let Some(house) = House::new() else { return };
    house.postgres.sql("DROP ROLE shop_b");
    let refused = house.server.cli("secret rotate db");
    let told = refused.failed(1);
    assert!(told.contains("OutsideFailed") && told.contains("shop_b"), "{told}");
    assert_eq!(login(&mut house.server.admin()), ("shop_a".to_owned(), "first".to_owned()));
    let shown = house.cli("secret rotation show db");
    assert!(shown.contains("Failures in a row") && shown.contains("does not exist"), "{shown}");
    // Nobody listens at this socket.
    let nobody = "postgresql:///shop?host=/nowhere";
    let file = house.folder.path().join("first");
    let line =
        format!("database add none --address {nobody} --user a --password-file {}", file.display());
    assert!(house.server.cli(&line).failed(1).contains("/nowhere"));
    let wrong = house.postgres.address();
    let line = format!(
        "database add other --address {wrong} --user shop_a --password-file {}",
        file.display()
    );
    house.postgres.sql("ALTER ROLE shop_a PASSWORD 'another'");
    assert!(house.server.cli(&line).failed(1).contains("does not let shop_a in"));
    let metrics = house.server.admin().answer("GET", "/metrics", "").text();
    assert!(metrics.contains("lastkey_secret_rotations_total{result=\"failed\"} 1"), "{metrics}");
}

/// Programs log in all the time while the secret `db` rotates; no login fails. A program reads the
/// secret first, so what it has may be one rotation old.
pub(crate) fn rotates_under_load(server: &Server, lets_in: impl Fn(&str, &str) -> bool + Sync) {
    let (stop, logins, failed) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let reaches = |wanted| {
        while logins.load(Ordering::Relaxed) < wanted && failed.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut http = server.admin();
                while !stop.load(Ordering::Relaxed) {
                    let (account, password) = login(&mut http);
                    let is_in = lets_in(&account, &password);
                    let counter = if is_in { &logins } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        reaches(5);
        let turned = server.cli("secret rotate db");
        reaches(logins.load(Ordering::Relaxed) + 20);
        stop.store(true, Ordering::Relaxed);
        turned.ok();
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    assert_eq!(login(&mut server.admin()).0, "shop_b");
}

#[test]
fn rotation_under_load_fails_no_login() {
    let Some(house) = House::new() else { return };
    rotates_under_load(&house.server, |account, password| {
        house.postgres.lets_in(account, password)
    });
}

/// The server is killed during a rotation, at a moment that differs each time; the next one goes
/// on or takes back, and what the secret says always opens.
#[test]
fn a_server_killed_during_a_rotation_never_loses_both_passwords() {
    let Some(mut house) = House::new() else { return };
    let data = house.folder.path().join("data");
    for round in 0..8_u32 {
        let body = json!({ "end_overlap": true }).to_string();
        let mut http = house.server.admin();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The connection breaks, or the answer comes first.
                let _ = http.send("POST", "/v1/secrets/db/rotate", body.as_bytes());
            });
            (0..round * 400_000).for_each(|_| std::hint::spin_loop());
            house.server.process.kill();
        });
        house.server = Server::dev_by(&mut dev_command(&data), &data);
        let mut http = house.server.admin();
        assert!(house.logs_in(&mut http), "round {round}");
        // What was under way is taken up by itself.
        until("nothing is under way", || {
            http.done("GET", "/v1/secrets/db/rotation", "")["under_way"].is_null()
        });
        assert!(house.logs_in(&mut http), "round {round}");
    }
    assert!(text(&house.server.admin().done("GET", "/v1/secrets/db", "")["name"]) == "db");
}

/// A program on loopback that takes four calls, says yes to each, and keeps them.
fn program() -> (String, std::thread::JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let taken = std::thread::spawn(move || {
        let calls = listener.incoming().take(4).map(|stream| {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut len, mut line) = (0, String::new());
            while stream.read_line(&mut line).unwrap() > 2 {
                let (name, value) = line.split_once(':').unwrap_or_default();
                if name.eq_ignore_ascii_case("content-length") {
                    len = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; len];
            stream.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            stream.get_mut().write_all(answer).unwrap();
            serde_json::from_slice(&body).unwrap()
        });
        calls.collect()
    });
    (url, taken)
}

#[test]
fn a_program_is_called_in_four_steps_with_the_value_that_becomes_current() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let server = installation.serve_unsealed("connect.allow = ['127.0.0.1']");
    let body = json!({ "value": base64(b"old") }).to_string();
    server.admin().done("PUT", "/v1/secrets/hooked", &body);
    let (url, taken) = program();
    let set = server.cli(&format!("secret rotation set hooked --webhook {url}")).ok();
    assert!(set.contains("lastkey_webhook_"), "{set}");
    server.cli("secret rotate hooked").ok();
    let calls = taken.join().unwrap();
    let steps: Vec<_> = calls.iter().map(|call| text(&call["step"])).collect();
    assert_eq!(steps, ["create", "set", "test", "finish"]);
    let current = server.admin().done("GET", "/v1/secrets/hooked/value", "");
    assert_eq!((&calls[1]["value"], &calls[1]["version"]), (&current["value"], &json!(2)));
    assert!(calls.iter().all(|call| call["rotation"] == calls[0]["rotation"]));
    // Nobody listens any more.
    let refused = server.cli("secret rotate hooked");
    assert!(refused.failed(1).contains("cannot be reached"), "{}", refused.stderr);
    assert_eq!(server.admin().done("GET", "/v1/secrets/hooked/value", ""), current);
}
