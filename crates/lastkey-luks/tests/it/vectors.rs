//! The format of docs/formats/luks2-token.md: vectors, and Python as the second reader.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use lastkey_crypto::digest::sha256;
use lastkey_luks::{DATA_OFFSET, Error, Format, Header, VolumeKey};
use serde_json::{Value, json};

use crate::media::{Memory, Noise, secret, token};

fn vectors() -> (PathBuf, Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/token.json");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, serde_json::from_str(&text).unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The container of the vectors, and its volume key, from randomness that repeats.
fn container() -> (Memory, VolumeKey) {
    let memory = Memory::new(17 << 20);
    let format = Format { label: "volume", subsystem: "lastkey", sector_size: 4_096 };
    let mut noise = Noise(b"vector", 0);
    let (_, key) = Header::format(&memory, format, &secret(1), token, &mut noise).unwrap();
    (memory, key)
}

/// The same as it was written before devices had marks: key slots could lie up to the data.
fn container_before_marks() -> Memory {
    let (memory, _) = container();
    for copy in memory.bytes.borrow_mut()[..32_768].chunks_mut(16_384) {
        let (now, before) = (b"\"16740352\"", b"\"16744448\"");
        let at = copy.windows(now.len()).position(|text| text == now).unwrap();
        copy[at..at + before.len()].copy_from_slice(before);
        copy[448..512].fill(0);
        let sum = sha256(copy);
        copy[448..480].copy_from_slice(&sum);
    }
    memory
}

#[track_caller]
fn assert_is(memory: &Memory, key: &VolumeKey, vector: &str) {
    let bytes = memory.bytes.borrow();
    let data = usize::try_from(DATA_OFFSET).unwrap();
    let (_, vectors) = vectors();
    let expected = &vectors[vector];
    assert_eq!(expected["volume_key_sha256"], hex(&key.expose(sha256)));
    assert_eq!(expected["copy_sha256"], hex(&sha256(&bytes[..16_384])));
    assert_eq!(expected["header_sha256"], hex(&sha256(&bytes[..data])));
    assert!(bytes[data..].iter().all(|byte| *byte == 0), "the data is not touched");
}

/// The whole container, to the byte.
#[test]
fn containers_are_written_as_ever() {
    let (memory, key) = container();
    assert_is(&memory, &key, "container");
}

#[test]
fn containers_from_before_marks_are_read_and_changed() {
    let memory = container_before_marks();
    let mut header = Header::read(&memory).unwrap().unwrap();
    let key = header.open(&memory, &[], &secret(1)).unwrap();
    assert_is(&memory, &key, "container_before_marks");
    let slot = header.add_slot(&memory, &key, &secret(2), &mut Noise(b"slot", 0)).unwrap();
    header.store(&memory).unwrap();
    let again = Header::read(&memory).unwrap().unwrap();
    for (slots, data_key) in [(vec![slot], secret(2)), (Vec::new(), secret(1))] {
        assert!(again.open(&memory, &slots, &data_key).unwrap().ct_eq(&key));
    }
}

/// A header that holds the token of a vector.
fn with_token(json: &str) -> Result<Header, Error> {
    let token = serde_json::from_str(json).unwrap();
    changed(|metadata| metadata["tokens"]["0"] = token).1
}

/// A medium whose header somebody changed without any key, and what is read of it.
fn changed(change: impl FnOnce(&mut Value)) -> (Memory, Result<Header, Error>) {
    let memory = Memory::new(17 << 20);
    let format = Format { label: "", subsystem: "", sector_size: 4_096 };
    Header::format(&memory, format, &secret(1), token, &mut Noise(b"token", 0)).unwrap();
    let copy = memory.bytes.borrow()[..16_384].to_vec();
    let text = copy[4_096..].split(|byte| *byte == 0).next().unwrap().to_vec();
    let mut metadata: Value = serde_json::from_slice(&text).unwrap();
    change(&mut metadata);
    let text = serde_json::to_vec(&metadata).unwrap();
    for (place, magic) in [(0, &b"LUKS\xba\xbe"[..]), (16_384, &b"SKUL\xba\xbe"[..])] {
        let mut copy = copy.clone();
        copy[..6].copy_from_slice(magic);
        copy[256..264].copy_from_slice(&u64::try_from(place).unwrap().to_be_bytes());
        copy[4_096..].fill(0);
        copy[4_096..4_096 + text.len()].copy_from_slice(&text);
        copy[448..512].fill(0);
        let sum = sha256(&copy);
        copy[448..480].copy_from_slice(&sum);
        memory.bytes.borrow_mut()[place..place + copy.len()].copy_from_slice(&copy);
    }
    let header = Header::read(&memory).map(Option::unwrap);
    (memory, header)
}

/// Nothing covers the segment: who writes to the disk may say anything there, and the key slot still
/// opens.
#[test]
fn segments_that_would_weaken_the_encryption_are_refused() {
    let (memory, header) = changed(|_| {});
    header.unwrap().open(&memory, &[], &secret(1)).unwrap();
    for (field, value) in [
        ("encryption", json!("cipher_null-ecb")),
        ("encryption", json!("cipher_null-ecb - 0 7:3 32768\u{0}")),
        ("encryption", json!("aes-xts-plain64 ")),
        ("encryption", json!("aes-ecb")),
        ("encryption", json!("")),
        ("encryption", json!(null)),
        ("iv_tweak", json!("8")),
        ("iv_tweak", json!("-8")),
        ("sector_size", json!(0)),
        ("sector_size", json!(8_192)),
        ("offset", json!("0")),
        ("offset", json!("16777728")),
        ("size", json!("4097")),
    ] {
        let (memory, header) = changed(|metadata| metadata["segments"]["0"][field] = value.clone());
        let opened = header.unwrap().open(&memory, &[], &secret(1));
        assert!(matches!(opened, Err(Error::Unsupported(_))), "{field} {value}");
    }
}

#[test]
fn tokens_of_the_vectors_are_read_or_refused() {
    let (_, vectors) = vectors();
    for good in vectors["good"].as_array().unwrap() {
        let header = with_token(&good["token"].to_string()).unwrap();
        let tokens = header.tokens().unwrap();
        assert_eq!(tokens.len(), 1, "{}", good["name"]);
        let mut again = header.clone();
        again.put_token(Some(0), &tokens[0].1).unwrap();
        assert_eq!(again.tokens().unwrap(), tokens);
    }
    for bad in vectors["refused"].as_array().unwrap() {
        let header = with_token(&bad["token"].to_string()).unwrap();
        assert!(matches!(header.tokens(), Err(Error::Unsupported(_))), "{}", bad["name"]);
    }
}

#[test]
fn python_reads_the_token_and_opens_the_slot() {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let said = b"\nSKIPPED python_reads_the_token_and_opens_the_slot: needs python3 with the \
                     PyPI package `cryptography` (scripts/setup)\n";
        std::io::stderr().write_all(said).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/open_luks2.py");
    for memory in [container().0, container_before_marks()] {
        std::fs::write(&image, &*memory.bytes.borrow()).unwrap();
        let mut python = Command::new("python3");
        let read = python.arg("-B").args([&script, &image, &vectors().0]).output().unwrap();
        let complaint = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success(), "{complaint}");
        let said = String::from_utf8(read.stdout).unwrap();
        assert!(said.contains("container agrees") && said.contains("tokens agree"), "{said}");
    }
}
