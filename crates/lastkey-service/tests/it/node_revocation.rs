//! Revocations of nodes: tokens that were not used yet, and clocks that were set back.

use std::time::Duration;

use lastkey_core::access::RevokedWhat;
use lastkey_testkit::fakes::Fault;

use crate::nodes::{Cluster, LET_GO, REFUSED};
use crate::world::{admin, code, world};

#[tokio::test]
async fn join_token_of_before_a_revocation_lets_nobody_in_and_the_next_one_does() {
    for what in [RevokedWhat::Node("a".to_owned()), RevokedWhat::Everything] {
        let mut world = world().await;
        let here = Cluster::known(&world, "here").await;
        let (token, other) = (world.invite("a", &here).await, world.invite("b", &here).await);
        let is_all = what == RevokedWhat::Everything;
        world.engine.revoke(admin(), what).await.unwrap();
        for _ in 0..2 {
            assert_eq!(code(world.join("a", &token).await), REFUSED);
            assert_eq!(world.audit.events().last().unwrap().reason, "no_token");
            world.gate.stop().await;
            world = world.unseal_again().await;
        }
        assert_eq!(world.join("b", &other).await.is_err(), is_all);
        let agent = world.agent("a", &here).await;
        world.agent_itself(&agent).await.unwrap();
    }
}

#[tokio::test]
async fn revocation_that_fails_to_be_written_leaves_the_token_as_it_was() {
    let world = world().await;
    let here = Cluster::known(&world, "here").await;
    let token = world.invite("a", &here).await;
    world.store.records().fail_next(Fault::Full);
    let revoked = world.engine.revoke(admin(), RevokedWhat::Everything).await;
    assert_eq!(code(revoked), "Unavailable");
    world.agent_itself(&world.peer(&world.join("a", &token).await.unwrap())).await.unwrap();
}

#[tokio::test]
async fn revocation_by_a_clock_that_was_set_back_brings_nothing_back() {
    let mut world = world().await;
    let here = Cluster::known(&world, "here").await;
    world.clock.pass(Duration::from_secs(3_600));
    let agent = world.agent("a", &here).await;
    let what = RevokedWhat::Node("a".to_owned());
    let first = world.engine.revoke(admin(), what.clone()).await.unwrap();
    world.clock.jump_wall(-3_600);
    let second = world.engine.revoke(admin(), what).await.unwrap();
    assert_eq!(second, first);
    assert_eq!(world.engine.list_revocations(admin()).await.unwrap(), [first]);
    world.clock.jump_wall(3_600);
    world.gate.stop().await;
    world = world.unseal_again().await;
    assert_eq!(code(world.agent_itself(&agent).await), LET_GO);
}
