//! Bearers as a stranger sends them, and encoded sessions: what decodes is what would be written.
#![no_main]

use std::sync::LazyLock;

use lastkey_secret::{SecretArray, SecretVec};
use lastkey_trust::session::{
    Caveat, EpochKeys, EpochRing, attenuate, decode_session, encode_session, looks_like_bearer,
};
use libfuzzer_sys::fuzz_target;

/// The epoch of the vectors.
static RING: LazyLock<EpochRing> = LazyLock::new(|| {
    let mut ring = EpochRing::default();
    let keys = EpochKeys::derive(20_833, &SecretArray::copy_of(&[7; 32]));
    ring.insert(keys.expect("keys derive from any secret"));
    ring
});

fuzz_target!(|bytes: &[u8]| {
    if let Some(session) = decode_session(bytes) {
        assert_eq!(encode_session(&session), bytes);
    }
    let bearer = SecretVec::copy_of(bytes);
    let held = RING.holder_of_bearer(&bearer);
    if held.is_some() {
        assert!(looks_like_bearer(bytes));
    }
    if let Ok(narrower) = attenuate(&bearer, &Caveat::Until(1)) {
        assert_eq!(RING.holder_of_bearer(&narrower), held);
    }
});
