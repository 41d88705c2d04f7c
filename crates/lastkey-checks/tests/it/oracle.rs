//! Another implementation as a judge: Python writes the scan pack of the vectors and finds in
//! their texts what stands there.
//!
//! Room      `checks`, tests.
//! Holds     Without Python the test says SKIPPED on the terminal; it never passes in silence.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::Command,
};

#[test]
fn python_writes_the_scan_pack_of_the_vectors_again_to_the_byte() {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let line = "\nSKIPPED python_writes_the_scan_pack_of_the_vectors_again_to_the_byte: needs \
                    python3 with the PyPI package `cryptography`\n";
        io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scan_pack.json");
    let script = room.join("../../tests/python/scan_pack.py");
    let run =
        Command::new("python3").arg("-B").arg(script).arg("make").arg(&made).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let ours = fs::read(room.join("tests/vectors/scan_pack.json")).unwrap();
    assert!(fs::read(made).unwrap() == ours, "Python writes another vector");
}
