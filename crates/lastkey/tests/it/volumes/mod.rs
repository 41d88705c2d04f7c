//! Encrypted volumes as a kubelet sees them: the driver in user-mode Linux, with the device mapper,
//! loop devices, file systems and reboots of a real kernel.
//!
//! Holds     Without `linux.uml` each test says SKIPPED on the terminal.

mod back_ends;
mod client;
mod guest;
mod keys;
mod life;
mod numbers;
mod workload;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

use self::guest::Guest;
use self::life::MARKER;
use crate::process::go_build_package;

/// With it, what only a quiet machine can tell is measured.
const MEASURE: &str = "LASTKEY_MEASURE";

/// The class and claim of the vendor's documentation, a pod that writes, a key that is disabled, a
/// driver that is killed, a header that is damaged, and a reboot with the volume mounted.
#[test]
#[ignore = "heavy: boots user-mode Linux twice"]
fn volumes_hold_ciphertext_obey_their_key_and_outlive_a_reboot() {
    let test = "volumes_hold_ciphertext_obey_their_key_and_outlive_a_reboot";
    let Some(guest) = Guest::set(test) else { return };
    guest.run("first");
    let written = guest.folder().join("volumes");
    assert!(!holds(&written, MARKER), "the marker is in a file below {}", written.display());
    guest.run("second");
}

/// Rotations, new data keys, reports, escrow, the proof of an erasure, inline volumes.
#[test]
#[ignore = "heavy: boots user-mode Linux"]
fn volumes_follow_their_keys_and_come_back_from_escrow() {
    let Some(guest) = Guest::set("volumes_follow_their_keys_and_come_back_from_escrow") else {
        return;
    };
    guest.run("keys");
    let written = guest.folder().join("volumes");
    assert!(!holds(&written, MARKER), "the marker is in a file below {}", written.display());
}

/// Volumes that open by the tokens of pods alone, a driver whose container is replaced while they are
/// open, and mappings that nothing remembers.
#[test]
#[ignore = "heavy: boots user-mode Linux"]
fn volumes_open_for_pods_by_their_tokens_and_zombies_are_closed() {
    let Some(guest) = Guest::set("volumes_open_for_pods_by_their_tokens_and_zombies_are_closed")
    else {
        return;
    };
    guest.run("workload");
    let written = guest.folder().join("volumes");
    assert!(!holds(&written, MARKER), "the marker is in a file below {}", written.display());
}

/// What the driver costs beside the same volume under cryptsetup, on a machine that is quiet.
#[test]
#[ignore = "heavy: boots user-mode Linux and measures"]
fn volumes_cost_little_beside_cryptsetup() {
    if std::env::var_os(MEASURE).is_none() {
        let reason = format!("measures: set {MEASURE}=1 on a machine that does nothing else");
        guest::skip("volumes_cost_little_beside_cryptsetup", &reason);
        return;
    }
    let Some(guest) = Guest::set("volumes_cost_little_beside_cryptsetup") else { return };
    guest.run("numbers");
}

/// Logical volumes, thick and thin, and whole devices.
#[test]
#[ignore = "heavy: boots user-mode Linux"]
fn volumes_lie_on_logical_volumes_and_whole_devices() {
    let Some(guest) = Guest::set("volumes_lie_on_logical_volumes_and_whole_devices") else {
        return;
    };
    guest.run("back-ends");
}

/// The public conformance suite, whole.
#[test]
#[ignore = "heavy: builds csi-sanity and boots user-mode Linux"]
fn csi_sanity_passes() {
    let Some(guest) = Guest::set("csi_sanity_passes") else { return };
    let tool = Path::new(env!("CARGO_TARGET_TMPDIR")).join("csi-sanity");
    let package = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity";
    if let Err(reason) = go_build_package("tests/csi", package, &tool) {
        guest::skip("csi_sanity_passes", &reason);
        return;
    }
    fs::copy(&tool, guest.folder().join("csi-sanity")).unwrap();
    guest.run("sanity");
}

/// What the tests above run inside the guest; nothing on a host.
#[test]
#[ignore = "heavy: a part of other tests"]
fn inside() {
    let Some((scenario, folder)) = guest::scenario() else { return };
    match scenario.as_str() {
        "first" => life::first(&folder),
        "second" => life::second(&folder),
        "keys" => keys::follow(&folder),
        "workload" => workload::all(&folder),
        "numbers" => numbers::print(&folder),
        "back-ends" => back_ends::all(&folder),
        "sanity" => life::sanity(&folder),
        other => panic!("no scenario {other}"),
    }
}

/// Whether some file below a folder holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        file_holds(&path, bytes)
    })
}

/// Reads the parts of a sparse file that are there.
fn file_holds(path: &Path, bytes: &[u8]) -> bool {
    let file = File::open(path).unwrap();
    let mut at = 0;
    let mut part = vec![0; 4 << 20];
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        let len = file.read_at(&mut part, data).unwrap();
        if part[..len].windows(bytes.len()).any(|window| window == bytes) {
            return true;
        }
        // The next part begins so that nothing is cut in two.
        at = data + u64::try_from(len.saturating_sub(bytes.len()).max(1)).unwrap();
    }
    false
}

#[test]
fn marker_is_found_wherever_it_lies_in_a_sparse_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 30).unwrap();
    assert!(!file_holds(file.path(), MARKER));
    let edge = (512 << 20) + (4 << 20) - 10;
    file.as_file().write_all_at(&[1; 4 << 20], 512 << 20).unwrap();
    file.as_file().write_all_at(MARKER, edge).unwrap();
    assert!(file_holds(file.path(), MARKER));
}
