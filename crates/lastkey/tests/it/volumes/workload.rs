//! Volumes that pods open by their own tokens, over a server and a driver that may not open them itself;
//! the driver runs in a container that is replaced, and finds what nothing remembers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tonic::Code;

use super::client::{Csi, code};
use super::life::{
    PATIENCE, dmsetup, driver_command, loop_files, output, read_marker, started, write_marker,
};
use super::numbers::{metrics, sample};
use crate::issuer::{ISSUER, Issuer};
use crate::process::Running;
use crate::world::{Server, audit_records, text};

const CLASS: [(&str, &str); 3] =
    [("kmsKeyId", "alias/class"), ("unlockAs", "workload"), ("unlockRole", "team-a")];
const SIZE: i64 = 32 << 20;
const STAGING: &str = "/mnt/staging";
/// What the driver itself may: it protects under the key of the class and recovers nothing.
const DRIVER: &str = r#"
permit(principal, action in [Action::"kms:DescribeKey", Action::"kms:Encrypt", Action::"kms:ReportHolding"],
    resource in Alias::"alias/class");
permit(principal, action == Action::"kms:CreateKey", resource);
permit(principal, action, resource is Key) when { resource.hasTag("lastkey-volume") };
permit(principal, action == Action::"secrets:PutSecret", resource in SecretPath::"lastkey-volume");
"#;
const TEAM: &str =
    r#"permit(principal, action == Action::"kms:Decrypt", resource in Alias::"alias/class");"#;

struct Cluster {
    server: Server,
    issuer: Issuer,
    volumes: String,
}

