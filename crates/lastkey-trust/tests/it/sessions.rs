//! Sessions: sealed, opened by another replica, narrowed, refused, revoked.
//!
//! Room      `trust`, tests.

use core::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_core::access::{Revocation, RevokedWhat};
use lastkey_core::time::Timestamp;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_secret::SecretVec;
use lastkey_trust::revocation::Revocations;
use lastkey_trust::session::{
    AuthStrength, Caveat, CaveatError, EpochRing, Federated, KeptBearers, MAX_BEARER_LEN,
    MAX_CAVEATS, MAX_SESSION_TOKEN_LEN, Network, NodeAgent, NotAccepted, Opened, Presentation,
    SealError, Session, Subject, Triple, User, attenuate, decode_session, encode_session,
    looks_like_access_key_id, looks_like_bearer, looks_like_session_token,
};
use proptest::prelude::*;

use crate::support::*;

fn bearer_of(session: &Session) -> SecretVec {
    ring().newest().unwrap().seal_bearer(session, &mut SystemEntropy).unwrap()
}

fn triple_of(session: &Session) -> Triple {
    ring().newest().unwrap().seal_triple(session, &mut SystemEntropy).unwrap()
}

fn open_by(ring: &EpochRing, bearer: &SecretVec, at: u64) -> Result<Opened, &'static str> {
    let nothing = Revocations::default();
    let request = Presentation { now: Timestamp(at), ..presentation(&nothing) };
    ring.open_bearer(bearer, &request).map_err(NotAccepted::word)
}

fn open(bearer: &SecretVec) -> Result<Opened, &'static str> {
    open_by(&ring(), bearer, NOW.0 + 10)
}

fn open_signed(id: &str, token: &SecretVec) -> Result<Session, &'static str> {
    let nothing = Revocations::default();
    let opened = ring().open_triple(id, token, &presentation(&nothing), |_| Ok(()));
    opened.map(|opened| opened.session).map_err(NotAccepted::word)
}

/// A session with every field.
fn full() -> Session {
    Session {
        via_provider: true,
        policy: Some("permit(principal, action, resource);".into()),
        sources: vec![
            Network::new([10, 0, 0, 0].into(), 8).unwrap(),
            Network::host("2001:db8::1".parse::<IpAddr>().unwrap()),
        ],
        certificate: Some([9; 32]),
        strength: AuthStrength {
            methods: vec!["pwd".into(), "otp".into()],
            mfa_at: Some(Timestamp(NOW.0 - 30)),
        },
        ..session()
    }
}

#[test]
fn both_forms_open_on_another_replica() {
    let bearer = open(&bearer_of(&session())).unwrap();
    assert_eq!(bearer.session, session());
    assert!(bearer.narrowing.caveats().is_empty());
    let triple = triple_of(&session());
    assert_eq!(triple.secret.len(), 40);
    assert_eq!(open_signed(&triple.access_key_id, &triple.session_token), Ok(session()));
}

#[test]
fn every_fact_survives_sealing() {
    let subjects = [
        Subject::Workload(workload()),
        Subject::Federated(Federated {
            provider: "ci".into(),
            subject: "repo:org/app".into(),
            groups: vec!["ops".into()],
            token_id: Some("t".into()),
        }),
        Subject::User(User { name: "ada".into(), groups: vec![] }),
        Subject::Node { name: "node-7".into() },
        Subject::Spiffe { id: "spiffe://example.org/api".into() },
    ];
    for subject in subjects {
        let whole = Session { subject, ..full() };
        assert_eq!(decode_session(&encode_session(&whole)), Some(whole));
    }
}

#[test]
fn secret_is_the_same_on_every_replica_and_differs_by_session() {
    let one = triple_of(&session());
    let mut seen = None;
    let nothing = Revocations::default();
    let opened = ring().open_triple(
        &one.access_key_id,
        &one.session_token,
        &presentation(&nothing),
        |secret| {
            seen = Some(reveal(&secret()));
            Ok(())
        },
    );
    assert!(opened.is_ok());
    assert_eq!(seen, Some(reveal(&one.secret)));
    let id = ring().newest().unwrap().draw_id(&mut SystemEntropy).unwrap();
    let other = triple_of(&Session { id, ..session() });
    assert!(!other.secret.ct_eq(&one.secret));
    assert_eq!(open_signed(&one.access_key_id, &other.session_token), Err("not_authentic"));
}

