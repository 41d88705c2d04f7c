//! Recipients and files of identities of age as a stranger writes them.
#![no_main]

use lastkey_crypto::envelope::{AgeIdentity, AgeRecipient, Recipient};
use lastkey_secret::SecretVec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(recipient) = AgeRecipient::parse(text) {
            assert!(recipient.to_string().eq_ignore_ascii_case(text));
        }
    }
    if let Ok(identities) = AgeIdentity::parse_file(&SecretVec::copy_of(bytes)) {
        assert!(!identities.is_empty());
    }
    for kind in [1, 2, 3, 4] {
        let _ = Recipient { kind, body: bytes.to_vec() }.name();
    }
});
