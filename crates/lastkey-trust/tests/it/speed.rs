//! What judging a token costs. What sessions cost is measured by the example `trust_bench`.
//!
//! Room      `trust`, tests. Prints nanoseconds; asserts nothing about them.

use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::Instant;

use lastkey_trust::{jwt, service_account};

use crate::support::*;

/// The least and the middle of 101 rounds of 200 calls, in nanoseconds of one call.
fn measure(what: &str, mut work: impl FnMut()) {
    let mut rounds: Vec<u128> = (0..101)
        .map(|_| {
            let start = Instant::now();
            (0..200).for_each(|_| work());
            start.elapsed().as_nanos() / 200
        })
        .collect();
    rounds.sort_unstable();
    let line = format!("{what}: least {} ns, middle {} ns\n", rounds[0], rounds[50]);
    io::stderr().write_all(line.as_bytes()).unwrap();
}

#[test]
#[ignore = "heavy: measures; run with --release --nocapture"]
fn judging_a_token_is_measured() {
    for signer in [&*RSA, &*P256] {
        let (token, trust) = (signer.token(&kubernetes_claims()), trust(signer));
        measure(&format!("{}, signature alone", signer.alg), || {
            drop(black_box(jwt::verify(&token, &trust.keys)));
        });
        measure(&format!("{}, service account", signer.alg), || {
            drop(black_box(service_account::verify(&token, &trust, NOW)));
        });
    }
}
