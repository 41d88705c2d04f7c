//! Fields of a managed secret: what parses is what would be written.
#![no_main]

use lastkey_core::secret_value::Fields;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|encoded: &[u8]| {
    let Ok(fields) = Fields::parse(encoded) else { return };
    let again = fields.encode().expect("no longer than the input");
    assert!(again.expose(|bytes| bytes == encoded));
});
