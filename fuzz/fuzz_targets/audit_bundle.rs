//! Bundles: what is read is what would be written, and proofs of any bytes do not fail.
#![no_main]

use lastkey_core::audit::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use lastkey_core::audit::tile::{Records, hashes_of, push_record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let records: Option<Vec<_>> = Records::of(bytes).collect();
    if let Some(records) = records {
        let mut bundle = Vec::new();
        assert!(records.iter().all(|record| push_record(&mut bundle, record)));
        assert_eq!(bundle, bytes);
    }
    let Some((numbers, rest)) = bytes.split_first_chunk::<16>() else { return };
    let (old, new) = numbers.split_at(8);
    let number = |part: &[u8]| u64::from_be_bytes(part.try_into().unwrap());
    let (old, new) = (number(old), number(new));
    let Some(proof) = hashes_of(rest) else { return };
    let leaf = leaf_hash(b"record");
    // No proof of bytes that nobody hashed leads to this root, unless the tree is that record.
    let root = leaf_hash(b"another");
    assert!(!verify_inclusion(&proof, old, &leaf, new, &root));
    let _ = verify_consistency(&proof, (old, &leaf), (new, &root));
});
