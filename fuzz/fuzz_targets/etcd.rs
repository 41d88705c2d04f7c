//! Database files of etcd, stored values and raw disk, as a stranger writes them.
#![no_main]

use std::io::Cursor;

use lastkey_checks::coverage::{Coverage, Expected, REGISTRY, scan};
use lastkey_checks::snapshot::etcd;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = etcd::read(&mut Cursor::new(bytes));
    let mut coverage = Coverage::new(REGISTRY);
    let _ = coverage.take(b"/registry/secrets/a/b", bytes, 1);
    let _ = scan(&mut &*bytes, REGISTRY, &mut coverage);
    let report = coverage.report(&Expected::default());
    let totals = report.totals;
    assert!(totals.clear + totals.stale() + totals.current == totals.objects);
});