#[test]
fn session_token_without_the_signature_opens_nothing() {
    let triple = triple_of(&session());
    let nothing = Revocations::default();
    let refused = ring().open_triple(
        &triple.access_key_id,
        &triple.session_token,
        &presentation(&nothing),
        |_| Err("signature_mismatch"),
    );
    assert_eq!(refused.unwrap_err().word(), "signature_mismatch");
}

/// The sealed bytes of one form with prefix and checksum of the other.
#[test]
fn no_form_stands_for_the_other() {
    let rearm = |prefix: &str, body: &[u8]| {
        let sum = lastkey_crypto::digest::sha256_of(&[prefix.as_bytes(), body]);
        secret(&format!("{prefix}{}", b64([body, &sum[..4]].concat())))
    };
    let (triple, bearer) = (triple_of(&session()), bearer_of(&session()));
    let token = body_of(&triple.session_token);
    let (token, body) = (token.as_slice(), body_of(&bearer));
    let body = body.as_slice();
    let sealed = &body[6..body.len() - 33];

    // What is taken apart here goes together again: the test is about the forms.
    assert!(open(&rearm("lkb1_", body)).is_ok());
    assert!(open_signed(&triple.access_key_id, &rearm("lks1.", token)).is_ok());

    assert_eq!(open(&rearm("lkb1_", token)).err(), Some("malformed"));
    let moved = rearm("lks1.", sealed);
    assert_eq!(open_signed(&triple.access_key_id, &moved).err(), Some("not_authentic"));
    let length = u16::try_from(token.len()).unwrap().to_be_bytes();
    let dressed = [&EPOCH.to_be_bytes(), &length[..], token, &[0], &[0; 32]].concat();
    assert_eq!(open(&rearm("lkb1_", &dressed)).err(), Some("not_authentic"));
}

#[test]
fn another_epoch_opens_nothing() {
    let bearer = bearer_of(&session());
    let triple = triple_of(&session());
    let mut same_number = EpochRing::default();
    same_number.insert(epoch(EPOCH, 8));
    assert_eq!(open_by(&same_number, &bearer, NOW.0).err(), Some("not_authentic"));
    assert!(same_number.holder_of_triple(&triple.access_key_id, &triple.secret).is_none());
    let mut other_number = EpochRing::default();
    other_number.insert(epoch(EPOCH + 1, 7));
    assert_eq!(open_by(&other_number, &bearer, NOW.0).err(), Some("unknown_epoch"));
}

#[test]
fn forgotten_epoch_opens_nothing_and_the_newest_seals() {
    let mut both = ring();
    both.insert(epoch(EPOCH + 1, 9));
    assert_eq!(both.newest().map(|keys| keys.number()), Some(EPOCH + 1));
    let bearer = bearer_of(&session());
    assert!(open_by(&both, &bearer, NOW.0).is_ok());
    both.forget_before(EPOCH + 1);
    assert_eq!(open_by(&both, &bearer, NOW.0).err(), Some("unknown_epoch"));
    let sealed = both.newest().unwrap().seal_bearer(&session(), &mut SystemEntropy);
    assert_eq!(sealed.err(), Some(SealError::OtherEpoch));
}

/// A bearer that may have been opened before, opened.
fn open_again(
    ring: &EpochRing,
    kept: &KeptBearers<Session>,
    bearer: &SecretVec,
    request: &Presentation<'_>,
) -> Result<Session, &'static str> {
    let again = ring.open_kept(kept, bearer, request, |opened| opened.session);
    let anew = ring.open_bearer(bearer, request).map(|opened| opened.session);
    assert_eq!(again, anew);
    again.map_err(NotAccepted::word)
}

