//! Nodes: join, renew, removal, and the sessions that only the agent of the pod's own node may
//! present.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lastkey_core::access::{Node, RevokedWhat, RoleHolders};
use lastkey_core::ids::{Name, RequestId};
use lastkey_core::principal::{Caller, Peer, Presented, Principal, Source};
use lastkey_crypto::entropy::SystemEntropy;
use lastkey_crypto::material::{MaterialSpec, generate};
use lastkey_crypto::sign::{Message, SignAlgorithm, SigningKey};
use lastkey_secret::SecretVec;
use lastkey_service::call::Call;
use lastkey_service::error::Error;
use lastkey_service::ops::exchange_token::Request;
use lastkey_service::ops::fetch_keys::KeysFrom;
use lastkey_service::ops::nodes::{Joined, WayIn};
use lastkey_service::ops::set_access::{ClusterRequest, RoleRequest};
use lastkey_testkit::fakes::Fault;
use rcgen::{CertificateParams, KeyPair, SanType};

use crate::world::{World, admin, code, world};

pub(crate) const ID: RequestId = RequestId([7; 16]);

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn csr() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
}

pub(crate) fn nobody() -> Peer {
    Peer { address: Some([10, 0, 0, 1].into()), ..Peer::default() }
}

/// A cluster that signs tokens.
pub(crate) struct Cluster {
    pub(crate) name: Name,
    key: SigningKey,
}

impl Cluster {
    /// Makes it known, with a role of the same name that only node agents may present.
    pub(crate) async fn known(world: &World, text: &str) -> Self {
        Self::with_kubelets(world, text, None).await
    }

    /// The same with an authority of its kubelets, in PEM.
    pub(crate) async fn with_kubelets(
        world: &World,
        text: &str,
        authorities: Option<String>,
    ) -> Self {
        let material = generate(MaterialSpec::Ed25519, &mut SystemEntropy).unwrap();
        let key = SigningKey::new(MaterialSpec::Ed25519, &material).unwrap();
        let public = key.public_key_der().unwrap();
        let x = URL_SAFE_NO_PAD.encode(&public[public.len() - 32..]);
        let request = ClusterRequest {
            issuers: vec!["https://kubernetes.default.svc".to_owned()],
            audiences: vec!["lastkey".to_owned()],
            keys: KeysFrom::Given(format!(
                r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#
            )),
            max_token_secs: None,
            kubelet_authorities: authorities,
        };
        world.engine.set_cluster(admin(), name(text), request).await.unwrap();
        let role = RoleRequest {
            holders: RoleHolders::ServiceAccounts {
                cluster: name(text),
                namespaces: vec!["shop".to_owned()],
                service_accounts: vec!["*".to_owned()],
                allow_without_pod: false,
            },
            policy: format!("permit(principal in Role::\"{text}\", action, resource);"),
            max_session_secs: None,
            by_node_agent: true,
        };
        world.engine.set_role(admin(), name(text), role).await.unwrap();
        Self { name: name(text), key }
    }

    /// The session of a pod that runs on a node of this name.
    async fn pod(&self, world: &World, node: &str) -> SecretVec {
        self.exchange(world, node, "shop").await.unwrap()
    }

    /// The session for the token of a pod in a namespace.
    pub(crate) async fn exchange(
        &self,
        world: &World,
        node: &str,
        namespace: &str,
    ) -> Result<SecretVec, Error> {
        let now = world.ports.clock.read().wall.0;
        let claims = format!(
            r#"{{"iss":"https://kubernetes.default.svc","aud":["lastkey"],"iat":{now},"nbf":{now},
            "exp":{},"jti":"j","sub":"system:serviceaccount:{namespace}:api","kubernetes.io":{{
            "namespace":"{namespace}","node":{{"name":"{node}","uid":"n"}},"pod":{{"name":"p","uid":"u"}},
            "serviceaccount":{{"name":"api","uid":"s"}}}}}}"#,
            now + 3_000
        );
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let input = format!("{}.{}", encode(r#"{"alg":"EdDSA","kid":"k"}"#), encode(&claims));
        let message = Message::Raw(input.as_bytes());
        let signature = self.key.sign(SignAlgorithm::Ed25519, message).unwrap();
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
        let request = Request {
            token: SecretVec::take_text(token),
            role: self.name.clone(),
            duration: None,
            policy: None,
            nonce: None,
        };
        world.engine.exchange_token(ID, &nobody(), request).await.map(|opening| opening.bearer)
    }
}

