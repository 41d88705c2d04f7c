//! The ciphertext blob as a stranger sends it: parse, and open under the key of the vectors.
#![no_main]

use std::sync::LazyLock;

use lastkey_crypto::{
    blob::{BlobKey, MAX_BLOB_LEN, OVERHEAD_LEN, open, peek},
    context::EncryptionContext,
    digest::sha256,
    material::MaterialSpec,
};
use lastkey_secret::SecretVec;
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<BlobKey> = LazyLock::new(|| {
    let material = SecretVec::copy_of(&sha256(b"material/AES_256/0"));
    BlobKey::new(MaterialSpec::Aes256, &material).expect("material has the right length")
});

fuzz_target!(|blob: &[u8]| {
    let header = peek(blob);
    if let Ok(plaintext) = open(&KEY, blob, &EncryptionContext::none().hash()) {
        assert!(header.is_ok(), "what opens has a header");
        assert_eq!(plaintext.len() + OVERHEAD_LEN, blob.len());
        assert!(blob.len() <= MAX_BLOB_LEN);
    }
});
