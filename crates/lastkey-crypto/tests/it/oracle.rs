//! Other implementations as judges: Python with `cryptography` reads what this room writes, and
//! writes what it reads.
//!
//! Room      `crypto`, tests.
//! Holds     Without Python each test says SKIPPED on the terminal; it never passes in silence.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use lastkey_crypto::{
    blob::{BlobKey, seal},
    context::EncryptionContext,
    entropy::SystemEntropy,
    envelope::{EnvelopeOptions, Recipient},
    import::{ImportAlgorithm, unwrap_material, wrap_material},
    material::{MaterialSpec, generate, public_key_der, public_key_pem},
    oaep::{OaepKey, OaepPublicKey},
    sign::{Message, SignAlgorithm, SigningKey, VerifyingKey},
    stream::encrypt_stream,
};
use lastkey_secret::{SecretArray, SecretVec};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{hex, sample, unhex};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn python(args: &[&str]) -> Output {
    Command::new("python3")
        .arg("-B")
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("python3 does not start: {error}"))
}

/// Whether Python and `cryptography` are here; says so loudly when they are not.
fn python_is_missing(test: &str) -> bool {
    let probe = Command::new("python3")
        .args(["-c", "import cryptography.hazmat.primitives.kdf.argon2"])
        .output();
    let is_missing = !probe.is_ok_and(|output| output.status.success());
    if is_missing {
        skip(test, "needs python3 with the PyPI package `cryptography`");
    }
    is_missing
}

/// Straight to the terminal: the test harness keeps what the print macros say.
fn skip(test: &str, reason: &str) {
    io::stderr().write_all(format!("\nSKIPPED {test}: {reason}\n").as_bytes()).unwrap();
}

fn succeed(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run_script(script: &str, vectors: &Path) -> String {
    let script = repository().join("tests/python").join(script);
    succeed(&python(&[script.to_str().unwrap(), vectors.to_str().unwrap()]))
}

#[test]
fn python_readers_agree_on_the_vectors() {
    if python_is_missing("python_readers_agree_on_the_vectors") {
        return;
    }
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/ours");
    assert!(run_script("open_blob.py", &vectors).contains("50 vectors agree"));
    assert!(run_script("open_envelope.py", &vectors).contains("77 vectors agree"));
    let shares = vectors.with_file_name("share.json");
    assert!(run_script("open_share.py", &shares).contains("300 sets of shares agree"));
}

#[test]
fn python_writes_the_vectors_again_to_the_byte() {
    if python_is_missing("python_writes_the_vectors_again_to_the_byte") {
        return;
    }
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/ours");
    let dir = TempDir::new().unwrap();
    run_script("make_vectors.py", dir.path());
    for folder in ["", "blob_refused", "envelope", "envelope_refused"] {
        for entry in fs::read_dir(kept.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let again = dir.path().join(folder).join(path.file_name().unwrap());
                assert!(fs::read(&path).unwrap() == fs::read(again).unwrap(), "{path:?}");
            }
        }
    }
}

