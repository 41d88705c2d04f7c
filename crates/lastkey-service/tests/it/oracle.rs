//! Another implementation as a judge: Python opens what this room keeps.
//!
//! Room      `service`, tests.
//! Holds     Without Python the test says SKIPPED on the terminal; it never passes in silence.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

#[test]
fn python_reader_agrees_on_the_values_of_secrets() {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let line = "\nSKIPPED python_reader_agrees_on_the_values_of_secrets: needs python3 with the \
                    PyPI package `cryptography`\n";
        io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = room.join("../../tests/python/open_secret.py");
    let vectors = room.join("tests/vectors/secret.json");
    let run = Command::new("python3").arg("-B").arg(script).arg(vectors).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(String::from_utf8_lossy(&run.stdout).contains("10 vectors agree"));
}