#[test]
fn bearer_that_was_opened_before_is_judged_anew_each_time() {
    let certificate = [9; 32];
    let bound = Session {
        via_provider: true,
        certificate: Some(certificate),
        sources: vec![Network::new([10, 0, 0, 0].into(), 8).unwrap()],
        ..session()
    };
    let bearer = attenuate(&bearer_of(&bound), &Caveat::Until(NOW.0 + 100)).unwrap();
    let (ring, kept, nothing) = (ring(), KeptBearers::default(), Revocations::default());
    let mut everything = Revocations::default();
    everything.insert(&revocation(RevokedWhat::Everything, NOW));
    let good = Presentation {
        certificate: Some(&certificate),
        agent: Some(NodeAgent { cluster: "prod", node: "node-7" }),
        ..presentation(&nothing)
    };
    let open = |request| open_again(&ring, &kept, &bearer, &request);
    assert_eq!(open(good).unwrap().expires_at, Timestamp(NOW.0 + 100));
    for (request, word) in [
        (Presentation { now: Timestamp(NOW.0 - 61), ..good }, "not_yet_valid"),
        (Presentation { now: Timestamp(NOW.0 + 100), ..good }, "expired"),
        (Presentation { source: Some([11, 1, 2, 3].into()), ..good }, "source"),
        (Presentation { certificate: None, ..good }, "certificate"),
        (Presentation { agent: None, ..good }, "provider"),
        (Presentation { revocations: &everything, ..good }, "revoked_everything"),
    ] {
        assert_eq!(open(request), Err(word));
        assert!(open(good).is_ok(), "after {word}");
    }
}

#[test]
fn bearer_that_was_opened_before_does_not_open_a_narrower_or_wider_one() {
    let (ring, kept, nothing) = (ring(), KeptBearers::default(), Revocations::default());
    let wide = bearer_of(&session());
    let narrow = attenuate(&wide, &Caveat::Actions(vec!["kms:Decrypt".into()])).unwrap();
    for _ in 0..2 {
        for (bearer, caveats) in [(&wide, 0), (&narrow, 1)] {
            let request = presentation(&nothing);
            let opened = ring.open_kept(&kept, bearer, &request, |opened| opened.narrowing);
            assert_eq!(opened.unwrap().caveats().len(), caveats);
        }
    }
}

#[test]
fn bearer_that_was_opened_before_ends_with_the_keys_of_its_epoch() {
    let (mut ring, kept, nothing) = (ring(), KeptBearers::default(), Revocations::default());
    let bearer = bearer_of(&session());
    let open = |ring: &EpochRing| open_again(ring, &kept, &bearer, &presentation(&nothing)).err();
    assert_eq!(open(&ring), None);
    ring.insert(epoch(EPOCH, 8));
    assert_eq!(open(&ring), Some("not_authentic"));
    ring.insert(epoch(EPOCH, 7));
    ring.insert(epoch(EPOCH + 1, 9));
    assert_eq!(open(&ring), None);
    ring.forget_before(EPOCH + 1);
    assert_eq!(open(&ring), Some("unknown_epoch"));
}

#[test]
fn session_is_good_from_its_begin_to_before_its_end() {
    let bearer = bearer_of(&session());
    let at = |seconds| open_by(&ring(), &bearer, seconds).err();
    assert_eq!(at(NOW.0 - 61), Some("not_yet_valid"));
    assert_eq!(at(NOW.0 - 60), None);
    assert_eq!(at(NOW.0 + 899), None);
    assert_eq!(at(NOW.0 + 900), Some("expired"));
}

#[test]
fn sealing_refuses_what_must_not_be_a_session() {
    let seal =
        |session: &Session| ring().newest().unwrap().seal_bearer(session, &mut SystemEntropy).err();
    let lasting = |seconds: u64| Session { expires_at: Timestamp(NOW.0 + seconds), ..session() };
    assert_eq!(seal(&lasting(0)), Some(SealError::Lifetime));
    assert_eq!(seal(&lasting(43_200)), None);
    assert_eq!(seal(&lasting(43_201)), Some(SealError::Lifetime));
    assert_eq!(seal(&Session { expires_at: Timestamp(0), ..session() }), Some(SealError::Lifetime));
    let policy = |len: usize| Session { policy: Some("x".repeat(len)), ..session() };
    assert_eq!(seal(&policy(2_048)), None);
    assert_eq!(seal(&policy(2_049)), Some(SealError::PolicyTooLong));
    let groups = vec!["g".repeat(250); 20];
    let subject = Subject::User(User { name: "ada".into(), groups });
    assert_eq!(seal(&Session { subject, ..session() }), Some(SealError::TooLong));
}

