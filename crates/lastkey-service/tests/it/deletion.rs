//! Deletion: windows, calling off, tombstones, and a clock that jumps.

use std::time::Duration;

use lastkey_core::key::DeletionWindow;
use lastkey_core::state::State;
use lastkey_crypto::material::MaterialSpec;
use lastkey_service::ops::create_key::Request;

use crate::world::{Named as _, admin, alias, call_by, code, request, world};

const DAY: Duration = Duration::from_secs(86_400);

fn week() -> DeletionWindow {
    DeletionWindow::from_days(7).unwrap()
}

#[tokio::test]
async fn a_key_pending_deletion_is_unusable_and_can_be_rescued() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let blob = world.encrypt(&key, b"x").await.unwrap();
    world.engine.schedule_deletion(admin(), key.clone(), week(), None).await.unwrap();
    assert_eq!(code(world.encrypt(&key, b"x").await), "KeyState");
    assert_eq!(code(world.decrypt(&blob).await), "KeyState");
    let again = world.engine.schedule_deletion(admin(), key.clone(), week(), None).await;
    assert_eq!(code(again), "KeyState");

    let rescued = world.engine.cancel_deletion(admin(), key.clone()).await.unwrap().key;
    assert_eq!((rescued.state, rescued.destruction), (State::Suspended, None));
    world.clock.pass(30 * DAY);
    world.engine.run_due().await;
    assert_eq!(world.show(&key).await.key.state, State::Suspended);
}

#[tokio::test]
async fn after_its_window_only_a_tombstone_is_left() {
    let world = world().await;
    let name = lastkey_core::ids::AliasName::parse("alias/old").unwrap();
    let view =
        world.create_as(Request { alias: Some(name), ..request(MaterialSpec::Aes256) }).await;
    let key = view.key_ref();
    let blob = world.encrypt(&key, b"x").await.unwrap();
    world.engine.rotate_key(admin(), key.clone()).await.unwrap();
    world.engine.schedule_deletion(admin(), key.clone(), week(), None).await.unwrap();
    world.clock.pass(7 * DAY - Duration::from_secs(1));
    world.engine.run_due().await;
    assert_eq!(world.show(&key).await.key.state, State::Active);

    world.clock.pass(Duration::from_secs(1));
    world.engine.run_due().await;
    let tombstone = world.show(&key).await.key;
    assert_eq!((tombstone.state, tombstone.primary), (State::Destroyed, None));
    assert!(tombstone.destroyed_at.is_some() && tombstone.aliases.is_empty());
    assert_eq!(code(world.decrypt(&blob).await), "KeyState");
    let by_alias = world.engine.describe_key(admin(), alias("alias/old")).await;
    assert_eq!(code(by_alias), "AccessDenied");

    let versions = world.engine.list_versions(admin(), key.clone(), None, 10).await.unwrap();
    assert!(versions.items.iter().all(|view| view.version.state == State::Destroyed));
    assert_eq!(code(world.engine.cancel_deletion(admin(), key).await), "KeyState");
}

#[tokio::test]
async fn destroyed_and_erased_are_two_moments() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.engine.schedule_deletion(admin(), key.clone(), week(), None).await.unwrap();
    let moments = async || {
        let version = lastkey_core::ids::VersionNo::FIRST;
        let view = world.engine.describe_version(admin(), key.clone(), version).await;
        let version = view.unwrap().version;
        (version.destroyed_at.is_some(), version.erased_at.is_some())
    };
    world.clock.pass(7 * DAY);
    world.engine.run_due().await;
    assert_eq!(moments().await, (true, false));
    world.clock.pass(Duration::from_secs(600));
    world.engine.run_due().await;
    assert_eq!(moments().await, (true, true));
}

#[tokio::test]
async fn a_protected_key_cannot_be_deleted() {
    let world = world().await;
    let protected = Request { deletion_protection: true, ..request(MaterialSpec::Aes256) };
    let key = world.create_as(protected).await.key_ref();
    let refused = world.engine.schedule_deletion(admin(), key.clone(), week(), None).await;
    assert_eq!(code(refused), "DeletionProtected");
    assert!(world.encrypt(&key, b"x").await.is_ok());
}

#[tokio::test]
async fn after_a_jump_of_the_clock_nothing_is_destroyed_until_an_operator_confirms() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.engine.schedule_deletion(admin(), key.clone(), week(), None).await.unwrap();
    world.clock.jump_wall(8 * 86_400);
    world.clock.pass(8 * DAY);
    world.engine.run_due().await;
    assert_eq!(world.show(&key).await.key.state, State::Active);
    assert!(world.gate.status().await.unwrap().clock_hold.is_some());

    assert_eq!(code(world.engine.confirm_clock(&call_by("stranger")).await), "AccessDenied");
    world.engine.confirm_clock(admin()).await.unwrap();
    world.engine.run_due().await;
    assert_eq!(world.show(&key).await.key.state, State::Destroyed);
}
