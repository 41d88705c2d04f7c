//! Attacks on tokens, logins and sessions, each test named after one.
//!
//! Room      `trust`, tests.
//! Source    The advisories named beside the tests; RFC 8725.

use aws_lc_rs::hmac;
use lastkey_core::access::{Revocation, RevokedWhat};
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_trust::jwks::{JwksError, KeySet};
use lastkey_trust::oidc::TokenAnswer;
use lastkey_trust::refusal::Refusal;
use lastkey_trust::revocation::Revocations;
use lastkey_trust::service_account::verify;
use lastkey_trust::session::{Network, NodeAgent, Session, Subject};
use lastkey_trust::sigv4::{Authorization, Request, SignatureError};
use lastkey_trust::totp::{Totp, TotpHash};
use serde_json::{Value, json};

use crate::support::*;

fn with(name: &str, value: Value) -> Value {
    let mut claims = kubernetes_claims();
    claims[name] = value;
    claims
}

/// Both kinds of keys that API servers sign with.
fn both(claims: &Value) -> [Option<Refusal>; 2] {
    [&*RSA, &*P256].map(|signer| verify(&signer.token(claims), &trust(signer), NOW).err())
}

fn opens(session: &Session, revocations: &Revocations) -> Result<(), &'static str> {
    let ring = ring();
    let bearer = ring.newest().unwrap().seal_bearer(session, &mut SystemEntropy).unwrap();
    let opened = ring.open_bearer(&bearer, &presentation(revocations));
    opened.map(|_| ()).map_err(lastkey_trust::session::NotAccepted::word)
}

fn revoked(what: RevokedWhat) -> Revocations {
    let mut revocations = Revocations::default();
    revocations.insert(&revocation(what, Timestamp(NOW.0 + 5)));
    revocations
}

/// CVE-2023-2878, CVE-2024-3744, CVE-2025-7445.
#[test]
fn attack_token_in_logs() {
    let ring = ring();
    let triple = ring.newest().unwrap().seal_triple(&session(), &mut SystemEntropy).unwrap();
    let bearer = ring.newest().unwrap().seal_bearer(&session(), &mut SystemEntropy).unwrap();
    let logged = format!("{ring:?} {triple:?} {bearer:?}");
    for hidden in [&triple.secret, &triple.session_token, &bearer] {
        assert!(!logged.contains(&reveal(hidden)));
    }
    assert!(logged.contains(&triple.access_key_id));
}

#[test]
fn attack_token_replay_off_cluster() {
    let mut pinned = session();
    pinned.sources = vec![Network::new([10, 9, 0, 0].into(), 16).unwrap()];
    assert_eq!(opens(&pinned, &Revocations::default()), Err("source"));
    pinned.sources.push(Network::host([10, 1, 2, 3].into()));
    assert_eq!(opens(&pinned, &Revocations::default()), Ok(()));
    let long = with("exp", json!(NOW.0 + 31_536_000));
    assert_eq!(both(&long), [Some(Refusal::LifetimeTooLong); 2]);
}

#[test]
fn attack_compromised_node_keeps_the_sessions_of_its_pods() {
    let node = revoked(RevokedWhat::Node("node-7".into()));
    assert_eq!(opens(&session(), &node), Err("revoked_node"));
    let mut agent = session();
    agent.subject = Subject::Node { name: "node-7".into() };
    assert_eq!(opens(&agent, &node), Err("revoked_node"));
    agent.subject = Subject::Node { name: "node-8".into() };
    assert_eq!(opens(&agent, &node), Ok(()));
}

#[test]
fn attack_compromised_pod_goes_around_its_provider() {
    let ring = ring();
    let mut bound = session();
    bound.via_provider = true;
    let bearer = ring.newest().unwrap().seal_bearer(&bound, &mut SystemEntropy).unwrap();
    let nothing = Revocations::default();
    let by = |agent: Option<(&'static str, &'static str)>| {
        let agent = agent.map(|(cluster, node)| NodeAgent { cluster, node });
        let request = lastkey_trust::session::Presentation { agent, ..presentation(&nothing) };
        ring.open_bearer(&bearer, &request).map(|_| ()).map_err(|error| error.word())
    };
    assert_eq!(by(None), Err("provider"));
    assert_eq!(by(Some(("prod", "node-8"))), Err("provider"));
    assert_eq!(by(Some(("test", "node-7"))), Err("provider"));
    assert_eq!(by(Some(("prod", "node-7"))), Ok(()));
    let mut homeless = workload();
    homeless.node = None;
    bound.subject = Subject::Workload(homeless);
    assert_eq!(opens(&bound, &nothing), Err("provider"));
}

#[test]
fn attack_issuer_collision_between_clusters() {
    // The same issuer, audience, key id and claims: only the keys tell the clusters apart.
    let foreign = OTHER_RSA.token(&kubernetes_claims());
    assert!(verify(&foreign, &trust(&OTHER_RSA), NOW).is_ok());
    assert_eq!(verify(&foreign, &trust(&RSA), NOW).err(), Some(Refusal::BadSignature));
}

