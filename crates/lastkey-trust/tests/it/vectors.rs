//! Vectors of sessions: what is written today, and what must not open.
//!
//! Room      `trust`, tests.
//! Source    `docs/formats/session.md`. `LASTKEY_WRITE_VECTORS=1` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use lastkey_core::ids::SessionId;
use lastkey_core::time::Timestamp;
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_trust::revocation::Revocations;
use lastkey_trust::session::{
    AuthStrength, Caveat, EpochKeys, EpochRing, Federated, Network, Session, Subject, User,
    attenuate, encode_session,
};
use serde_json::{Value, json};

use crate::support::*;

pub(crate) fn vectors_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/session.json")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sessions() -> Vec<(&'static str, Session)> {
    let with = |start: u8, subject: Subject| Session {
        id: SessionId::draw(EPOCH, &mut Counting(start)).unwrap(),
        subject,
        role: None,
        ..session()
    };
    let whole = Session {
        via_provider: true,
        policy: Some("forbid(principal, action, resource);".into()),
        sources: vec![
            Network::new([10, 0, 0, 0].into(), 8).unwrap(),
            Network::host("2001:db8::1".parse::<core::net::IpAddr>().unwrap()),
        ],
        certificate: Some([9; 32]),
        strength: AuthStrength {
            methods: vec!["pwd".into(), "otp".into()],
            mfa_at: Some(Timestamp(NOW.0 - 30)),
        },
        ..session()
    };
    let federated = Subject::Federated(Federated {
        provider: "ci".into(),
        subject: "repo:org/app:ref:refs/heads/main".into(),
        groups: vec!["ops".into()],
        token_id: None,
    });
    let user = Subject::User(User { name: "ada".into(), groups: vec!["security".into()] });
    let spiffe = Subject::Spiffe { id: "spiffe://example.org/api".into() };
    vec![
        ("workload", session()),
        ("workload_with_every_field", whole),
        ("federated", with(40, federated)),
        ("user", with(80, user)),
        ("node", with(120, Subject::Node { name: "node-7".into() })),
        ("spiffe", with(160, spiffe)),
    ]
}

fn secret_of_epoch() -> SecretArray<32> {
    SecretArray::copy_of(&[7; 32])
}

fn keys() -> EpochKeys {
    EpochKeys::derive(EPOCH, &secret_of_epoch()).unwrap()
}

fn written() -> Value {
    let keys = keys();
    let mut vectors = Vec::new();
    for (name, session) in sessions() {
        let triple = keys.seal_triple(&session, &mut Counting(1)).unwrap();
        let bearer = keys.seal_bearer(&session, &mut Counting(101)).unwrap();
        let actions = Caveat::Actions(vec!["encrypt".into(), "decrypt".into()]);
        let narrowed = attenuate(&bearer, &actions).unwrap();
        let narrowed = attenuate(&narrowed, &Caveat::Keys(vec!["key-1".into()])).unwrap();
        let narrowed = attenuate(&narrowed, &Caveat::Until(NOW.0 + 60)).unwrap();
        vectors.push(json!({
            "name": name,
            "session": hex(&encode_session(&session)),
            "principal": session.subject.to_string(),
            "access_key_id": triple.access_key_id,
            "secret": reveal(&triple.secret),
            "session_token": reveal(&triple.session_token),
            "bearer": reveal(&bearer),
            "narrowed": reveal(&narrowed),
        }));
    }
    let (_, plain) = sessions().swap_remove(0);
    let triple = keys.seal_triple(&plain, &mut Counting(1)).unwrap();
    let bearer = keys.seal_bearer(&plain, &mut Counting(101)).unwrap();
    json!({
        "epoch": EPOCH,
        "epoch_secret": hex(&[7; 32]),
        "good": vectors,
        "bad_bearers": bad_bearers(&bearer, &triple.session_token),
    })
}

/// Bearers whose checksum is right and that must not open, each by the way in which it is wrong.
fn bad_bearers(bearer: &SecretVec, session_token: &SecretVec) -> Value {
    let (body, token) = (crate::sessions::body_of(bearer), crate::sessions::body_of(session_token));
    let narrowed = attenuate(bearer, &Caveat::Until(NOW.0 + 60)).unwrap();
    let narrowed = crate::sessions::body_of(&narrowed);
    let head = body.len() - 33;
    let armored = |body: &[u8]| reveal(&crate::sessions::bearer_with(body));
    let altered = |at: usize| {
        let mut body = body.clone();
        body[at] ^= 1;
        armored(&body)
    };
    json!({
        "other_epoch": altered(3),
        "altered_nonce": altered(6),
        "altered_ciphertext": altered(head / 2),
        "altered_tag": altered(head - 1),
        "altered_tail": altered(body.len() - 1),
        "shortened": armored(&body[..body.len() - 1]),
        "lengthened": armored(&[&body[..], &[0]].concat()),
        "caveat_taken_away": armored(&[&narrowed[..head], &[0], &narrowed[narrowed.len() - 32..]].concat()),
        "session_token_as_a_bearer": armored(&[&body[..6], &token, &body[head..]].concat()),
    })
}

#[test]
fn sessions_are_written_as_the_vectors_say() {
    let now = written();
    if std::env::var_os("LASTKEY_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&now).unwrap() + "\n";
        fs::write(vectors_path(), text).unwrap();
    }
    // As values: the order of names in the text hangs on what else is built beside this room.
    let stored: Value = serde_json::from_slice(&fs::read(vectors_path()).unwrap()).unwrap();
    assert_eq!(stored, now);
}

#[test]
fn bad_bearers_of_the_vectors_do_not_open() {
    let vectors: Value = serde_json::from_slice(&fs::read(vectors_path()).unwrap()).unwrap();
    let mut ring = EpochRing::default();
    ring.insert(keys());
    let nothing = Revocations::default();
    let bad = vectors["bad_bearers"].as_object().unwrap();
    assert_eq!(bad.len(), 9);
    for (name, bearer) in bad {
        let bearer = secret(bearer.as_str().unwrap());
        assert!(ring.open_bearer(&bearer, &presentation(&nothing)).is_err(), "{name}");
    }
    let good = secret(vectors["good"][0]["bearer"].as_str().unwrap());
    assert!(ring.open_bearer(&good, &presentation(&nothing)).is_ok());
}
