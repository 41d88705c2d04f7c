//! Automatic rotation: once for each due time, whatever happens in between.

use std::time::Duration;

use lastkey_core::ids::{KeyRef, VersionNo};
use lastkey_core::rotation::Period;
use lastkey_crypto::material::MaterialSpec;
use lastkey_service::ops::StateChange;
use lastkey_service::ops::create_key::Request;

use crate::world::{Named as _, World, admin, request, world};

const HOUR: Duration = Duration::from_secs(3_600);

async fn hourly(world: &World) -> KeyRef {
    let rotation = Period::from_secs(3_600).ok();
    world.create_as(Request { rotation, ..request(MaterialSpec::Aes256) }).await.key_ref()
}

async fn newest(world: &World, key: &KeyRef) -> u32 {
    world.show(key).await.key.newest.map_or(0, VersionNo::number)
}

#[tokio::test]
async fn a_due_key_rotates_once_and_is_due_again_a_period_later() {
    let world = world().await;
    let key = hourly(&world).await;
    world.engine.run_due().await;
    assert_eq!(newest(&world, &key).await, 1);
    world.clock.pass(HOUR);
    for _ in 0..3 {
        world.engine.run_due().await;
    }
    assert_eq!(newest(&world, &key).await, 2);
    let view = world.show(&key).await;
    assert!(view.next_rotation_at > view.key.rotation.and_then(|rotation| rotation.last));
    world.clock.pass(HOUR);
    world.engine.run_due().await;
    assert_eq!(newest(&world, &key).await, 3);
}

#[tokio::test]
async fn many_missed_periods_make_one_rotation() {
    let world = world().await;
    let key = hourly(&world).await;
    world.clock.pass(100 * HOUR);
    world.engine.run_due().await;
    world.engine.run_due().await;
    assert_eq!(newest(&world, &key).await, 2);
}

#[tokio::test]
async fn two_schedulers_at_once_rotate_once() {
    let world = world().await;
    let key = hourly(&world).await;
    world.clock.pass(HOUR);
    tokio::join!(world.engine.run_due(), world.engine.run_due());
    assert_eq!(newest(&world, &key).await, 2);
}

#[tokio::test]
async fn rotation_survives_a_restart() {
    let world = world().await;
    let key = hourly(&world).await;
    world.gate.stop().await;
    world.clock.reboot(2 * HOUR);
    let world = world.unseal_again().await;
    world.engine.run_due().await;
    world.engine.run_due().await;
    assert_eq!(newest(&world, &key).await, 2);
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_rotates_nothing() {
    let world = world().await;
    let key = hourly(&world).await;
    world.clock.jump_wall(400 * 86_400);
    world.engine.run_due().await;
    assert_eq!(newest(&world, &key).await, 1);
}

#[tokio::test]
async fn a_disabled_key_is_put_off_and_rotates_when_it_is_back() {
    let world = world().await;
    let key = hourly(&world).await;
    world.engine.change_state(admin(), key.clone(), StateChange::Disable).await.unwrap();
    world.clock.pass(HOUR);
    world.engine.run_due().await;
    assert_eq!(newest(&world, &key).await, 1);
    world.engine.change_state(admin(), key.clone(), StateChange::Enable).await.unwrap();
    world.clock.pass(HOUR);
    world.engine.run_due().await;
    assert_eq!(newest(&world, &key).await, 2);
}

#[tokio::test]
async fn rotation_can_be_changed_and_ended() {
    let world = world().await;
    let key = hourly(&world).await;
    let day = Period::from_secs(86_400).ok();
    world.engine.set_rotation(admin(), key.clone(), day).await.unwrap();
    world.clock.pass(2 * HOUR);
    world.engine.run_due().await;
    assert_eq!(newest(&world, &key).await, 1);
    world.engine.set_rotation(admin(), key.clone(), None).await.unwrap();
    world.clock.pass(48 * HOUR);
    assert_eq!(world.engine.run_due().await, None);
    assert_eq!(newest(&world, &key).await, 1);
}

#[tokio::test]
async fn rotation_on_demand_moves_the_due_time() {
    let world = world().await;
    let key = hourly(&world).await;
    world.clock.pass(HOUR / 2);
    world.engine.rotate_key(admin(), key.clone()).await.unwrap();
    world.clock.pass(HOUR / 2);
    world.engine.run_due().await;
    assert_eq!(newest(&world, &key).await, 2);
}
