//! Seals of devices over the real server: made, opened by themselves at a restart, sabotaged; and
//! the passphrase opens all the while.

#[path = "../../../lastkey-connect/tests/it/softhsm.rs"]
mod softhsm;
#[path = "../../../lastkey-connect/tests/it/swtpm.rs"]
pub(crate) mod swtpm;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use self::softhsm::{SoftHsm, TOKEN};
use self::swtpm::Swtpm;
use crate::process::{lastkey, not_run, run, until};
use crate::world::{Installation, Server, text};

const CLEAR: &str = "tls.mode = 'off'";

pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").arg("-c").arg(format!("command -v {program}")).output();
    let found = found.unwrap().status.success();
    if !found {
        not_run(&format!("{program} is missing (scripts/setup)"));
    }
    found
}

/// A server with a key, and something encrypted under it.
struct World {
    installation: Installation,
    server: Server,
    lines: String,
    sealed: Vec<u8>,
}

impl World {
    fn found(folder: &Path, env: Vec<(String, String)>) -> Self {
        Self::found_with(folder, env, "")
    }

    /// The same with further lines of configuration.
    fn found_with(folder: &Path, env: Vec<(String, String)>, lines: &str) -> Self {
        let mut installation = Installation::found(folder);
        installation.env = env;
        let server = installation.serve_unsealed(lines);
        let lines = format!("{CLEAR}\n{lines}");
        server.cli("key create --alias alias/app").ok();
        let sealed = server.cli_with("blob encrypt --key alias/app", b"kept").ok().into_bytes();
        Self { installation, server, lines, sealed }
    }

    fn restart(&mut self) {
        self.server.process.stop();
        self.serve_again();
    }

    /// The same when nothing runs any more.
    fn serve_again(&mut self) {
        self.server = self.installation.serve(&self.lines);
    }

    #[track_caller]
    fn opens_by_itself(&mut self, kind: &str) {
        self.restart();
        self.is_open(kind);
    }

    #[track_caller]
    fn is_open(&self, kind: &str) {
        let line = self.server.process.logs("unsealed by a device");
        assert!(line.contains(kind), "{line}");
        assert_eq!(self.server.cli_with("blob decrypt", &self.sealed).ok(), "kept");
    }

    /// The server is sealed, and its status says why the device of this kind does not open.
    #[track_caller]
    fn is_closed(&self, kind: &str, why: &str) {
        assert!(self.server.ready.contains("sealed"), "{}", self.server.ready);
        let mut problem = String::new();
        // A device that takes its time is still tried when the server says that it serves.
        until("the status says why", || {
            let status = self.server.anybody().done("GET", "/v1/sys/status", "");
            assert_eq!(status["sealed"], true, "{status}");
            problem =
                self.seal_of(&status, kind)["problem"].as_str().unwrap_or_default().to_owned();
            !problem.is_empty()
        });
        assert!(problem.contains(why), "{problem}");
    }

    fn seal_of(&self, reply: &Value, kind: &str) -> Value {
        let seals = reply["seals"].as_array().unwrap();
        seals.iter().find(|seal| seal["kind"] == kind).unwrap().clone()
    }

    #[track_caller]
    fn opens_by_passphrase(&self) {
        self.installation.unseal(&self.server);
        assert_eq!(self.server.cli_with("blob decrypt", &self.sealed).ok(), "kept");
    }

    /// Makes a backup, and answers where.
    #[track_caller]
    fn back_up(&self) -> String {
        let to = self.installation.data.with_extension("backups").display().to_string();
        fs::create_dir_all(&to).unwrap();
        self.server.cli(&format!("backup create --to {to}")).ok();
        to
    }

