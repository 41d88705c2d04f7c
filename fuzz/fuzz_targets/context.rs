//! Encodings of an encryption context: what parses is what would be written.
#![no_main]

use lastkey_crypto::context::EncryptionContext;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|encoded: &[u8]| {
    let Ok(context) = EncryptionContext::parse(encoded) else { return };
    assert_eq!(context.encoded(), encoded);
    let again = match context.raw() {
        Some(raw) => EncryptionContext::from_raw(raw),
        None => EncryptionContext::from_pairs(context.pairs()),
    };
    assert_eq!(again.as_ref(), Ok(&context));
});
