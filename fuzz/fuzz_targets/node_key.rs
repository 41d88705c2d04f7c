//! Files with a node's sealed key as whoever reaches the disk can write them.
#![no_main]

use lastkey_crypto::wrap::WrapKey;
use lastkey_node::sealed_key::{SealedKey, block_in, header_of};
use lastkey_secret::SecretArray;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let block = block_in(bytes).ok().flatten();
    for bytes in [Some(bytes), block.as_deref()].into_iter().flatten() {
        let Ok(sealed) = SealedKey::parse(bytes) else { continue };
        assert!(bytes.starts_with(sealed.header));
        assert_eq!(header_of(sealed.tpm, sealed.sealed).as_deref(), Some(sealed.header));
        let key = WrapKey::new(&SecretArray::copy_of(&[7; 32])).expect("a key");
        assert!(sealed.open(&key).is_err());
    }
});
