//! Logical volumes and whole devices inside the guest.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lastkey_luks::Header;
use lastkey_volumes::Disk;
use lastkey_wire::grpc::csi::{ContentSourceKind, Id};
use tonic::Code;

use super::client::{Csi, code};
use super::life::{PATIENCE, dmsetup, output, read_marker, start_driver, write_marker};
use crate::process::Running;
use crate::world::Server;

const CLASS: [(&str, &str); 1] = [("kmsKeyId", "alias/class")];
const SIZE: i64 = 32 << 20;
const STAGING: &str = "/mnt/staging";
/// lvm2 keeps nothing of the guest on the host.
const LVM_CONF: &str = "backup { backup=0 archive=0 }\n";

pub(super) fn all(folder: &Path) {
    fs::create_dir_all("/mnt/lvm").unwrap();
    fs::write("/mnt/lvm/lvm.conf", LVM_CONF).unwrap();
    let mut server = Server::dev(Path::new("/mnt/data"));
    server.env.push(("LVM_SYSTEM_DIR".to_owned(), "/mnt/lvm".to_owned()));
    server.create(r#"{"alias": "alias/class"}"#);
    // On the disk of the host: the guest's memory is small.
    let device = |name: &str, mib: u64| device(&folder.join(name), mib);
    thick(&server, &device("thick", 320));
    thin(&server, &device("thin", 384));
    let of_raw = ["raw-1", "raw-2", "raw-3", "raw-4"].map(|name| folder.join(name));
    let lens = [64, 128, 64, 64];
    let devices: Vec<String> =
        of_raw.iter().zip(lens).map(|(file, mib)| self::device(file, mib)).collect();
    raw(&server, &devices, [&of_raw[0], &of_raw[3]]);
    broken_device(&server, &device("flaky", 64));
}

fn device(file: &Path, mib: u64) -> String {
    File::create(file).unwrap().set_len(mib << 20).unwrap();
    output(Command::new("losetup").args(["-f", "--show"]).arg(file)).trim().to_owned()
}

fn losetup(arguments: &[&str]) {
    output(Command::new("losetup").args(arguments));
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

fn lvm(arguments: &[&str]) -> String {
    let mut lvm = Command::new("lvm");
    lvm.args(arguments).env("LVM_SYSTEM_DIR", "/mnt/lvm").env("DM_DISABLE_UDEV", "1");
    output(&mut lvm)
}

fn driver(server: &Server, backend: &str, state: &str) -> (Running, Csi) {
    let arguments = ["--backend", backend, "--state-dir", state].map(str::to_owned);
    start_driver(server, &arguments)
}

/// A volume that was written to, and is closed.
fn used(csi: &Csi, name: &str) -> String {
    let id = csi.create(name, SIZE, &CLASS).unwrap();
    csi.stage(&id, Path::new(STAGING), "ext4").unwrap();
    write_marker(Path::new(STAGING));
    csi.unstage(&id, Path::new(STAGING)).unwrap();
    id
}

#[track_caller]
fn has_marker(csi: &Csi, id: &str) {
    csi.stage(id, Path::new(STAGING), "ext4").unwrap();
    read_marker(Path::new(STAGING));
    csi.unstage(id, Path::new(STAGING)).unwrap();
}

fn snapshot_of(id: &str) -> ContentSourceKind {
    ContentSourceKind::Snapshot(Id { id: id.to_owned() })
}

fn thick(server: &Server, disk: &str) {
    lvm(&["vgcreate", "-q", "thick", disk]);
    // Somebody else's volume, with something where headers lie.
    lvm(&["lvcreate", "-q", "--yes", "--size", "16m", "--name", "other", "thick"]);
    let (mut driver_process, csi) = driver(server, "lvm:thick", "/mnt/state-thick");
    let id = used(&csi, "thick");
    let snapshot = csi.snapshot(&id, "snapshot").unwrap();
    csi.stage(&id, Path::new(STAGING), "ext4").unwrap();
    let in_use = csi.snapshot(&id, "in use");
    assert_eq!(code(in_use), Code::FailedPrecondition);
    let wider = csi.expand(&id, Path::new(STAGING), 2 * SIZE).unwrap();
    assert_eq!(wider, 2 * SIZE);
    csi.unstage(&id, Path::new(STAGING)).unwrap();
    assert_eq!(code(csi.create("much", 1 << 30, &CLASS)), Code::ResourceExhausted);

    // The next driver finds what the killed one left.
    driver_process.kill();
    lvm(&["vgchange", "--activate", "n", "thick"]);
    let (mut driver_process, csi) = driver(server, "lvm:thick", "/mnt/state-thick");
    has_marker(&csi, &id);
    let copy = csi.create_of("copy", snapshot_of(&snapshot), &CLASS).unwrap();
    has_marker(&csi, &copy);
    for volume in [&id, &copy] {
        csi.delete(volume).unwrap();
    }
    csi.delete_snapshot(&snapshot).unwrap();
    let left = lvm(&["lvs", "--noheadings", "--options", "lv_name", "thick"]);
    assert_eq!(left.trim(), "other");
    driver_process.stop();
}

fn thin(server: &Server, disk: &str) {
    lvm(&["vgcreate", "-q", "thin", disk]);
    lvm(&[
        "lvcreate",
        "-q",
        "--yes",
        "--type",
        "thin-pool",
        "--size",
        "256m",
        "--name",
        "pool",
        "thin",
    ]);
    let (mut driver_process, csi) = driver(server, "lvm:thin/pool", "/mnt/state-thin");
    let id = used(&csi, "thin");
    // Of a volume in use, at once.
    csi.stage(&id, Path::new(STAGING), "ext4").unwrap();
    let snapshot = csi.snapshot(&id, "in use").unwrap();
    fs::remove_file(Path::new(STAGING).join("file")).unwrap();
    csi.unstage(&id, Path::new(STAGING)).unwrap();
    let copy = csi.create_of("copy", snapshot_of(&snapshot), &CLASS).unwrap();
    has_marker(&csi, &copy);
    // The pool is not promised twice: three of them and 16 MiB each are in it.
    assert_eq!(code(csi.create("much", 160 << 20, &CLASS)), Code::ResourceExhausted);
    csi.delete_snapshot(&snapshot).unwrap();
    csi.delete(&copy).unwrap();
    csi.delete(&id).unwrap();
    let left = lvm(&["lvs", "--noheadings", "--options", "lv_name", "thin"]);
    assert_eq!(left.trim(), "pool");
    driver_process.stop();
}

fn raw(server: &Server, devices: &[String], [of_volume, of_snapshot]: [&Path; 2]) {
    fs::write(&devices[2], [0xAA; 4_096]).unwrap();
    let other = File::create("/mnt/disk-of-nobody").unwrap();
    other.set_len(64 << 20).unwrap();
    let list = "/mnt/devices";
    fs::write(list, format!("# for volumes\n{}\n", devices.join("\n"))).unwrap();
    let (mut driver_process, csi) = driver(server, "raw:/mnt/devices", "/mnt/state-raw");
    let id = used(&csi, "first");
    let taken = Path::new("/mnt/state-raw/volumes").join(&id).join("data");
    assert_eq!(fs::read_link(&taken).unwrap(), Path::new(&devices[0]), "the shortest");
    has_marker(&csi, &id);
    let mut mark = Command::new("dd");
    mark.args([&format!("if={}", devices[0]), "bs=4096", "skip=4095", "count=1", "status=none"]);
    let text = output(&mut mark);
    assert_eq!(text.trim_end_matches('\0'), format!("lastkey-device 1\n{id}\n"));
    let snapshot = csi.snapshot(&id, "snapshot").unwrap();
    let second = csi.create("second", SIZE, &CLASS).unwrap();
    // The third one has something on it.
    assert_eq!(code(csi.create("third", SIZE, &CLASS)), Code::ResourceExhausted);
    assert_eq!(fs::read(&devices[2]).unwrap()[..4_096], [0xAA; 4_096]);
    csi.stage(&second, Path::new(STAGING), "ext4").unwrap();
    assert_eq!(csi.expand(&second, Path::new(STAGING), 3 * SIZE).unwrap(), 3 * SIZE);
    csi.unstage(&second, Path::new(STAGING)).unwrap();

    // After a restart the devices of the volume and of its snapshot have each other's names.
    driver_process.kill();
    let (first, last) = (devices[0].as_str(), devices[3].as_str());
    let begin = Header::read(&Disk::open(of_snapshot).unwrap()).unwrap().unwrap();
    assert_eq!(begin.tokens().unwrap().remove(0).1.volume, id, "by its header it is the volume");
    losetup(&["-d", first]);
    losetup(&["-d", last]);
    losetup(&[first, path(of_snapshot)]);
    losetup(&[last, path(of_volume)]);
    let (mut driver_process, csi) = driver(server, "raw:/mnt/devices", "/mnt/state-raw");
    csi.delete_snapshot(&snapshot).unwrap();
    assert!(fs::read(of_snapshot).unwrap()[..17 << 20].iter().all(|byte| *byte == 0));
    has_marker(&csi, &id);
    assert_eq!(fs::read_link(&taken).unwrap(), Path::new(last));

    // One that is away, while something else has its name, is not ended.
    losetup(&["-d", last]);
    losetup(&[last, "/mnt/disk-of-nobody"]);
    assert_eq!(code(csi.delete(&id)), Code::FailedPrecondition);
    assert_eq!(code(csi.stage(&id, Path::new(STAGING), "ext4")), Code::FailedPrecondition);
    losetup(&["-d", last]);
    losetup(&[last, path(of_volume)]);
    has_marker(&csi, &id);
    csi.delete(&id).unwrap();
    let again = csi.create("again", SIZE, &CLASS).unwrap();
    csi.stage(&again, Path::new(STAGING), "ext4").unwrap();

    // Its record is gone while it is open: by its mark the mapping is known, and closed.
    driver_process.kill();
    output(Command::new("umount").arg(STAGING));
    fs::remove_dir_all(Path::new("/mnt/state-raw/volumes").join(&again)).unwrap();
    let (mut driver_process, _csi) = driver(server, "raw:/mnt/devices", "/mnt/state-raw");
    let began = Instant::now();
    while dmsetup(&["ls"]).contains(&again) {
        assert!(began.elapsed() < PATIENCE, "{}", driver_process.complaint());
        std::thread::sleep(Duration::from_millis(200));
    }
    driver_process.stop();
}

/// A device that answers with errors is never taken for empty, and its data is there afterwards.
fn broken_device(server: &Server, below: &str) {
    let good = format!("0 {} linear {below} 0", (64 << 20) / 512);
    let bad = format!("0 {} error", (64 << 20) / 512);
    let table = |table: &str| {
        dmsetup(&["suspend", "flaky"]);
        dmsetup(&["load", "flaky", "--table", table]);
        dmsetup(&["resume", "flaky"]);
    };
    dmsetup(&["create", "flaky", "--table", &good]);
    fs::write("/mnt/flaky-list", "/dev/mapper/flaky\n").unwrap();
    let (mut driver_process, csi) = driver(server, "raw:/mnt/flaky-list", "/mnt/state-flaky");
    let fresh = csi.create("fresh", SIZE, &CLASS).unwrap();
    let staging = Path::new(STAGING);
    table(&bad);
    assert_eq!(code(csi.stage(&fresh, staging, "ext4")), Code::Internal);
    table(&good);
    csi.stage(&fresh, staging, "ext4").unwrap();
    write_marker(staging);
    csi.unstage(&fresh, staging).unwrap();
    table(&bad);
    assert_eq!(code(csi.stage(&fresh, staging, "ext4")), Code::Internal);
    assert_eq!(code(csi.delete(&fresh)), Code::Internal);
    table(&good);
    has_marker(&csi, &fresh);
    driver_process.stop();
}
