//! `etcd doctor`: what would keep a control-plane node from starting is told before it does.

use std::fs;
use std::path::Path;

use crate::process::{Ended, lastkey, run};

const MANIFEST: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  containers:
  - name: kube-apiserver
    image: registry.k8s.io/kube-apiserver:v1.33.2
    command: [kube-apiserver, --service-cluster-ip-range=10.96.0.0/12, --encryption-provider-config=ENC]
    volumeMounts:
    - {name: kms, mountPath: /run/lastkey/kms}
  volumes:
  - {name: kms, hostPath: {path: /run/lastkey/kms}}
";

const ENCRYPTION: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - kms: {apiVersion: v2, name: lastkey, endpoint: 'unix:///run/lastkey/kms/etcd.sock'}
  - identity: {}
";

/// A node whose plugin asks this server.
fn node(folder: &Path, endpoint: &str) {
    let encryption = folder.join("encryption.yaml");
    fs::create_dir_all(folder.join("manifests")).unwrap();
    let manifest = MANIFEST.replace("ENC", encryption.to_str().unwrap());
    fs::write(folder.join("manifests/kube-apiserver.yaml"), manifest).unwrap();
    fs::write(encryption, ENCRYPTION).unwrap();
    let config = format!(
        "[server]\nendpoints = ['{endpoint}']\nca_fingerprint = 'sha256:{}'\n\
         [[provider]]\nsocket = '/run/lastkey/kms/etcd.sock'\nkey = 'alias/etcd'\n",
        "0".repeat(64)
    );
    fs::write(folder.join("kms.toml"), config).unwrap();
}

fn doctor(folder: &Path, more: &[&str]) -> Ended {
    let mut command =
        lastkey(["etcd", "doctor", "--config", "kms.toml", "--manifests", "manifests"]);
    run(command.args(more).current_dir(folder), b"")
}

#[test]
fn loop_is_found_and_what_is_well_is_said_too() {
    let folder = tempfile::tempdir().unwrap();
    node(folder.path(), "https://10.0.0.11:8400");
    let text = doctor(folder.path(), &[]).ok();
    assert!(text.contains("outside the networks") && text.contains("seen through"), "{text}");
    assert!(!text.contains("BAD"), "{text}");

    node(folder.path(), "https://10.97.3.1:8400");
    let looped = doctor(folder.path(), &[]);
    assert_eq!(looped.code, Some(1), "{}", looped.stderr);
    assert!(looped.text().contains("a Service of this cluster"), "{}", looped.text());
    let json: serde_json::Value =
        serde_json::from_str(&doctor(folder.path(), &["--output", "json"]).text()).unwrap();
    assert_eq!(json[0]["verdict"], "bad", "{json}");

    // A configuration that writes in the clear is no protection, whatever else is well.
    node(folder.path(), "https://10.0.0.11:8400");
    let swapped = ENCRYPTION.replace("  - identity: {}\n", "");
    let swapped = swapped.replace("  providers:\n", "  providers:\n  - identity: {}\n");
    fs::write(folder.path().join("encryption.yaml"), swapped).unwrap();
    let clear = doctor(folder.path(), &[]);
    assert!(clear.text().contains("written in the clear"), "{}", clear.text());
    assert_eq!(clear.code, Some(1));
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    assert!(doctor(folder.path(), &[]).failed(2).contains("cannot read kms.toml"));
    node(folder.path(), "https://10.0.0.11:8400");
    fs::remove_dir_all(folder.path().join("manifests")).unwrap();
    let text = doctor(folder.path(), &[]).ok();
    assert!(text.contains("unknown"), "{text}");
    doctor(folder.path(), &["--output", "sarif"]).failed(2);
    doctor(folder.path(), &["--encryption-config", "nowhere"]).failed(7);
}
