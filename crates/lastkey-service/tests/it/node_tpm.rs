//! Nodes that join by their TPM: which one, for what, and until when.

use std::time::Duration;

use lastkey_core::access::RevokedWhat;
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::material::{MaterialSpec, generate};
use lastkey_crypto::sign::{Message, SignAlgorithm, SigningKey};
use lastkey_service::error::Error;
use lastkey_service::ops::nodes::{CHALLENGE_SECS, Evidence, Joined, WayIn};
use lastkey_trust::attestation::{bound_to, name_of};

use crate::nodes::{Cluster, ID, LET_GO, REFUSED, csr, name, nobody};
use crate::world::{World, admin, code, world};

/// What a TPM would do, with a key that lies in the open.
struct Tpm {
    key: SigningKey,
    public: Vec<u8>,
}

impl Tpm {
    fn new() -> Self {
        let material = generate(MaterialSpec::P256, &mut SystemEntropy).unwrap();
        let key = SigningKey::new(MaterialSpec::P256, &material).unwrap();
        let spki = key.public_key_der().unwrap();
        let (x, y) = spki[spki.len() - 64..].split_at(32);
        let head = [0, 0x23, 0, 0x0b, 0, 5, 4, 0x72, 0, 0];
        let kind = [0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10];
        let public = [&head[..], &kind, &[0, 32], x, &[0, 32], y].concat();
        Self { key, public }
    }

    fn way_in(&self) -> WayIn {
        WayIn::Tpm(name_of(&self.public))
    }

    /// A quote over these bytes, and its signature.
    fn quote(&self, bound: &[u8; 32]) -> (Vec<u8>, Vec<u8>) {
        let head = [0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 0, 0, 32];
        let attestation = [&head[..], bound, &[0; 25], &[0; 4], &[0; 2]].concat();
        let message = Message::Raw(&attestation);
        let der = self.key.sign(SignAlgorithm::EcdsaSha256, message).unwrap();
        let (r, s) = der[4..].split_at(usize::from(der[3]));
        let number = |bytes: &[u8]| {
            let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
            [&[0, u8::try_from(bytes.len()).unwrap()], bytes].concat()
        };
        let signature = [&[0, 0x18, 0, 0x0b][..], &number(r), &number(&s[2..])].concat();
        (attestation, signature)
    }
}

impl World {
    /// Makes a node known that joins by its TPM.
    async fn name_tpm(&self, node: &str, cluster: &Cluster, tpm: &Tpm) {
        let cluster = cluster.name.clone();
        let invited = self.engine.invite_node(admin(), name(node), cluster, tpm.way_in()).await;
        assert!(invited.unwrap().token.is_none());
    }

    /// Why somebody was refused last, as the audit log has it.
    fn last_reason(&self) -> String {
        self.audit.events().last().unwrap().reason.clone()
    }

    async fn join_by_tpm(&self, node: &str, tpm: &Tpm) -> Result<Joined, Error> {
        let challenge = self.engine.challenge_node(&name(node)).unwrap();
        self.answer_challenge(node, tpm, &challenge, &csr()).await
    }

    async fn answer_challenge(
        &self,
        node: &str,
        tpm: &Tpm,
        challenge: &[u8],
        csr: &[u8],
    ) -> Result<Joined, Error> {
        let (attestation, signature) = tpm.quote(&bound_to(challenge, &name(node), csr));
        let evidence =
            Evidence { public: &tpm.public, attestation: &attestation, signature: &signature };
        self.engine.join_by_tpm(ID, &nobody(), name(node), challenge, &evidence, csr).await
    }
}

