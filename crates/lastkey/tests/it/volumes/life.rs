//! What happens inside the guest.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tonic::Code;

use super::client::{Csi, code};
use crate::process::{HANG, Running, run};
use crate::world::Server;

/// Written by the pod; on no disk.
pub(super) const MARKER: &[u8] = b"the-pod-wrote-this-marker-0123456789";
/// The key of the vendor's class, an id of another service.
const FOREIGN_KEY: &str = "0d1a2b3c-4d5e-4f70-8192-a3b4c5d6e7f8";
pub(super) const DRIVER: &str = "diskplugin.csi.alibabacloud.com";
/// What the documentation's class says.
const CLASS: [(&str, &str); 4] =
    [("type", "cloud_ssd"), ("fsType", "ext4"), ("encrypted", "true"), ("kmsKeyId", FOREIGN_KEY)];
pub(super) const GIB: i64 = 1 << 30;
const SOCKET: &str = "/run/lastkey/csi.sock";
/// Where the key service keeps its data while it runs, and between two boots.
const DATA: &str = "/mnt/data";
const KEPT: &str = "data";
/// Only something that hangs is caught by it.
pub(super) const PATIENCE: Duration = HANG;

/// A key service, the driver, and a client of it.
pub(super) struct Site {
    pub(super) server: Server,
    pub(super) driver: Running,
    pub(super) csi: Csi,
    volumes: PathBuf,
}

impl Site {
    pub(super) fn start(folder: &Path) -> Self {
        let kept = folder.join(KEPT);
        if kept.exists() {
            copy(&kept, Path::new(DATA));
        }
        let server = Server::dev(Path::new(DATA));
        let volumes = folder.join("volumes");
        let (driver, csi) = start_driver(&server, &loop_files(&volumes));
        Self { server, driver, csi, volumes }
    }

    pub(super) fn data(&self, id: &str) -> PathBuf {
        self.volumes.join("volumes").join(id).join("data")
    }