#[test]
fn field_of_a_later_version_is_refused() {
    let mut encoded = encode_session(&session());
    assert!(decode_session(&encoded).is_some());
    // One more entry in the map: 11 => true.
    encoded[0] += 1;
    encoded.extend_from_slice(&[0x0b, 0xf5]);
    assert_eq!(decode_session(&encoded), None);
}

#[test]
fn holder_is_known_by_what_it_holds() {
    let mut over = session();
    over.expires_at = Timestamp(NOW.0 + 1);
    let (triple, bearer) = (triple_of(&over), bearer_of(&over));
    let ring = ring();
    assert_eq!(ring.holder_of_bearer(&bearer).map(|held| held.id), Some(over.id));
    let held = ring.holder_of_triple(&triple.access_key_id, &triple.secret);
    assert_eq!(held, Some(over.id));
    assert_eq!(ring.holder_of_triple(&triple.access_key_id, &secret("guess")), None);
    assert!(ring.holder_of_bearer(&secret("lkb1_AAAA")).is_none());
}

#[test]
fn scanner_knows_credentials_offline() {
    let (triple, bearer) = (triple_of(&session()), bearer_of(&session()));
    assert!(looks_like_access_key_id(&triple.access_key_id));
    assert!(triple.session_token.expose(looks_like_session_token));
    assert!(bearer.expose(looks_like_bearer));
    assert!(!bearer.expose(looks_like_session_token));
    assert!(!looks_like_access_key_id("LKTAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    assert!(!looks_like_bearer(b"lkb1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
}

#[test]
fn longest_credentials_fit_their_limits() {
    let methods = vec!["m".repeat(97); 16];
    let policy = Some("x".repeat(2_048));
    let mut long =
        Session { policy, strength: AuthStrength { methods, mfa_at: None }, ..session() };
    while encode_session(&long).len() > 4_096 {
        long.strength.methods.pop();
    }
    let short = 4_096 - encode_session(&long).len();
    long.strength.methods.push("m".repeat(short.saturating_sub(2).min(97)));
    let triple = triple_of(&long);
    assert!(triple.session_token.len() <= MAX_SESSION_TOKEN_LEN);
    assert_eq!(open_signed(&triple.access_key_id, &triple.session_token), Ok(long.clone()));
    let mut bearer = bearer_of(&long);
    let keys = Caveat::Keys(vec!["3fa85f64-5717-4562-b3fc-2c963f66afa6".into(); 26]);
    for _ in 0..MAX_CAVEATS {
        bearer = attenuate(&bearer, &keys).unwrap();
    }
    assert!(bearer.len() <= MAX_BEARER_LEN);
    assert!(open(&bearer).is_ok());
}

fn actions(list: &[&str]) -> Caveat {
    Caveat::Actions(list.iter().map(|one| (*one).to_owned()).collect())
}

#[test]
fn caveats_narrow_and_add_up() {
    let bearer = attenuate(&bearer_of(&session()), &actions(&["encrypt", "decrypt"])).unwrap();
    let bearer = attenuate(&bearer, &Caveat::Keys(vec!["key-1".into()])).unwrap();
    let narrowing = open(&bearer).unwrap().narrowing;
    assert!(narrowing.permits("decrypt", Some("key-1")));
    assert!(!narrowing.permits("decrypt", Some("key-2")));
    assert!(!narrowing.permits("decrypt", None));
    assert!(!narrowing.permits("delete", Some("key-1")));
    let narrower = attenuate(&bearer, &actions(&["encrypt", "delete"])).unwrap();
    let narrowing = open(&narrower).unwrap().narrowing;
    assert!(narrowing.permits("encrypt", Some("key-1")));
    assert!(!narrowing.permits("decrypt", Some("key-1")));
    assert!(!narrowing.permits("delete", Some("key-1")));
    assert!(open(&bearer_of(&session())).unwrap().narrowing.permits("anything", None));
}

#[test]
fn caveat_of_time_ends_the_session_earlier_and_never_later() {
    let until = |seconds: u64| attenuate(&bearer_of(&session()), &Caveat::Until(seconds)).unwrap();
    let earlier = until(NOW.0 + 100);
    assert_eq!(open_by(&ring(), &earlier, NOW.0 + 100).err(), Some("expired"));
    let opened = open_by(&ring(), &earlier, NOW.0 + 99).unwrap();
    assert_eq!(opened.session.expires_at, Timestamp(NOW.0 + 100));
    assert_eq!(open_by(&ring(), &until(NOW.0 + 5_000), NOW.0 + 900).err(), Some("expired"));
}

#[test]
fn caveats_have_a_limit_in_number_and_length() {
    let mut bearer = bearer_of(&session());
    for _ in 0..MAX_CAVEATS {
        bearer = attenuate(&bearer, &actions(&["encrypt"])).unwrap();
    }
    assert!(open(&bearer).is_ok());
    assert_eq!(attenuate(&bearer, &actions(&[])).err(), Some(CaveatError::TooMany));
    let long = actions(&["x".repeat(1_024).as_str()]);
    assert_eq!(attenuate(&bearer_of(&session()), &long).err(), Some(CaveatError::TooLong));
    let token = triple_of(&session()).session_token;
    assert_eq!(attenuate(&token, &actions(&[])).err(), Some(CaveatError::NotABearer));
}

/// What lies between prefix and checksum; both prefixes have five characters.
pub(crate) fn body_of(credential: &SecretVec) -> Vec<u8> {
    let text = reveal(credential);
    let mut body = URL_SAFE_NO_PAD.decode(text.split_at(5).1).unwrap();
    body.truncate(body.len() - 4);
    body
}

pub(crate) fn bearer_with(body: &[u8]) -> SecretVec {
    let sum = lastkey_crypto::digest::sha256_of(&[b"lkb1_", body]);
    secret(&format!("lkb1_{}", b64([body, &sum[..4]].concat())))
}

#[test]
fn caveat_cannot_be_taken_away_altered_or_moved() {
    let plain = body_of(&bearer_of(&session()));
    let head = plain.len() - 33;
    let one = attenuate(&bearer_with(&plain), &actions(&["encrypt"])).unwrap();
    let two = body_of(&attenuate(&one, &actions(&["delete"])).unwrap());
    let one = body_of(&one);
    let tail = |body: &[u8]| body[body.len() - 32..].to_vec();
    let caveats = |body: &[u8]| body[head + 1..body.len() - 32].to_vec();
    let (first, second) = (caveats(&one), caveats(&two)[caveats(&one).len()..].to_vec());
    let build = |list: &[&[u8]], tail: &[u8]| {
        let count = [u8::try_from(list.len()).unwrap()];
        bearer_with(&[&plain[..head], &count, &list.concat(), tail].concat())
    };
    // Put together again as they were, the parts open.
    assert!(open(&build(&[&first, &second], &tail(&two))).is_ok());
    assert!(open(&build(&[&first], &tail(&one))).is_ok());

    for forged in [
        build(&[], &tail(&two)),
        build(&[], &tail(&one)),
        build(&[&first], &tail(&two)),
        build(&[&second], &tail(&two)),
        build(&[&second, &first], &tail(&two)),
        build(&[&first, &second], &tail(&one)),
        build(&[&first, &second], &[0; 32]),
    ] {
        assert_eq!(open(&forged).err(), Some("not_authentic"));
    }
}

#[test]
fn caveat_that_is_not_known_is_refused() {
    let plain = body_of(&bearer_of(&session()));
    let head = plain.len() - 33;
    // Kind 9, chained as a later version of the narrowing side would chain it.
    let unknown = [0x82, 0x09, 0x81, 0x01];
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &plain[head + 1..]);
    let tail = aws_lc_rs::hmac::sign(&key, &unknown);
    let body = [&plain[..head], &[1, 0, 4], &unknown, tail.as_ref()].concat();
    assert_eq!(open(&bearer_with(&body)).err(), Some("not_authentic"));
}

fn word(revocation: Revocation, session: &Session) -> Option<&'static str> {
    let mut revocations = Revocations::default();
    revocations.insert(&revocation);
    revocations.is_revoked(session)
}

