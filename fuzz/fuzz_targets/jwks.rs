//! Key sets of issuers: whatever is taken has keys, and each is found by its id.
#![no_main]

use lastkey_trust::jwks::{KeySet, MAX_KEYS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(keys) = KeySet::parse(bytes) else { return };
    assert!((1..=MAX_KEYS).contains(&keys.len()));
    for id in keys.key_ids() {
        assert!(keys.find(Some(id)).is_some());
    }
});