impl World {
    pub(crate) async fn invite(&self, node: &str, cluster: &Cluster) -> SecretVec {
        let cluster = cluster.name.clone();
        let invited = self.engine.invite_node(admin(), name(node), cluster, WayIn::Token).await;
        invited.unwrap().token.unwrap()
    }

    pub(crate) async fn join(&self, node: &str, token: &SecretVec) -> Result<Joined, Error> {
        let token = token.expose(SecretVec::copy_of);
        self.engine.join_node(ID, &nobody(), name(node), token, &csr()).await
    }

    /// A connection of the agent of a node that has joined just now.
    pub(crate) async fn agent(&self, node: &str, cluster: &Cluster) -> Peer {
        let token = self.invite(node, cluster).await;
        self.peer(&self.join(node, &token).await.unwrap())
    }

    /// A connection with this certificate.
    pub(crate) fn peer(&self, joined: &Joined) -> Peer {
        let certificate = self.engine.read_peer(vec![joined.certificate.clone()]);
        assert!(certificate.is_some());
        Peer { certificate, ..nobody() }
    }

    async fn who(&self, bearer: &SecretVec, peer: &Peer) -> Result<(Principal, Source), Error> {
        let bearer = Presented::Bearer(bearer.expose(SecretVec::copy_of));
        self.engine.authenticate(&bearer, peer).await
    }

    pub(crate) async fn agent_itself(&self, peer: &Peer) -> Result<(Principal, Source), Error> {
        self.engine.authenticate(&Presented::Nothing, peer).await
    }

    async fn renew(&self, peer: &Peer) -> Result<Joined, Error> {
        self.engine.renew_node(ID, peer, &csr()).await
    }
}

pub(crate) const REFUSED: &str = "Unauthenticated";
/// Who was removed or revoked is known, and told so.
pub(crate) const LET_GO: &str = "AccessDenied";

#[tokio::test]
async fn session_by_node_agent_is_good_by_the_agent_of_the_pods_own_node_alone() {
    let world = world().await;
    let (here, there) =
        (Cluster::known(&world, "here").await, Cluster::known(&world, "there").await);
    let own = world.agent("worker-1", &here).await;
    let other = world.agent("worker-2", &here).await;
    let foreign = world.agent("worker-3", &there).await;
    let pod = here.pod(&world, "worker-1").await;

    let (who, source) = world.who(&pod, &own).await.unwrap();
    assert_eq!((who.name(), source.by_node_agent), ("k8s:here/shop/api", true));
    for peer in [&nobody(), &other, &foreign] {
        assert_eq!(code(world.who(&pod, peer).await), REFUSED, "{peer:?}");
    }
    // A pod of another cluster, on a node that has the same name there.
    let namesake = there.pod(&world, "worker-1").await;
    assert_eq!(code(world.who(&namesake, &own).await), REFUSED);
    let namesake = here.pod(&world, "worker-3").await;
    assert_eq!(code(world.who(&namesake, &foreign).await), REFUSED);
}

#[tokio::test]
async fn removed_node_and_its_pods_are_refused_on_connections_that_are_open() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let agent = world.agent("worker-1", &here).await;
    let pod = here.pod(&world, "worker-1").await;
    world.who(&pod, &agent).await.unwrap();
    world.engine.remove_node(admin(), name("worker-1")).await.unwrap();
    assert_eq!(code(world.who(&pod, &agent).await), REFUSED);
    assert_eq!(code(world.agent_itself(&agent).await), LET_GO);
    assert_eq!(code(world.renew(&agent).await), REFUSED);
    // One of the same name, made known again, does not bring the old certificate back.
    let again = world.agent("worker-1", &here).await;
    assert_eq!(code(world.who(&pod, &agent).await), REFUSED);
    assert_eq!(code(world.agent_itself(&agent).await), REFUSED);
    // The sessions of its pods ended with it.
    assert_eq!(code(world.who(&pod, &again).await), REFUSED);
    world.clock.pass(Duration::from_secs(1));
    let pod = here.pod(&world, "worker-1").await;
    world.who(&pod, &again).await.unwrap();
}

