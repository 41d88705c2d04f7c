//! Stored records and the bootstrap record: what decodes is what would be written.
#![no_main]

use lastkey_store::record::{self, bootstrap};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = record::decode(bytes) {
        assert_eq!(record::encode(&record).as_deref(), Ok(bytes));
    }
    if let Ok(record) = bootstrap::decode(bytes) {
        assert_eq!(bootstrap::encode(&record).as_deref(), Ok(bytes));
    }
});
