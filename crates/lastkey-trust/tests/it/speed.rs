//! What opening a session costs.
//!
//! Room      `trust`, tests. Prints nanoseconds; asserts nothing about them.

use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::Instant;

use lastkey_crypto::entropy::SystemEntropy;
use lastkey_trust::revocation::{Revocation, Revocations, Target};
use lastkey_trust::session::{Caveat, attenuate};
use lastkey_trust::sigv4::{Request, Signer, format_date, open_signed};
use lastkey_trust::{jwt, service_account};

use crate::support::*;

/// The middle of 101 rounds of 200 calls, in nanoseconds.
fn median_nanos(mut work: impl FnMut()) -> u128 {
    let mut rounds: Vec<u128> = (0..101)
        .map(|_| {
            let start = Instant::now();
            (0..200).for_each(|_| work());
            start.elapsed().as_nanos() / 200
        })
        .collect();
    rounds.sort_unstable();
    rounds[rounds.len() / 2]
}

fn say(what: &str, nanos: u128) {
    io::stderr().write_all(format!("\n{what}: {nanos} ns").as_bytes()).unwrap();
}

#[test]
#[ignore = "heavy: measures; run with --release --nocapture"]
fn opening_a_session_is_measured() {
    let ring = ring();
    let keys = ring.newest().unwrap();
    let mut revocations = Revocations::default();
    for number in 0..1_000 {
        let target = Target::Pod { uid: format!("pod-{number}") };
        revocations.insert(Revocation::at(target, NOW));
    }
    let request = presentation(&revocations);
    let bearer = keys.seal_bearer(&session(), &mut SystemEntropy).unwrap();
    let narrow = attenuate(&bearer, &Caveat::Actions(vec!["decrypt".into()])).unwrap();
    let triple = keys.seal_triple(&session(), &mut SystemEntropy).unwrap();
    say("open bearer", median_nanos(|| drop(black_box(ring.open_bearer(&bearer, &request)))));
    say("open narrowed", median_nanos(|| drop(black_box(ring.open_bearer(&narrow, &request)))));
    say("open triple", {
        median_nanos(|| {
            let (id, token) = (&triple.access_key_id, &triple.session_token);
            drop(black_box(ring.open_triple(id, token, &request, |_| Ok(()))));
        })
    });
    let (date, token) = (format_date(request.now), reveal(&triple.session_token));
    let mut headers = vec![
        ("host", "lastkey.example"),
        ("x-amz-date", date.as_str()),
        ("x-amz-security-token", token.as_str()),
        ("x-amz-target", "TrentService.Decrypt"),
        ("content-type", "application/x-amz-json-1.1"),
    ];
    let signed = |headers: &[(&str, &str)]| {
        let request =
            Request { method: "POST", path: "/", query: "", headers, body_sha256: &[3; 32] };
        let signer = Signer {
            access_key_id: &triple.access_key_id,
            secret: &triple.secret,
            region: "eu-west-1",
            service: "kms",
            now: presentation(&revocations).now,
        };
        signer.authorization(&request).unwrap()
    };
    let authorization = signed(&headers);
    headers.push(("authorization", &authorization));
    let http =
        Request { method: "POST", path: "/", query: "", headers: &headers, body_sha256: &[3; 32] };
    assert!(open_signed(&ring, &http, "kms", &request).is_ok());
    say("open triple, signature checked", {
        median_nanos(|| drop(black_box(open_signed(&ring, &http, "kms", &request))))
    });
    say("seal bearer", {
        median_nanos(|| drop(black_box(keys.seal_bearer(&session(), &mut SystemEntropy))))
    });
    for signer in [&*RSA, &*P256] {
        let token = signer.token(&kubernetes_claims());
        let trust = trust(signer);
        say(&format!("{} alone", signer.alg), {
            median_nanos(|| drop(black_box(jwt::verify(&token, &trust.keys))))
        });
        say(&format!("{} service account", signer.alg), {
            median_nanos(|| drop(black_box(service_account::verify(&token, &trust, NOW))))
        });
    }
    io::stderr().write_all(b"\n").unwrap();
}