#[test]
fn python_readers_open_what_was_sealed_just_now() {
    if python_is_missing("python_readers_open_what_was_sealed_just_now") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let material = SecretVec::try_fill(32, |bytes| {
        bytes.fill(0x42);
        Ok::<(), ()>(())
    });
    let material = material.unwrap();
    let key = BlobKey::new(MaterialSpec::Aes256, &material).unwrap();
    let context = EncryptionContext::from_pairs([("tenant", "7"), ("Ω", "ω")]).unwrap();
    let seal_now = |plaintext: &[u8]| {
        seal(&key, &[9; 16], 5, &context.hash(), plaintext, &mut SystemEntropy).unwrap()
    };
    let vector = json!({
        "name": "fresh", "spec": "AES_256", "material": "42".repeat(32),
        "key_id": "09".repeat(16), "version": 5,
        "context": {"pairs": {"tenant": "7", "Ω": "ω"}},
        "plaintext": hex(b"just now"), "blob": hex(&seal_now(b"just now")),
    });
    fs::write(dir.path().join("context.json"), r#"{"good": [], "bad": []}"#).unwrap();
    fs::write(dir.path().join("blob.json"), json!([vector]).to_string()).unwrap();
    assert!(run_script("open_blob.py", dir.path()).contains("1 vectors agree"));

    let (data_key, plaintext) = (SecretArray::copy_of(&[6; 32]), sample(300_000));
    let mut envelope = Vec::new();
    let options = EnvelopeOptions { context: context.clone(), ..EnvelopeOptions::default() };
    let recipients = [Recipient::lastkey(seal_now(&[6; 32]))];
    let mut reader = plaintext.as_slice();
    encrypt_stream(
        &mut reader,
        &mut envelope,
        &options,
        &data_key,
        &recipients,
        &mut SystemEntropy,
    )
    .unwrap();
    let vector = json!({
        "spec": "AES_256", "material": "42".repeat(32), "sequence": 1, "recipients": 1,
        "plaintext": hex(&plaintext), "envelope": hex(&envelope),
    });
    fs::create_dir(dir.path().join("envelope")).unwrap();
    fs::write(dir.path().join("envelope/fresh.json"), vector.to_string()).unwrap();
    assert!(run_script("open_envelope.py", dir.path()).contains("1 vectors agree"));
}

const RSA: MaterialSpec = MaterialSpec::Rsa2048;

/// Wraps 32 bytes for import, both ways, with nothing but RFC 8017 and RFC 5649.
const WRAP: &str = "
import os, sys
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import padding
key = serialization.load_pem_public_key(sys.argv[1].encode())
oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
material, kek = bytes.fromhex(sys.argv[2]), os.urandom(32)
print(key.encrypt(material[:32], oaep).hex())
print((key.encrypt(kek, oaep) + keywrap.aes_key_wrap_with_padding(kek, material)).hex())
";

/// Unwraps what this room wrapped in two steps.
const UNWRAP: &str = "
import sys
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import padding
key = serialization.load_der_private_key(bytes.fromhex(sys.argv[1]), None)
oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
wrapped, size = bytes.fromhex(sys.argv[2]), key.key_size // 8
print(keywrap.aes_key_unwrap_with_padding(key.decrypt(wrapped[:size], oaep), wrapped[size:]).hex())
";

#[test]
fn material_wrapped_by_python_is_imported_and_the_other_way_round() {
    if python_is_missing("material_wrapped_by_python_is_imported_and_the_other_way_round") {
        return;
    }
    let wrapping = generate(RSA, &mut SystemEntropy).unwrap();
    let private = OaepKey::new(RSA, &wrapping).unwrap();
    let der = public_key_der(RSA, &wrapping).unwrap();
    for spec in [MaterialSpec::Aes256, MaterialSpec::P384] {
        let material = generate(spec, &mut SystemEntropy).unwrap();
        let plain = material.expose(hex);
        let printed = succeed(&python(&["-c", WRAP, &public_key_pem(&der), &plain]));
        let (direct, two_steps) = printed.trim().split_once('\n').unwrap();
        let import =
            |algorithm, wrapped: &str| unwrap_material(&private, algorithm, &unhex(wrapped), spec);
        let imported = import(ImportAlgorithm::RsaAesKeyWrapSha256, two_steps).unwrap();
        assert!(imported.ct_eq(&material), "{spec:?}");
        if spec.symmetric_len().is_some() {
            let imported = import(ImportAlgorithm::RsaesOaepSha256, direct).unwrap();
            assert!(imported.ct_eq(&material), "{spec:?}");
        }
        let public = OaepPublicKey::new(RSA, &der).unwrap();
        let algorithm = ImportAlgorithm::RsaAesKeyWrapSha256;
        let wrapped = wrap_material(&public, algorithm, &material, &mut SystemEntropy).unwrap();
        let arguments = ["-c", UNWRAP, &wrapping.expose(hex), &hex(&wrapped)];
        assert_eq!(succeed(&python(&arguments)).trim(), plain, "{spec:?}");
    }
}

/// Verifies a signature of ours and makes one of its own, from the PKCS#8 bytes alone.
const SIGN: &str = "
import sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
private, name = serialization.load_der_private_key(bytes.fromhex(sys.argv[1]), None), sys.argv[2]
public = serialization.load_der_public_key(bytes.fromhex(sys.argv[3]))
signature, message = bytes.fromhex(sys.argv[4]), b'message'
if name == 'ED25519':
    how = ()
else:
    hash = getattr(hashes, 'SHA' + name[-3:])()
    if 'PSS' in name:
        how = (padding.PSS(padding.MGF1(hash), hash.digest_size), hash)
    elif 'PKCS1' in name:
        how = (padding.PKCS1v15(), hash)
    else:
        how = (ec.ECDSA(hash),)
public.verify(signature, message, *how)
print(private.sign(message, *how).hex())
";

#[test]
fn signatures_are_valid_on_both_sides() {
    if python_is_missing("signatures_are_valid_on_both_sides") {
        return;
    }
    for spec in [
        RSA,
        MaterialSpec::P256,
        MaterialSpec::P384,
        MaterialSpec::Secp256k1,
        MaterialSpec::Ed25519,
    ] {
        let material = generate(spec, &mut SystemEntropy).unwrap();
        let der = public_key_der(spec, &material).unwrap();
        let signing = SigningKey::new(spec, &material).unwrap();
        let verifying = VerifyingKey::new(spec, &der).unwrap();
        for algorithm in SignAlgorithm::for_spec(spec) {
            let signature = signing.sign(*algorithm, Message::Raw(b"message")).unwrap();
            let (private, public) = (material.expose(hex), hex(&der));
            let arguments = ["-c", SIGN, &private, algorithm.name(), &public, &hex(&signature)];
            let theirs = unhex(succeed(&python(&arguments)).trim());
            let valid = verifying.verify(*algorithm, Message::Raw(b"message"), &theirs);
            assert_eq!(valid, Ok(true), "{algorithm:?}");
        }
    }
}

#[cfg(feature = "sm")]
#[test]
fn openssl_verifies_sm2_signatures() {
    let spec = MaterialSpec::Sm2;
    let probe = Command::new("openssl").args(["list", "-public-key-algorithms"]).output();
    let knows_sm2 =
        probe.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("SM2"));
    if !knows_sm2 {
        skip("openssl_verifies_sm2_signatures", "needs the openssl command with SM2");
        return;
    }
    let material = generate(spec, &mut SystemEntropy).unwrap();
    let der = public_key_der(spec, &material).unwrap();
    let signing = SigningKey::new(spec, &material).unwrap();
    let signature = signing.sign(SignAlgorithm::Sm2Dsa, Message::Raw(b"message")).unwrap();
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).into_os_string().into_string().unwrap();
    fs::write(path("public.pem"), public_key_pem(&der)).unwrap();
    fs::write(path("message"), b"message").unwrap();
    fs::write(path("signature"), signature).unwrap();
    let output = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-rawin", "-digest", "sm3", "-pubin"])
        .args(["-pkeyopt", "distid:1234567812345678", "-inkey", &path("public.pem")])
        .args(["-in", &path("message"), "-sigfile", &path("signature")])
        .output()
        .unwrap();
    assert!(succeed(&output).contains("Verified Successfully"));
}
