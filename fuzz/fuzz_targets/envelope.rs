//! The file envelope as a stranger sends it: header, slots, segments, under the key of the vectors.
#![no_main]

use std::sync::LazyLock;

use lastkey_crypto::{
    blob::{BlobKey, open},
    digest::sha256,
    envelope::{AgeIdentity, Header, KIND_LASTKEY, PREFIX_LEN, RandomAccess, Recipient},
    material::MaterialSpec,
    stream::{decrypt_stream, read_header},
};
use lastkey_secret::{SecretArray, SecretVec};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<BlobKey> = LazyLock::new(|| {
    let material = SecretVec::copy_of(&sha256(b"material/AES_256/0"));
    BlobKey::new(MaterialSpec::Aes256, &material).expect("material has the right length")
});

/// The identity of the vectors.
static IDENTITY: LazyLock<Vec<AgeIdentity>> = LazyLock::new(|| {
    let text = b"AGE-SECRET-KEY-1V5V6FRYJKY6N4JN8JZL6YHWCTMFKE3HD3DYGSUENT8XJRN39W9NQHTPM0Y";
    AgeIdentity::parse_file(&SecretVec::copy_of(text)).expect("an identity")
});

fn data_key(header: &Header) -> SecretArray<32> {
    let context_hash = header.context().hash();
    header
        .recipients()
        .iter()
        .filter(|recipient| recipient.kind == KIND_LASTKEY)
        .find_map(|recipient| open(&KEY, &recipient.body, &context_hash).ok()?.to_array())
        .unwrap_or_else(|| SecretArray::copy_of(&[0; 32]))
}

fuzz_target!(|envelope: &[u8]| {
    let mut rest = envelope;
    let Ok(header) = read_header(&mut rest) else { return };
    let prefix = envelope.first_chunk::<PREFIX_LEN>().expect("a header was read");
    assert_eq!(Header::len_from_prefix(prefix), Ok(header.len()));
    assert_eq!(header.len() + rest.len(), envelope.len());
    let data_key = data_key(&header);
    // Whoever holds this identity tries it on what strangers send.
    if let Ok(data_key) = header.data_key_by_age(&IDENTITY) {
        assert!(header.unlock(&data_key).is_ok());
    }
    let Ok(keys) = header.unlock(&data_key) else { return };
    let located = RandomAccess::locate_last(&keys, envelope.len() as u64);
    let mut plaintext = Vec::new();
    if let Ok(stats) = decrypt_stream(&header, &data_key, &mut rest, &mut plaintext) {
        assert_eq!(stats.plaintext_len, plaintext.len() as u64);
        assert_eq!(stats.envelope_len, envelope.len() as u64);
        assert!(located.is_ok(), "both ways to read agree on the length");
    }
    let update = header.rewrap(&data_key, &[Recipient::lastkey(vec![1; 8])]);
    if let Ok(update) = update {
        let mut rewrapped = envelope.to_vec();
        let at = usize::try_from(update.offset).expect("slots lie in the first megabytes");
        rewrapped[at..at + update.bytes.len()].copy_from_slice(&update.bytes);
        let header = Header::parse(&rewrapped[..header.len()]).expect("our own slot is whole");
        assert!(header.unlock(&data_key).is_ok());
    }
});
