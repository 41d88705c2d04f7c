//! What the audit log is told, and what happens when it cannot be written.

use lastkey_core::audit::Phase;
use lastkey_crypto::material::MaterialSpec;
use lastkey_secret::SecretVec;

use crate::nodes::{Cluster, REFUSED};
use crate::world::{admin, call_by, code, context, none, request, world};

#[tokio::test]
async fn an_operation_without_effect_leaves_one_record() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let before = world.audit.events().len();
    world.encrypt_in(&key, b"x", context(&[("a", "b")])).await.unwrap();
    let events = world.audit.events();
    let [event] = &events[before..] else { panic!("not one record") };
    assert_eq!((event.action, event.phase, event.result), ("kms:Encrypt", Phase::Whole, "ok"));
    assert!(event.key.is_some() && event.version.is_some() && event.context_hash.is_some());
}

#[tokio::test]
async fn a_change_leaves_its_intent_durable_before_its_outcome() {
    let world = world().await;
    let before = world.audit.events().len();
    world.create(MaterialSpec::Aes256).await;
    let events = world.audit.events();
    let [intent, outcome] = &events[before..] else { panic!("not two records") };
    assert_eq!((intent.phase, intent.durable, intent.result), (Phase::Intent, true, "pending"));
    assert_eq!((outcome.phase, outcome.result), (Phase::Outcome, "ok"));
    assert_eq!(intent.key, outcome.key);
}

#[tokio::test]
async fn refusals_are_recorded_with_their_reason() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let mut blob = world.encrypt(&key, b"x").await.unwrap();
    *blob.last_mut().unwrap() ^= 1;
    assert_eq!(code(world.decrypt(&blob).await), "Undecryptable");
    let last = world.audit.events().pop().unwrap();
    assert_eq!((last.action, last.result), ("kms:Decrypt", "Undecryptable"));
    assert!(!last.reason.is_empty());

    let refused = world.engine.generate_random(&call_by("stranger"), 1).await;
    assert_eq!(code(refused), "AccessDenied");
    let last = world.audit.events().pop().unwrap();
    assert_eq!((last.who.name(), last.result), ("stranger", "AccessDenied"));
}

#[tokio::test]
async fn nothing_is_answered_or_changed_while_the_log_cannot_be_written() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.audit.set_away(true);
    assert_eq!(code(world.encrypt(&key, b"x").await), "Unavailable");
    let created = world.engine.create_key(admin(), request(MaterialSpec::Aes256)).await;
    assert_eq!(code(created), "Unavailable");
    assert_eq!(code(world.engine.rotate_key(admin(), key.clone()).await), "Unavailable");
    world.audit.set_away(false);
    assert_eq!(world.engine.list_keys(admin(), None, 10).await.unwrap().items.len(), 1);
    assert_eq!(world.show(&key).await.key.activation, 1);
    assert!(world.encrypt_in(&key, b"x", none()).await.is_ok());
}

#[tokio::test]
async fn what_is_genuine_is_on_record_whatever_strangers_do_and_fills_no_log() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let used = world.invite("a", &here).await;
    world.join("a", &used).await.unwrap();
    let recorded = |action: &str| {
        let events = world.audit.events();
        events.iter().filter(|event| event.action == action && event.result == REFUSED).count()
    };
    let guess = SecretVec::copy_of(b"lastkey_node_guess");
    for _ in 0..150 {
        assert_eq!(code(world.join("a", &guess).await), REFUSED);
    }
    assert_eq!(recorded("sys:JoinNode"), 100);
    for _ in 0..101 {
        assert_eq!(code(world.join("a", &used).await), REFUSED);
    }
    assert_eq!(recorded("sys:JoinNode"), 200);
    for _ in 0..102 {
        assert_eq!(code(here.exchange(&world, "a", "other").await), REFUSED);
    }
    assert_eq!(recorded("sts:OpenSession"), 100);
    world.gate.stop().await;
    let sum = world.audit.events().into_iter().find(|event| event.action == "audit:Sum").unwrap();
    assert_eq!(
        sum.reason,
        "53 attempts to come in have no record of their own: \
         2 sts:OpenSession by bearers of something genuine, 50 sys:JoinNode, \
         1 sys:JoinNode by bearers of something genuine"
    );
}