#[tokio::test]
async fn node_that_joins_again_within_the_second_of_its_removal_is_let_in_and_can_be_revoked() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    world.agent("a", &here).await;
    for what in [RevokedWhat::Node("a".to_owned()), RevokedWhat::Everything] {
        world.engine.remove_node(admin(), name("a")).await.unwrap();
        let again = world.agent("a", &here).await;
        world.agent_itself(&again).await.unwrap();
        let renewed = world.peer(&world.renew(&again).await.unwrap());
        world.agent_itself(&renewed).await.unwrap();
        world.engine.revoke(admin(), what).await.unwrap();
        assert_eq!(code(world.agent_itself(&renewed).await), LET_GO);
    }
}

#[tokio::test]
async fn node_that_nothing_is_known_of_is_not_told_that_it_was_let_go() {
    let (old, new) = (world().await, world().await);
    let here = Cluster::known(&old, "here").await;
    let agent = old.agent("a", &here).await;
    // As on a server that was restored from a backup of before it joined.
    assert_eq!(code(new.agent_itself(&agent).await), REFUSED);
    new.engine.revoke(admin(), RevokedWhat::Node("a".to_owned())).await.unwrap();
    assert_eq!(code(new.agent_itself(&agent).await), LET_GO);
}

#[tokio::test]
async fn store_that_is_away_for_a_moment_tells_no_node_that_it_was_let_go_and_keeps_none_out_later()
{
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let agent = world.agent("a", &here).await;
    world.store.records().fail_next(Fault::Away);
    for _ in 0..2 {
        assert_eq!(code(world.renew(&agent).await), "Unavailable");
        assert_eq!(code(world.agent_itself(&agent).await), "Unavailable");
    }
    world.store.records().come_back();
    // Whether the renewal was written is known now: it was not.
    world.agent_itself(&agent).await.unwrap();
    world.renew(&agent).await.unwrap();
}

#[tokio::test]
async fn agent_is_itself_without_a_credential_and_nobody_with_a_bad_one() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let agent = world.agent("worker-1", &here).await;
    let (who, source) = world.agent_itself(&agent).await.unwrap();
    assert_eq!((who.name(), source.by_node_agent), ("node:worker-1", false));
    let unreadable = world.engine.authenticate(&Presented::Unreadable, &agent).await;
    assert_eq!(code(unreadable), REFUSED);
    let wrong = SecretVec::copy_of(b"wrong");
    assert_eq!(code(world.who(&wrong, &agent).await), REFUSED);
}

#[tokio::test]
async fn login_of_a_pod_writes_nothing_to_the_store() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    (0..3).for_each(|_| world.store.records().fail_next(Fault::Full));
    for node in ["worker-1", "worker-2", "worker-3"] {
        let pod = here.pod(&world, node).await;
        assert!(!pod.is_empty());
    }
}

#[tokio::test]
async fn join_token_is_good_once_for_an_hour_and_for_its_own_node() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let (first, second) = (world.invite("a", &here).await, world.invite("b", &here).await);
    assert_eq!(code(world.join("a", &second).await), REFUSED);
    assert_eq!(code(world.join("c", &first).await), REFUSED);
    world.join("a", &first).await.unwrap();
    assert_eq!(code(world.join("a", &first).await), REFUSED);

    world.clock.pass(Duration::from_secs(3_599));
    let joined = world.join("b", &second).await.unwrap();
    let late = world.invite("c", &here).await;
    world.clock.pass(Duration::from_secs(3_600));
    assert_eq!(code(world.join("c", &late).await), REFUSED);
    // An invitation replaces the one before, and leaves the certificate good until it is used.
    let before = world.peer(&joined);
    let stale = world.invite("b", &here).await;
    let fresh = world.invite("b", &here).await;
    world.agent_itself(&before).await.unwrap();
    assert_eq!(code(world.join("b", &stale).await), REFUSED);
    let after = world.peer(&world.join("b", &fresh).await.unwrap());
    assert_eq!(code(world.agent_itself(&before).await), REFUSED);
    world.agent_itself(&after).await.unwrap();
}

