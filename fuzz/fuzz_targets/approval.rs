//! States and approvals of a TPM seal: files that people carry between machines.
#![no_main]

use lastkey_connect::seal::tpm::{Approval, State};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(approval) = Approval::parse(text) {
        assert_eq!(Approval::parse(&approval.to_json()), Ok(approval));
    }
    if let Ok(state) = State::parse(text) {
        assert_eq!(State::parse(&state.to_json()), Ok(state));
    }
});