/// CVE-2025-5999, -6004, -6013.
#[test]
fn attack_names_that_differ_by_case_or_space() {
    for subject in [
        "system:serviceaccount:Payments:api",
        "system:serviceaccount:payments:API",
        "system:serviceaccount: payments:api",
        "system:serviceaccount:payments:api ",
        "system:serviceaccount:payments:a\u{440}i",
        "System:ServiceAccount:payments:api",
    ] {
        let refused = both(&with("sub", json!(subject)));
        assert_eq!(refused, [Some(Refusal::SubjectMalformed); 2], "{subject}");
    }
    let audience = json!([AUDIENCE.to_uppercase()]);
    assert_eq!(both(&with("aud", audience)), [Some(Refusal::AudienceMissing); 2]);
    let issuer = json!(format!("{ISSUER}/"));
    assert_eq!(both(&with("iss", issuer)), [Some(Refusal::IssuerNotTrusted); 2]);
}

/// CVE-2025-6014, -6015.
#[test]
fn attack_one_time_code_reused_with_spaces() {
    let totp = Totp::new(TotpHash::Sha1, secret("12345678901234567890")).unwrap();
    let at = Timestamp(59);
    let step = totp.verify(&secret("287082"), at, None).unwrap();
    let same = [
        "287082",
        " 287082",
        "287082 ",
        "287 082",
        "0287082",
        "+287082",
        "2870820",
        "２８７０８２",
    ];
    for text in same {
        assert_eq!(totp.verify(&secret(text), at, Some(step)), None, "{text}");
    }
    for text in &same[1..] {
        assert_eq!(totp.verify(&secret(text), at, None), None, "{text}");
    }
}

/// CVE-2026-3605.
#[test]
fn attack_path_traversal_in_a_signed_request() {
    let value = format!(
        "AWS4-HMAC-SHA256 Credential=A/20270115/r/kms/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={}",
        "0".repeat(64)
    );
    let headers = [("host", "h"), ("x-amz-date", "20270115T080000Z")];
    for (path, error) in [
        ("/v1/keys/../sys/seal", SignatureError::BadPath),
        ("/v1/keys/%2e%2e/sys/seal", SignatureError::BadPath),
        ("/v1//keys", SignatureError::BadPath),
        ("/v1/keys", SignatureError::Mismatch),
    ] {
        let request =
            Request { method: "POST", path, query: "", headers: &headers, body_sha256: &[0; 32] };
        let authorization = Authorization::parse(&value).unwrap();
        let refused = authorization.verify(&request, &secret("s"), "kms", NOW).err();
        assert_eq!(refused, Some(error), "{path}");
    }
}

/// CVE-2026-39388.
#[test]
fn attack_session_renewed_with_another_certificate() {
    let ring = ring();
    let mut bound = session();
    bound.certificate = Some([1; 32]);
    let bearer = ring.newest().unwrap().seal_bearer(&bound, &mut SystemEntropy).unwrap();
    let nothing = Revocations::default();
    let by = |certificate| {
        let request =
            lastkey_trust::session::Presentation { certificate, ..presentation(&nothing) };
        ring.open_bearer(&bearer, &request).map(|_| ()).map_err(|error| error.word())
    };
    assert_eq!(by(Some(&[1; 32])), Ok(()));
    assert_eq!(by(Some(&[2; 32])), Err("certificate"));
    assert_eq!(by(None), Err("certificate"));
}

/// CVE-2026-46405.
#[test]
fn attack_error_and_token_in_one_answer() {
    for answer in [
        r#"{"error":"authorization_pending","id_token":"a.b.c"}"#,
        r#"{"error":"access_denied","access_token":"x"}"#,
        r#"{"id_token":"a.b.c","error":"slow_down"}"#,
    ] {
        assert_eq!(TokenAnswer::parse(answer.as_bytes()).err(), Some(Refusal::Malformed));
    }
}

#[test]
fn attack_algorithm_none() {
    let payload = kubernetes_claims().to_string();
    for alg in ["none", "None", "NONE", ""] {
        let header = json!({"alg": alg, "kid": "rsa-1"}).to_string();
        for signature in ["", "AA"] {
            let token = secret(&format!("{}.{}.{signature}", b64(&header), b64(&payload)));
            let refused = verify(&token, &trust(&RSA), NOW).err();
            assert_eq!(refused, Some(Refusal::AlgorithmNotAllowed), "{alg}");
        }
    }
}

