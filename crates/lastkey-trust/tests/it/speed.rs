//! What opening a session costs.
//!
//! Room      `trust`, tests. Prints nanoseconds; asserts nothing about them.

use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::Instant;

use lastkey_core::access::RevokedWhat;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_trust::revocation::Revocations;
use lastkey_trust::session::{Caveat, attenuate, decode_session, encode_session};
use lastkey_trust::sigv4::{Authorization, KeptKeys, Request, Signer, format_date, open_signed};
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

fn revocations() -> Revocations {
    let mut revocations = Revocations::default();
    for number in 0..1_000 {
        let pod = RevokedWhat::Pod(format!("pod-{number}"));
        revocations.insert(&revocation(pod, NOW));
    }
    revocations
}

#[test]
#[ignore = "heavy: measures; run with --release --nocapture"]
fn opening_a_session_is_measured() {
    let (ring, revocations) = (ring(), revocations());
    let keys = ring.newest().unwrap();
    let request = presentation(&revocations);
    let bearer = keys.seal_bearer(&session(), &mut SystemEntropy).unwrap();
    let narrow = attenuate(&bearer, &Caveat::Actions(vec!["decrypt".into()])).unwrap();
    let triple = keys.seal_triple(&session(), &mut SystemEntropy).unwrap();
    let encoded = encode_session(&session());
    measure("decode", || drop(black_box(decode_session(&encoded))));
    let known = session();
    measure("revocation", || {
        black_box(revocations.is_revoked(&known));
    });
    measure("open bearer", || drop(black_box(ring.open_bearer(&bearer, &request))));
    measure("open narrowed", || drop(black_box(ring.open_bearer(&narrow, &request))));
    measure("open triple", || {
        let (id, token) = (&triple.access_key_id, &triple.session_token);
        drop(black_box(ring.open_triple(id, token, &request, |_| Ok(()))));
    });
    measure("seal bearer", || drop(black_box(keys.seal_bearer(&session(), &mut SystemEntropy))));
}

#[test]
#[ignore = "heavy: measures; run with --release --nocapture"]
fn checking_a_signature_is_measured() {
    let (ring, revocations) = (ring(), revocations());
    let request = presentation(&revocations);
    let triple = ring.newest().unwrap().seal_triple(&session(), &mut SystemEntropy).unwrap();
    let (date, token) = (format_date(request.now), reveal(&triple.session_token));
    let mut headers = vec![
        ("host", "lastkey.example"),
        ("x-amz-date", date.as_str()),
        ("x-amz-security-token", token.as_str()),
        ("x-amz-target", "TrentService.Decrypt"),
        ("content-type", "application/x-amz-json-1.1"),
    ];
    fn http<'a>(headers: &'a [(&'a str, &'a str)]) -> Request<'a> {
        Request { method: "POST", path: "/", query: "", headers, body_sha256: &[3; 32] }
    }
    let signer = Signer {
        access_key_id: &triple.access_key_id,
        secret: &triple.secret,
        region: "eu-west-1",
        service: "kms",
        now: request.now,
    };
    let authorization = signer.authorization(&http(&headers)).unwrap();
    headers.push(("authorization", &authorization));
    let http = http(&headers);
    let kept = KeptKeys::default();
    assert!(open_signed(&ring, &http, "kms", &request, &kept).is_ok());
    measure("open triple, signature checked", || {
        drop(black_box(open_signed(&ring, &http, "kms", &request, &kept)));
    });
    let parsed = Authorization::parse(&authorization).unwrap();
    measure("signature alone", || {
        let _ = black_box(parsed.verify(&http, &triple.secret, "kms", request.now));
    });
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
