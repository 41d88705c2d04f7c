//! What sessions and signatures cost: lines `trust.NAME NANOSECONDS`.
//!
//! Room      `trust`. `make bench` runs it: `trust_bench`, and `trust_bench token ISSUER AUDIENCE`,
//!           which prints a key set and a token signed by its key, for a server to be logged in at.
//! Holds     medians of 51 rounds, processor time of this thread. A thousand revocations are in
//!           force.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a bench has a clock, arguments and a terminal; the room it measures has none"
)]

use std::hint::black_box;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_core::access::{Revocation, RevokedWhat};
use lastkey_core::ids::SessionId;
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_secret::SecretArray;
use lastkey_trust::revocation::Revocations;
use lastkey_trust::service_account::ObjectRef;
use lastkey_trust::session::{
    AuthStrength, EpochKeys, EpochRing, KeptBearers, Presentation, Session, Subject, Workload,
};
use lastkey_trust::sigv4::{KeptKeys, Request, Signer, format_date, open_signed};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 51;
const CALLS: u32 = 1_000;
const NOW: Timestamp = Timestamp(1_800_000_000);
const EPOCH: u32 = 7;

fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => measure(),
        ["token", issuer, audience] => token(issuer, audience),
        _ => Err("trust_bench, or trust_bench token ISSUER AUDIENCE".into()),
    }
}

fn measure() -> Outcome<()> {
    let mut ring = EpochRing::default();
    ring.insert(EpochKeys::derive(EPOCH, &SecretArray::copy_of(&[7; 32]))?);
    let keys = ring.newest().ok_or("no epoch")?;
    let session = session()?;
    let bearer = keys.seal_bearer(&session, &mut SystemEntropy)?;
    let triple = keys.seal_triple(&session, &mut SystemEntropy)?;
    let revocations = revocations();
    let request = Presentation {
        now: NOW,
        source: Some([10, 1, 2, 3].into()),
        certificate: None,
        agent: None,
        revocations: &revocations,
    };
    tell("seal_bearer", &mut || keys.seal_bearer(&session, &mut SystemEntropy).is_ok());
    tell("open_bearer", &mut || ring.open_bearer(black_box(&bearer), &request).is_ok());
    let kept = KeptBearers::default();
    tell("open_kept", &mut || ring.open_kept(&kept, black_box(&bearer), &request, |_| ()).is_ok());

    let date = format_date(NOW);
    let token = triple.session_token.expose(|bytes| String::from_utf8(bytes.to_vec()))?;
    let mut headers = vec![
        ("host", "lastkey.example"),
        ("x-amz-date", date.as_str()),
        ("x-amz-security-token", token.as_str()),
        ("x-amz-target", "TrentService.Decrypt"),
        ("content-type", "application/x-amz-json-1.1"),
    ];
    let signer = Signer {
        access_key_id: &triple.access_key_id,
        secret: &triple.secret,
        region: "eu-west-1",
        service: "lastkey",
        now: NOW,
    };
    let authorization = signer.authorization(&http(&headers))?;
    headers.push(("authorization", &authorization));
    let (http, kept) = (http(&headers), KeptKeys::default());
    tell("open_signed", &mut || {
        open_signed(&ring, black_box(&http), "lastkey", &request, &kept).is_ok()
    });
    Ok(())
}

const fn http<'a>(headers: &'a [(&'a str, &'a str)]) -> Request<'a> {
    Request { method: "POST", path: "/", query: "", headers, body_sha256: &[3; 32] }
}

fn tell(name: &str, call: &mut dyn FnMut() -> bool) {
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let start = cpu_time();
            let done = (0..CALLS).filter(|_| call()).count();
            assert_eq!(done, CALLS as usize, "{name}: a call was refused");
            (cpu_time() - start) / u128::from(CALLS)
        })
        .collect();
    rounds.sort_unstable();
    println!("trust.{name} {}", rounds.get(ROUNDS / 2).copied().unwrap_or_default());
}

fn cpu_time() -> u128 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    u128::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec))
        .unwrap_or_default()
}

/// The session of a pod, as a service account's token makes it.
fn session() -> Outcome<Session> {
    let object = |name: &str, uid: &str| ObjectRef { name: name.to_owned(), uid: uid.to_owned() };
    let account = object("api", "d2c1b0a9-8f7e-4d6c-9b5a-493827161504");
    let pod = object("api-6d5f7c9b8-x2x7p", "5c0c2d4e-9f0b-4f43-8f0e-6c4a9a1b2c3d");
    let subject = Subject::Workload(Workload {
        cluster: "prod".to_owned(),
        namespace: "payments".to_owned(),
        service_account: account,
        pod: Some(pod),
        node: Some("node-7".to_owned()),
        token_id: Some("0b0ef0a4-2f35-4b4c-9a3e-6d8c1f0a7b11".to_owned()),
    });
    Ok(Session {
        id: SessionId::draw(EPOCH, &mut SystemEntropy)?,
        subject,
        role: Some("payments-api".to_owned()),
        issued_at: NOW.offset(-10),
        expires_at: NOW.offset(890),
        via_provider: false,
        policy: None,
        sources: Vec::new(),
        certificate: None,
        strength: AuthStrength::default(),
    })
}

fn revocations() -> Revocations {
    let mut revocations = Revocations::default();
    for number in 0..1_000 {
        let what = RevokedWhat::Pod(format!("pod-{number}"));
        let needed_until = NOW.offset(43_200);
        revocations.insert(&Revocation { what, issued_until: NOW, needed_until });
    }
    revocations
}

/// A key set, and a token that its key has signed just now.
fn token(issuer: &str, audience: &str) -> Outcome<()> {
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let pair = Ed25519KeyPair::generate()?;
    let x = b64(pair.public_key().as_ref());
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "bench", "x": x });
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let header = json!({ "alg": "EdDSA", "kid": "bench" });
    let claims = json!({ "iss": issuer, "aud": audience, "sub": "bench", "iat": now,
        "exp": now + 3_600 });
    let part = |value: &serde_json::Value| b64(value.to_string().as_bytes());
    let input = format!("{}.{}", part(&header), part(&claims));
    println!("trust.key_set {}", json!({ "keys": [key] }));
    println!("trust.token {input}.{}", b64(pair.sign(input.as_bytes()).as_ref()));
    Ok(())
}
