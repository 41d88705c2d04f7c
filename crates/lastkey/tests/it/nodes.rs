//! Nodes over TLS: how they join, what their certificate is good for, and how they lose it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::material::{MaterialSpec, generate};
use lastkey_crypto::sign::{Message, SignAlgorithm, SigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tonic::Code;

use crate::device_seals::is_installed;
use crate::device_seals::swtpm::Swtpm;
use crate::http::Http;
use crate::kms_client::KmsClient;
use crate::process::{Ended, Running, lastkey, run};
use crate::world::{Installation, Server, text};

/// A server with TLS, and a cluster whose pods are known to it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) server: Server,
    cluster: SigningKey,
}

impl Site {
    pub(crate) fn found() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::found(folder.path());
        let mut server = installation.serve("");
        let ca = installation.data.join("tls/ca.pem").to_str().unwrap().to_owned();
        server.env.push(("LASTKEY_CA".to_owned(), ca));
        installation.unseal(&server);
        let material = generate(MaterialSpec::Ed25519, &mut SystemEntropy).unwrap();
        let cluster = SigningKey::new(MaterialSpec::Ed25519, &material).unwrap();
        let site = Self { folder, server, cluster };
        let public = site.cluster.public_key_der().unwrap();
        let x = URL_SAFE_NO_PAD.encode(&public[public.len() - 32..]);
        let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x }] });
        site.write("jwks", &jwks.to_string());
        site.write("policy", "permit(principal in Role::\"app\", action, resource);");
        site.ok("cluster add here --issuer https://k --audience lastkey --jwks jwks");
        site.ok("role create app --cluster here --namespace shop --service-account api \
                 --by-node-agent --policy policy");
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn run(&self, line: &str) -> Ended {
        let mut command = self.server.client(line.split_whitespace());
        run(command.current_dir(self.folder.path()), b"")
    }

    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        self.run(line).ok()
    }

    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        self.run(&format!("{line} --output json")).json()
    }

    /// Makes a node known, and the file of its token.
    fn invite(&self, node: &str) {
        let added = self.json(&format!("node add {node} --cluster here"));
        let token = text(&added["join_token"]);
        assert!(token.starts_with("lastkey_node_") && token.len() == 85, "{token}");
        self.write(&format!("{node}.token"), &token);
    }

    fn join(&self, node: &str) -> Ended {
        self.run(&format!("node join {node} --token-file {node}.token --out {node}"))
    }

    /// The session of a pod on a node, as a file.
    fn pod(&self, node: &str) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = now.as_secs();
        let claims = json!({
            "iss": "https://k", "aud": ["lastkey"], "iat": now, "nbf": now, "exp": now + 3_000,
            "jti": "j", "sub": "system:serviceaccount:shop:api",
            "kubernetes.io": {
                "namespace": "shop", "node": { "name": node, "uid": "n" },
                "pod": { "name": "p", "uid": "u" }, "serviceaccount": { "name": "api", "uid": "s" },
            },
        });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", encode(json!({ "alg": "EdDSA", "kid": "k" })), encode(claims));
        let message = Message::Raw(input.as_bytes());
        let signature = self.cluster.sign(SignAlgorithm::Ed25519, message).unwrap();
        self.write("jwt", &format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)));
        let opened = self.json("login --jwt-file jwt --role app");
        self.write("session", &text(&opened["access_token"]));
    }
}

/// Exit code of a refused credential.
const REFUSED: Option<i32> = Some(4);

#[test]
fn session_by_node_agent_is_good_over_its_own_nodes_certificate_alone() {
    let site = Site::found();
    for node in ["worker-1", "worker-2"] {
        site.invite(node);
        site.join(node).ok();
    }
    site.pod("worker-1");
    let by = |identity: &str| site.run(&format!("whoami --token-file session {identity}"));
    let own = "--identity worker-1/node.pem --output json";
    assert_eq!(by(own).json()["principal"], "k8s:here/shop/api");
    assert_eq!(by("").code, REFUSED);
    assert_eq!(by("--identity worker-2/node.pem").code, REFUSED);
    site.ok("node remove worker-1");
    assert_eq!(by(own).code, REFUSED);
    assert_eq!(site.json("node list")["nodes"].as_array().unwrap().len(), 1);
}