    /// Waits until the condition of a volume is as wished; how long that took.
    #[track_caller]
    fn wait(&self, id: &str, at: &Path, frozen: bool) -> Duration {
        let began = Instant::now();
        loop {
            let stats = self.csi.stats(id, at).unwrap();
            if stats.condition.unwrap().abnormal == frozen {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{}", self.driver.complaint());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

pub(super) fn loop_files(folder: &Path) -> [String; 2] {
    ["--backend".to_owned(), format!("loop:{}", folder.display())]
}

pub(super) fn start_driver(server: &Server, arguments: &[String]) -> (Running, Csi) {
    started(Running::start(&mut driver_command(server, arguments)))
}

pub(super) fn driver_command(server: &Server, arguments: &[String]) -> Command {
    fs::create_dir_all("/run/lastkey/registry").unwrap();
    let mut command = server.client(["volumes", "--node-id", "node-1", "--driver-name", DRIVER]);
    command.arg("--csi-endpoint").arg(format!("unix://{SOCKET}"));
    command.args(["--kubelet-registration", "/run/lastkey/registry"]).args(arguments);
    command.args(["--metrics", "127.0.0.1:0"]);
    command
}

/// A driver that serves, and a client of it.
#[track_caller]
pub(super) fn started(driver: Running) -> (Running, Csi) {
    let ready = driver.says("lastkey volumes serves");
    assert!(ready.is_some(), "not ready: {}", driver.complaint());
    (driver, Csi::connect(Path::new(SOCKET)))
}

pub(super) fn first(folder: &Path) {
    let mut site = Site::start(folder);
    let csi = &site.csi;
    let (staging, target) = (Path::new("/mnt/staging"), Path::new("/mnt/pod/mount"));

    let size = size_of_claim(folder);
    // A key that nobody knows is refused, with the command that would create it.
    let refused = csi.create("claim", size, &CLASS).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let alias = format!("--alias alias/{FOREIGN_KEY}");
    assert!(refused.message().contains(&alias), "{}", refused.message());
    let key = site.server.create(&format!(r#"{{"alias": "alias/{FOREIGN_KEY}"}}"#));

    let began = Instant::now();
    let id = csi.create("claim", size, &CLASS).unwrap();
    assert_eq!(csi.create("claim", size, &CLASS).unwrap(), id);
    assert_eq!(code(csi.create("claim", 2 * size, &CLASS)), Code::AlreadyExists);
    let off = csi.create("other", GIB, &[("encrypted", "flase")]);
    assert_eq!(code(off), Code::InvalidArgument);

    csi.stage(&id, staging, "ext4").unwrap();
    csi.publish(&id, staging, target).unwrap();
    println!("created, staged and published in {:?}", began.elapsed());
    csi.stage(&id, staging, "ext4").unwrap();
    csi.publish(&id, staging, target).unwrap();
    assert_eq!(code(csi.delete(&id)), Code::FailedPrecondition);
    write_marker(target);
    let total = csi.stats(&id, target).unwrap().usage[0].total;
    assert!((size / 10 * 9..=size).contains(&total), "{total}");
    no_key_in_tables(&id);

    let wider = csi.expand(&id, target, size + GIB / 4).unwrap();
    assert_eq!(wider, size + GIB / 4);
    assert!(csi.stats(&id, target).unwrap().usage[0].total > total);

    kill_switch(&site, &id, target);

    // The driver is killed; what it opened stays, and the next one takes it over.
    site.driver.kill();
    read_marker(target);
    let (driver, csi) = start_driver(&site.server, &loop_files(&site.volumes));
    (site.driver, site.csi) = (driver, csi);
    site.csi.stage(&id, staging, "ext4").unwrap();
    site.csi.unpublish(&id, target).unwrap();
    site.csi.unpublish(&id, target).unwrap();
    site.csi.unstage(&id, staging).unwrap();
    site.csi.unstage(&id, staging).unwrap();
    assert!(!target.exists());
    stale_mapper(&site, &id, staging);
    headers(&site, &id, staging);
    wrong_key(&site, &key, &id, staging);

    // And a reboot with the volume in use.
    site.csi.stage(&id, staging, "ext4").unwrap();
    site.csi.publish(&id, staging, target).unwrap();
    read_marker(target);
    fs::write(folder.join("id"), &id).unwrap();
    assert!(Command::new("sync").status().unwrap().success());
    site.driver.kill();
    site.server.process.stop();
    copy(Path::new(DATA), &folder.join(KEPT));
}

fn copy(from: &Path, to: &Path) {
    output(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// That of the documentation, where the disk has room for it.
fn size_of_claim(folder: &Path) -> i64 {
    if room(folder) > 24 << 30 { 20 * GIB } else { GIB / 2 }
}

/// What the disk of the host has left, in bytes.
pub(super) fn room(folder: &Path) -> u64 {
    let told = rustix::fs::statvfs(folder).unwrap();
    told.f_bavail * told.f_frsize
}

fn kill_switch(site: &Site, id: &str, target: &Path) {
    let disable = |verb: &str| site.server.cli(&format!("key {verb} alias/{FOREIGN_KEY}")).ok();
    disable("disable");
    println!("frozen after {:?}", site.wait(id, target, true));
    // The kernel has no key any more: a table that is asked for secrets shows none.
    let table = dmsetup(&["table", "--showkeys", id]);
    assert!(!table.contains("logon"), "{table}");
    let info = dmsetup(&["info", "-c", "--noheadings", "-o", "suspended", id]);
    assert!(info.trim().eq_ignore_ascii_case("suspended"), "{info}");
    disable("enable");
    println!("goes on after {:?}", site.wait(id, target, false));
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    read_marker(target);
}

/// A mapping of the volume's name over another device is closed, never used.
fn stale_mapper(site: &Site, id: &str, staging: &Path) {
    let other = Path::new("/mnt/other");
    File::create(other).unwrap().set_len(64 << 20).unwrap();
    let device = output(Command::new("losetup").args(["-f", "--show"]).arg(other));
    let table = format!("0 2048 linear {} 0", device.trim());
    dmsetup(&["create", id, "--table", &table]);
    site.csi.stage(id, staging, "ext4").unwrap();
    read_marker(staging);
    site.csi.unstage(id, staging).unwrap();
    output(Command::new("losetup").args(["-d", device.trim()]));
    let zeros = fs::read(other).unwrap();
    assert!(zeros.iter().all(|byte| *byte == 0), "somebody wrote to a stranger's device");
}

/// One damaged copy of the header is mended; with both gone, nothing is written.
fn headers(site: &Site, id: &str, staging: &Path) {
    let file = File::options().read(true).write(true).open(site.data(id)).unwrap();
    let mut copies = vec![0; 32_768];
    for at in [0, 16_384] {
        file.read_exact_at(&mut copies, 0).unwrap();
        file.write_all_at(&[0xAA; 4_096], at).unwrap();
        file.sync_all().unwrap();
        site.csi.stage(id, staging, "ext4").unwrap();
        read_marker(staging);
        site.csi.unstage(id, staging).unwrap();
        let whole = Command::new("cryptsetup").arg("luksDump").arg(site.data(id)).output().unwrap();
        assert!(String::from_utf8_lossy(&whole.stdout).contains("lastkey"), "{whole:?}");
    }
    file.read_exact_at(&mut copies, 0).unwrap();
    for gone in [vec![0; 32_768], vec![0xAA; 32_768]] {
        file.write_all_at(&gone, 0).unwrap();
        file.sync_all().unwrap();
        let refused = site.csi.stage(id, staging, "ext4");
        assert_eq!(code(refused), Code::FailedPrecondition);
        site.csi.unstage(id, staging).unwrap();
        let mut found = vec![0; 32_768];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == gone, "a lost header was written over");
    }
    file.write_all_at(&copies, 0).unwrap();
    file.sync_all().unwrap();
}

/// A key that is disabled, and a key service that is away, open nothing and break nothing.
fn wrong_key(site: &Site, key: &str, id: &str, staging: &Path) {
    site.server.cli(&format!("key disable {key}")).ok();
    assert_eq!(code(site.csi.stage(id, staging, "ext4")), Code::FailedPrecondition);
    site.server.cli(&format!("key enable {key}")).ok();
    assert_eq!(code(site.csi.stage(id, staging, "xfs")), Code::FailedPrecondition);
    assert_eq!(code(site.csi.stage("lkv-none", staging, "ext4")), Code::NotFound);
    site.csi.unstage(id, staging).unwrap();
}

pub(super) fn second(folder: &Path) {
    let site = Site::start(folder);
    let csi = &site.csi;
    let id = fs::read_to_string(folder.join("id")).unwrap();
    let (staging, target) = (Path::new("/mnt/staging"), Path::new("/mnt/pod/mount"));
    // Kubelet unmounts what it remembers, before it mounts.
    csi.unpublish(&id, target).unwrap();
    csi.unstage(&id, staging).unwrap();
    csi.stage(&id, staging, "ext4").unwrap();
    csi.publish(&id, staging, target).unwrap();
    read_marker(target);
    csi.unpublish(&id, target).unwrap();
    csi.unstage(&id, staging).unwrap();

    csi.delete(&id).unwrap();
    csi.delete(&id).unwrap();
    assert!(!site.data(&id).exists());
    let lineage = site.server.cli(&format!("key show alias/lastkey-volume/{id} --output json"));
    assert!(lineage.json()["deletion"].is_object(), "the lineage's key is to be destroyed");

    // XFS as well.
    let class = [("kmsKeyId", FOREIGN_KEY)];
    let xfs = csi.create("xfs", 320 << 20, &class).unwrap();
    csi.stage(&xfs, staging, "xfs").unwrap();
    write_marker(staging);
    csi.unstage(&xfs, staging).unwrap();
    csi.stage(&xfs, staging, "xfs").unwrap();
    read_marker(staging);
    csi.unstage(&xfs, staging).unwrap();
}

pub(super) fn sanity(folder: &Path) {
    let site = Site::start(folder);
    site.server.create(r#"{"alias": "alias/volumes"}"#);
    let mut sanity = Command::new(folder.join("csi-sanity"));
    sanity.args(["-csi.endpoint", "unix:///run/lastkey/csi.sock"]);
    sanity.args(["-csi.mountdir", "/mnt/sanity/mount", "-csi.stagingdir", "/mnt/sanity/staging"]);
    sanity.args(["-csi.testvolumesize", "33554432", "-csi.testvolumeexpandsize", "67108864"]);
    sanity.arg("-ginkgo.no-color");
    fs::create_dir_all("/mnt/sanity").unwrap();
    let done = sanity.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let tail: Vec<&str> = said.lines().rev().take(40).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    println!("{}", tail.join("\n"));
    assert!(done.status.success(), "{said}\n{}", site.driver.complaint());
}

pub(super) fn write_marker(at: &Path) {
    let file = File::create(at.join("file")).unwrap();
    file.write_all_at(&MARKER.repeat(1_000), 0).unwrap();
    file.sync_all().unwrap();
}

#[track_caller]
pub(super) fn read_marker(at: &Path) {
    assert!(fs::read(at.join("file")).unwrap() == MARKER.repeat(1_000));
}

/// The table names a key of the keyring, and nothing of the key itself is told to root.
fn no_key_in_tables(id: &str) {
    let table = dmsetup(&["table", "--showkeys", id]);
    assert!(table.contains(":64:logon:lastkey:"), "{table}");
    assert!(table.contains("sector_size:4096"), "{table}");
    let longest = table.split([' ', ':']).map(str::len).max().unwrap();
    assert!(longest < 64, "{table}");
}

pub(super) fn dmsetup(arguments: &[&str]) -> String {
    output(Command::new("dmsetup").args(arguments).env("DM_DISABLE_UDEV", "1"))
}

#[track_caller]
pub(super) fn output(command: &mut Command) -> String {
    run(command, b"").ok()
}