    #[track_caller]
    fn drill_says(&self, kind: &str, health: &str) {
        let said = self.server.cli("seal drill --output json");
        let reply: Value = serde_json::from_str(&said.text()).unwrap();
        assert_eq!(self.seal_of(&reply, kind)["health"], health, "{reply}");
    }
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// A command line without a server.
#[track_caller]
fn offline(line: &str) {
    run(&mut lastkey(line.split_whitespace()), b"").ok();
}

#[test]
fn tpm_opens_at_restart_until_the_machine_changes_and_again_when_that_is_approved() {
    if !is_installed("swtpm") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tpm = Swtpm::start();
    let mut world = World::found(folder.path(), Vec::new());
    let (key, first) = (path(folder.path(), "key.pem"), path(folder.path(), "first.json"));
    let tcti = tpm.tcti();
    let add = format!("seal add tpm2 --tcti {tcti} --pcrs 7,11");
    let said = world.server.cli(&format!("{add} --approval-key {key} --approval-out {first}"));
    assert!(said.stderr.contains("offline"), "{}", said.stderr);
    said.ok();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    world.drill_says("tpm2", "proven");
    world.opens_by_itself("tpm2");

    tpm.extend(11);
    world.restart();
    world.is_closed("tpm2", "lastkey seal tpm2 state");
    // Approved, and copied to where the server looks: it opens without a restart.
    let (state, approvals) =
        (path(folder.path(), "state"), world.installation.data.join("approvals"));
    fs::create_dir(&approvals).unwrap();
    offline(&format!("seal tpm2 state --tcti {tcti} --approval {first} --out {state}"));
    let update = path(&approvals, "update.json");
    offline(&format!("seal tpm2 approve --state {state} --key {key} --out {update}"));
    world.is_open("tpm2");
    let from = world.back_up();
    let refused = run(&mut lastkey(["backup", "verify", &from, "--device"]), b"");
    assert!(refused.failed(1).contains("started differently"), "{}", refused.stderr);
    let approved = format!("--device --approvals {}", approvals.display());
    offline(&format!("backup verify {from} {approved}"));
    offline(&format!("restore --from {from} --data {} {approved}", path(folder.path(), "new")));

    // The system of before is not approved any more.
    tpm.reboot();
    world.restart();
    world.is_closed("tpm2", "started differently");
    world.opens_by_passphrase();
    world.drill_says("tpm2", "failed");
    tpm.stop();
    world.restart();
    world.is_closed("tpm2", "away");
    world.opens_by_passphrase();
}

/// The walk of docs/operations/recovery.md for a machine that unsealed itself.
#[test]
fn the_machine_with_the_tpm_burned_and_its_backup_opens_on_one_with_another_tpm() {
    if !is_installed("swtpm") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut burned = Swtpm::start();
    let mut world = World::found(folder.path(), Vec::new());
    let add = |world: &World, tpm: &Swtpm, name: &str| {
        let (key, first) = (format!("{name}.pem"), format!("{name}.json"));
        let out = |file: &str| path(folder.path(), file);
        let files = format!("--approval-key {} --approval-out {}", out(&key), out(&first));
        let tcti = tpm.tcti();
        world.server.cli(&format!("seal add tpm2 --tcti {tcti} --pcrs 7 {files}")).ok();
    };
    add(&world, &burned, "burned");
    world.opens_by_itself("tpm2");
    let from = world.back_up();
    world.server.process.kill();
    burned.stop();
    fs::remove_dir_all(&world.installation.data).unwrap();

    let (new, passphrase) = (path(folder.path(), "new"), &world.installation.passphrase);
    let alone = run(&mut lastkey(["restore", "--device", "--from", &from, "--data", &new]), b"");
    alone.failed(1);
    offline(&format!(
        "restore --from {from} --data {new} --passphrase-file {}",
        passphrase.display()
    ));
    world.installation.data = PathBuf::from(new);
    world.serve_again();
    world.is_closed("tpm2", "away");
    world.opens_by_passphrase();
    world.drill_says("passphrase", "proven");
    world.drill_says("tpm2", "failed");
    let list = world.server.cli("seal list --output json").json();
    let lost = text(&world.seal_of(&list, "tpm2")["id"]);
    world.server.cli(&format!("seal remove {lost}")).ok();
    let replacement = Swtpm::start();
    add(&world, &replacement, "replacement");
    world.opens_by_itself("tpm2");
}

#[test]
fn tpm_that_the_server_does_not_reach_makes_no_seal() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::found(folder.path(), Vec::new());
    let key = path(folder.path(), "key.pem");
    let add = format!("seal add tpm2 --tcti swtpm:path=/nowhere --approval-key {key}");
    let refused = world.server.cli(&add);
    assert!(refused.failed(1).contains("cannot be reached"), "{}", refused.stderr);
    let list = world.server.cli("seal list --output json").ok();
    assert!(!list.contains("tpm2"), "{list}");
    world.server.cli("seal add tpm2 --tcti nonsense").failed(2);
}