#[test]
fn node_joins_once_renews_by_itself_and_has_no_rights() {
    let site = Site::found();
    site.invite("worker-1");
    assert_eq!(site.json("node show worker-1")["may_join"], true);
    site.write("wrong", &format!("lastkey_node_{}", "0".repeat(72)));
    assert_eq!(site.run("node join worker-1 --token-file wrong --out x").code, REFUSED);
    assert!(!site.path("x/node.pem").exists());
    let remembered = site.path("worker-1/node.pem.remembered");
    fs::create_dir(site.path("worker-1")).unwrap();
    fs::set_permissions(site.path("worker-1"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(&remembered, "what another installation said").unwrap();
    site.join("worker-1").ok();
    assert!(!remembered.exists(), "who joins begins anew");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = site.path("worker-1/node.pem");
    assert_eq!((mode(&file), mode(&site.path("worker-1"))), (0o600, 0o700));
    let first = fs::read(&file).unwrap();
    assert_eq!(site.join("worker-1").code, REFUSED);
    assert_eq!(fs::read(&file).unwrap(), first);

    fs::write(&remembered, "what this one says").unwrap();
    let renewed = site.json("node renew --dir worker-1");
    assert!(remembered.exists());
    assert!(text(&renewed["spiffe_id"]).ends_with("/node/worker-1"), "{renewed}");
    let second = fs::read(&file).unwrap();
    assert_ne!(first, second);
    let shown = site.json("node show worker-1");
    assert_eq!((&shown["may_join"], &shown["expires_at"]), (&json!(false), &renewed["expires_at"]));
    // Without a token the node is itself, and may do nothing.
    let bare = |line: &str| {
        let mut command = site.server.client(line.split_whitespace());
        command.env_remove("LASTKEY_TOKEN").current_dir(site.folder.path());
        run(&mut command, b"")
    };
    let who = bare("whoami --identity worker-1/node.pem --output json").json();
    assert_eq!(who, json!({ "principal": "node:worker-1" }));
    assert_eq!(bare("key list --identity worker-1/node.pem").code, Some(4));
    // The certificate before is void.
    fs::create_dir(site.path("old")).unwrap();
    fs::write(site.path("old/node.pem"), first).unwrap();
    assert_eq!(bare("whoami --identity old/node.pem").code, REFUSED);
    assert_eq!(bare("node renew --dir old").code, REFUSED);
    site.ok("node renew --dir worker-1");
}

#[test]
fn certificate_of_another_authority_ends_the_handshake() {
    let (site, stranger) = (Site::found(), Site::found());
    for one in [&site, &stranger] {
        one.invite("worker-1");
        one.join("worker-1").ok();
    }
    fs::copy(stranger.path("worker-1/node.pem"), site.path("foreign.pem")).unwrap();
    site.run("whoami --identity foreign.pem").failed(3);
    site.ok("whoami");
}

/// Certificate and key of a kubelet, in PEM, as its cluster signs them.
fn kubelet(issuer: &CertifiedIssuer<'static, KeyPair>, group: &str, node: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::hours(1), now + Duration::days(300));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(&key, &**issuer).unwrap().pem() + &key.serialize_pem()
}

#[test]
fn node_joins_by_the_certificate_of_its_kubelet_until_it_is_put_out() {
    let site = Site::found();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    site.write("ca.crt", &issuer.pem());
    site.write("kubelet.pem", &kubelet(&issuer, "system:nodes", "worker-1"));
    site.write("admin.pem", &kubelet(&issuer, "system:masters", "worker-1"));
    let join = |node: &str, with: &str| {
        site.run(&format!("node join {node} --cluster here --identity {with} --out {node}"))
    };
    // While nobody is known who signs certificates, none is asked for.
    assert_eq!(join("worker-1", "kubelet.pem").code, REFUSED);
    site.ok(
        "cluster add here --issuer https://k --audience lastkey --jwks jwks --kubelet-ca ca.crt",
    );
    join("worker-1", "kubelet.pem").ok();
    site.pod("worker-1");
    let by_agent = "whoami --token-file session --identity worker-1/node.pem --output json";
    assert_eq!(site.run(by_agent).json()["principal"], "k8s:here/shop/api");
    // Neither another node, nor a cluster without it, nor somebody else that the cluster signed for.
    assert_eq!(join("worker-2", "kubelet.pem").code, REFUSED);
    assert_eq!(join("worker-1", "admin.pem").code, REFUSED);
    site.ok("cluster add there --issuer https://k --audience lastkey --jwks jwks");
    let there = "node join worker-1 --cluster there --identity kubelet.pem --out x";
    assert_eq!(site.run(there).code, REFUSED);
    assert_eq!(site.run("node join worker-1 --cluster here --out x").code, REFUSED);
    // What was put out comes back by a token, or by a certificate that is signed later.
    site.ok("node remove worker-1");
    assert_eq!(site.run(by_agent).code, REFUSED);
    assert_eq!(join("worker-1", "kubelet.pem").code, REFUSED);
    site.invite("worker-1");
    site.join("worker-1").ok();
}

#[test]
fn node_joins_by_its_tpm_until_it_is_revoked_and_again_when_it_was_named_anew() {
    if !is_installed("swtpm") {
        return;
    }
    let (site, mut own, other) = (Site::found(), Swtpm::start(), Swtpm::start());
    let key_of = |tpm: &Swtpm| {
        let shown = site.json(&format!("node tpm-key --tcti {}", tpm.tcti()));
        text(&shown["tpm_key"])
    };
    let key = key_of(&own);
    assert_ne!(key, key_of(&other));
    let add = format!("node add worker-1 --cluster here --tpm-key {key}");
    let join = |tpm: &Swtpm| {
        let line = format!("node join --tpm={} worker-1 --out worker-1", tpm.tcti());
        let mut command = site.server.client(line.split_whitespace());
        run(command.env_remove("LASTKEY_TOKEN").current_dir(site.folder.path()), b"")
    };
    assert_eq!(join(&own).code, REFUSED);
    site.run(&add.replace("sha256:", "sha1:")).failed(1);
    assert!(site.json(&add).get("join_token").is_none());
    assert_eq!(join(&other).code, REFUSED);
    join(&own).ok();
    site.pod("worker-1");
    let by_agent = "whoami --token-file session --identity worker-1/node.pem --output json";
    assert_eq!(site.run(by_agent).json()["principal"], "k8s:here/shop/api");
    // The machine makes the same key after it was off.
    own.reboot();
    assert_eq!(key_of(&own), key);
    join(&own).ok();
    site.ok("revoke --node worker-1");
    assert_eq!(join(&own).code, REFUSED);
    site.ok(&add);
    join(&own).ok();
    assert_eq!(site.json("node show worker-1")["tpm_key"], json!(key));
    site.run("node join worker-1 --tpm=device:/dev/null --out worker-1").failed(1);
}

/// A KMS plugin that calls by the certificate of a node, which it renews so many seconds before its
/// end; the file of that certificate as it was.
pub(crate) fn plugin(site: &Site, renew_seconds: u32) -> (Running, Vec<u8>) {
    site.invite("cp-1");
    site.join("cp-1").ok();
    let before = fs::read(site.path("cp-1/node.pem")).unwrap();
    configure_plugin(site, renew_seconds);
    (start_plugin(site), before)
}

/// A key, the right of a node to use it, and what a plugin there is told.
fn configure_plugin(site: &Site, renew_seconds: u32) {
    site.ok("key create --alias alias/etcd");
    site.write(
        "etcd.cedar",
        "permit(principal == Node::\"cp-1\", action in [Action::\"kms:DescribeKey\", \
         Action::\"kms:Encrypt\", Action::\"kms:Decrypt\"], resource);",
    );
    site.ok("policy put etcd etcd.cedar");
    let ca = &site.server.env[0].1;
    let config = format!(
        "[server]\nendpoints = ['{}']\nca = '{ca}'\nidentity = 'cp-1/node.pem'\n\
         renew_seconds = {renew_seconds}\n[metrics]\nlisten = '127.0.0.1:0'\n\
         [[provider]]\nsocket = 'kms.sock'\nkey = 'alias/etcd'\n",
        site.server.addr
    );
    site.write("kms.toml", &config);
}

fn start_plugin(site: &Site) -> Running {
    Running::start(lastkey(["kms-plugin", "--config"]).arg(site.path("kms.toml")))
}

#[test]
fn key_sealed_to_the_tpm_serves_until_the_machine_is_another_and_after_it_joined_anew() {
    if !is_installed("swtpm") {
        return;
    }
    let (site, mut tpm) = (Site::found(), Swtpm::start());
    let key = site.json(&format!("node tpm-key --tcti {}", tpm.tcti()));
    site.ok(&format!("node add cp-1 --cluster here --tpm-key {}", text(&key["tpm_key"])));
    let unsealed = format!("node join cp-1 --tpm={} --out cp-1", tpm.tcti());
    let join = format!("{unsealed} --seal-key={}", tpm.tcti());
    site.run(&format!("{join} --pcrs 23")).failed(1);
    site.ok(&join);
    let file = site.path("cp-1/node.pem");
    let sealed = || {
        let written = fs::read_to_string(&file).unwrap();
        assert!(written.contains("BEGIN LASTKEY SEALED KEY"), "{written}");
        assert!(!written.contains("PRIVATE"), "{written}");
        written
    };
    let first = sealed();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Nobody makes a key in the clear of it: neither a renewal nor a join.
    site.ok("node renew --dir cp-1");
    assert_ne!(sealed(), first);
    site.run(&unsealed).failed(2);
    let whoami = || {
        let mut command = site.server.client(["whoami", "--identity"]);
        run(command.arg(&file).env_remove("LASTKEY_TOKEN"), b"")
    };
    assert!(whoami().ok().contains("node:cp-1"));

    configure_plugin(&site, 86_400);
    let before = sealed();
    let mut plugin = start_plugin(&site);
    plugin.says("lastkey kms-plugin serves").unwrap();
    plugin.logs("the node certificate is renewed");
    assert_ne!(sealed(), before);
    let client = KmsClient::connect(&site.path("kms.sock"));
    let key_id = client.ready();
    let seed = client.encrypt(&[0x5E; 32]).unwrap();
    // A power cut.
    plugin.kill();
    tpm.reboot();
    let mut plugin = start_plugin(&site);
    plugin.says("lastkey kms-plugin serves").unwrap();
    let client = KmsClient::connect(&site.path("kms.sock"));
    assert_eq!(client.ready(), key_id);
    assert_eq!(client.decrypt(&seed).unwrap(), [0x5E; 32]);

    // Booted in another way: the socket is there, and the key does not open.
    plugin.kill();
    tpm.reboot();
    tpm.extend(7);
    let refused = whoami();
    assert!(refused.stderr.contains("registers"), "{}", refused.stderr);
    refused.failed(1);
    let plugin = start_plugin(&site);
    plugin.says("lastkey kms-plugin serves").unwrap();
    plugin.logs("does not open the key of the node");
    let client = KmsClient::connect(&site.path("kms.sock"));
    assert_eq!(client.status().unwrap_err().code(), Code::Unavailable);
    site.ok(&join);
    assert_eq!(client.ready(), key_id);
    assert_eq!(client.decrypt(&seed).unwrap(), [0x5E; 32]);
}

#[test]
fn kms_plugin_with_a_void_certificate_goes_on_by_its_local_keys() {
    let site = Site::found();
    let (plugin, _) = plugin(&site, 0);
    plugin.says("lastkey kms-plugin serves").unwrap();
    let client = KmsClient::connect(&site.path("kms.sock"));
    client.ready();
    let sealed = client.seals(&[0x5E; 32]);
    // Who joins anew voids what the plugin has.
    site.invite("cp-1");
    site.ok("node join cp-1 --token-file cp-1.token --out anew");
    plugin.logs("it refuses the credential");
    assert_eq!(client.opens(&sealed), [0x5E; 32]);
    client.seals(&[0x5F; 32]);
    // The good one is read as soon as it is there.
    fs::rename(site.path("anew/node.pem"), site.path("cp-1/node.pem")).unwrap();
    site.ok("key rotate alias/etcd");
    client
        .wait("rotated", |status| {
            status.as_ref().is_ok_and(|status| status.key_id != sealed.key_id)
        })
        .unwrap();
}

#[test]
fn kms_plugin_of_a_removed_node_stops_and_forgets_until_the_node_joins_anew() {
    let site = Site::found();
    let (plugin, _) = plugin(&site, 0);
    plugin.says("lastkey kms-plugin serves").unwrap();
    let client = KmsClient::connect(&site.path("kms.sock"));
    let key_id = client.ready();
    let sealed = client.seals(&[0x5E; 32]);
    site.ok("node remove cp-1");
    client
        .wait("refused", |status| {
            status.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied)
        })
        .unwrap_err();
    assert_eq!(client.encrypt(&[0x5E; 32]).unwrap_err().code(), Code::PermissionDenied);
    client.decrypt(&sealed).unwrap_err();
    site.invite("cp-1");
    site.ok("node join cp-1 --token-file cp-1.token --out anew");
    fs::rename(site.path("anew/node.pem"), site.path("cp-1/node.pem")).unwrap();
    assert_eq!(client.ready(), key_id);
    assert_eq!(client.opens(&sealed), [0x5E; 32]);
}

#[test]
fn kms_plugin_renews_the_certificate_that_it_calls_with() {
    let site = Site::found();
    // Due as soon as it is signed, so that it is renewed at the start.
    let (plugin, before) = plugin(&site, 86_400);
    let ready = plugin.says("lastkey kms-plugin serves").unwrap();
    plugin.logs("the node certificate is renewed");
    let renewed = fs::read(site.path("cp-1/node.pem")).unwrap();
    assert_ne!(renewed, before);
    let client = KmsClient::connect(&site.path("kms.sock"));
    client.ready();
    let sealed = client.seals(&[0x5E; 32]);
    assert_eq!(client.opens(&sealed), [0x5E; 32]);
    // The key service asks for the certificate of this moment: the look after the renewal passes.
    site.ok("key rotate alias/etcd");
    client
        .wait("rotated", |status| {
            status.as_ref().is_ok_and(|status| status.key_id != sealed.key_id)
        })
        .unwrap();
    let addr = ready.rsplit_once("metrics on ").unwrap().1;
    let page = Http::tcp(addr).unwrap().answer("GET", "/metrics", "").text();
    let name = "lastkey_kms_plugin_credential_expires_timestamp_seconds 1";
    assert!(page.contains(name), "{page}");
}
