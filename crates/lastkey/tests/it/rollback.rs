//! An older state of the installation is put back: who knew a newer one says so and refuses, until
//! an operator says that it is meant.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tonic::Code;

use crate::kms_client::KmsClient;
use crate::nodes::{Site, plugin};
use crate::process::{Running, lastkey, names, run};
use crate::world::{Installation, PASSPHRASE, Server};

const SEED: [u8; 32] = [0x5E; 32];

/// A copy of a folder, of a server that is stopped.
fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to), b"").ok();
}

/// The same, with the store of another one in the place of its own.
fn copy_with_store_of(older: &Path, from: &Path, to: &Path) {
    copy(from, to);
    for name in names(older).iter().filter(|name| name.starts_with("records.db")) {
        copy(&older.join(name), &to.join(name));
    }
}

/// A server of this installation that says that its state is meant.
fn accepting(installation: &Installation) -> Server {
    let server = installation.serve_by("tls.mode = 'off'", &["--accept-rollback"]);
    installation.unseal(&server);
    server
}

/// What a server says of the state that is remembered of it.
#[track_caller]
fn compared(server: &Server, remembered: &Value) -> Value {
    let body = json!({ "remembered": remembered }).to_string();
    let answer = server.anybody().answer("POST", "/v1/sys/continuity", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_state_that_somebody_remembers_tells_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut installation = Installation::found(folder.path());
    let path = |name: &str| folder.path().join(name);
    let mut server = installation.serve_unsealed("");
    server.process.stop();
    ["older", "silent"].iter().for_each(|name| copy(&installation.data, &path(name)));
    let mut server = installation.serve_unsealed("");
    let backups = path("backups").display().to_string();
    fs::create_dir(&backups).unwrap();
    server.cli(&format!("backup create --to {backups}")).ok();
    // More commits than a server makes by itself meanwhile.
    (0..20).for_each(|_| drop(server.create("{}")));
    server.cli("audit checkpoint").ok();
    let newest = compared(&server, &Value::Null);
    assert_eq!(newest["standing"], "continues", "{newest}");
    let newest = newest["state"].clone();
    server.process.stop();

    // It lives on through a restart, and is changed by nobody.
    let mut server = installation.serve_unsealed("");
    assert_eq!(compared(&server, &newest)["standing"], "continues");
    let mut forged = newest.clone();
    forged["checkpoint"] = newest["checkpoint"].as_str().unwrap().replacen('\n', "\n1", 1).into();
    assert_eq!(compared(&server, &forged)["standing"], "foreign", "{forged}");
    server.cli("status --ready").ok();
    server.process.stop();

    // The store alone is an older one: the log tells nothing, the commits do.
    let newer_log = path("newer-log");
    copy_with_store_of(&path("older"), &installation.data, &newer_log);
    installation.data = newer_log;
    let mut server = installation.serve_unsealed("");
    let older = compared(&server, &newest);
    assert_eq!(older["standing"], "older", "{older}");
    assert!(older["problem"].as_str().unwrap().contains("commit"), "{older}");
    server.process.stop();

    // Both are.
    installation.data = path("silent");
    let mut server = installation.serve_unsealed("");
    server.cli("status --ready").ok();
    assert_eq!(compared(&server, &newest)["standing"], "older");
    server.process.logs("this is an older state of the installation than was known");
    assert_eq!(server.cli("status --ready").code, Some(6));
    let found = server.cli("audit search --action sys:DetectRollback --output json").ok();
    assert_eq!(found.lines().count(), 1, "{found}");
    server.process.stop();

    // A restore says no word for others: it may be a trial.
    let mut restore = lastkey(["restore", "--passphrase-file", "-", "--accept-rollback"]);
    let restore = restore.args(["--from", &backups, "--data"]).arg(path("restored"));
    let said = run(restore, PASSPHRASE.as_bytes()).ok();
    assert!(said.contains("/restored --accept-rollback"), "{said}");
    copy(&path("restored"), &path("trial"));
    installation.data = path("trial");
    let mut server = installation.serve_unsealed("");
    assert_eq!(compared(&server, &newest)["standing"], "older");
    server.process.stop();
    // It is said at the start, and is no news to whoever has heard it.
    installation.data = path("restored");
    let server = accepting(&installation);
    let meant = compared(&server, &newest);
    assert_eq!(meant["standing"], "accepted", "{meant}");
    server.cli("status --ready").ok();
    assert_eq!(compared(&server, &meant["state"])["standing"], "continues");
    let mut heard = newest.clone();
    heard["rollback"] = meant["state"]["rollback"].clone();
    assert_eq!(compared(&server, &heard)["standing"], "older");
    let recorded = server.cli("audit search --action sys:AcceptRollback --output json").ok();
    assert_eq!(recorded.lines().count(), 1, "{recorded}");
}

/// Serves another data directory of a site in the place of the one before, at the same address.
fn serve(site: &mut Site, data: &str, flags: &[&str]) {
    site.server.process.kill();
    let addr = site.server.addr.strip_prefix("https://").unwrap().to_owned();
    let (name, data) = (format!("{data}.toml"), site.path(data));
    site.write(&name, &format!("data = '{}'\nlisten.tcp = ['{addr}']\n", data.display()));
    let mut command = lastkey(["server", "--config"]);
    let process = Running::start(command.arg(site.path(&name)).args(flags));
    let ready = process.says("lastkey serves on ");
    assert!(ready.is_some(), "{}", process.complaint());
    site.server.process = process;
    site.ok("unseal --passphrase-file passphrase");
}

fn start(site: &Site) -> (Running, KmsClient) {
    let mut command = lastkey(["kms-plugin", "--config"]);
    let plugin = Running::start(command.arg(site.path("kms.toml")));
    plugin.says("lastkey kms-plugin serves").unwrap();
    let client = KmsClient::connect(&site.path("kms.sock"));
    (plugin, client)
}

#[track_caller]
fn refused(client: &KmsClient) {
    let is_older = |status: &tonic::Status| {
        status.code() == Code::FailedPrecondition && status.message().contains("--accept-rollback")
    };
    let status = client.wait("refused", |status| status.as_ref().is_err_and(is_older));
    assert!(is_older(&status.unwrap_err()));
    assert_eq!(client.encrypt(&SEED).unwrap_err().code(), Code::FailedPrecondition);
}

#[test]
#[ignore = "heavy: a plugin looks at the service every five seconds"]
fn a_plugin_that_knew_a_newer_state_refuses_the_older_one_until_it_is_meant() {
    let mut site = Site::found();
    let (mut running, _) = plugin(&site, 0);
    running.says("lastkey kms-plugin serves").unwrap();
    let client = KmsClient::connect(&site.path("kms.sock"));
    let first_id = client.ready();
    let first = client.encrypt(&SEED).unwrap();
    let backups = site.path("backups").display().to_string();
    fs::create_dir(&backups).unwrap();
    site.ok(&format!("backup create --to {backups}"));
    site.server.process.stop();
    copy(&site.path("data"), &site.path("older"));
    serve(&mut site, "data", &[]);
    site.ok("key rotate alias/etcd");
    running.stop();
    let (mut running, client) = start(&site);
    assert_ne!(client.ready(), first_id);
    let second = client.encrypt(&SEED).unwrap();

    // Somebody puts the older directory back, and says nothing.
    serve(&mut site, "older", &[]);
    refused(&client);
    running.logs("the key service is in an older state than was known here");
    for sealed in [&first, &second] {
        assert_eq!(client.decrypt(sealed).unwrap(), SEED, "what is there stays readable");
    }
    let status = site.json("status");
    assert!(status["rollback"].as_str().unwrap().contains("a node remembers"), "{status}");
    assert_eq!(site.run("status --ready").code, Some(6));
    // The file beside the certificate remembers it as well.
    running.kill();
    let (running, client) = start(&site);
    refused(&client);
    assert_eq!(client.decrypt(&first).unwrap(), SEED);

    // Restored and started with the word, everything goes on.
    let mut restore = lastkey(["restore", "--passphrase-file", "-", "--accept-rollback"]);
    let restore = restore.args(["--from", &backups, "--data"]).arg(site.path("restored"));
    run(restore, PASSPHRASE.as_bytes()).ok();
    serve(&mut site, "restored", &[]);
    refused(&client);
    serve(&mut site, "restored", &["--accept-rollback"]);
    assert_eq!(client.ready(), first_id, "the version before the rotation");
    running.logs("an older state of the key service was said to be meant");
    assert_eq!(client.decrypt(&client.encrypt(&SEED).unwrap()).unwrap(), SEED);
    site.ok("status --ready");

    // The word was for that state, and for no other.
    serve(&mut site, "older", &[]);
    refused(&client);
    serve(&mut site, "older", &["--accept-rollback"]);
    client.ready();
    assert_eq!(client.decrypt(&first).unwrap(), SEED);
}
