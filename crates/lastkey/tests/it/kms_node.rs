//! The KMS plugin on a node that has nothing else: with the server in its process, and with local
//! keys that outlive a reboot.

use std::fs;
use std::path::{Path, PathBuf};

use tonic::Code;

use crate::device_seals::is_installed;
use crate::device_seals::swtpm::Swtpm;
use crate::kms_client::KmsClient;
use crate::process::{Running, lastkey, run, until};
use crate::world::{Installation, Server};

const SEED: [u8; 32] = [0x5E; 32];

/// Lets the plugin of this process use a key.
const POLICY: &str = r#"permit(
  principal == Service::"system:kms-plugin",
  action in [Action::"kms:DescribeKey", Action::"kms:Encrypt", Action::"kms:Decrypt"],
  resource
);"#;

fn start(config: &Path) -> Running {
    let process = Running::start(lastkey(["kms-plugin", "--config"]).arg(config));
    let ready = process.says("lastkey kms-plugin serves");
    assert!(ready.is_some(), "{}", process.complaint());
    process
}

/// What every plugin of this test is told, beside where its keys are.
fn config(folder: &Path, keys: &str) -> PathBuf {
    let path = folder.join("kms.toml");
    let text = format!("{keys}\n[[provider]]\nsocket = 'kms.sock'\nkey = 'alias/etcd'\n");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn server_in_the_plugins_process_serves_it_and_its_administrator() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let data = path("data");
    let mut server = Server::dev(&data);
    server.create(r#"{"alias": "alias/etcd"}"#);
    let mut command = server.client(["kms-plugin", "--key", "alias/etcd", "--socket"]);
    let mut remote = Running::start(command.arg(path("remote.sock")));
    remote.says("lastkey kms-plugin serves").unwrap();
    let from_afar = KmsClient::connect(&path("remote.sock"));
    let key_id = from_afar.ready();
    let sealed = from_afar.seals(&SEED);
    remote.stop();
    server.process.stop();

    let lines = format!(
        "data = '{}'\ntls.mode = 'off'\nlisten.tcp = []\nlisten.unix = '{}'\nunseal.keyfile = '{}'\n",
        data.display(),
        path("server.sock").display(),
        data.join("dev.key").display()
    );
    fs::write(path("server.toml"), lines).unwrap();
    let config = config(folder.path(), "[embedded]\nconfig = 'server.toml'");
    let mut plugin = start(&config);
    let client = KmsClient::connect(&path("kms.sock"));
    // Nothing is allowed that no policy allows.
    let refused = |code| {
        client.wait("refused", |status| status.as_ref().is_err_and(|status| status.code() == code))
    };
    refused(Code::PermissionDenied).unwrap_err();
    server.addr = format!("unix://{}", path("server.sock").display());
    let mut put = server.client(["policy", "put", "etcd"]);
    fs::write(path("etcd.cedar"), POLICY).unwrap();
    run(put.arg(path("etcd.cedar")), b"").ok();
    assert_eq!(client.ready(), key_id, "the same key has the same name on every node");
    assert_eq!(client.opens(&sealed), SEED);

    server.cli("key rotate alias/etcd").ok();
    let changed = client
        .wait("rotated", |status| status.as_ref().is_ok_and(|status| status.key_id != key_id));
    let rotated = changed.unwrap().key_id;
    server.cli("seal").ok();
    assert_eq!(client.opens(&client.seals(&SEED)), SEED, "it coasts");
    plugin.kill();
    let mut plugin = start(&config);
    let client = KmsClient::connect(&path("kms.sock"));
    assert_eq!(client.ready(), rotated);
    assert_eq!(client.opens(&sealed), SEED);
    plugin.stop();
    // The data directory is free again, and whole.
    let server = Server::dev(&data);
    server.cli("key show alias/etcd").ok();
}

#[test]
fn node_with_the_server_in_its_plugin_boots_by_its_tpm_alone() {
    if !is_installed("swtpm") {
        return;
    }
    let (folder, mut tpm) = (tempfile::tempdir().unwrap(), Swtpm::start());
    let path = |name: &str| folder.path().join(name);
    let installation = Installation::found(folder.path());
    let mut server = installation.serve_unsealed("");
    server.create(r#"{"alias": "alias/etcd"}"#);
    fs::write(path("etcd.cedar"), POLICY).unwrap();
    run(server.client(["policy", "put", "etcd"]).arg(path("etcd.cedar")), b"").ok();
    let approval = path("approval.pem");
    let add = format!("seal add tpm2 --tcti {} --pcrs 7 --approval-key", tpm.tcti());
    let mut add = server.client(add.split(' '));
    run(add.arg(approval).arg("--approval-out").arg(path("first.json")), b"").ok();
    server.process.stop();

    let config = config(folder.path(), "[embedded]\ndata = 'data'");
    let mut plugin = start(&config);
    let client = KmsClient::connect(&path("kms.sock"));
    let key_id = client.ready();
    let sealed = client.seals(&SEED);
    // A power cut: nobody is there, and nothing else answers.
    plugin.kill();
    tpm.reboot();
    let mut plugin = start(&config);
    let client = KmsClient::connect(&path("kms.sock"));
    assert_eq!(client.ready(), key_id);
    assert_eq!(client.opens(&sealed), SEED);
    // Booted in another way: the socket is there, and the server stays sealed.
    plugin.kill();
    tpm.reboot();
    tpm.extend(7);
    let plugin = start(&config);
    plugin.logs("the embedded server has started");
    let client = KmsClient::connect(&path("kms.sock"));
    assert_eq!(client.status().unwrap_err().code(), Code::Unavailable);
    assert_eq!(client.decrypt(&sealed).unwrap_err().code(), Code::Unavailable);
}

#[test]
fn plugin_serves_its_socket_while_the_data_of_its_server_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = start(&config(folder.path(), "[embedded]\ndata = 'nowhere'"));
    let client = KmsClient::connect(&folder.path().join("kms.sock"));
    assert_eq!(client.status().unwrap_err().code(), Code::Unavailable);
    plugin.logs("the embedded server cannot start");
    assert_eq!(client.encrypt(&SEED).unwrap_err().code(), Code::Unavailable);
    for (keys, words) in [
        ("[embedded]", "one of the two"),
        ("[embedded]\ndata = 'a'\nconfig = 'b'", "one of the two"),
        ("[embedded]\ndata = 'a'\n[server]\nendpoints = ['http://127.0.0.1:1']", "one of the two"),
        ("[embedded]\nconfig = 'no-file'", "no-file"),
        ("[embedded]\ndata = 'a'\n[local_keys]\nfolder = 'k'\nregisters = []", "registers"),
        ("[embedded]\ndata = 'a'\n[local_keys]\nfolder = 'k'\ntpm = 'usb'", "tpm"),
    ] {
        let bad = tempfile::tempdir().unwrap();
        let ended = run(lastkey(["kms-plugin", "--config"]).arg(config(bad.path(), keys)), b"");
        assert!(ended.failed(1).contains(words), "{keys}: {}", ended.stderr);
    }
}

/// A node whose plugin keeps its local keys, and the server elsewhere.
struct Node {
    folder: tempfile::TempDir,
    server: Server,
    tpm: Swtpm,
}

impl Node {
    fn found() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dev(&folder.path().join("data"));
        server.create(r#"{"alias": "alias/etcd"}"#);
        let (token, tpm) = (folder.path().join("token"), Swtpm::start());
        fs::write(&token, &server.token).unwrap();
        run(std::process::Command::new("chmod").arg("600").arg(&token), b"").ok();
        fs::create_dir(folder.path().join("kept")).unwrap();
        Self { folder, server, tpm }
    }

    fn start(&self, bound: u64) -> (Running, KmsClient) {
        let keys = format!(
            "[server]\nendpoints = ['{}']\ntoken_file = 'token'\n[outage]\nbound_seconds = {bound}\n\
             [local_keys]\nfolder = 'kept'\ntpm = '{}'\n",
            self.server.addr,
            self.tpm.tcti()
        );
        let plugin = start(&config(self.folder.path(), &keys));
        (plugin, KmsClient::connect(&self.folder.path().join("kms.sock")))
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("kept/kms.lkl")
    }

    #[track_caller]
    fn waits_until_kept(&self, is_kept: bool) {
        self.waits_until(|now| now.is_some() == is_kept);
    }

    /// Looks at the file until it is as wished.
    #[track_caller]
    fn waits_until(&self, wished: impl Fn(Option<Vec<u8>>) -> bool) {
        until("the file is as it should be", || wished(fs::read(self.kept()).ok()));
    }
}

#[test]
fn rebooted_node_starts_during_an_outage_by_local_keys_that_its_tpm_opens() {
    if !is_installed("swtpm") {
        return;
    }
    let mut node = Node::found();
    let (mut plugin, client) = node.start(3_600);
    let key_id = client.ready();
    let old = client.seals(&SEED);
    node.waits_until_kept(true);
    plugin.kill();
    let before = fs::read(node.kept()).unwrap();
    // A life in which nobody asks for the old seed keeps its local key all the same.
    let (mut plugin, client) = node.start(3_600);
    client.ready();
    let new = client.seals(&SEED);
    assert_ne!(old.ciphertext[6..142], new.ciphertext[6..142], "another local key");
    node.waits_until(|now| now.is_some_and(|now| now != before));
    drop(client);
    plugin.stop();

    node.server.process.kill();
    node.tpm.reboot();
    let (mut plugin, client) = node.start(3_600);
    let coasting = |status: &Result<_, _>| status.is_ok();
    assert_eq!(client.wait("started", coasting).unwrap().key_id, key_id);
    assert_eq!(client.opens(&new), SEED);
    assert_eq!(client.opens(&old), SEED);
    assert_eq!(client.opens(&client.seals(&SEED)), SEED);
    plugin.kill();

    // What was booted is another: only the service can help.
    node.tpm.reboot();
    node.tpm.extend(7);
    let (mut plugin, client) = node.start(3_600);
    plugin.logs("no local keys from the disk");
    assert_eq!(client.status().unwrap_err().code(), Code::Unavailable);
    plugin.kill();

    // Beyond the bound nothing is used, and nothing stays.
    node.tpm.reboot();
    let (plugin, client) = node.start(0);
    node.waits_until_kept(false);
    assert_eq!(client.status().unwrap_err().code(), Code::Unavailable);
    drop(plugin);
}

#[test]
fn refused_key_leaves_no_local_keys_on_the_disk() {
    if !is_installed("swtpm") {
        return;
    }
    let node = Node::found();
    let (_plugin, client) = node.start(3_600);
    client.ready();
    node.waits_until_kept(true);
    node.server.cli("key disable alias/etcd").ok();
    client.wait("refused", Result::is_err).unwrap_err();
    node.waits_until_kept(false);
    node.server.cli("key enable alias/etcd").ok();
    client.ready();
    node.waits_until_kept(true);
}