/// Where the server looks for the host of modules. A test of this package alone does not build it.
fn host_program() -> PathBuf {
    let host = Path::new(env!("CARGO_BIN_EXE_lastkey")).with_file_name("lastkey-pkcs11");
    if !host.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "-p", "lastkey-connect", "--bin", "lastkey-pkcs11"]);
        if host.parent().unwrap().ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    host
}

#[test]
fn security_module_opens_at_restart_and_when_its_token_comes_back() {
    if !is_installed("softhsm2-util") {
        return;
    }
    assert!(host_program().exists());
    let folder = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::start();
    let config = hsm.path("softhsm2.conf").to_str().unwrap().to_owned();
    let mut world = World::found(folder.path(), vec![("SOFTHSM2_CONF".to_owned(), config)]);
    let add = |pin: &str| {
        let mut add = world.server.client(["seal", "add", "pkcs11", "--token", TOKEN, "--module"]);
        run(add.arg(SoftHsm::module()).arg("--pin-file").arg(hsm.path(pin)), b"")
    };
    hsm.write_pin("wrong", "000000");
    let refused = add("wrong");
    assert!(refused.failed(1).contains("PIN"), "{}", refused.stderr);
    add("pin").ok();
    world.drill_says("pkcs11", "proven");
    world.opens_by_itself("pkcs11");

    fs::rename(hsm.path("tokens"), hsm.path("taken")).unwrap();
    world.restart();
    world.is_closed("pkcs11", "away");
    fs::rename(hsm.path("taken"), hsm.path("tokens")).unwrap();
    world.is_open("pkcs11");

    hsm.write_pin("pin", "000000");
    world.restart();
    world.is_closed("pkcs11", "PIN");
    world.opens_by_passphrase();
    world.drill_says("pkcs11", "failed");
    // The PIN is right again, and the file another one.
    hsm.write_pin("pin", softhsm::PIN);
    world.opens_by_itself("pkcs11");
    // It opens a backup as well.
    let (from, new) = (world.back_up(), path(folder.path(), "new"));
    let mut restore = lastkey(["restore", "--device", "--from", &from, "--data", &new]);
    run(restore.env("SOFTHSM2_CONF", hsm.path("softhsm2.conf")), b"").ok();
}

#[test]
fn another_lastkey_opens_at_restart_and_when_its_outage_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&there).unwrap();
    let other = Installation::found(&there);
    let serve = || {
        let mut server = other.serve("");
        server.env.push(("LASTKEY_CA_FINGERPRINT".to_owned(), other.fingerprint.clone()));
        other.unseal(&server);
        let config = format!(
            "addr = '{}'\nca_fingerprint = '{}'\ntoken_file = 'token'\n",
            server.addr, other.fingerprint
        );
        fs::write(there.join("client.toml"), config).unwrap();
        server
    };
    fs::write(there.join("token"), &other.token).unwrap();
    fs::set_permissions(there.join("token"), PermissionsExt::from_mode(0o600)).unwrap();
    let mut kms = serve();
    kms.cli("key create --alias alias/seal").ok();

    let config = path(&there, "client.toml");
    // The environment's token is none of the other server's.
    let env = vec![("LASTKEY_TOKEN".to_owned(), "elsewhere".to_owned())];
    let named = format!("unseal.kms_configs = ['{config}']");
    let mut world = World::found_with(&here, env, &named);
    let add = format!("seal add kms --client-config {config} --key");
    let refused = world.server.cli(&format!("{add} alias/none"));
    refused.failed(1);
    world.server.cli(&format!("{add} alias/seal")).ok();
    world.drill_says("kms", "proven");
    world.opens_by_itself("kms");
    // It opens a backup as well, where the configuration of the server allows it.
    let from = world.back_up();
    let refused = run(&mut lastkey(["backup", "verify", &from, "--device"]), b"");
    assert!(refused.failed(1).contains("unseal.kms_configs"), "{}", refused.stderr);
    let server = world.installation.data.with_extension("toml").display().to_string();
    offline(&format!("backup verify {from} --device --config {server}"));
    let new = path(&here, "new");
    offline(&format!("restore --from {from} --data {new} --device --config {server}"));

    kms.process.stop();
    world.restart();
    world.is_closed("kms", "away");
    let mut kms = serve();
    world.is_open("kms");

    // Sealed itself, it is away as well; the passphrase opens meanwhile.
    kms.cli("seal").ok();
    world.restart();
    world.is_closed("kms", "away");
    world.opens_by_passphrase();
    world.drill_says("kms", "failed");
    kms.process.stop();
}
