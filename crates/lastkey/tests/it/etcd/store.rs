//! A real etcd of the test's own, and what is planted in it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::process::{Ended, Running, command, not_run, run};

/// An etcd that runs.
pub(crate) struct Etcd {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) url: String,
    process: Running,
    tls: bool,
}

impl Etcd {
    /// Starts one without TLS; says so where etcd is missing.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(tempfile::tempdir().unwrap(), false)
    }

    /// Starts one that asks for certificates.
    pub(crate) fn start_with_tls() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        certify(folder.path());
        Self::start_with(folder, true)
    }

    fn start_with(folder: tempfile::TempDir, tls: bool) -> Option<Self> {
        if !["/usr/bin/etcd", "/usr/local/bin/etcd"].iter().any(|path| Path::new(path).exists()) {
            not_run("etcd is missing; scripts/setup installs it (Debian: etcd-server)");
            return None;
        }
        // etcd's own gateway dials the port that it was told, so it has to be told one. Another
        // process may take it first; then etcd ends, and the next port is tried.
        (0..5).find_map(|_| Self::try_start(&folder, tls)).map(|(url, process)| Self {
            folder,
            url,
            process,
            tls,
        })
    }

    fn try_start(folder: &tempfile::TempDir, tls: bool) -> Option<(String, Running)> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let scheme = if tls { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{port}");
        let mut etcd = command("etcd");
        etcd.current_dir(folder.path()).args(["--data-dir", "data", "--unsafe-no-fsync"]);
        etcd.args(["--logger", "zap", "--log-outputs", "stdout"]);
        etcd.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        etcd.args(["--listen-peer-urls", "http://127.0.0.1:0"]);
        etcd.args(["--initial-advertise-peer-urls", "http://127.0.0.1:1"]);
        etcd.args(["--initial-cluster", "default=http://127.0.0.1:1"]);
        if tls {
            etcd.args(["--trusted-ca-file", "ca.pem", "--client-cert-auth"]);
            etcd.args(["--cert-file", "cert.pem", "--key-file", "key.pem"]);
        }
        let process = Running::start(&mut etcd);
        process.says("serving client traffic").map(|_| (url, process))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Stores a value.
    pub(crate) fn put(&self, key: &str, value: &[u8]) {
        self.call("kv/put", &pair(key, value));
    }

    pub(crate) fn delete(&self, key: &str) {
        self.call("kv/deleterange", &json!({ "key": STANDARD.encode(key) }));
    }

    pub(crate) fn call(&self, path: &str, body: &Value) -> Value {
        let mut curl = command("curl");
        curl.current_dir(self.folder.path()).args(["--silent", "--show-error", "--fail"]);
        if self.tls {
            curl.args(["--cacert", "ca.pem", "--cert", "cert.pem", "--key", "key.pem"]);
        }
        curl.args(["--data", "@-", &format!("{}/v3/{path}", self.url)]);
        run(&mut curl, body.to_string().as_bytes()).json()
    }

    /// Stops it, and answers its database file.
    pub(crate) fn stop(mut self) -> (tempfile::TempDir, PathBuf) {
        self.process.signal(rustix::process::Signal::TERM);
        self.process.ended();
        let database = self.folder.path().join("data/member/snap/db");
        (self.folder, database)
    }

    /// `lastkey` in its folder.
    pub(crate) fn lastkey(&self, line: &str) -> Ended {
        let line = line.replace("URL", &self.url);
        run(crate::process::lastkey(line.split_whitespace()).current_dir(self.folder.path()), b"")
    }
}

fn pair(key: &str, value: &[u8]) -> Value {
    json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) })
}

/// Stores a value in an etcd without TLS.
pub(crate) fn put(url: &str, key: &str, value: &[u8]) {
    let mut curl = command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--data", "@-", &format!("{url}/v3/kv/put")]);
    run(&mut curl, pair(key, value).to_string().as_bytes()).ok();
}

/// An authority, and one certificate for both sides.
fn certify(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = Issuer::new(params, key);
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "etcd");
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("cert.pem"), leaf.signed_by(&key, &authority).unwrap().pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

/// Key and value of an object that a real API server sealed (k8s.io/apiserver 0.36.4).
pub(crate) fn golden() -> Vec<(String, Vec<u8>)> {
    let text = include_str!("../../../../lastkey-crypto/tests/vectors/kubernetes/kmsv2.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    let read = |vector: &Value| {
        let digits = vector["etcd_value_hex"].as_str().unwrap().as_bytes();
        let bytes = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let value = bytes.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        (vector["etcd_key"].as_str().unwrap().to_owned(), value)
    };
    vectors["vectors"].as_array().unwrap().iter().map(read).collect()
}
