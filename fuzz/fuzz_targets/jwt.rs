//! Tokens of strangers, under a key whose private half nobody here has: nothing verifies but the
//! example of the standard.
#![no_main]

use std::sync::LazyLock;

use lastkey_secret::SecretVec;
use lastkey_trust::{jwks::KeySet, jwt};
use libfuzzer_sys::fuzz_target;

/// RFC 7515, appendix A.3.
static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let set = br#"{"keys":[{"kty":"EC","crv":"P-256",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    KeySet::parse(set).expect("the set of the standard is one")
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(claims) = jwt::verify(&SecretVec::copy_of(bytes), &KEYS) {
        assert_eq!(claims.text("iss"), Some("joe"));
        let _ = claims.validity(false);
        let _ = claims.audiences();
    }
});