/// The public key as the secret of a MAC: as it is published, and its modulus.
#[test]
fn attack_rsa_and_hmac_confusion() {
    let published = RSA.jwk.to_string();
    let modulus = RSA.jwk["n"].as_str().unwrap().to_owned();
    for key in [published, modulus] {
        for alg in ["HS256", "HS384", "HS512"] {
            let header = json!({"alg": alg, "kid": "rsa-1"}).to_string();
            let input = format!("{}.{}", b64(header), b64(kubernetes_claims().to_string()));
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
            let tag = hmac::sign(&key, input.as_bytes());
            let token = secret(&format!("{input}.{}", b64(tag)));
            let refused = verify(&token, &trust(&RSA), NOW).err();
            assert_eq!(refused, Some(Refusal::AlgorithmNotAllowed), "{alg}");
        }
    }
}

#[test]
fn attack_algorithm_of_another_key() {
    let payload = kubernetes_claims().to_string();
    for (signer, alg) in [
        (&*RSA, "PS256"),
        (&*RSA, "RS512"),
        (&*RSA, "ES256"),
        (&*P256, "ES384"),
        (&*P256, "RS256"),
        (&*P256, "EdDSA"),
        (&*ML_DSA, "ML-DSA-44"),
    ] {
        let header = json!({"alg": alg, "kid": signer.jwk["kid"]});
        let token = signer.token_with(&header, payload.as_bytes());
        let refused = verify(&token, &trust(signer), NOW).err();
        assert_eq!(refused, Some(Refusal::AlgorithmMismatch), "{alg}");
    }
}

/// CVE-2026-25537.
#[test]
fn attack_time_that_is_missing_or_no_number() {
    for name in ["exp", "nbf", "iat"] {
        for bad in [
            json!(null),
            json!("1800003000"),
            json!([1_800_003_000]),
            json!(true),
            json!(-1),
            json!(1e300),
            json!({}),
        ] {
            let refused = both(&with(name, bad.clone()));
            assert_eq!(refused, [Some(Refusal::TimeMissing); 2], "{name} {bad}");
        }
        let mut claims = kubernetes_claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(both(&claims), [Some(Refusal::TimeMissing); 2], "{name}");
    }
}

#[test]
fn attack_audience_list_with_a_foreign_audience() {
    let both_named = json!([AUDIENCE, "https://vault.example"]);
    assert_eq!(both(&with("aud", both_named)), [Some(Refusal::AudienceForeign); 2]);
    let twice = json!([AUDIENCE, AUDIENCE]);
    assert_eq!(both(&with("aud", twice)), [Some(Refusal::AudienceForeign); 2]);
}

/// A token for the API server may live for a year and lies in every pod.
#[test]
fn attack_audience_of_the_api_server() {
    let mut lax = trust(&P256);
    lax.audiences.push(ISSUER.into());
    lax.allow_other_audiences = true;
    for audience in [json!([ISSUER]), json!([AUDIENCE, ISSUER])] {
        let token = P256.token(&with("aud", audience));
        assert_eq!(verify(&token, &lax, NOW).err(), Some(Refusal::AudienceForeign));
    }
}

#[test]
fn attack_key_set_of_ten_megabytes() {
    let padding = "x".repeat(10 * 1024 * 1024);
    let set = json!({"keys": [P256.jwk], "padding": padding}).to_string();
    assert_eq!(KeySet::parse(set.as_bytes()).err(), Some(JwksError::TooLong));
}

#[test]
fn attack_token_of_a_deleted_pod() {
    let uid = workload().pod.unwrap().uid;
    let mut gone = Revocations::default();
    let exchange_until = Timestamp(NOW.0 + 90_000);
    let needed_until = Timestamp(exchange_until.0 + 43_200);
    gone.insert(&Revocation { needed_until, ..revocation(RevokedWhat::Pod(uid), NOW) });
    assert_eq!(opens(&session(), &gone), Err("revoked_pod"));
    // A session that is drawn from the token afterwards is over from its beginning.
    let mut later = session();
    later.issued_at = Timestamp(NOW.0 + 9);
    assert_eq!(opens(&later, &gone), Err("revoked_pod"));
    gone.prune(exchange_until, |_, _| false);
    assert_eq!(opens(&session(), &gone), Err("revoked_pod"));
}

/// CVE-2025-62506: a narrowed credential must not shed what narrows it.
#[test]
fn attack_session_policy_bypass() {
    let mut narrow = session();
    narrow.policy = Some("forbid(principal, action == Action::\"decrypt\", resource);".into());
    let ring = ring();
    let nothing = Revocations::default();
    let keys = ring.newest().unwrap();
    let bearer = keys.seal_bearer(&narrow, &mut SystemEntropy).unwrap();
    let opened = ring.open_bearer(&bearer, &presentation(&nothing)).unwrap();
    assert_eq!(opened.session.policy, narrow.policy);
    let triple = keys.seal_triple(&narrow, &mut SystemEntropy).unwrap();
    let opened = ring.open_triple(
        &triple.access_key_id,
        &triple.session_token,
        &presentation(&nothing),
        |_| Ok(()),
    );
    assert_eq!(opened.unwrap().session.policy, narrow.policy);
}
