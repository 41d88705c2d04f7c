//! Approvals as they were written once, and as another implementation reads them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lastkey_connect::seal::tpm::{Approval, State};

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(vector(name)).unwrap()
}

#[test]
fn what_was_written_by_version_1_is_read_and_written_again_to_the_byte() {
    let approval = Approval::parse(&read("approval.json")).unwrap();
    assert_eq!(approval.to_json(), read("approval.json").trim_end());
    let state = State::parse(&read("state.json")).unwrap();
    assert_eq!(state.to_json(), read("state.json").trim_end());
    assert_eq!(approval.anchor(), state.anchor());
}

#[test]
fn python_reader_agrees_on_approvals() {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let line = "\nSKIPPED python_reader_agrees_on_approvals: needs python3 with the PyPI \
                    package `cryptography`\n";
        io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/check_approval.py");
    let judge = |path: &Path| -> Output {
        Command::new("python3").arg("-B").arg(&script).arg(path).output().unwrap()
    };
    let good = judge(&vector("approval.json"));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let folder = tempfile::tempdir().unwrap();
    let changed = folder.path().join("changed.json");
    let text = read("approval.json").replace("\"version\": 1", "\"version\": 2");
    std::fs::write(&changed, &text).unwrap();
    let bad = judge(&changed);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("does not hold"), "{bad:?}");
    assert!(Approval::parse(&text).is_err());
}
