//! The data directory: one process at a time, no newer version, and what a full disk does.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

use crate::http::{Answer, Http};
use crate::process::{Ended, lastkey, not_run, run};
use crate::world::{Installation, Server, dev_command, text};

fn server_on(data: &Path) -> Ended {
    run(lastkey(["server", "--listen", "127.0.0.1:0", "--data"]).arg(data), b"")
}

#[test]
fn data_directory_serves_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let server = installation.serve_unsealed("");
    server.cli("key create --alias alias/app").ok();
    let data = installation.data.to_str().unwrap();
    let mut init = lastkey(["init", "--passphrase-file"]);
    let init = run(init.arg(&installation.passphrase).args(["--data", data]), b"");
    for second in [server_on(&installation.data), init] {
        let said = second.failed(1);
        assert!(
            said.contains("in use by another Lastkey process") && said.contains(data),
            "{said}"
        );
    }
    // The first is none the worse for it.
    server.cli("key show alias/app").ok();
}

#[test]
fn data_directory_of_a_newer_version_is_refused_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    Server::dev(&data).process.stop();
    let format = data.join("format");
    let ours = fs::read_to_string(&format).unwrap();
    assert_eq!(ours, "lastkey data format 1\n");
    fs::write(&format, "lastkey data format 2\n").unwrap();
    let records = fs::read(data.join("records.db")).unwrap();
    for said in [server_on(&data), run(&mut dev_command(&data), b"")] {
        assert!(said.failed(1).contains("written by a newer version"), "{}", said.stderr);
    }
    assert_eq!(fs::read(data.join("records.db")).unwrap(), records);
    fs::write(&format, ours).unwrap();
    Server::dev(&data).process.stop();
}

#[test]
fn server_without_an_installation_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let said = server_on(&folder.path().join("none"));
    assert!(said.failed(1).contains("lastkey init"), "{}", said.stderr);
    let nothing = run(&mut lastkey(["server"]), b"");
    assert!(nothing.failed(1).contains("--data"), "{}", nothing.stderr);
}

#[test]
fn installation_is_founded_once() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let mut init = lastkey(["init", "--passphrase-file"]);
    init.arg(&installation.passphrase).arg("--data").arg(&installation.data);
    let again = run(&mut init, b"");
    assert!(again.failed(1).contains("an installation already"), "{}", again.stderr);
    installation.serve_unsealed("").cli("key list").ok();
}

#[test]
fn lost_database_is_not_replaced_by_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    Server::dev(&data).process.stop();
    fs::remove_file(data.join("records.db")).unwrap();
    let said = run(&mut dev_command(&data), b"");
    assert!(said.failed(1).contains("restore it from a backup"), "{}", said.stderr);
    assert!(!data.join("records.db").exists());
}

/// A small file system of its own; `None` when this process may not mount one.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    pub(crate) fn of(size: &CStr) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), size).ok()?;
        Some(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A folder that stays mounted is in the way of nothing but its own removal.
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// Creates a key that takes most of a page.
fn create(http: &mut Http) -> Answer {
    http.answer("POST", "/v1/keys", &json!({ "description": "x".repeat(8_000) }).to_string())
}

#[test]
fn full_disk_loses_nothing_that_was_acknowledged_and_ends_when_there_is_room() {
    let Some(disk) = Disk::of(c"size=6m,mode=0700") else {
        return not_run("a full disk: this process may not mount a file system");
    };
    let data = disk.path().join("d");
    let server = Server::dev(&data);
    let mut http = server.admin();
    let sealed = {
        let key = server.create("{}");
        let body = json!({ "key": key, "plaintext": "Zm9v" }).to_string();
        http.done("POST", "/v1/encrypt", &body)["ciphertext"].clone()
    };
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 2_000_000]).unwrap();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let answer = create(&mut http);
        if answer.status != 200 {
            break answer;
        }
        acknowledged.push(text(&answer.json()["id"]));
        assert!(acknowledged.len() < 10_000, "the disk has no end");
    };
    refused.refused(503, "Unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());

    // Decryption goes on, or is refused because the audit log cannot be written.
    let decrypt = json!({ "ciphertext": sealed }).to_string();
    let answer = http.answer("POST", "/v1/decrypt", &decrypt);
    match answer.status {
        200 => assert_eq!(answer.json()["plaintext"], "Zm9v"),
        _ => drop(answer.refused(503, "Unavailable")),
    }
    assert_eq!(http.answer("GET", "/healthz", "").status, 200);

    fs::remove_file(&ballast).unwrap();
    let created = (0..100_000).map(|_| create(&mut http)).find(|answer| answer.status == 200);
    acknowledged.push(text(&created.expect("creation works again").json()["id"]));
    check(&mut http, &acknowledged, &decrypt);
    let mut server = server;
    server.process.kill();
    check(&mut Server::dev(&data).admin(), &acknowledged, &decrypt);
}

fn check(http: &mut Http, acknowledged: &[String], decrypt: &str) {
    for id in acknowledged {
        let view: Value = http.done("GET", &format!("/v1/keys/{id}"), "");
        assert_eq!(view["state"], "Enabled");
    }
    assert_eq!(http.done("POST", "/v1/decrypt", decrypt)["plaintext"], "Zm9v");
}
