//! `kill -9` at any moment loses nothing that was acknowledged.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::mpsc::{self, Sender};

use serde_json::{Value, json};

use crate::http::{Http, base64};
use crate::process::Running;
use crate::world::{Server, dev_command, text};

/// What a server has acknowledged.
enum Done {
    Created(String),
    Rotated(String, u64),
    Encrypted { plaintext: String, ciphertext: Value },
}

/// Creates, rotates and encrypts until the server is gone.
fn work(mut http: Http, done: &Sender<Done>) {
    let mut call = |path: &str, body: &Value| -> Option<Value> {
        let answer = http.send("POST", path, body.to_string().as_bytes()).ok()?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        Some(answer.json())
    };
    let tell = |it: Done| done.send(it).ok();
    // `None` ends it: the connection broke.
    let mut round = |number: u64| -> Option<()> {
        let id = text(&call("/v1/keys", &json!({}))?["id"]);
        tell(Done::Created(id.clone()))?;
        let rotated = call(&format!("/v1/keys/{id}/rotate"), &json!({}))?;
        tell(Done::Rotated(id.clone(), rotated["newest_version"].as_u64()?))?;
        let plaintext = base64(format!("{id} {number}").as_bytes());
        let sealed = call("/v1/encrypt", &json!({ "key": id, "plaintext": plaintext }))?;
        tell(Done::Encrypted { plaintext, ciphertext: sealed["ciphertext"].clone() })
    };
    (0..).find(|number| round(*number).is_none());
}

/// Everything acknowledged so far.
#[derive(Default)]
struct Promises {
    versions: BTreeMap<String, u64>,
    ciphertexts: Vec<(Value, String)>,
}

impl Promises {
    fn take(&mut self, done: Done) {
        match done {
            Done::Created(id) => drop(self.versions.insert(id, 1)),
            Done::Rotated(id, newest) => drop(self.versions.insert(id, newest)),
            Done::Encrypted { plaintext, ciphertext } => {
                self.ciphertexts.push((ciphertext, plaintext));
            }
        }
    }

    fn add(&mut self, mut more: Self) {
        self.versions.append(&mut more.versions);
        self.ciphertexts.append(&mut more.ciphertexts);
    }

    /// Asks a server for all of it.
    fn check(&self, http: &mut Http, seed: u64) {
        for (id, newest) in &self.versions {
            let view = http.done("GET", &format!("/v1/keys/{id}"), "");
            // What was not acknowledged may have happened all the same.
            assert!(view["newest_version"].as_u64() >= Some(*newest), "seed {seed}: {view}");
            assert_eq!(view["state"], "Enabled", "seed {seed}");
        }
        for (ciphertext, plaintext) in &self.ciphertexts {
            let body = json!({ "ciphertext": ciphertext }).to_string();
            let opened = http.done("POST", "/v1/decrypt", &body);
            assert_eq!(opened["plaintext"], plaintext.as_str(), "seed {seed}");
        }
    }
}

/// Numbers by SplitMix64 from a seed that failures tell.
struct Dice(u64);

impl Dice {
    fn seeded() -> (Self, u64) {
        let seed = RandomState::new().build_hasher().finish();
        (Self(seed), seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// One life of a server: three clients work, and after some acknowledgements it is killed.
/// Answers what it has acknowledged.
fn live_and_die(server: &mut Server, dice: &mut Dice) -> Promises {
    let mut promises = Promises::default();
    let (sender, done) = mpsc::channel();
    let last = dice.below(40) + 1;
    let spin = dice.below(100_000);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (http, sender) = (server.admin(), sender.clone());
            scope.spawn(move || work(http, &sender));
        }
        drop(sender);
        for _ in 0..last {
            promises.take(done.recv().expect("the clients work"));
        }
        (0..spin).for_each(|_| std::hint::spin_loop());
        server.process.kill();
        done.iter().for_each(|it| promises.take(it));
    });
    promises
}

fn rounds(count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    let (mut dice, seed) = Dice::seeded();
    let mut all = Promises::default();
    let mut server = Server::dev(&data);
    for _ in 0..count {
        let promises = live_and_die(&mut server, &mut dice);
        server = Server::dev(&data);
        promises.check(&mut server.admin(), seed);
        all.add(promises);
    }
    all.check(&mut server.admin(), seed);
    assert!(all.versions.len() >= count, "seed {seed}: {}", all.versions.len());
}

#[test]
fn killed_server_keeps_what_it_acknowledged() {
    rounds(10);
}

#[test]
#[ignore = "heavy: two hundred lives of a server"]
fn killed_server_keeps_what_it_acknowledged_two_hundred_times() {
    rounds(200);
}

#[test]
fn server_killed_while_it_founds_its_directory_starts_again() {
    let stations = [
        "dev.key",
        "lock",
        "records.db",
        "format",
        "audit",
        "tls/ca.key",
        "tls/ca.pem",
        "dev.token",
        "env",
    ];
    for station in stations {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("d");
        let mut process = Running::start(&mut dev_command(&data));
        while !data.join(station).exists() && process.lives() {
            std::thread::yield_now();
        }
        process.kill();
        let second = Running::start(&mut dev_command(&data));
        assert!(second.says("ready").is_some(), "{station}: {}", second.complaint());
    }
}
