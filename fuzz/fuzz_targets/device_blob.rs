//! What devices wrapped, as it lies in the bootstrap record of a sealed server.
#![no_main]

use lastkey_connect::seal::devices_of;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Every form begins with its version.
    assert!(devices_of(bytes).is_empty() || bytes.first() == Some(&1));
});