#[tokio::test]
async fn node_joins_by_its_tpm_again_and_again_and_by_no_other() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let (own, other) = (Tpm::new(), Tpm::new());
    assert_eq!(code(world.join_by_tpm("a", &own).await), REFUSED);
    world.name_tpm("a", &here, &own).await;
    world.name_tpm("b", &here, &other).await;
    assert_eq!(code(world.join_by_tpm("a", &other).await), REFUSED);
    let first = world.peer(&world.join_by_tpm("a", &own).await.unwrap());
    world.agent_itself(&first).await.unwrap();
    world.clock.pass(Duration::from_secs(86_400));
    let second = world.peer(&world.join_by_tpm("a", &own).await.unwrap());
    assert_eq!(code(world.agent_itself(&first).await), REFUSED);
    world.agent_itself(&second).await.unwrap();
    // What was said last counts.
    let token = world.invite("a", &here).await;
    assert_eq!(code(world.join_by_tpm("a", &own).await), REFUSED);
    world.name_tpm("a", &here, &own).await;
    assert_eq!(code(world.join("a", &token).await), REFUSED);
    world.join_by_tpm("a", &own).await.unwrap();
}

#[tokio::test]
async fn evidence_of_the_tpm_of_another_node_is_on_record_whatever_strangers_do() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let (own, other, stranger) = (Tpm::new(), Tpm::new(), Tpm::new());
    world.name_tpm("a", &here, &own).await;
    world.name_tpm("b", &here, &other).await;
    for _ in 0..101 {
        assert_eq!(code(world.join_by_tpm("a", &stranger).await), REFUSED);
    }
    let before = world.audit.events().len();
    // It has not signed this, so anybody may show it.
    let challenge = world.engine.challenge_node(&name("a")).unwrap();
    let forged = Tpm { public: other.public.clone(), ..stranger };
    assert_eq!(code(world.answer_challenge("a", &forged, &challenge, &csr()).await), REFUSED);
    assert_eq!(world.audit.events().len(), before);
    assert_eq!(code(world.join_by_tpm("a", &other).await), REFUSED);
    assert_eq!((world.audit.events().len(), &*world.last_reason()), (before + 1, "other_tpm"));
}

#[tokio::test]
async fn what_a_tpm_says_is_good_for_its_challenge_node_and_request() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let tpm = Tpm::new();
    for node in ["a", "b"] {
        world.name_tpm(node, &here, &tpm).await;
    }
    let challenge = world.engine.challenge_node(&name("a")).unwrap();
    let (request, another) = (csr(), csr());
    let (attestation, signature) = tpm.quote(&bound_to(&challenge, &name("a"), &request));
    let evidence =
        Evidence { public: &tpm.public, attestation: &attestation, signature: &signature };
    let join = async |node: &str, challenge: &[u8], request: &[u8]| {
        world.engine.join_by_tpm(ID, &nobody(), name(node), challenge, &evidence, request).await
    };
    let fresh = world.engine.challenge_node(&name("b")).unwrap();
    assert_eq!(code(join("a", &challenge, &another).await), REFUSED);
    assert_eq!(code(join("b", &fresh, &request).await), REFUSED);
    assert_eq!(code(join("b", &challenge, &request).await), REFUSED);
    join("a", &challenge, &request).await.unwrap();
    assert_eq!(code(world.answer_challenge("b", &tpm, &challenge, &request).await), REFUSED);
    world.clock.pass(Duration::from_secs(CHALLENGE_SECS));
    assert_eq!(code(world.answer_challenge("a", &tpm, &challenge, &request).await), REFUSED);
}

#[tokio::test]
async fn revoked_node_comes_back_by_its_tpm_when_that_was_named_again() {
    for what in [RevokedWhat::Node("a".to_owned()), RevokedWhat::Everything] {
        let world = world().await;
        let here = Cluster::known(&world, "here").await;
        let tpm = Tpm::new();
        for _ in 0..2 {
            world.name_tpm("a", &here, &tpm).await;
            let agent = world.peer(&world.join_by_tpm("a", &tpm).await.unwrap());
            world.agent_itself(&agent).await.unwrap();
            world.engine.revoke(admin(), what.clone()).await.unwrap();
            assert_eq!(code(world.agent_itself(&agent).await), LET_GO);
            assert_eq!(code(world.join_by_tpm("a", &tpm).await), REFUSED);
        }
        world.clock.pass(Duration::from_secs(86_400));
        assert_eq!(code(world.join_by_tpm("a", &tpm).await), REFUSED);
        world.name_tpm("a", &here, &tpm).await;
        world.engine.remove_node(admin(), name("a")).await.unwrap();
        assert_eq!(code(world.join_by_tpm("a", &tpm).await), REFUSED);
    }
}

