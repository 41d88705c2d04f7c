//! Keys of volumes inside the guest: rotations, reports, escrow, the end of a lineage.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use lastkey_luks::Header;
use lastkey_volumes::Disk;
use lastkey_wire::grpc::registration::{InfoRequest, PluginInfo};
use serde_json::{Value, json};
use tonic::Code;

use super::client::{Csi, code};
use super::life::{PATIENCE, Site, dmsetup, output, read_marker, room, write_marker};
use crate::http::{base64, bytes};

pub(super) const CLASS: [(&str, &str); 3] = [
    ("kmsKeyId", "alias/class"),
    ("csi.storage.k8s.io/pvc/namespace", "shop"),
    ("csi.storage.k8s.io/pvc/name", "data"),
];
const SIZE: i64 = 96 << 20;
/// So many volumes are on a node when the memory of its driver is looked at; fewer on a disk that
/// is nearly full.
const VOLUMES: u32 = 200;

pub(super) fn follow(folder: &Path) {
    let site = Site::start(folder);
    let class = site.server.create(r#"{"alias": "alias/class"}"#);
    let (csi, staging) = (&site.csi, Path::new("/mnt/staging"));
    let closed = csi.create("closed", SIZE, &CLASS).unwrap();
    csi.stage(&closed, staging, "ext4").unwrap();
    write_marker(staging);
    csi.unstage(&closed, staging).unwrap();
    let snapshot = csi.snapshot(&closed, "snapshot").unwrap();
    let open = csi.create("open", SIZE, &CLASS).unwrap();
    let at = Path::new("/mnt/open");
    csi.stage(&open, at, "ext4").unwrap();
    write_marker(at);

    registration();
    rotate(&site, &class, &[&closed, &open, &snapshot]);
    data_keys(&site, &closed);
    read_marker(at);
    escrow(&site, &closed, staging);
    inline(&site);
    erase(&site, &closed, &snapshot);
    let volumes = if room(folder) > 5 << 30 { VOLUMES } else { VOLUMES / 10 };
    for number in 0..volumes {
        csi.create(&format!("many-{number}"), 1 << 20, &CLASS).unwrap();
    }
    let memory = own_memory(site.driver.id());
    println!("memory of the driver with {volumes} volumes: {memory} KiB");
    assert!(memory < 20 * 1_024, "{memory} KiB");
}

/// What the kubelet asks, and hears.
fn registration() {
    let socket = "/run/lastkey/registry/diskplugin.csi.alibabacloud.com-reg.sock";
    let kubelet = Csi::connect(Path::new(socket));
    let info: PluginInfo =
        kubelet.call("/pluginregistration.Registration/GetInfo", InfoRequest {}).unwrap();
    assert_eq!(
        (info.kind.as_str(), info.endpoint.as_str()),
        ("CSIPlugin", "/run/lastkey/csi.sock")
    );
    assert_eq!(info.versions, ["1.0.0"]);
}

fn rotate(site: &Site, class: &str, all: &[&str]) {
    let began = Instant::now();
    while site.server.cli("volume list --output json").json()["volumes"].as_array().unwrap().len()
        < all.len()
    {
        assert!(began.elapsed() < PATIENCE, "{}", site.driver.complaint());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let rotated = site.server.cli("volume rotate alias/class --new-version --output json").json();
    let done = &rotated["keys"][0];
    assert_eq!((&done["version"], &done["done"]), (&json!(2), &json!(all.len())), "{rotated}");
    let listed = site.server.cli("volume list --output json").json();
    let listed = listed["volumes"].as_array().unwrap();
    for id in all {
        let found = listed.iter().find(|volume| volume["volume"] == *id).unwrap();
        assert_eq!((&found["key_version"], &found["claim"]), (&json!(2), &json!("shop/data")));
    }
    // Nothing is under the first version any more; something is under the second.
    site.server.cli(&format!("key version shadow-disable {class} 1")).ok();
    site.server.cli(&format!("key version destroy {class} 1 --yes")).ok();
    let refused = site.server.cli(&format!("key delete {class} --yes"));
    assert!(refused.failed(1).contains("lks-") || refused.stderr.contains("lkv-"));
}

fn data_keys(site: &Site, id: &str) {
    let before = token(site, id);
    site.server.cli("volume rotate alias/class --data-keys").ok();
    let after = token(site, id);
    assert_ne!(after["slots"], before["slots"]);
    let dump = output(Command::new("cryptsetup").arg("luksDump").arg(site.data(id)));
    assert_eq!(dump.matches("PBKDF:").count(), 1, "{dump}");
}

/// Slots and wrapped key of a volume's token.
fn token(site: &Site, id: &str) -> Value {
    let disk = Disk::open(&site.data(id)).unwrap();
    let token = Header::read(&disk).unwrap().unwrap().tokens().unwrap().remove(0).1;
    json!({ "slots": token.slots, "wrapped": token.wrapped, "lineage": token.lineage,
            "cluster": token.cluster })
}

fn escrow(site: &Site, id: &str, staging: &Path) {
    let file = site.data(id);
    let disk = File::options().write(true).open(&file).unwrap();
    disk.write_all_at(&[0xAA; 32_768], 0).unwrap();
    disk.sync_all().unwrap();
    assert_eq!(code(site.csi.stage(id, staging, "ext4")), Code::FailedPrecondition);
    site.csi.unstage(id, staging).unwrap();
    let restore = format!("volume restore-header {id} --device {}", file.display());
    let other = format!("volume restore-header {id} --device /mnt/nothing");
    File::create("/mnt/nothing").unwrap().set_len(64 << 20).unwrap();
    assert!(site.server.cli(&other).failed(1).contains("nothing was written"));
    site.server.cli(&restore).ok();
    site.csi.stage(id, staging, "ext4").unwrap();
    read_marker(staging);
    site.csi.unstage(id, staging).unwrap();
    assert!(site.server.cli(&restore).failed(1).contains("whole header"));
}

/// A volume for one pod: its key is in the kernel alone, and all of it goes.
fn inline(site: &Site) {
    let (id, target) = ("csi-0123456789abcdef", Path::new("/mnt/inline/mount"));
    let publish =
        |size: &str| site.csi.publish_inline(id, target, &[("size", size), ("fsType", "ext4")]);
    assert_eq!(code(publish("much")), Code::InvalidArgument);
    assert_eq!(code(publish("500Gi")), Code::OutOfRange);
    publish("64Mi").unwrap();
    publish("64Mi").unwrap();
    write_marker(target);
    let name = format!("lke-{id}");
    assert!(dmsetup(&["table", "--showkeys", &name]).contains(":64:logon:lastkey:"));
    assert!(site.csi.stats(id, target).unwrap().usage[0].total > 0);
    site.csi.unpublish(id, target).unwrap();
    site.csi.unpublish(id, target).unwrap();
    assert!(!target.exists());
    assert!(!dmsetup(&["ls"]).contains(&name));
}

/// As anybody unwraps it who may use both keys.
pub(super) fn data_key(site: &Site, id: &str) -> Vec<u8> {
    let token = token(site, id);
    let wrapped: Vec<u8> = serde_json::from_value(token["wrapped"].clone()).unwrap();
    let context = json!({
        "use": "lastkey-volume", "cluster": token["cluster"], "volume": id,
        "lineage": token["lineage"],
    });
    let decrypt = |wrapped: &[u8]| {
        let body = json!({ "ciphertext": base64(wrapped), "context": context });
        bytes(&site.server.admin().done("POST", "/v1/decrypt", &body.to_string())["plaintext"])
    };
    decrypt(&decrypt(&wrapped))
}

fn erase(site: &Site, id: &str, snapshot: &str) {
    let prove = format!("volume erase-proof {id} --output json");
    site.csi.delete(id).unwrap();
    // The snapshot has the key still.
    let left = wait_for(site, &prove, |said| !said.contains(id) && said.contains(snapshot));
    assert!(left.contains("have its key"), "{left}");
    site.csi.delete_snapshot(snapshot).unwrap();
    let left = wait_for(site, &prove, |said| said.contains("cancel-deletion"));
    assert!(!left.contains(snapshot), "{left}");
}

/// What a command that fails complains of, once it is as wished.
#[track_caller]
fn wait_for(site: &Site, line: &str, wished: impl Fn(&str) -> bool) -> String {
    let began = Instant::now();
    loop {
        let ended = site.server.cli(line);
        let said = ended.failed(1).to_owned();
        let about = said.split_once(" is not erased").map_or(said.as_str(), |(_, about)| about);
        if wished(about) {
            return said;
        }
        assert!(began.elapsed() < PATIENCE, "{said}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// What belongs to the process alone, in KiB.
fn own_memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}
