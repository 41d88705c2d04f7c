//! The formats of the room against their vectors, and against a second reader.
//!
//! Room      `node`, tests.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::oaep::OaepKey;
use lastkey_crypto::wrap::WrapKey;
use lastkey_node::kmsv2::ciphertext::{Bound, Ciphertext};
use lastkey_secret::SecretVec;
use serde_json::Value;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/kmsv2.json")
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits: Vec<u32> =
        value.as_str().unwrap().chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

/// The seed of a vector, by the recovery key.
fn seed_of(vector: &Value, recovery: &OaepKey) -> Option<Vec<u8>> {
    let annotations: BTreeMap<String, Vec<u8>> = vector["annotations"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), unhex(value)))
        .collect();
    let ciphertext = unhex(&vector["ciphertext"]);
    let parsed = Ciphertext::parse(&ciphertext).ok()?;
    let local = recovery.decrypt(parsed.for_recovery).ok()?.to_array()?;
    let bound = Bound { key_id: vector["key_id"].as_str().unwrap(), annotations: &annotations };
    let seed = parsed.open(&WrapKey::new(&local).unwrap(), bound).ok()?;
    Some(seed.expose(<[u8]>::to_vec))
}

#[test]
fn vectors_of_the_kms_plugin_open_or_are_refused() {
    let vectors: Value = serde_json::from_slice(&std::fs::read(file()).unwrap()).unwrap();
    let material = SecretVec::take(unhex(&vectors["recovery_pkcs8"]));
    let recovery = OaepKey::new(MaterialSpec::Rsa3072, &material).unwrap();
    let each = vectors["vectors"].as_array().unwrap();
    assert_eq!(each.len(), 9);
    for vector in each {
        let expected = vector["seed"].is_string().then(|| unhex(&vector["seed"]));
        assert_eq!(seed_of(vector, &recovery), expected, "{}", vector["name"]);
    }
}

#[test]
fn python_reader_agrees_on_the_vectors_of_the_kms_plugin() {
    let has_library = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !has_library.is_ok_and(|ended| ended.status.success()) {
        // Straight to the terminal: the harness keeps what the print macros say.
        let skipped = b"\nSKIPPED python_reader_agrees: needs python3 with `cryptography`\n";
        std::io::stderr().write_all(skipped).unwrap();
        return;
    }
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/open_kmsv2.py");
    let ended = Command::new("python3").arg("-B").arg(script).arg(file()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(said.contains("9 vectors agree"), "{said}{}", String::from_utf8_lossy(&ended.stderr));
}
