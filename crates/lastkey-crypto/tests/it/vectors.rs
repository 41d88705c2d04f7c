//! The vectors of the formats, written by another implementation.
//!
//! Room      `crypto`, tests.
//! Holds     What must open opens, and is sealed to the same bytes; each named way to be wrong
//!           is refused.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use lastkey_crypto::{
    blob::{BlobKey, open, peek, seal},
    context::EncryptionContext,
    digest::sha256,
    envelope::{AgeIdentity, EnvelopeOptions, Header, KIND_LASTKEY, Recipient, Suite},
    material::{MaterialError, MaterialSpec},
    share::{Share, SharePlace, combine, split},
    stream::{decrypt_stream, encrypt_stream, read_header},
};
use lastkey_secret::{SecretArray, SecretVec};
use serde::{Deserialize, de::DeserializeOwned};

use crate::support::{FixedEntropy, hex, unhex};

#[derive(Deserialize)]
struct ContextVectors {
    good: Vec<GoodContext>,
    bad: Vec<BadContext>,
}

#[derive(Deserialize)]
struct GoodContext {
    name: String,
    context: Option<ContextInput>,
    encoded: String,
    sha256: String,
}

#[derive(Deserialize)]
struct BadContext {
    name: String,
    encoded: String,
}

#[derive(Deserialize)]
struct ContextInput {
    #[serde(default)]
    pairs: BTreeMap<String, String>,
    #[serde(default)]
    raw: String,
}

#[derive(Deserialize)]
struct BlobVector {
    name: String,
    spec: String,
    material: String,
    key_id: String,
    version: u32,
    context: Option<ContextInput>,
    salt: String,
    plaintext: String,
    blob: String,
}

#[derive(Deserialize)]
struct EnvelopeVector {
    name: String,
    spec: String,
    material: String,
    data_key: String,
    salt: String,
    context_encoded: String,
    sequence: u64,
    recipients: usize,
    plaintext: String,
    envelope: String,
    #[serde(default)]
    identity: String,
    #[serde(default)]
    passphrase: String,
}

fn ours() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/ours")
}

fn load<T: DeserializeOwned>(path: &Path) -> T {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Every vector of a folder, and proof that there are some.
fn load_folder<T: DeserializeOwned>(folder: &str, at_least: usize) -> Vec<T> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(ours().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= at_least, "{folder}");
    paths.iter().map(|path| load(path)).collect()
}

fn context_of(input: Option<&ContextInput>) -> EncryptionContext {
    match input {
        None => EncryptionContext::none(),
        Some(input) if input.raw.is_empty() => EncryptionContext::from_pairs(&input.pairs).unwrap(),
        Some(input) => EncryptionContext::from_raw(&unhex(&input.raw)).unwrap(),
    }
}

#[test]
fn context_vectors_encode_alike_and_the_bad_ones_are_refused() {
    let vectors: ContextVectors = load(&ours().join("context.json"));
    assert!(vectors.good.len() >= 6 && vectors.bad.len() >= 14);
    for vector in &vectors.good {
        let context = context_of(vector.context.as_ref());
        assert_eq!(hex(context.encoded()), vector.encoded, "{}", vector.name);
        assert_eq!(hex(&context.hash()), vector.sha256, "{}", vector.name);
        let parsed = EncryptionContext::parse(&unhex(&vector.encoded)).unwrap();
        assert_eq!(parsed, context, "{}", vector.name);
    }
    for vector in &vectors.bad {
        let outcome = EncryptionContext::parse(&unhex(&vector.encoded));
        assert!(outcome.is_err(), "{}", vector.name);
    }
}

/// The key of a vector; `None` when this build lacks its algorithm.
fn blob_key(spec: &str, material: &str) -> Option<BlobKey> {
    let spec = MaterialSpec::parse(spec).unwrap();
    match BlobKey::new(spec, &SecretVec::take(unhex(material))) {
        Ok(key) => Some(key),
        Err(error) => {
            assert_eq!((error, spec.is_supported()), (MaterialError::Unsupported, false));
            None
        }
    }
}

#[test]
fn blob_vectors_open_and_are_sealed_to_the_same_bytes() {
    let vectors: Vec<BlobVector> = load(&ours().join("blob.json"));
    assert!(vectors.len() >= 10);
    for vector in &vectors {
        let Some(key) = blob_key(&vector.spec, &vector.material) else { continue };
        let hash = context_of(vector.context.as_ref()).hash();
        let (blob, plaintext) = (unhex(&vector.blob), unhex(&vector.plaintext));
        let opened = open(&key, &blob, &hash).unwrap();
        assert!(opened.expose(|bytes| bytes == plaintext), "{}", vector.name);
        let header = peek(&blob).unwrap();
        assert_eq!((hex(&header.key_id), header.version), (vector.key_id.clone(), vector.version));
        let mut salt = FixedEntropy(unhex(&vector.salt));
        let sealed =
            seal(&key, &header.key_id, vector.version, &hash, &plaintext, &mut salt).unwrap();
        assert_eq!(sealed, blob, "{}", vector.name);
    }
}

