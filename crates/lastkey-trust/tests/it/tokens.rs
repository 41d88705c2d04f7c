//! Tokens and key sets: what is taken and what is refused.
//!
//! Room      `trust`, tests.

use core::time::Duration;

use lastkey_core::time::Timestamp;
use lastkey_trust::jwks::{JwksError, KeySet};
use lastkey_trust::jwt;
use lastkey_trust::refusal::Refusal;
use lastkey_trust::service_account::{ServiceAccountBinding, verify};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::*;

fn refused(claims: &Value) -> Option<Refusal> {
    verify(&P256.token(claims), &trust(&P256), NOW).err()
}

fn with(path: &str, value: Value) -> Value {
    let mut claims = kubernetes_claims();
    *claims.pointer_mut(path).unwrap() = value;
    claims
}

fn without(parent: &str, name: &str) -> Value {
    let mut claims = kubernetes_claims();
    claims.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    claims
}

/// A token of the account alone.
fn unbound() -> Value {
    let mut claims = without("/kubernetes.io", "pod");
    claims["kubernetes.io"].as_object_mut().unwrap().remove("node").unwrap();
    claims
}

#[test]
fn token_of_every_algorithm_is_read() {
    for signer in [&*RSA, &*PSS, &*P256, &*P384, &*P521, &*ED25519, &*ML_DSA] {
        let claims = verify(&signer.token(&kubernetes_claims()), &trust(signer), NOW);
        let claims = claims.unwrap_or_else(|error| panic!("{}: {}", signer.alg, error.word()));
        assert_eq!((claims.cluster.as_str(), claims.namespace.as_str()), ("prod", "payments"));
        assert_eq!(claims.service_account.name, "api");
        assert_eq!(claims.pod.unwrap().uid, "5c0c2d4e-9f0b-4f43-8f0e-6c4a9a1b2c3d");
        assert_eq!(claims.node.unwrap().name, "node-7");
        assert_eq!(claims.token_id.unwrap(), "0b0ef0a4-2f35-4b4c-9a3e-6d8c1f0a7b11");
        assert_eq!(claims.expires_at, Timestamp(NOW.0 + 3_000));
    }
}

#[test]
fn token_of_a_cluster_before_node_and_token_ids_is_read() {
    let mut claims = without("/kubernetes.io", "node");
    claims.as_object_mut().unwrap().remove("jti");
    let claims = verify(&P256.token(&claims), &trust(&P256), NOW).unwrap();
    assert_eq!((claims.node, claims.token_id), (None, None));
}

#[test]
fn token_with_an_audience_as_text_is_read() {
    assert_eq!(refused(&with("/aud", json!(AUDIENCE))), None);
}

#[test]
fn token_is_refused_for_each_claim_that_is_wrong() {
    let other_issuer = json!("https://kubernetes.default.svc");
    for (claims, refusal) in [
        (with("/iss", other_issuer), Refusal::IssuerNotTrusted),
        (with("/iss", json!(1)), Refusal::IssuerNotTrusted),
        (without("", "iss"), Refusal::IssuerNotTrusted),
        (with("/aud", json!([])), Refusal::AudienceMissing),
        (with("/aud", json!(["other"])), Refusal::AudienceMissing),
        (with("/aud", json!([AUDIENCE, 1])), Refusal::AudienceMissing),
        (without("", "aud"), Refusal::AudienceMissing),
        (with("/sub", json!("system:serviceaccount:payments")), Refusal::SubjectMalformed),
        (with("/sub", json!("system:serviceaccount:payments:api:x")), Refusal::SubjectMalformed),
        (with("/sub", json!("system:serviceaccount::api")), Refusal::SubjectMalformed),
        (with("/sub", json!("system:node:node-7")), Refusal::SubjectMalformed),
        (with("/sub", json!("system:serviceaccount:payments:other")), Refusal::SubjectMismatch),
        (with("/kubernetes.io/namespace", json!("other")), Refusal::SubjectMismatch),
        (with("/kubernetes.io/serviceaccount/name", json!("x")), Refusal::SubjectMismatch),
        (without("/kubernetes.io/serviceaccount", "uid"), Refusal::ClaimMissing),
        (without("/kubernetes.io/pod", "uid"), Refusal::ClaimMissing),
        (with("/kubernetes.io/pod/uid", json!("a/b")), Refusal::SubjectMalformed),
        (with("/kubernetes.io/node/name", json!("Node 7")), Refusal::SubjectMalformed),
        (without("", "kubernetes.io"), Refusal::ClaimMissing),
        (without("/kubernetes.io", "pod"), Refusal::NodeBound),
        (unbound(), Refusal::PodMissing),
        (with("/jti", json!("a\nb")), Refusal::Malformed),
    ] {
        assert_eq!(refused(&claims), Some(refusal), "{claims}");
    }
}

