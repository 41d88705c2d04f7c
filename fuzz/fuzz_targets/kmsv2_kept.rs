//! Files of local keys as whoever reaches the disk can write them, and their content as it is read
//! once a file has opened.
#![no_main]

use lastkey_crypto::wrap::WrapKey;
use lastkey_node::kmsv2::kept_file::{KeptFile, Owner, Saved};
use lastkey_secret::SecretArray;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = KeptFile::parse(bytes) {
        assert!(bytes.starts_with(file.header) && file.header.ends_with(file.sealed));
        let key = WrapKey::new(&SecretArray::copy_of(&[7; 32])).expect("a key");
        assert!(file.open(&key, &Owner::new("alias/etcd", "")).is_err());
    }
    if let Ok(saved) = Saved::decode(bytes) {
        assert!(saved.encode().expose(|again| again == bytes));
    }
});
