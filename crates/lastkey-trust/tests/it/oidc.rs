//! Tokens of other issuers.
//!
//! Room      `trust`, tests.

use lastkey_trust::oidc::{Bound, IssuerTrust, verify};
use lastkey_trust::refusal::Refusal;
use serde_json::{Value, json};

use crate::support::*;

const CI: &str = "https://token.actions.example";

fn trust() -> IssuerTrust {
    IssuerTrust::strict("ci".into(), CI.into(), AUDIENCE.into(), P256.keys())
}

fn claims(extra: &Value) -> Value {
    let mut claims = json!({
        "iss": CI, "aud": AUDIENCE, "sub": "repo:org/app:ref:refs/heads/main",
        "iat": NOW.0, "exp": NOW.0 + 300, "ref": "refs/heads/main", "run": 7, "fork": false,
        "roles": {"app": ["a", "b"]}, "groups": ["dev", "ops"], "amr": ["pwd", "otp"],
        "https://example.org/team": "red", "auth_time": NOW.0 - 5
    });
    for (name, value) in extra.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn refused(trust: &IssuerTrust, extra: &Value) -> Option<Refusal> {
    verify(&P256.token(&claims(extra)), trust, None, NOW).err()
}

fn bound(path: &str, bound: Bound) -> IssuerTrust {
    let mut trust = trust();
    trust.bound_claims.insert(path.into(), vec![bound]);
    trust
}

#[test]
fn token_becomes_a_subject_with_groups() {
    let mut trust = trust();
    trust.groups_claim = Some("groups".into());
    let identity = verify(&P256.token(&claims(&json!({}))), &trust, None, NOW).unwrap();
    assert_eq!(identity.subject, "repo:org/app:ref:refs/heads/main");
    assert_eq!(identity.groups, ["dev", "ops"]);
    assert_eq!(identity.methods, ["pwd", "otp"]);
    assert_eq!(identity.authenticated_at.unwrap().0, NOW.0 - 5);
    trust.subject_claim = "ref".into();
    trust.groups_claim = Some("roles/app".into());
    let identity = verify(&P256.token(&claims(&json!({}))), &trust, None, NOW).unwrap();
    assert_eq!((identity.subject.as_str(), identity.groups.len()), ("refs/heads/main", 2));
}

#[test]
fn token_needs_every_bound_claim() {
    let exact = |text: &str| Bound::Exact(text.into());
    let glob = |text: &str| Bound::Glob(text.into());
    for (path, want, expected) in [
        ("ref", exact("refs/heads/main"), None),
        ("ref", glob("refs/heads/*"), None),
        ("ref", glob("refs/tags/*"), Some(Refusal::ClaimMismatch)),
        ("ref", exact("refs/heads/*"), Some(Refusal::ClaimMismatch)),
        ("ref", exact("Refs/heads/main"), Some(Refusal::ClaimMismatch)),
        ("run", exact("7"), None),
        ("run", glob("*"), Some(Refusal::ClaimMismatch)),
        ("fork", exact("false"), None),
        ("fork", exact("true"), Some(Refusal::ClaimMismatch)),
        ("groups", exact("ops"), None),
        ("groups", exact("adm"), Some(Refusal::ClaimMismatch)),
        ("roles/app", exact("b"), None),
        ("roles/web", exact("b"), Some(Refusal::ClaimMissing)),
        ("roles", glob("*"), Some(Refusal::ClaimMismatch)),
        ("https://example.org/team", exact("red"), None),
        ("absent", glob("*"), Some(Refusal::ClaimMissing)),
    ] {
        assert_eq!(refused(&bound(path, want.clone()), &json!({})), expected, "{path} {want:?}");
    }
}

#[test]
fn token_of_another_issuer_or_audience_is_refused() {
    let other = json!({"iss": "https://token.actions.example/"});
    assert_eq!(refused(&trust(), &other), Some(Refusal::IssuerNotTrusted));
    assert_eq!(refused(&trust(), &json!({"aud": "x"})), Some(Refusal::AudienceMissing));
    let two = json!({"aud": [AUDIENCE, "x"], "azp": AUDIENCE});
    assert_eq!(refused(&trust(), &two), Some(Refusal::AudienceForeign));
    let mut lax = trust();
    lax.allow_other_audiences = true;
    assert_eq!(refused(&lax, &two), None);
    let asked_by_other = json!({"aud": [AUDIENCE, "x"], "azp": "x"});
    assert_eq!(refused(&lax, &asked_by_other), Some(Refusal::AudienceForeign));
    let asked_by_nobody = json!({"aud": [AUDIENCE, "x"]});
    assert_eq!(refused(&lax, &asked_by_nobody), Some(Refusal::AudienceForeign));
}

#[test]
fn id_token_belongs_to_its_login() {
    let nonce = secret("n-0S6_WzA2Mj");
    let with =
        |extra: Value| verify(&P256.token(&claims(&extra)), &trust(), Some(&nonce), NOW).err();
    assert_eq!(with(json!({"nonce": "n-0S6_WzA2Mj"})), None);
    assert_eq!(with(json!({"nonce": "other"})), Some(Refusal::NonceMismatch));
    assert_eq!(with(json!({})), Some(Refusal::NonceMismatch));
}

#[test]
fn token_with_a_subject_or_group_that_could_forge_a_log_line_is_refused() {
    let bad = json!({"sub": "a\nb"});
    assert_eq!(refused(&trust(), &bad), Some(Refusal::SubjectMalformed));
    assert_eq!(refused(&trust(), &json!({"sub": ""})), Some(Refusal::SubjectMalformed));
    assert_eq!(refused(&trust(), &json!({"sub": 7})), Some(Refusal::ClaimMissing));
    let mut grouped = trust();
    grouped.groups_claim = Some("groups".into());
    for groups in [json!(["a\u{7}"]), json!([1]), json!({}), json!(vec!["g"; 129])] {
        let refusal = refused(&grouped, &json!({"groups": groups}));
        assert_eq!(refusal, Some(Refusal::ClaimMismatch));
    }
}

#[test]
fn time_with_a_fraction_is_cut_to_the_second() {
    let exp = json!({"exp": 1_800_000_300.9_f64, "iat": 1_800_000_000.5_f64});
    let identity = verify(&P256.token(&claims(&exp)), &trust(), None, NOW).unwrap();
    assert_eq!(identity.expires_at.0, NOW.0 + 300);
}