impl Cluster {
    fn start(folder: &Path) -> Self {
        let server = Server::dev(Path::new("/mnt/data"));
        server.create(r#"{"alias": "alias/class"}"#);
        let issuer = Issuer::new();
        for (name, content) in
            [("jwks", issuer.jwks().as_str()), ("driver", DRIVER), ("team-a", TEAM)]
        {
            fs::write(Path::new("/mnt").join(name), content).unwrap();
        }
        server
            .cli(&format!("cluster add here --issuer {ISSUER} --audience lastkey --jwks /mnt/jwks"))
            .ok();
        for (role, namespace, account) in
            [("driver", "lastkey", "volumes"), ("team-a", "shop", "api")]
        {
            server
                .cli(&format!(
                    "role create {role} --cluster here --namespace {namespace} \
                     --service-account {account} --policy /mnt/{role}"
                ))
                .ok();
        }
        let volumes = folder.join("volumes");
        fs::create_dir_all(&volumes).unwrap();
        Self { server, issuer, volumes: volumes.to_str().unwrap().to_owned() }
    }

    /// The driver with a session of its own, in a mount namespace of its own that sees the folder of
    /// the volumes through a mount of its own, as a container does.
    fn driver(&mut self) -> (Running, Csi) {
        let token = self.issuer.pod_token("lastkey", "lastkey", "volumes");
        let body = json!({ "subject_token": token, "role": "driver" }).to_string();
        let session =
            text(&self.server.anybody().done("POST", "/v1/sts/token", &body)["access_token"]);
        self.server.env.push(("LASTKEY_TOKEN".to_owned(), session));
        let inside = driver_command(&self.server, &loop_files(Path::new(&self.volumes)));
        self.server.env.clear();
        let mut contained = Command::new("unshare");
        contained.args(["--mount", "--propagation", "unchanged", "sh", "-c"]);
        contained.arg("mount --bind \"$0\" \"$0\" && exec \"$@\"").arg(&self.volumes);
        contained.arg(inside.get_program()).args(inside.get_args());
        contained.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        started(Running::start(&mut contained))
    }

    fn token(&self, pod: &str, account: &str) -> String {
        self.issuer.token_of_pod(pod, "lastkey", "shop", account)
    }
}

pub(super) fn all(folder: &Path) {
    // What is mounted for pods is to be seen by every container.
    output(Command::new("mount").args(["--make-shared", "/mnt"]));
    let mut cluster = Cluster::start(folder);
    let (driver, csi) = cluster.driver();
    let (driver, csi, id) = by_token(&mut cluster, driver, csi);
    kill_switch(&cluster, &csi, &id);
    last_pod(&cluster, &csi, &id);
    lost(&mut cluster, driver, csi);
}

/// Who may open a volume, who may not while it is open, and a driver that is replaced meanwhile.
fn by_token(cluster: &mut Cluster, mut driver: Running, csi: Csi) -> (Running, Csi, String) {
    let [one, two, three] = ["/mnt/one", "/mnt/two", "/mnt/three"].map(Path::new);
    let staging = Path::new(STAGING);
    let id = csi.create("claim", SIZE, &CLASS).unwrap();
    csi.stage(&id, staging, "ext4").unwrap();
    let missing = csi.publish(&id, staging, one).unwrap_err();
    assert_eq!(missing.code(), Code::FailedPrecondition);
    assert!(missing.message().contains("tokenRequests"), "{}", missing.message());
    let (of_api, of_other) = (cluster.token("pod-1", "api"), cluster.token("pod-2", "other"));
    assert_eq!(code(csi.publish_as(&id, staging, one, &of_other)), Code::PermissionDenied);
    assert!(!dmsetup(&["ls"]).contains(&id));

    csi.publish_as(&id, staging, one, &of_api).unwrap();
    csi.publish_as(&id, staging, one, &of_api).unwrap();
    write_marker(one);
    assert_eq!(code(csi.publish_as(&id, staging, two, &of_other)), Code::PermissionDenied);
    assert_eq!(code(csi.publish(&id, staging, two)), Code::FailedPrecondition);
    let opened = audit_records(Path::new("/mnt/data"), "--action kms:Decrypt");
    let by_pod = |record: &&serde_json::Value| record.to_string().contains("shop/api");
    assert_eq!(opened.iter().filter(by_pod).count(), 1, "before the format: {opened:?}");

    driver.kill();
    let (driver, csi) = cluster.driver();
    csi.publish_as(&id, staging, three, &cluster.token("pod-3", "api")).unwrap();
    read_marker(three);
    csi.unpublish(&id, three).unwrap();
    (driver, csi, id)
}

/// The driver may not let the volume go on; the pod does, when the kubelet shows its token again.
fn kill_switch(cluster: &Cluster, csi: &Csi, id: &str) {
    let one = Path::new("/mnt/one");
    let until = |frozen: bool| {
        let began = Instant::now();
        while csi.stats(id, one).unwrap().condition.unwrap().abnormal != frozen {
            assert!(began.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let again = || csi.publish_as(id, Path::new(STAGING), one, &cluster.token("pod-1", "api"));
    cluster.server.cli("key disable alias/class").ok();
    until(true);
    assert_eq!(code(again()), Code::FailedPrecondition);
    cluster.server.cli("key enable alias/class").ok();
    again().unwrap();
    until(false);
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    read_marker(one);
}

/// With the last pod the key leaves the kernel; the next one brings it back.
fn last_pod(cluster: &Cluster, csi: &Csi, id: &str) {
    let (staging, one) = (Path::new(STAGING), Path::new("/mnt/one"));
    csi.unpublish(id, one).unwrap();
    assert!(!dmsetup(&["ls"]).contains(id));
    csi.publish_as(id, staging, one, &cluster.token("pod-4", "api")).unwrap();
    read_marker(one);
    csi.unpublish(id, one).unwrap();
    csi.unstage(id, staging).unwrap();
    csi.delete(id).unwrap();
}

/// The record of an open volume is gone: its mapping is closed when nobody has it mounted any more.
fn lost(cluster: &mut Cluster, mut driver: Running, csi: Csi) {
    let (staging, one) = (Path::new(STAGING), Path::new("/mnt/one"));
    let id = csi.create("lost", SIZE, &CLASS).unwrap();
    csi.publish_as(&id, staging, one, &cluster.token("pod-5", "api")).unwrap();
    driver.kill();
    fs::remove_dir_all(Path::new(&cluster.volumes).join("volumes").join(&id)).unwrap();
    let (driver, _csi) = cluster.driver();
    let wait = |is_done: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is_done() {
            assert!(began.elapsed() < PATIENCE, "{}", driver.complaint());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    wait(&|| sample(&metrics(&driver), "lastkey_volumes_complaints") >= 1.0);
    assert!(dmsetup(&["ls"]).contains(&id), "it is mounted");
    for at in [one, staging] {
        output(Command::new("umount").arg(at));
    }
    wait(&|| !dmsetup(&["ls"]).contains(&id));
}
