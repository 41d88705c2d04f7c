//! Time: rotation that is due later, and a wall clock that jumps.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::process::not_run;
use crate::world::{Server, dev_command, text};

#[test]
fn rotation_by_schedule_shows_when_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    let mut server = Server::dev(&data);
    server.cli("key create --alias alias/app").ok();
    server.cli("key rotation set alias/app 3600").ok();
    let shown = server.cli("key rotation get alias/app --output json").json();
    assert_eq!(shown["rotation"]["period_seconds"], 3_600);
    let next = text(&shown["rotation"]["next_at"]);
    let created = text(&server.cli("key show alias/app --output json").json()["created_at"]);
    assert!(next.len() == created.len() && next > created, "{created} {next}");
    assert!(server.cli("key show alias/app").ok().contains(next.split('T').next().unwrap()));
    server.process.stop();

    let server = Server::dev(&data);
    let after = server.cli("key rotation get alias/app --output json").json();
    assert_eq!(after["rotation"]["period_seconds"], 3_600);
    assert!(text(&after["rotation"]["next_at"]) > created, "{after}");
    let view = server.cli("key show alias/app --output json").json();
    assert_eq!(view["newest_version"], 1);
}

/// The library that tells a process another time; Debian package `faketime`.
fn faketime() -> Option<PathBuf> {
    let places = ["x86_64-linux-gnu/faketime", "aarch64-linux-gnu/faketime", "faketime"];
    let paths = places.iter().map(|place| Path::new("/usr/lib").join(place));
    paths.map(|path| path.join("libfaketimeMT.so.1")).find(|path| path.exists())
}

/// A server whose wall clock is wrong; its monotonic clock is right.
fn dev_at(data: &Path, library: &Path, shift: &str) -> Server {
    let mut command = dev_command(data);
    command.env("LD_PRELOAD", library).env("FAKETIME", shift);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
    Server::dev_by(&mut command, data)
}

#[test]
fn jump_of_the_clock_holds_until_an_operator_confirms() {
    let Some(library) = faketime() else {
        return not_run("a jump of the clock: no libfaketime here (Debian package faketime)");
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    let mut server = Server::dev(&data);
    server.cli("key create --alias alias/going").ok();
    server.cli("key delete alias/going --window-days 7 --yes").ok();
    server.cli("key create --alias alias/app").ok();
    let sealed = server.cli_with("blob encrypt --key alias/app", b"kept").ok();
    assert!(server.cli("status --output json").json().get("clock_hold").is_none());
    server.process.stop();

    let mut server = dev_at(&data, &library, "+400d");
    let hold = server.cli("status --output json").json()["clock_hold"].clone();
    let jump = hold["jump_seconds"].as_i64().unwrap();
    assert!((399 * 86_400..=401 * 86_400).contains(&jump), "{hold}");
    assert!(server.cli("status").ok().contains("lastkey confirm-clock"));
    // Long past its window, and still there; the rest goes on.
    let going = server.cli("key show alias/going --output json").json();
    assert_eq!(going["state"], "PendingDeletion");
    assert_eq!(server.cli_with("blob decrypt", sealed.as_bytes()).ok(), "kept");
    server.process.stop();

    // A hold outlasts a restart, and ends by the operator's word alone.
    let server = dev_at(&data, &library, "+400d");
    assert!(server.cli("status --output json").json()["clock_hold"].is_object());
    assert_eq!(server.cli("confirm-clock --output json").json(), json!({ "confirmed": true }));
    assert!(server.cli("status --output json").json().get("clock_hold").is_none());
    // Elapsed time did not follow the jump: the window is as long as it was.
    let going = server.cli("key show alias/going --output json").json();
    assert_eq!(going["state"], "PendingDeletion");
    server.cli("key cancel-deletion alias/going").ok();
}