#[test]
fn blobs_wrong_in_each_named_way_are_refused() {
    for vector in load_folder::<BlobVector>("blob_refused", 20) {
        let key = blob_key(&vector.spec, &vector.material).unwrap();
        let hash = context_of(vector.context.as_ref()).hash();
        assert!(open(&key, &unhex(&vector.blob), &hash).is_err(), "{}", vector.name);
    }
}

/// By whatever means the vector has.
fn data_key_of(vector: &EnvelopeVector, header: &Header) -> Option<SecretArray<32>> {
    let text = |text: &str| SecretVec::copy_of(text.as_bytes());
    if !vector.identity.is_empty() {
        let identities = AgeIdentity::parse_file(&text(&vector.identity)).unwrap();
        return header.data_key_by_age(&identities).ok();
    }
    if !vector.passphrase.is_empty() {
        return header.data_key_by_passphrase(&text(&vector.passphrase)).ok();
    }
    let blob = header.recipients().iter().find(|one| one.kind == KIND_LASTKEY)?;
    let key = blob_key(&vector.spec, &vector.material).unwrap();
    open(&key, &blob.body, &header.context().hash()).ok()?.to_array::<32>()
}

/// The whole way: header, data key, segments.
fn open_envelope(vector: &EnvelopeVector) -> Option<(Vec<u8>, u64, usize)> {
    let envelope = unhex(&vector.envelope);
    let mut rest = envelope.as_slice();
    let header = read_header(&mut rest).ok()?;
    let data_key = data_key_of(vector, &header)?;
    let mut plaintext = Vec::new();
    decrypt_stream(&header, &data_key, &mut rest, &mut plaintext).ok()?;
    Some((plaintext, header.sequence(), header.recipients().len()))
}

#[test]
fn envelope_vectors_open() {
    for vector in load_folder::<EnvelopeVector>("envelope", 14) {
        if vector.name == "sm4_gcm" && !Suite::Sm4Gcm.is_supported() {
            assert!(open_envelope(&vector).is_none());
            continue;
        }
        let expected = (unhex(&vector.plaintext), vector.sequence, vector.recipients);
        assert!(open_envelope(&vector) == Some(expected), "{}", vector.name);
    }
}

#[test]
fn envelopes_wrong_in_each_named_way_are_refused() {
    for vector in load_folder::<EnvelopeVector>("envelope_refused", 60) {
        assert!(open_envelope(&vector).is_none(), "{}", vector.name);
    }
}

#[test]
fn new_envelopes_have_the_bytes_of_the_vectors() {
    let mut compared = 0;
    for vector in load_folder::<EnvelopeVector>("envelope", 14) {
        if vector.name == "sm4_gcm" && !Suite::Sm4Gcm.is_supported() {
            continue;
        }
        if vector.sequence != 1 || vector.recipients != 1 || vector.name.starts_with("torn") {
            continue;
        }
        let envelope = unhex(&vector.envelope);
        let header = read_header(&mut envelope.as_slice()).unwrap();
        let is_default = vector.name == "default_options";
        let mut made = Vec::new();
        encrypt_stream(
            &mut unhex(&vector.plaintext).as_slice(),
            &mut made,
            &EnvelopeOptions {
                suite: header.suite(),
                segment_log2: if is_default { 18 } else { 12 },
                slot_len: if is_default { 1_024 } else { 512 },
                context: EncryptionContext::parse(&unhex(&vector.context_encoded)).unwrap(),
            },
            &SecretArray::try_copy_of(&unhex(&vector.data_key)).unwrap(),
            &[Recipient::lastkey(header.recipients()[0].body.clone())],
            &mut FixedEntropy(unhex(&vector.salt)),
        )
        .unwrap();
        assert!(made == envelope, "{}", vector.name);
        assert_eq!(sha256(&made), sha256(&envelope));
        compared += 1;
    }
    assert!(compared >= 8);
}

#[derive(Deserialize)]
struct ShareVectors {
    secret: String,
    coefficients: Vec<String>,
    instance: String,
    seal: String,
    shares: Vec<String>,
    check_values: Vec<String>,
}

#[test]
fn shares_are_those_of_the_other_implementation() {
    let vectors: ShareVectors = load(&ours().with_file_name("share.json"));
    let array = |text: &str| SecretArray::<32>::try_copy_of(&unhex(text)).unwrap();
    let id = |text: &str| <[u8; 16]>::try_from(unhex(text)).unwrap();
    let (instance, seal) = (id(&vectors.instance), id(&vectors.seal));
    let place = SharePlace { instance, seal, threshold: 3, shares: 5 };
    let coefficients = vectors.coefficients.iter().flat_map(|text| unhex(text)).collect();
    let mut entropy = FixedEntropy(coefficients);
    let shares = split(&array(&vectors.secret), place, &mut entropy).unwrap();
    let checked = vectors.shares.iter().zip(&vectors.check_values).zip(&shares);
    for ((text, check_value), share) in checked {
        assert!(share.to_text().ct_eq(&SecretVec::copy_of(text.as_bytes())));
        assert_eq!(hex(&share.check_value().unwrap()), *check_value);
        let parsed = Share::parse(&SecretVec::copy_of(text.as_bytes())).unwrap();
        assert_eq!((parsed.place(), parsed.index()), (&place, share.index()));
    }
    assert!(combine(&shares[1..4]).unwrap().ct_eq(&array(&vectors.secret)));
}
