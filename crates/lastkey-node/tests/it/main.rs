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

use lastkey_crypto::entropy::{Entropy, EntropyError};
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::oaep::OaepKey;
use lastkey_crypto::wrap::WrapKey;
use lastkey_node::kmsv2::ciphertext::{Bound, Ciphertext};
use lastkey_node::kmsv2::kept_file::{KeptFile, Owner, Saved};
use lastkey_node::sealed_key::{Damaged, SealedKey, block_in, header_of, seal};
use lastkey_secret::{SecretArray, SecretVec};
use serde_json::{Value, json};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn vectors(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap()
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
    let vectors = vectors("kmsv2.json");
    let material = SecretVec::take(unhex(&vectors["recovery_pkcs8"]));
    let recovery = OaepKey::new(MaterialSpec::Rsa3072, &material).unwrap();
    let each = vectors["vectors"].as_array().unwrap();
    assert_eq!(each.len(), 9);
    for vector in each {
        let expected = vector["seed"].is_string().then(|| unhex(&vector["seed"]));
        assert_eq!(seed_of(vector, &recovery), expected, "{}", vector["name"]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a file of local keys, as vectors write it.
fn written(saved: &Saved) -> Value {
    let locals = saved.locals.iter();
    let locals = locals.map(|(name, local)| [hex(name), local.expose(|local| hex(local))]);
    json!({
        "heard_at": saved.heard_at, "key": hex(&saved.key.id), "version": saved.key.version,
        "activation": saved.key.activation, "key_id": saved.key_id,
        "by_service": hex(&saved.wrapped.by_service),
        "for_recovery": hex(&saved.wrapped.for_recovery),
        "locals": locals.collect::<Vec<_>>(),
    })
}

/// Draws what a vector was made with.
struct Drawn<'a>(&'a [u8]);

impl Entropy for Drawn<'_> {
    fn fill(&mut self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.copy_from_slice(self.0.get(..dest.len()).ok_or(EntropyError)?);
        Ok(())
    }
}

#[test]
fn vectors_of_local_keys_on_disk_open_or_are_refused_and_are_what_is_written() {
    let vectors = vectors("kept.json");
    let each = vectors["vectors"].as_array().unwrap();
    assert_eq!(each.len(), 26);
    for vector in each {
        let bytes = unhex(&vector["file"]);
        let file_key = SecretArray::try_copy_of(&unhex(&vector["file_key"])).unwrap();
        let file_key = WrapKey::new(&file_key).unwrap();
        let text = |name: &str| vector[name].as_str().unwrap();
        let owner = Owner::new(text("key"), text("cluster"));
        let opened = KeptFile::parse(&bytes).and_then(|file| file.open(&file_key, &owner));
        let content = opened.as_ref().map_or(Value::Null, written);
        assert_eq!(content, vector["content"], "{}", vector["name"]);
        let Ok(saved) = opened else { continue };
        let header = KeptFile::parse(&bytes).unwrap().header;
        let mut drawn = Drawn(&bytes[header.len()..]);
        let again = saved.seal(header, &file_key, &owner, &mut drawn).unwrap();
        assert_eq!(again, bytes, "{}", vector["name"]);
    }
}

#[test]
fn vectors_of_a_nodes_sealed_key_open_or_are_refused_and_are_what_is_written() {
    let vectors = vectors("node-key.json");
    let each = vectors["vectors"].as_array().unwrap();
    assert_eq!(each.len(), 26);
    for vector in each {
        let file = vector["file"].as_str().unwrap();
        let file_key = SecretArray::try_copy_of(&unhex(&vector["file_key"])).unwrap();
        let file_key = WrapKey::new(&file_key).unwrap();
        let bytes = block_in(file.as_bytes()).and_then(|block| block.ok_or(Damaged));
        let sealed = bytes.as_ref().map_err(|error| *error).and_then(|it| SealedKey::parse(it));
        let opened = sealed.and_then(|sealed| Ok((sealed, sealed.open(&file_key)?)));
        let content = opened
            .as_ref()
            .map_or(Value::Null, |(sealed, private)| json!([sealed.tpm, private.expose(hex)]));
        assert_eq!(content, vector["content"], "{}", vector["name"]);
        let (Ok((sealed, private)), Ok(bytes)) = (opened, &bytes) else { continue };
        assert_eq!(header_of(sealed.tpm, sealed.sealed).unwrap(), sealed.header);
        let mut drawn = Drawn(&bytes[sealed.header.len()..]);
        let again = seal(sealed.header, &file_key, &private, &mut drawn).unwrap();
        let file = file.replace('\r', "");
        assert!(file.contains(&again), "{}", vector["name"]);
    }
}

/// Asks a reader in Python, which knows the document alone.
fn python_agrees(script: &str, name: &str, count: usize) {
    let has_library = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !has_library.is_ok_and(|ended| ended.status.success()) {
        // Straight to the terminal: the harness keeps what the print macros say.
        let skipped = format!("\nSKIPPED {script}: needs python3 with `cryptography`\n");
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        return;
    }
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/python").join(script);
    let ended = Command::new("python3").arg("-B").arg(script).arg(file(name)).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let agree = format!("{count} vectors agree");
    assert!(said.contains(&agree), "{said}{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn python_reader_agrees_on_the_vectors_of_the_kms_plugin() {
    python_agrees("open_kmsv2.py", "kmsv2.json", 9);
}

#[test]
fn python_reader_agrees_on_the_vectors_of_local_keys_on_disk() {
    python_agrees("open_kept.py", "kept.json", 26);
}

#[test]
fn python_reader_agrees_on_the_vectors_of_a_nodes_sealed_key() {
    python_agrees("open_node_key.py", "node-key.json", 26);
}
