//! A selection of the Wycheproof vectors: what careless implementations accept.
//!
//! Room      `crypto`, tests.
//! Source    C2SP/wycheproof, Apache-2.0; the files name the commit. For each flag a few
//!           valid and a few invalid cases; "acceptable" ones are left out.

use std::{fs, path::Path};

use lastkey_crypto::{
    import::{ImportAlgorithm, ImportError, unwrap_material},
    mac::MacKey,
    material::{MaterialError, MaterialSpec},
    oaep::OaepKey,
    sign::{Message, SignAlgorithm, VerifyingKey},
};
use lastkey_secret::SecretVec;
use serde::{Deserialize, de::DeserializeOwned};

use crate::support::unhex;

#[derive(Deserialize)]
struct Groups<T> {
    groups: Vec<T>,
}

fn load<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wycheproof").join(name);
    let groups: Groups<T> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(!groups.groups.is_empty());
    groups.groups
}

#[derive(Deserialize)]
struct SignatureGroup {
    file: String,
    spec: String,
    algorithm: String,
    public_key: String,
    tests: Vec<SignatureTest>,
}

#[derive(Deserialize)]
struct SignatureTest {
    id: u32,
    message: String,
    signature: String,
    valid: bool,
}

#[test]
fn signatures_are_judged_as_wycheproof_does() {
    for group in load::<SignatureGroup>("signatures.json") {
        let spec = MaterialSpec::parse(&group.spec).unwrap();
        let algorithm = SignAlgorithm::parse(&group.algorithm).unwrap();
        // A public key that is refused verifies nothing.
        let key = VerifyingKey::new(spec, &unhex(&group.public_key));
        for test in &group.tests {
            let (message, signature) = (unhex(&test.message), unhex(&test.signature));
            let verified = key.as_ref().ok().is_some_and(|key| {
                key.verify(algorithm, Message::Raw(&message), &signature) == Ok(true)
            });
            assert_eq!(verified, test.valid, "{} {}", group.file, test.id);
        }
    }
}

#[derive(Deserialize)]
struct OaepGroup {
    spec: String,
    private_key: String,
    tests: Vec<OaepTest>,
}

#[derive(Deserialize)]
struct OaepTest {
    id: u32,
    message: String,
    ciphertext: String,
    label: String,
    valid: bool,
}

fn oaep_key(group: &OaepGroup) -> OaepKey {
    let spec = MaterialSpec::parse(&group.spec).unwrap();
    OaepKey::new(spec, &SecretVec::take(unhex(&group.private_key))).unwrap()
}

#[test]
fn oaep_ciphertexts_are_judged_as_wycheproof_does() {
    for group in load::<OaepGroup>("oaep.json") {
        let key = oaep_key(&group);
        for test in &group.tests {
            let opened = key.decrypt(&unhex(&test.ciphertext));
            // We use no label, so a ciphertext with one is refused.
            let is_ours = test.valid && test.label.is_empty();
            assert_eq!(opened.is_ok(), is_ours, "{}", test.id);
            if let Ok(opened) = opened {
                let message = unhex(&test.message);
                assert!(opened.expose(|bytes| bytes == message), "{}", test.id);
            }
        }
    }
}

#[derive(Deserialize)]
struct MacGroup {
    spec: String,
    tests: Vec<MacTest>,
}

#[derive(Deserialize)]
struct MacTest {
    id: u32,
    key: String,
    message: String,
    mac: String,
    valid: bool,
}

#[test]
fn codes_are_judged_as_wycheproof_does() {
    for group in load::<MacGroup>("hmac.json") {
        let spec = MaterialSpec::parse(&group.spec).unwrap();
        for test in &group.tests {
            let key = MacKey::new(spec, &SecretVec::take(unhex(&test.key))).unwrap();
            let verified = key.verify(&unhex(&test.message), &unhex(&test.mac));
            assert_eq!(verified, test.valid, "{} {}", group.spec, test.id);
        }
    }
}

#[derive(Deserialize)]
struct WrapGroup {
    tests: Vec<WrapTest>,
}

#[derive(Deserialize)]
struct WrapTest {
    id: u32,
    key: String,
    message: String,
    ciphertext: String,
    valid: bool,
}

/// The second step of an import is AES key wrap with padding; the first is ours.
#[test]
fn wrapped_keys_are_judged_as_wycheproof_does() {
    let wrapping = oaep_key(&load::<OaepGroup>("oaep.json")[0]);
    for group in load::<WrapGroup>("key_wrap.json") {
        for test in &group.tests {
            let mut wrapped = wrapping.encrypt(&unhex(&test.key)).unwrap();
            wrapped.extend(unhex(&test.ciphertext));
            let message = unhex(&test.message);
            let spec = match message.len() {
                16 => MaterialSpec::Aes128,
                48 => MaterialSpec::Hmac384,
                64 => MaterialSpec::Hmac512,
                _ => MaterialSpec::Aes256,
            };
            let algorithm = ImportAlgorithm::RsaAesKeyWrapSha256;
            let outcome = unwrap_material(&wrapping, algorithm, &wrapped, spec);
            let malformed = Err(ImportError::Material(MaterialError::Malformed));
            let expected = match (test.valid, spec.symmetric_len() == Some(message.len())) {
                (true, true) => Ok(()),
                (true, false) => malformed,
                (false, _) => Err(ImportError::Unwrap),
            };
            assert_eq!(
                outcome.as_ref().map(|_| ()).map_err(|error| *error),
                expected,
                "{}",
                test.id
            );
            if let Ok(material) = outcome {
                assert!(material.expose(|bytes| bytes == message), "{}", test.id);
            }
        }
    }
}