#[test]
fn token_bound_to_a_secret_is_refused_unless_it_is_allowed() {
    let mut claims = without("/kubernetes.io", "pod");
    claims["kubernetes.io"]["secret"] = json!({"name": "s", "uid": "u"});
    assert_eq!(refused(&claims), Some(Refusal::SecretBound));
    let mut trust = trust(&P256);
    trust.allow_secret_bound = true;
    assert!(verify(&P256.token(&claims), &trust, NOW).is_ok());
}

#[test]
fn token_bound_to_a_node_alone_is_refused_whatever_is_allowed() {
    let mut trust = trust(&P256);
    trust.allow_without_pod = true;
    let of_node = P256.token(&without("/kubernetes.io", "pod"));
    assert_eq!(verify(&of_node, &trust, NOW), Err(Refusal::NodeBound));
    let mut claims = unbound();
    claims["kubernetes.io"]["node"] = json!(null);
    assert_eq!(verify(&P256.token(&claims), &trust, NOW), Err(Refusal::NodeBound));
}

#[test]
fn token_without_a_pod_is_for_roles_that_say_so_where_the_cluster_lets_it() {
    let token = P256.token(&unbound());
    let mut trust = trust(&P256);
    trust.allow_without_pod = true;
    let claims = verify(&token, &trust, NOW).unwrap();
    assert_eq!(claims.pod, None);
    let bound = verify(&P256.token(&kubernetes_claims()), &trust, NOW).unwrap();
    let binding = |account: &str, allow_without_pod| ServiceAccountBinding {
        cluster: "prod".into(),
        namespaces: vec!["payments".into()],
        service_accounts: vec![account.into()],
        allow_without_pod,
    };
    assert_eq!(binding("api", false).admit(&claims), Err(Refusal::PodMissing));
    assert_eq!(binding("api", true).admit(&claims), Ok(()));
    assert_eq!(binding("web", true).admit(&claims), Err(Refusal::ClaimMismatch));
    for allow_without_pod in [false, true] {
        assert_eq!(binding("api", allow_without_pod).admit(&bound), Ok(()));
    }
}

#[test]
fn token_of_before_bound_tokens_is_refused() {
    let mut claims = kubernetes_claims();
    claims["kubernetes.io/serviceaccount/namespace"] = json!("payments");
    assert_eq!(refused(&claims), Some(Refusal::LegacyToken));
}

#[test]
fn token_is_good_between_its_times_with_the_leeway() {
    let token = P256.token(&kubernetes_claims());
    let at = |seconds: u64| verify(&token, &trust(&P256), Timestamp(seconds)).err();
    assert_eq!(at(NOW.0 - 661), Some(Refusal::NotYetValid));
    assert_eq!(at(NOW.0 - 660), None);
    assert_eq!(at(NOW.0 + 3_059), None);
    assert_eq!(at(NOW.0 + 3_060), Some(Refusal::Expired));
}

#[test]
fn token_that_lasts_too_long_is_refused() {
    let year = NOW.0 + 31_536_000;
    assert_eq!(refused(&with("/exp", json!(year))), Some(Refusal::LifetimeTooLong));
    assert_eq!(refused(&with("/exp", json!(NOW.0 - 600))), Some(Refusal::LifetimeTooLong));
    let mut short = trust(&P256);
    short.max_lifetime = Duration::from_secs(3_599);
    let refused = verify(&P256.token(&kubernetes_claims()), &short, NOW).err();
    assert_eq!(refused, Some(Refusal::LifetimeTooLong));
}