#[tokio::test]
async fn join_token_used_by_many_at_once_gives_one_certificate() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let token = world.invite("a", &here).await;
    let attempts = [(); 8].map(|()| {
        let (engine, token) = (world.engine.clone(), token.expose(SecretVec::copy_of));
        tokio::spawn(async move { engine.join_node(ID, &nobody(), name("a"), token, &csr()).await })
    });
    let mut joined = Vec::new();
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(one) => joined.push(one),
            Err(error) => assert_eq!(error.code(), REFUSED),
        }
    }
    assert_eq!(joined.len(), 1);
    world.agent_itself(&world.peer(&joined[0])).await.unwrap();
}

#[tokio::test]
async fn certificate_is_good_until_the_next_one_is_shown_because_an_answer_may_be_lost() {
    let mut world = world().await;
    let here = Cluster::known(&world, "here").await;
    let agent = world.agent("a", &here).await;
    let lost = world.peer(&world.renew(&agent).await.unwrap());
    world.gate.stop().await;
    world = world.unseal_again().await;
    world.agent_itself(&agent).await.unwrap();
    let next = world.peer(&world.renew(&agent).await.unwrap());
    assert_eq!(code(world.agent_itself(&lost).await), REFUSED);
    world.agent_itself(&agent).await.unwrap();
    // Shown: from now on, and after a start, the one before is void.
    world.agent_itself(&next).await.unwrap();
    for _ in 0..2 {
        assert_eq!(code(world.agent_itself(&agent).await), REFUSED);
        assert_eq!(code(world.renew(&agent).await), REFUSED);
        world.gate.stop().await;
        world = world.unseal_again().await;
    }
    world.agent_itself(&next).await.unwrap();
}

#[tokio::test]
async fn node_reports_for_its_place_by_each_certificate_of_its_name_and_no_other_node_does() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.permit_reports(&["Node::\"a\"", "Node::\"b\""]).await;
    let call = async |peer: &Peer| {
        let (principal, source) = world.agent_itself(peer).await.unwrap();
        Call { caller: Caller { principal, source, request: ID }, dry_run: false }
    };
    let report = async |peer: &Peer, count: u64| {
        world.volumes(&call(peer).await, &key, "driver@a", &[(1, count)]).await
    };
    let first = world.agent("a", &here).await;
    let other = world.agent("b", &here).await;
    report(&first, 1).await.unwrap();
    let renewed = world.peer(&world.renew(&first).await.unwrap());
    report(&renewed, 2).await.unwrap();
    assert_eq!(code(report(&other, 9).await), "InvalidRequest");
    // Removed, and put back under its name: what it reported stood meanwhile, and is its own.
    world.engine.remove_node(admin(), name("a")).await.unwrap();
    assert_eq!(world.show(&key).await.holdings[0].count(None), 2);
    let back = world.agent("a", &here).await;
    report(&back, 3).await.unwrap();
    assert_eq!(world.show(&key).await.holdings[0].count(None), 3);
}

#[tokio::test]
async fn renewals_at_once_by_one_certificate_give_one_that_is_good() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let agent = world.agent("a", &here).await;
    let attempts = [(); 8].map(|()| {
        let (engine, agent) = (world.engine.clone(), agent.clone());
        tokio::spawn(async move { engine.renew_node(ID, &agent, &csr()).await })
    });
    let mut good = Vec::new();
    for attempt in attempts {
        let next = world.peer(&attempt.await.unwrap().unwrap());
        if let Ok((who, _)) = world.agent_itself(&next).await {
            good.push(who.name().to_owned());
        }
    }
    assert_eq!(good, ["node:a"]);
    assert_eq!(code(world.agent_itself(&agent).await), REFUSED);
    assert_eq!(code(world.renew(&agent).await), REFUSED);
}

#[tokio::test]
async fn removal_and_renewal_at_once_leave_no_certificate() {
    for round in 0..16 {
        let world = world().await;
        let here = Cluster::known(&world, "here").await;
        let agent = world.agent("a", &here).await;
        let (engine, by) = (world.engine.clone(), agent.clone());
        let renewal = tokio::spawn(async move { engine.renew_node(ID, &by, &csr()).await });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        // Who is slower is told of the conflict, or finds nothing.
        while world.engine.remove_node(admin(), name("a")).await.is_err() {}
        let renewed = renewal.await.unwrap();
        assert_eq!(code(world.agent_itself(&agent).await), LET_GO);
        if let Ok(renewed) = renewed {
            assert_eq!(code(world.agent_itself(&world.peer(&renewed)).await), LET_GO);
        }
        assert_eq!(
            code(world.engine.read_named::<Node>(admin(), &name("a")).await),
            "AccessDenied"
        );
    }
}

