//! What the configuration says is what the server does.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::process::{lastkey, run};
use crate::world::{Installation, Server};

#[test]
fn what_config_show_prints_runs_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let config = folder.path().join("shown.toml");
    let shown = run(&mut lastkey(["config", "show"]), b"").ok();
    fs::write(&config, shown).unwrap();
    let mut command = lastkey(["server", "--listen", "127.0.0.1:0", "--config"]);
    command.arg(&config).arg("--data").arg(&installation.data);
    let mut process = crate::process::Running::start(&mut command);
    let ready = process.says("lastkey serves on ").unwrap_or_else(|| process.complaint());
    assert!(ready.contains("https://127.0.0.1:"), "{ready}");
    process.stop();
}

#[test]
fn unknown_field_of_a_configuration_is_told_by_name_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("lastkey.toml");
    fs::write(&config, "data = 'd'\n[limits]\nbody_byte = 1\n").unwrap();
    let said = run(lastkey(["server", "--config"]).arg(&config), b"");
    let said = said.failed(1);
    assert!(said.contains("body_byte") && said.contains("line 3"), "{said}");
    assert!(!folder.path().join("d").exists());
}

#[test]
fn address_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let mut command = lastkey(["server", "--listen", &addr, "--data"]);
    let said = run(command.arg(&installation.data), b"");
    assert!(said.failed(1).contains(&addr), "{}", said.stderr);
}

#[test]
fn limits_of_the_configuration_hold() {
    let folder = tempfile::tempdir().unwrap();
    let installation = Installation::found(folder.path());
    let lines = "limits.body_bytes = 1024\nlimits.requests_in_flight = 1\nmetrics.access = 'token'";
    let server = installation.serve_unsealed(lines);
    server.anybody().answer("GET", "/metrics", "").refused(401, "Unauthenticated");
    assert_eq!(server.admin().answer("GET", "/metrics", "").status, 200);
    let long = json!({ "description": "x".repeat(1_024) }).to_string();
    let mut http = server.admin();
    http.answer("POST", "/v1/keys", &long).refused(413, "BodyTooLarge");
    full_server_turns_away_by_429_and_stays_alive(&server);
}

fn full_server_turns_away_by_429_and_stays_alive(server: &Server) {
    let mut first = server.admin();
    let head = first.head("POST", "/v1/random", 12, "Expect: 100-continue\r\n");
    first.write(head.as_bytes()).unwrap();
    assert_eq!(first.read_answer().unwrap().status, 100);
    let mut second = server.admin();
    let refused = second.answer("POST", "/v1/random", r#"{"bytes":10}"#);
    refused.refused(429, "Throttled");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.anybody().answer("GET", "/healthz", "").status, 200);
    assert_eq!(server.anybody().answer("GET", "/readyz", "").status, 200);
    first.write(br#"{"bytes":10}"#).unwrap();
    assert_eq!(first.read_answer().unwrap().status, 200);
    server.admin().done("POST", "/v1/random", r#"{"bytes":10}"#);
}

#[test]
fn keyfile_seal_opens_by_itself_where_the_configuration_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (data, key) = (folder.path().join("data"), folder.path().join("root.key"));
    let mut init = lastkey(["init", "--seal", "keyfile", "--keyfile"]);
    run(init.arg(&key).arg("--data").arg(&data), b"").ok();
    let config = folder.path().join("lastkey.toml");
    let text = |key: &str| {
        format!(
            "data = '{}'\nlisten.tcp = ['127.0.0.1:0']\nunseal.keyfile = '{key}'",
            data.display()
        )
    };
    fs::write(&config, text(key.to_str().unwrap())).unwrap();
    let mut process = crate::process::Running::start(lastkey(["server", "--config"]).arg(&config));
    let ready = process.says("lastkey serves on ").unwrap();
    assert!(!ready.contains("sealed"), "{ready}");
    process.stop();

    // A key file of somebody else opens nothing, and says so.
    let other = folder.path().join("other.key");
    fs::write(&other, [7; 32]).unwrap();
    fs::write(&config, text(other.to_str().unwrap())).unwrap();
    let start = || run(lastkey(["server", "--config"]).arg(&config), b"");
    fs::set_permissions(&other, Permissions::from_mode(0o640)).unwrap();
    assert!(start().failed(1).contains("can be read by others"));
    fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
    assert!(start().failed(1).contains("does not unseal this installation"));
}