#[test]
fn token_that_is_not_strict_is_refused() {
    let token = reveal(&P256.token(&kubernetes_claims()));
    let parts: Vec<&str> = token.split('.').collect();
    let double = br#"{"iss":"a","iss":"b"}"#;
    for bad in [
        String::new(),
        "..".into(),
        parts[..2].join("."),
        format!("{token}."),
        format!("{token}.{}", parts[2]),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        token.replace('.', ".."),
    ] {
        let refusal = verify(&secret(&bad), &trust(&P256), NOW).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Malformed | Refusal::BadSignature),
            "{bad}: {refusal:?}"
        );
    }
    let header = json!({"alg": "ES256", "kid": "ES256"});
    let refusal = verify(&P256.token_with(&header, double), &trust(&P256), NOW).err();
    assert_eq!(refusal, Some(Refusal::Malformed));
    let refusal = verify(&secret(&"a".repeat(20_001)), &trust(&P256), NOW).err();
    assert_eq!(refusal, Some(Refusal::TooLong));
}

#[test]
fn header_that_changes_the_rules_is_refused() {
    let payload = kubernetes_claims().to_string();
    for (member, value) in [
        ("crit", json!(["exp"])),
        ("jku", json!("https://evil.example/keys")),
        ("jwk", P256.jwk.clone()),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["MIIB"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("unknown", json!("x")),
        ("kid", json!(1)),
        ("typ", json!("logout+jwt")),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "ES256"});
        header[member] = value;
        let token = P256.token_with(&header, payload.as_bytes());
        let refusal = verify(&token, &trust(&P256), NOW).err();
        assert_eq!(refusal, Some(Refusal::HeaderNotAllowed), "{member}");
    }
    for typ in ["JWT", "jwt", "at+jwt"] {
        let header = json!({"alg": "ES256", "kid": "ES256", "typ": typ, "x5t": "abc"});
        let token = P256.token_with(&header, payload.as_bytes());
        assert!(verify(&token, &trust(&P256), NOW).is_ok(), "{typ}");
    }
}

#[test]
fn key_is_chosen_by_its_id_within_the_set() {
    let token = P256.token(&kubernetes_claims());
    let keys = key_set(&[&RSA.jwk, &P256.jwk]);
    assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["rsa-1", "ES256"]);
    assert!(jwt::verify(&token, &keys).is_ok());
    assert_eq!(jwt::verify(&token, &RSA.keys()).err(), Some(Refusal::UnknownKey));
    let anonymous = P256.token_with(&json!({"alg": "ES256"}), b"{}");
    assert!(jwt::verify(&anonymous, &P256.keys()).is_ok());
    assert_eq!(jwt::verify(&anonymous, &keys).err(), Some(Refusal::UnknownKey));
}

#[test]
fn role_is_for_the_service_accounts_it_names() {
    let claims = verify(&P256.token(&kubernetes_claims()), &trust(&P256), NOW).unwrap();
    let binding = |cluster: &str, namespace: &str, account: &str| ServiceAccountBinding {
        cluster: cluster.into(),
        namespaces: vec![namespace.into()],
        service_accounts: vec![account.into()],
        allow_without_pod: false,
    };
    assert!(binding("prod", "payments", "api").admit(&claims).is_ok());
    assert!(binding("prod", "pay*", "*").admit(&claims).is_ok());
    for (cluster, namespace, account) in
        [("test", "payments", "api"), ("prod", "pay", "api"), ("prod", "payments", "API")]
    {
        let refused = binding(cluster, namespace, account).admit(&claims).err();
        assert_eq!(refused, Some(Refusal::ClaimMismatch));
    }
}