#[test]
fn each_target_ends_its_sessions_and_no_other() {
    let at = |what| revocation(what, Timestamp(NOW.0 + 5));
    let name = |text: &str| text.to_owned();
    let account = |path: &str| RevokedWhat::ServiceAccount(path.to_owned());
    let other_id = ring().newest().unwrap().draw_id(&mut SystemEntropy).unwrap();
    for (what, expected) in [
        (RevokedWhat::Session(session().id.to_string()), Some("revoked_session")),
        (RevokedWhat::Session(session().id.to_string().to_uppercase()), Some("revoked_session")),
        (RevokedWhat::Session(other_id.to_string()), None),
        (RevokedWhat::Pod(workload().pod.unwrap().uid), Some("revoked_pod")),
        (RevokedWhat::Pod(name("other")), None),
        (account("prod/payments/api"), Some("revoked_service_account")),
        (account("prod/payments/ap"), None),
        (RevokedWhat::Node(name("node-7")), Some("revoked_node")),
        (RevokedWhat::Node(name("node-70")), None),
        // A person of the name of a service account is somebody else.
        (RevokedWhat::User(name("api")), None),
        (RevokedWhat::Role(name("payments-api")), Some("revoked_role")),
        (RevokedWhat::Role(name("payments")), None),
        (RevokedWhat::Cluster(name("prod")), Some("revoked_cluster")),
        (RevokedWhat::Cluster(name("test")), None),
        (RevokedWhat::Everything, Some("revoked_everything")),
    ] {
        assert_eq!(word(at(what.clone()), &session()), expected, "{what:?}");
    }
    let user = Subject::User(User { name: name("api"), groups: Vec::new() });
    let person = Session { subject: user, ..session() };
    assert_eq!(word(at(RevokedWhat::User(name("api"))), &person), Some("revoked_user"));
    assert_eq!(word(at(RevokedWhat::User(name("ap"))), &person), None);
}

