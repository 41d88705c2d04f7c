//! Another implementation as a judge: Python opens what this room seals.
//!
//! Room      `trust`, tests.
//! Holds     Without Python the test says SKIPPED on the terminal; it never passes in silence.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use crate::vectors::vectors_path;

#[test]
fn python_reader_agrees_on_the_sessions() {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let line = "\nSKIPPED python_reader_agrees_on_the_sessions: needs python3 with the PyPI \
                    package `cryptography`\n";
        io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/open_session.py");
    let run = Command::new("python3").arg("-B").arg(script).arg(vectors_path()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(String::from_utf8_lossy(&run.stdout).contains("33 credentials agree"));
}
