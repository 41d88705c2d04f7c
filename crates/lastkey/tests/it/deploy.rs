//! What lies under deploy/ for a node: units that systemd takes, and a static pod that needs nothing
//! of the cluster it unlocks.

use std::path::{Path, PathBuf};
use std::process::Command;

use lastkey_checks::snapshot::Snapshot;

use crate::process::not_run;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap()
}

#[test]
fn systemd_takes_the_units_and_the_socket_is_that_of_its_service() {
    let names = [
        "lastkey-kms-plugin.service",
        "lastkey-kms-plugin.socket",
        "lastkey-node-renew.service",
        "lastkey-node-renew.timer",
        "lastkey-secrets-provider.service",
        "lastkey.service",
    ];
    let service = read("systemd/lastkey-kms-plugin.service");
    for line in ["Requires=lastkey-kms-plugin.socket", "Before=kubelet.service", "Restart=always"] {
        assert!(service.lines().any(|one| one == line), "{line}");
    }
    let socket = read("systemd/lastkey-kms-plugin.socket");
    assert!(socket.contains("ListenStream=/run/lastkey/kms/etcd.sock"));
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        not_run("systemd-analyze is missing: this machine runs without systemd");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lastkey = folder.path().join("lastkey");
    std::fs::copy(env!("CARGO_BIN_EXE_lastkey"), &lastkey).unwrap();
    for name in names {
        // The program is where a package puts it; the binary under test stands in for it.
        let text =
            read(&format!("systemd/{name}")).replace("/usr/bin/lastkey", lastkey.to_str().unwrap());
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no", "--generators=no"]);
    analyze.args(names.map(|name| folder.path().join(name)));
    let ended = analyze.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    // Units of this machine that they order themselves by may be missing.
    let ours = folder.path().to_str().unwrap();
    let about_us = said.lines().filter(|line| line.contains(ours)).collect::<Vec<_>>();
    assert_eq!(about_us, [""; 0], "{said}");
}

#[test]
fn static_pod_needs_nothing_of_its_cluster() {
    let mut snapshot = Snapshot::default();
    let text = read("kubernetes/kms-plugin-static-pod.yaml");
    snapshot.add_file("pod.yaml", text.as_bytes());
    assert!(snapshot.unreadable.is_empty(), "{:?}", snapshot.unreadable);
    let pod = snapshot.of_kind("Pod").next().unwrap();
    let spec = pod.root.get("spec");
    assert!(spec.get("hostNetwork").is_true());
    assert_eq!(spec.get("automountServiceAccountToken").bool(), Some(false));
    assert_eq!(spec.get("priorityClassName").str(), "system-node-critical");
    for volume in spec.get("volumes").items() {
        assert!(volume.get("hostPath").is_there(), "{}", volume.get("name").str());
    }
    let [container] = spec.get("containers").items() else { panic!("one container") };
    assert!(!container.get("env").is_there() && !container.get("envFrom").is_there());
    let mounts = container.get("volumeMounts").items();
    let sockets = mounts.iter().find(|mount| mount.get("name").str() == "sockets").unwrap();
    // The folder: a mounted file goes stale.
    assert_eq!(sockets.get("mountPath").str(), "/run/lastkey/kms");
    assert!(container.get("image").str().contains("@sha256:"), "by digest");
}