#[test]
fn key_set_refuses_what_is_no_set_of_public_keys() {
    let parse = |text: &str| KeySet::parse(text.as_bytes()).err();
    let set = |key: Value| KeySet::parse(json!({"keys": [key]}).to_string().as_bytes()).err();
    let but = |name: &str, value: Value| {
        let mut key = RSA.jwk.clone();
        key[name] = value;
        key
    };
    assert_eq!(parse("[]"), Some(JwksError::Malformed));
    assert_eq!(parse(r#"{"keys":[1]}"#), Some(JwksError::Malformed));
    assert_eq!(parse(r#"{"keys":[],"keys":[]}"#), Some(JwksError::Malformed));
    assert_eq!(parse(r#"{"keys":[]}"#), Some(JwksError::Empty));
    assert_eq!(set(json!({})), Some(JwksError::BadKey("kty")));
    assert_eq!(set(json!({"kty": "oct", "k": "AAAA"})), Some(JwksError::PrivateKey));
    assert_eq!(set(but("d", json!("AQAB"))), Some(JwksError::PrivateKey));
    assert_eq!(set(but("n", json!(b64([0xff; 255])))), Some(JwksError::BadKey("n")));
    let mut just_short = vec![0xff; 256];
    just_short[0] = 0x7f;
    assert_eq!(set(but("n", json!(b64(just_short)))), Some(JwksError::BadKey("n")));
    assert_eq!(set(but("n", json!(b64([0xff; 1_025])))), Some(JwksError::BadKey("n")));
    assert_eq!(set(but("e", json!(b64([2])))), Some(JwksError::BadKey("e")));
    assert_eq!(set(but("e", json!("AQAB="))), Some(JwksError::BadKey("e")));
    assert_eq!(set(but("kid", json!(""))), Some(JwksError::BadKey("kid")));
    assert_eq!(set(but("key_ops", json!("verify"))), Some(JwksError::BadKey("key_ops")));
    let off_curve = json!({"kty": "EC", "crv": "P-256", "x": b64([1; 32]), "y": b64([1; 32])});
    assert_eq!(set(off_curve), Some(JwksError::BadKey("x")));
}

#[test]
fn key_set_skips_what_is_not_for_signatures() {
    let mut other = P256.jwk.clone();
    for (name, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["encrypt"])),
        ("alg", json!("RS256")),
        ("alg", json!("HS256")),
        ("alg", json!("ECDH-ES")),
        ("crv", json!("secp256k1")),
        ("kty", json!("new")),
    ] {
        let kept = std::mem::replace(&mut other[name], value);
        assert_eq!(key_set(&[&RSA.jwk, &other]).len(), 1, "{other}");
        let alone = json!({"keys": [other]}).to_string();
        assert_eq!(KeySet::parse(alone.as_bytes()).err(), Some(JwksError::Empty));
        if kept.is_null() {
            other.as_object_mut().unwrap().remove(name);
        } else {
            other[name] = kept;
        }
    }
    assert_eq!(key_set(&[&RSA.jwk, &other]).len(), 2);
}

#[test]
fn key_set_refuses_two_keys_with_one_id() {
    let set = json!({"keys": [RSA.jwk, OTHER_RSA.jwk]}).to_string();
    assert_eq!(KeySet::parse(set.as_bytes()).err(), Some(JwksError::DuplicateKeyId));
}

#[test]
fn key_set_has_at_most_64_keys() {
    let unknown = |count: usize| vec![json!({"kty": "x"}); count];
    let set = |mut keys: Vec<Value>| {
        keys.push(P256.jwk.clone());
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).err()
    };
    assert_eq!(set(unknown(63)), None);
    assert_eq!(set(unknown(64)), Some(JwksError::TooManyKeys));
}

proptest! {
    #[test]
    fn token_with_one_altered_byte_is_refused(place: prop::sample::Index, byte: u8) {
        let token = reveal(&P256.token(&kubernetes_claims())).into_bytes();
        let mut altered = token.clone();
        altered[place.index(token.len())] = byte;
        prop_assume!(altered != token);
        let altered = lastkey_secret::SecretVec::take(altered);
        prop_assert!(verify(&altered, &trust(&P256), NOW).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
        let _ = KeySet::parse(&bytes);
        prop_assert!(jwt::verify(&lastkey_secret::SecretVec::take(bytes), &P256.keys()).is_err());
    }
}