#[tokio::test]
async fn revoked_tpm_stays_out_for_good_and_after_a_start() {
    for what in [RevokedWhat::Node("a".to_owned()), RevokedWhat::Everything] {
        let mut world = world().await;
        let here = Cluster::known(&world, "here").await;
        let tpm = Tpm::new();
        world.name_tpm("a", &here, &tpm).await;
        world.engine.revoke(admin(), what).await.unwrap();
        // A start forgets what is needed no more, in the store and in memory.
        for _ in 0..2 {
            world.clock.pass(Duration::from_secs(400 * 86_400));
            world.gate.stop().await;
            world = world.unseal_again().await;
            assert_eq!(code(world.join_by_tpm("a", &tpm).await), REFUSED);
        }
        // Named again it needs no revocation any more.
        world.name_tpm("a", &here, &tpm).await;
        world.gate.stop().await;
        world = world.unseal_again().await;
        assert_eq!(world.engine.list_revocations(admin()).await.unwrap(), []);
        world.join_by_tpm("a", &tpm).await.unwrap();
    }
}

#[tokio::test]
async fn evidence_lets_in_once_and_throws_nobody_out_when_it_is_shown_again() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let tpm = Tpm::new();
    world.name_tpm("a", &here, &tpm).await;
    let (challenge, request) = (world.engine.challenge_node(&name("a")).unwrap(), csr());
    let join = async || world.answer_challenge("a", &tpm, &challenge, &request).await;
    let agent = world.peer(&join().await.unwrap());
    world.clock.pass(Duration::from_secs(CHALLENGE_SECS - 1));
    assert_eq!(code(join().await), REFUSED);
    assert_eq!(world.last_reason(), "used");
    world.agent_itself(&agent).await.unwrap();
    world.join_by_tpm("a", &tpm).await.unwrap();
}

#[tokio::test]
async fn tpm_that_was_named_while_the_clock_had_run_ahead_has_to_be_named_again() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let tpm = Tpm::new();
    world.clock.jump_wall(7_200);
    world.name_tpm("a", &here, &tpm).await;
    world.clock.jump_wall(-7_200);
    assert_eq!(code(world.join_by_tpm("a", &tpm).await), REFUSED);
    assert_eq!(world.last_reason(), "dated_ahead");
    world.name_tpm("a", &here, &tpm).await;
    world.join_by_tpm("a", &tpm).await.unwrap();
}

#[tokio::test]
async fn node_that_was_revoked_by_a_clock_that_had_run_ahead_is_not_invited_in_vain() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    world.clock.jump_wall(7_200);
    world.engine.revoke(admin(), RevokedWhat::Node("a".to_owned())).await.unwrap();
    world.clock.jump_wall(-7_200);
    for way in [WayIn::Token, Tpm::new().way_in()] {
        let invited = world.engine.invite_node(admin(), name("a"), here.name.clone(), way).await;
        let refused = invited.unwrap_err();
        assert_eq!(refused.code(), "InvalidRequest");
        assert!(refused.to_string().contains("20270115T100000Z"), "{refused}");
    }
    world.clock.pass(Duration::from_secs(7_200));
    world.agent("a", &here).await;
}

#[tokio::test]
async fn evidence_of_a_key_that_nobody_has_named_is_not_looked_at() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let (own, other) = (Tpm::new(), Tpm::new());
    let evidence = Evidence { public: &other.public, attestation: &[], signature: &[] };
    let join = async || {
        let challenge = world.engine.challenge_node(&name("a")).unwrap();
        let (nobody, csr) = (nobody(), csr());
        let joined = world.engine.join_by_tpm(ID, &nobody, name("a"), &challenge, &evidence, &csr);
        assert_eq!(code(joined.await), REFUSED);
        world.last_reason()
    };
    assert_eq!(join().await, "no_such_node");
    world.name_tpm("a", &here, &own).await;
    assert_eq!(join().await, "other_tpm");
    world.invite("a", &here).await;
    assert_eq!(join().await, "no_tpm_key");
}
