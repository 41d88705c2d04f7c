//! Another implementation as a judge: Python opens what this room seals.
//!
//! Room      `trust`, tests.
//! Holds     Without Python the test says SKIPPED on the terminal; it never passes in silence.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use crate::attestation::vector_path;
use crate::vectors::vectors_path;

#[test]
fn python_reader_agrees_on_the_sessions() {
    let said = read_by("open_session.py", "python_reader_agrees_on_the_sessions", &vectors_path());
    assert!(said.is_none_or(|said| said.contains("33 credentials agree")));
}

#[test]
fn python_reader_agrees_on_what_a_tpm_says() {
    let said =
        read_by("check_attestation.py", "python_reader_agrees_on_what_a_tpm_says", &vector_path());
    assert!(said.is_none_or(|said| said.contains("the evidence holds, 4 changed ones do not")));
}

/// What a script says to a file of vectors; `None`, and said aloud, without Python.
fn read_by(script: &str, test: &str, vectors: &Path) -> Option<String> {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let line =
            format!("\nSKIPPED {test}: needs python3 with the PyPI package `cryptography`\n");
        io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python").join(script);
    let run = Command::new("python3").arg("-B").arg(script).arg(vectors).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    Some(String::from_utf8_lossy(&run.stdout).into_owned())
}
