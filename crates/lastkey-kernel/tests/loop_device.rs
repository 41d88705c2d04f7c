//! Loop devices of this machine. Without root, or where the kernel gives none, the tests say SKIPPED.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use lastkey_kernel::loop_device::{Orphan, attach, find, orphans, release};

/// Lets go of a device, also when a test fails.
struct Device(PathBuf);

impl Drop for Device {
    fn drop(&mut self) {
        let _ = release(&self.0);
    }
}

fn attached(file: &Path, test: &str) -> Option<Device> {
    let made = File::create(file).and_then(|file| file.set_len(1 << 20));
    match made.and_then(|()| attach(file)) {
        Ok(device) => Some(Device(device)),
        Err(error) => {
            // Straight to the terminal: the harness keeps what the print macros say.
            let said = format!("\nSKIPPED {test}: no loop device ({error})\n");
            drop(std::io::stderr().write_all(said.as_bytes()));
            None
        }
    }
}

/// What the kernel calls the file is the path of whoever attached it: in a container that is gone it is
/// another one than ours.
#[test]
fn file_has_one_device_whatever_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let Some(device) = attached(&one, "file_has_one_device_whatever_it_is_called") else { return };
    fs::hard_link(&one, &two).unwrap();
    assert_eq!(find(&two).unwrap().as_ref(), Some(&device.0));
    assert_eq!(attach(&two).unwrap(), device.0);
    let other = folder.path().join("other");
    fs::copy(&one, &other).unwrap();
    assert_eq!(find(&other).unwrap(), None);
}

#[test]
fn device_whose_file_was_deleted_is_an_orphan() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let Some(device) = attached(&file, "device_whose_file_was_deleted_is_an_orphan") else {
        return;
    };
    let of_this = |orphan: &Orphan| orphan.device == device.0;
    assert!(!orphans().unwrap().iter().any(of_this));
    fs::remove_file(&file).unwrap();
    let orphan = orphans().unwrap().into_iter().find(of_this).unwrap();
    assert_eq!(orphan.file, file);
    let listed = fs::read_to_string(
        device
            .0
            .strip_prefix("/dev")
            .map(|name| Path::new("/sys/block").join(name).join("dev"))
            .unwrap(),
    );
    assert_eq!(orphan.number.to_string(), listed.unwrap().trim());
}
