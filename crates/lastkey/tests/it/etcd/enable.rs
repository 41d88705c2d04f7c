//! `etcd enable`: the file, what is said beside it, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::process::{Ended, lastkey, run};

const AESCBC: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers: [{identity: {}}, {aescbc: {keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}}]\n";

fn enable(folder: &tempfile::TempDir, line: &str) -> Ended {
    let line = format!("etcd enable --provider lastkey --socket /run/lastkey/kms.sock {line}");
    run(lastkey(line.split_whitespace()).current_dir(folder), b"")
}

#[test]
fn configuration_is_written_and_each_step_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let ended = enable(&folder, "-o encryption.yaml --platform kubeadm");
    ended.ok();
    let path = folder.path().join("encryption.yaml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("endpoint: unix:///run/lastkey/kms.sock"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for part in ["kubeadm-config", "/etc/kubernetes/pki/etcd/ca.crt", "exclude=kms-providers"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    enable(&folder, "-o encryption.yaml").failed(7);
    let check = "check --manifests encryption.yaml";
    run(lastkey(check.split_whitespace()).current_dir(&folder), b"").ok();
    enable(&folder, "-o last.yaml --running encryption.yaml --finish").ok();
    let last = fs::read_to_string(folder.path().join("last.yaml")).unwrap();
    assert!(!last.contains("identity"), "{last}");
    enable(&folder, "-o back.yaml --running last.yaml --back").ok();
    assert!(fs::read_to_string(folder.path().join("back.yaml")).unwrap().contains("identity"));
}

#[test]
fn last_step_is_taken_as_it_is_printed() {
    let running = "/etc/kubernetes/encryption/config.yaml";
    for platform in ["kubeadm", "k3s", "rke2", "talos", "static-pod"] {
        let folder = tempfile::tempdir().unwrap();
        let began = enable(&folder, &format!("-o encryption.yaml --platform {platform}"));
        began.ok();
        let (_, step) = began.stderr.split_once("6. Make the last step: lastkey ").unwrap();
        let step = step.split("\n\n").next().unwrap().replace('\\', " ");
        // On the node the file lies where it was put; here it lies where it was written.
        let step = step.replace(running, "encryption.yaml");
        let step = step.replace("/etc/lastkey/encryption/config.yaml", "encryption.yaml");
        run(lastkey(step.split_whitespace()).current_dir(&folder), b"").ok();
        let last = fs::read_to_string(folder.path().join("encryption.yaml")).unwrap();
        assert!(last.contains("name: lastkey") && !last.contains("identity"), "{last}");
    }
}

#[test]
fn keys_of_another_provider_go_to_a_file_alone_and_a_fault_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("now.yaml"), AESCBC).unwrap();
    let refused = enable(&folder, "--running now.yaml");
    assert!(refused.failed(2).contains("-o") && refused.stdout.is_empty());
    enable(&folder, "--running now.yaml -o -").failed(2);
    let ended = enable(&folder, "--running now.yaml -o next.yaml");
    ended.ok();
    assert!(ended.stderr.contains("in force now: ENC-02"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("c2VjcmV0"));
    let next = fs::read_to_string(folder.path().join("next.yaml")).unwrap();
    assert!(next.contains("c2VjcmV0IGlzIHNlY3VyZQ=="));
}

#[test]
fn managed_control_plane_gets_what_is_left_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let ended = enable(&folder, "-o encryption.yaml --cluster v1.33.4-eks-99d6cc0");
    assert_eq!(ended.code, Some(1));
    assert!(ended.text().contains("Amazon EKS") && ended.text().contains("lastkey check"));
    assert!(!folder.path().join("encryption.yaml").exists());
}

#[test]
fn what_the_api_server_would_refuse_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    enable(&folder, "-o x.yaml --resource Secrets").failed(1);
    enable(&folder, "-o x.yaml --finish").failed(2);
    enable(&folder, "-o x.yaml --running nowhere --finish").failed(7);
    fs::write(folder.path().join("now.yaml"), AESCBC).unwrap();
    enable(&folder, "-o x.yaml --running now.yaml --finish").failed(1);
    enable(&folder, "-o x.yaml --output json").failed(2);
    assert!(!folder.path().join("x.yaml").exists());
}