#[tokio::test]
async fn certificate_that_is_signed_while_its_node_is_being_revoked_is_revoked_too() {
    for what in [RevokedWhat::Node("a".to_owned()), RevokedWhat::Everything] {
        let world = world().await;
        let here = Cluster::known(&world, "here").await;
        let agent = world.agent("a", &here).await;
        let (engine, go_on) = (world.engine.clone(), world.audit.hold_next());
        let revocation = tokio::spawn(async move { engine.revoke(admin(), what).await });
        while world.audit.events().last().unwrap().action != "iam:RevokeSessions" {
            tokio::task::yield_now().await;
        }
        world.clock.pass(Duration::from_secs(1));
        let renewed = world.peer(&world.renew(&agent).await.unwrap());
        go_on.send(()).unwrap();
        revocation.await.unwrap().unwrap();
        assert_eq!(code(world.agent_itself(&renewed).await), LET_GO);
    }
}

#[tokio::test]
async fn node_that_waits_to_renew_while_it_is_revoked_gets_no_certificate() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let (agent, other) = (world.agent("a", &here).await, world.agent("b", &here).await);
    // The other one is held up while it holds changes.
    let go_on = world.audit.hold_next();
    let renew = |agent: &Peer| {
        let (engine, agent) = (world.engine.clone(), agent.clone());
        tokio::spawn(async move { engine.renew_node(ID, &agent, &csr()).await })
    };
    let held = renew(&other);
    let wait_for = async |action: &str| {
        while world.audit.events().last().unwrap().action != action {
            tokio::task::yield_now().await;
        }
    };
    wait_for("sys:RenewNode").await;
    let engine = world.engine.clone();
    let what = RevokedWhat::Node("a".to_owned());
    let revocation = tokio::spawn(async move { engine.revoke(admin(), what).await });
    wait_for("iam:RevokeSessions").await;
    let waiting = renew(&agent);
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    go_on.send(()).unwrap();
    held.await.unwrap().unwrap();
    revocation.await.unwrap().unwrap();
    assert_eq!(code(waiting.await.unwrap()), REFUSED);
}

#[tokio::test]
async fn certificate_ends_after_a_day_on_a_connection_that_is_open() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let agent = world.agent("a", &here).await;
    world.clock.pass(Duration::from_secs(86_399));
    world.agent_itself(&agent).await.unwrap();
    world.clock.pass(Duration::from_secs(1));
    assert_eq!(code(world.agent_itself(&agent).await), REFUSED);
    assert_eq!(code(world.renew(&agent).await), REFUSED);
}

#[tokio::test]
async fn revoked_node_is_refused_until_it_joins_anew() {
    for what in [RevokedWhat::Node("a".to_owned()), RevokedWhat::Everything] {
        let world = world().await;
        let here = Cluster::known(&world, "here").await;
        let (agent, other) = (world.agent("a", &here).await, world.agent("b", &here).await);
        let is_all = what == RevokedWhat::Everything;
        world.engine.revoke(admin(), what).await.unwrap();
        assert_eq!(code(world.agent_itself(&agent).await), LET_GO);
        assert_eq!(code(world.renew(&agent).await), REFUSED);
        assert_eq!(world.agent_itself(&other).await.is_err(), is_all);
        world.clock.pass(Duration::from_secs(1));
        let again = world.agent("a", &here).await;
        world.agent_itself(&again).await.unwrap();
    }
}

#[tokio::test]
async fn nodes_and_their_authority_are_there_after_a_restart() {
    let mut world = world().await;
    let here = Cluster::known(&world, "here").await;
    let agent = world.agent("a", &here).await;
    let trust = world.engine.node_trust().unwrap().authority;
    world.gate.stop().await;
    world = world.unseal_again().await;
    assert_eq!(world.engine.node_trust().unwrap().authority, trust);
    world.agent_itself(&agent).await.unwrap();
    world.peer(&world.renew(&agent).await.unwrap());
}

