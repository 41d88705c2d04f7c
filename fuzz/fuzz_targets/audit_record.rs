//! Records of the audit log: what is read is what would be written.
#![no_main]

use lastkey_core::audit::archive::Filter;
use lastkey_core::audit::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::parse(bytes) else { return };
    assert_eq!(record.to_json(), bytes);
    let filter = Filter { who: record.text("who").map(str::to_owned), ..Filter::default() };
    if filter.who.as_deref().is_some_and(|who| !who.ends_with('*')) {
        assert!(filter.matches(&record));
        let needle = filter.needle().unwrap();
        assert!(bytes.windows(needle.len()).any(|window| window == needle));
    }
});
