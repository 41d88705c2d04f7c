//! Requests for certificates, from nodes that are not known yet.
#![no_main]

use lastkey_trust::node_authority::{MAX_REQUEST_LEN, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if Request::parse(bytes).is_ok() {
        assert!(bytes.len() <= MAX_REQUEST_LEN);
    }
});
