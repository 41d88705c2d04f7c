//! User-mode Linux that runs a part of this test program over the files of the host.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// In the order in which they load.
const MODULES: [&str; 16] = [
    "gf128mul",
    "ecb",
    "cbc",
    "hmac",
    "encrypted-keys",
    "dm-mod",
    "dm-bufio",
    "async_tx",
    "async_xor",
    "dm-crypt",
    "xts",
    "loop",
    "dm-bio-prison",
    "dm-persistent-data",
    "dm-thin-pool",
    "dm-snapshot",
];
const MODULES_FOLDER: &str = "/usr/lib/uml/modules";
/// `thin_check` lies where a folder of `sbin` is looked into.
const TOOLS: [&str; 7] =
    ["linux.uml", "busybox", "cryptsetup", "mkfs.ext4", "mkfs.xfs", "lvm", "thin_check"];
/// Said by a scenario that came to its end.
const PASSED: &str = "GUEST PASSED";
const SCENARIO: &str = "LASTKEY_TEST_GUEST";

/// The host's files are the guest's; what is mounted, and `/run` and `/mnt`, are its own.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module || echo "cannot load $module"; done
mount -t hostfs none /host -o /
mount -t proc proc /host/proc
mount -t sysfs sys /host/sys
mount --bind /dev /host/dev
mkdir -p /host/dev/shm
mount -t tmpfs tmp /host/dev/shm
mount -t tmpfs tmp /host/run
mount -t tmpfs tmp /host/mnt
mkdir -p /host/run/cryptsetup
ip link set lo up
chroot /host /bin/sh "$(sed 's/.*script=\([^ ]*\).*/\1/' /proc/cmdline)"
sync
poweroff -f
"#;

/// A machine that can be booted.
pub(super) struct Guest {
    folder: tempfile::TempDir,
    initrd: PathBuf,
}

impl Guest {
    /// None without user-mode Linux, or another user than root: which is then said.
    pub(super) fn set(test: &str) -> Option<Self> {
        for tool in TOOLS {
            let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
            if !found.is_ok_and(|found| found.status.success()) {
                skip(test, &format!("{tool} is missing (scripts/setup)"));
                return None;
            }
        }
        if !rustix::process::geteuid().is_root() {
            skip(test, "needs root, whose files the guest uses");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let initrd = folder.path().join("initrd");
        make_initrd(folder.path(), &initrd);
        Some(Self { folder, initrd })
    }

    /// What the host and all boots share.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Boots, runs a scenario of `inside`, and expects it to pass.
    #[track_caller]
    pub(super) fn run(&self, scenario: &str) {
        let script = self.folder().join("script");
        let program = std::env::current_exe().unwrap();
        let text = format!(
            "export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/mnt\n\
             export {SCENARIO}={scenario}:{}\n\
             {} volumes::inside --exact --include-ignored --nocapture --test-threads 1 && echo {PASSED}\n",
            self.folder().display(),
            program.display()
        );
        fs::write(&script, text).unwrap();
        let name = format!("lastkey-{}-{scenario}", std::process::id());
        let mut linux = Command::new("linux.uml");
        linux.arg("mem=768M").arg(format!("initrd={}", self.initrd.display()));
        linux.args(["con=null", "con0=fd:0,fd:1", "rdinit=/init", "quiet"]);
        linux.arg(format!("umid={name}")).arg(format!("script={}", script.display()));
        linux.env("TMPDIR", self.memory_folder()).stdin(Stdio::null());
        let said = linux.output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout);
        assert!(said.contains(PASSED), "{scenario}:\n{said}");
        print!("{said}");
    }
}

impl Guest {
    /// Where the file lies that is the guest's memory: in memory when there is enough.
    fn memory_folder(&self) -> PathBuf {
        let told = rustix::fs::statvfs("/dev/shm");
        let is_wide = told.is_ok_and(|told| told.f_bavail * told.f_frsize > 1 << 30);
        if is_wide { PathBuf::from("/dev/shm") } else { self.folder().to_owned() }
    }
}

/// The scenario of this process, and the folder: none on a host.
pub(super) fn scenario() -> Option<(String, PathBuf)> {
    let value = std::env::var(SCENARIO).ok()?;
    let (scenario, folder) = value.split_once(':')?;
    Some((scenario.to_owned(), PathBuf::from(folder)))
}

/// Straight to the terminal: the harness keeps what the print macros say.
pub(super) fn skip(test: &str, reason: &str) {
    std::io::stderr().write_all(format!("\nSKIPPED {test}: {reason}\n").as_bytes()).unwrap();
}

fn make_initrd(folder: &Path, initrd: &Path) {
    let root = folder.join("root");
    for name in ["bin", "modules", "host", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let busybox =
        ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.unwrap(), root.join("bin/busybox")).unwrap();
    for (order, module) in MODULES.iter().enumerate() {
        let found = find(Path::new(MODULES_FOLDER), &format!("{module}.ko"));
        let found = found.unwrap_or_else(|| panic!("no module {module}"));
        fs::copy(found, root.join(format!("modules/{order:02}-{module}.ko"))).unwrap();
    }
    fs::write(root.join("init"), INIT).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    let packed = Command::new("sh")
        .args(["-c", "find . | busybox cpio -o -H newc > \"$0\""])
        .arg(initrd)
        .current_dir(&root)
        .output();
    assert!(packed.unwrap().status.success());
    fs::remove_dir_all(root).unwrap();
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if path.file_name()? == name {
            return Some(path);
        }
    }
    None
}
