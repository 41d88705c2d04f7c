//! Files: encrypted, decrypted, verified, and what is left when that goes wrong.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};

use super::house::{House, ended};

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

fn with_key() -> House {
    let house = House::open();
    house.ok("key create --alias alias/app");
    house
}

#[test]
fn file_comes_back_after_a_rotation() {
    let house = with_key();
    house.write("FILE", content(1_000_000));
    house.ok("encrypt --key alias/app FILE -o FILE.lk");
    house.ok("key rotate alias/app");
    house.ok("encrypt --key alias/app FILE -o FILE2.lk");
    for name in ["FILE.lk", "FILE2.lk"] {
        house.ok(&format!("decrypt {name} -o OUT --force"));
        assert!(house.read("OUT") == house.read("FILE"), "{name}");
        house.ok(&format!("verify {name}"));
    }
    let version =
        |name: &str| house.json(&format!("inspect {name}"))["recipients"][0]["version"].clone();
    assert_eq!((version("FILE.lk"), version("FILE2.lk")), (1.into(), 2.into()));
}

#[test]
fn pipe_comes_back_through_standard_input_and_output() {
    let house = with_key();
    for plaintext in [content(0), content(1), content(700_000)] {
        let (done, envelope) = house.pipe("encrypt --key alias/app", &plaintext);
        assert_eq!(done.code, 0, "{}", done.err);
        let (done, opened) = house.pipe("decrypt", &envelope);
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(opened == plaintext);
        let (done, opened) = house.pipe("decrypt - -o -", &envelope);
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(opened == plaintext);
    }
}

#[test]
fn output_has_the_permissions_of_the_input() {
    let house = with_key();
    house.write("FILE", "text");
    fs::set_permissions(house.path("FILE"), fs::Permissions::from_mode(0o640)).unwrap();
    house.ok("encrypt --key alias/app FILE -o FILE.lk");
    house.ok("decrypt FILE.lk -o OUT");
    house.pipe("encrypt --key alias/app -o PIPE.lk", b"text");
    let mode = |name| fs::metadata(house.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("FILE.lk"), mode("OUT"), mode("PIPE.lk")), (0o640, 0o640, 0o600));
}

#[test]
fn context_is_kept_in_the_file_and_compared_on_demand() {
    let house = with_key();
    house.write("FILE", "text");
    house.ok("encrypt --key alias/app --context app=web --context env=prod FILE -o FILE.lk");
    assert_eq!(house.json("inspect FILE.lk")["context"]["env"], "prod");
    assert_eq!(house.ok("decrypt FILE.lk"), "text");
    assert_eq!(house.ok("decrypt FILE.lk --context env=prod --context app=web"), "text");
    assert_eq!(house.run("decrypt FILE.lk --context app=web").code, 5);
}

#[test]
fn damaged_file_leaves_no_output() {
    let house = with_key();
    house.write("FILE", content(600_000));
    house.ok("encrypt --key alias/app FILE -o FILE.lk");
    let whole = house.read("FILE.lk");
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut header = whole.clone();
    *header.get_mut(70).unwrap() ^= 1;
    let truncated = whole.get(..whole.len() - 1).unwrap().to_vec();
    let segment_gone = whole.get(..2_560 + 262_160).unwrap().to_vec();
    let appended = [whole, b"x".to_vec()].concat();
    for damaged in [flipped, header, truncated, segment_gone, appended, Vec::new()] {
        house.write("BAD.lk", &damaged);
        let done = house.run("decrypt BAD.lk -o OUT");
        assert_eq!(done.code, 5, "{done:?}");
        assert_eq!(house.run("verify BAD.lk").code, 5);
        assert_eq!(house.names(), ["BAD.lk", "FILE", "FILE.lk"]);
    }
}

#[test]
fn existing_output_is_replaced_only_by_force() {
    let house = with_key();
    house.write("FILE", "text");
    house.write("FILE.lk", "mine");
    let done = house.run("encrypt --key alias/app FILE -o FILE.lk");
    assert_eq!(done.code, 7);
    assert!(done.err.contains("--force"), "{}", done.err);
    assert_eq!(house.read("FILE.lk"), b"mine");
    house.ok("encrypt --key alias/app FILE -o FILE.lk --force");
    assert_eq!(house.ok("decrypt FILE.lk"), "text");
}

#[test]
fn interrupted_encryption_leaves_nothing() {
    let house = with_key();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = house
            .command("encrypt --key alias/app -o OUT.lk")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&content(700_000)).unwrap();
        // The pipe holds 64 KiB: when so much was taken, the file is there, without a name where
        // the file system allows that.
        assert!(house.names().iter().all(|name| name.ends_with(".lastkey-tmp")));
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(house.names(), Vec::<String>::new());
    }
}

#[test]
fn interrupted_wait_for_input_ends_the_command() {
    let house = with_key();
    for line in ["blob decrypt -o OUT", "encrypt --key alias/app"] {
        let mut command = house.command(line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than a pipe holds: when it was taken, the command waits for the rest.
        stdin.write_all(&content(700_000)).unwrap();
        // Not by INT: a shell that runs the tests in the background has its children ignore that.
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(!child.wait().unwrap().success(), "{line}");
        assert_eq!(house.names(), Vec::<String>::new());
    }
}

#[test]
fn closed_output_ends_quietly() {
    let house = with_key();
    let mut child = house
        .command("decrypt")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (_, envelope) = house.pipe("encrypt --key alias/app", &content(1_000_000));
    drop(child.stdout.take());
    // The command may be gone before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(&envelope);
    let done = ended(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.err.as_str()), (141, ""));
}

#[test]
fn decryption_to_a_pipe_gives_a_prefix_and_a_failure_when_the_end_is_missing() {
    let house = with_key();
    let plaintext = content(600_000);
    let (_, envelope) = house.pipe("encrypt --key alias/app", &plaintext);
    let (done, opened) = house.pipe("decrypt", envelope.get(..envelope.len() - 1).unwrap());
    assert_eq!(done.code, 5);
    assert!(opened.len() < plaintext.len() && plaintext.starts_with(&opened));
}

#[test]
fn device_is_written_in_place() {
    let house = with_key();
    house.write("FILE", "text");
    house.ok("encrypt --key alias/app FILE -o /dev/null");
    let mut one = [0];
    assert_eq!(fs::File::open("/dev/null").unwrap().read(&mut one).unwrap(), 0);
}

#[test]
fn inspection_needs_no_server() {
    let house = with_key();
    house.write("FILE", "text");
    house.ok("encrypt --key alias/app FILE -o FILE.lk");
    let done = ended(house.command("inspect FILE.lk").env_clear().output().unwrap());
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("version 1"), "{}", done.out);
}
