//! Shares of a seal and the public keys of their holders, as people type and paste them.
#![no_main]

use lastkey_crypto::envelope::FileRecipient;
use lastkey_crypto::share::{Share, combine};
use lastkey_secret::SecretVec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(recipient) = FileRecipient::parse(text) {
        assert_eq!(FileRecipient::parse(&recipient.to_string()), Ok(recipient));
    }
    let parse = |line: &str| Share::parse(&SecretVec::copy_of(line.as_bytes())).ok();
    let shares: Vec<Share> = text.lines().filter_map(parse).collect();
    for share in &shares {
        let again = Share::parse(&share.to_text()).unwrap();
        assert_eq!((again.place(), again.index()), (share.place(), share.index()));
        assert!(share.proof().is_ok());
    }
    let _ = combine(&shares);
});