#[tokio::test]
async fn certificate_names_its_own_node_whatever_is_asked_for() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let (agent, _) = (world.agent("a", &here).await, world.agent("b", &here).await);
    let mut params = CertificateParams::default();
    let other = world.peer(&world.renew(&agent).await.unwrap());
    let id = world.renew(&other).await.unwrap().spiffe_id.replace("/a", "/b");
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let token = world.invite("a", &here).await;
    let joined = world.engine.join_node(ID, &nobody(), name("a"), token, request.der()).await;
    let joined = joined.unwrap();
    assert_eq!(world.peer(&joined).certificate.unwrap().node, Some(name("a")));
    assert!(joined.spiffe_id.ends_with("/node/a"), "{}", joined.spiffe_id);
}

#[tokio::test]
async fn node_belongs_to_a_cluster_that_is_there_and_stays_in_it() {
    let world = world().await;
    let (here, there) =
        (Cluster::known(&world, "here").await, Cluster::known(&world, "there").await);
    let nowhere = world.engine.invite_node(admin(), name("a"), name("nowhere"), WayIn::Token).await;
    assert_eq!(code(nowhere), "InvalidRequest");
    world.invite("a", &here).await;
    let moved =
        world.engine.invite_node(admin(), name("a"), there.name.clone(), WayIn::Token).await;
    assert_eq!(code(moved), "InvalidRequest");
    let unnamed =
        world.engine.invite_node(admin(), name("a@b"), there.name.clone(), WayIn::Token).await;
    assert_eq!(code(unnamed), "InvalidRequest");
    let engine = &world.engine;
    engine.remove_named::<lastkey_core::access::Role>(admin(), name("here")).await.unwrap();
    let removed = engine.remove_named::<lastkey_core::access::Cluster>(admin(), name("here")).await;
    assert_eq!(code(removed), "InvalidRequest");
}

#[tokio::test]
async fn joins_leave_their_intent_and_outcome_and_refusals_their_word() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let token = world.invite("a", &here).await;
    world.join("a", &token).await.unwrap();
    world.join("a", &token).await.unwrap_err();
    let lines = world.audit.events();
    let joins: Vec<_> = lines.iter().filter(|line| line.action == "sys:JoinNode").collect();
    let told: Vec<_> = joins.iter().map(|line| (line.result, line.reason.as_str())).collect();
    assert_eq!(told, [("pending", ""), ("ok", ""), (REFUSED, "no_token")]);
}

#[tokio::test]
async fn authority_of_nodes_is_replaced_after_a_year_and_what_it_signed_is_good_until_it_ends() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let agent = world.agent("a", &here).await;
    let first = world.engine.node_trust().unwrap().authority;
    world.clock.pass(Duration::from_secs(365 * 86_400 - 3_600));
    // Renewed in time, as agents do, it is signed by the authority of before.
    let other = world.agent("b", &here).await;
    assert_eq!(world.engine.node_trust().unwrap().authority, first);
    assert_eq!(code(world.agent_itself(&agent).await), REFUSED);

    world.clock.pass(Duration::from_secs(2 * 3_600));
    world.agent("c", &here).await;
    let trust = world.engine.node_trust().unwrap();
    assert_ne!(trust.authority.certificate, first.certificate);
    assert_eq!(
        trust.certificates().collect::<Vec<_>>(),
        [&trust.authority.certificate[..], &first.certificate]
    );
    world.agent_itself(&other).await.unwrap();
    let renewed = world.peer(&world.renew(&other).await.unwrap());
    world.agent_itself(&renewed).await.unwrap();
    assert_eq!(world.engine.node_trust().unwrap().authority, trust.authority);

    // It is there after a restart, and the old one is forgotten when nothing of it is left.
    world.gate.stop().await;
    let world = world.unseal_again().await;
    assert_eq!(world.engine.node_trust().unwrap().authority, trust.authority);
    world.clock.pass(Duration::from_secs(86_400));
    assert_eq!(world.engine.node_trust().unwrap().certificates().count(), 1);
    // Two years on, the second one is replaced as well.
    world.clock.pass(Duration::from_secs(400 * 86_400));
    world.agent("d", &here).await;
    let third = world.engine.node_trust().unwrap().authority;
    assert_eq!(third.previous.as_ref(), Some(&trust.authority.certificate));
}