#[test]
fn revocation_ends_what_began_up_to_it() {
    let role = RevokedWhat::Role("payments-api".into());
    let mut later = session();
    assert!(word(revocation(role.clone(), NOW), &later).is_some());
    later.issued_at = Timestamp(NOW.0 + 1);
    assert!(word(revocation(role, NOW), &later).is_none());
}

#[test]
fn revocations_are_joined_and_dropped_when_nothing_is_left_to_end() {
    let mut revocations = Revocations::default();
    revocations.insert(&revocation(RevokedWhat::Everything, Timestamp(NOW.0 + 50)));
    revocations.insert(&revocation(RevokedWhat::Everything, NOW));
    assert_eq!(revocations.len(), 1);
    let mut later = session();
    later.issued_at = Timestamp(NOW.0 + 50);
    assert_eq!(revocations.is_revoked(&later), Some("revoked_everything"));
    later.issued_at = Timestamp(NOW.0 + 51);
    assert_eq!(revocations.is_revoked(&later), None);
    revocations.prune(Timestamp(NOW.0 + 50 + 43_199), |_, _| false);
    assert_eq!(revocations.len(), 1);
    revocations.prune(Timestamp(NOW.0 + 50 + 43_200), |_, _| false);
    assert!(revocations.is_empty());
}

proptest! {
    #[test]
    fn bearer_with_one_altered_byte_is_refused(place: prop::sample::Index, byte: u8) {
        let bearer = attenuate(&bearer_of(&session()), &actions(&["encrypt"])).unwrap();
        let text = reveal(&bearer).into_bytes();
        let mut altered = text.clone();
        altered[place.index(text.len())] = byte;
        prop_assume!(altered != text);
        prop_assert!(open(&SecretVec::take(altered)).is_err());
    }

    /// The checksum is put right, so that the seal and the chain are what is tried.
    #[test]
    fn body_with_one_altered_bit_is_refused(place: prop::sample::Index, bit in 0..8_u8) {
        let bearer = attenuate(&bearer_of(&session()), &actions(&["encrypt"])).unwrap();
        let mut body = body_of(&bearer);
        let at = place.index(body.len());
        body[at] ^= 1 << bit;
        prop_assert!(open(&bearer_with(&body)).is_err());
    }

    #[test]
    fn truncated_bearer_is_refused(place: prop::sample::Index) {
        let mut body = body_of(&bearer_of(&session()));
        body.truncate(place.index(body.len()));
        prop_assert!(open(&bearer_with(&body)).is_err());
    }

    #[test]
    fn any_bytes_are_no_session(bytes: Vec<u8>) {
        if let Some(session) = decode_session(&bytes) {
            prop_assert_eq!(encode_session(&session), bytes);
        }
    }
}
