//! Ciphertexts of the KMS v2 plugin as whoever reaches etcd can write them.
#![no_main]

use std::collections::BTreeMap;

use lastkey_crypto::wrap::WrapKey;
use lastkey_node::kmsv2::ciphertext::{Bound, Ciphertext, MAX_CIPHERTEXT_LEN};
use lastkey_secret::SecretArray;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(parsed) = Ciphertext::parse(bytes) {
        assert!(bytes.len() <= MAX_CIPHERTEXT_LEN);
        assert!(parsed.protected_by().is_ok());
        let local = WrapKey::new(&SecretArray::copy_of(&[7; 32])).expect("a key");
        let annotations = BTreeMap::new();
        let bound = Bound { key_id: "", annotations: &annotations };
        assert!(parsed.open(&local, bound).is_err());
    }
});
