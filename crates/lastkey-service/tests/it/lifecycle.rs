//! Keys over their life: names, states, versions.

use std::time::Duration;

use lastkey_core::ids::{AliasName, VersionNo};
use lastkey_core::key::{KeyUsage, Tags};
use lastkey_core::rotation::Period;
use lastkey_core::state::State;
use lastkey_core::version::Origin;
use lastkey_crypto::material::MaterialSpec;
use lastkey_service::ops::create_key::Request;
use lastkey_service::ops::{StateChange, VersionChange};

use crate::world::{Named as _, admin, alias, code, request, world};

fn named(name: &str) -> Request {
    Request { alias: Some(AliasName::parse(name).unwrap()), ..request(MaterialSpec::Aes256) }
}

#[tokio::test]
async fn a_key_is_found_by_its_alias_until_that_names_another() {
    let world = world().await;
    let first = world.create_as(named("alias/app")).await.key_ref();
    assert_eq!(world.show(&alias("alias/app")).await.key_ref(), first);
    assert_eq!(code(world.engine.create_key(admin(), named("alias/app")).await), "AlreadyExists");

    let second = world.create(MaterialSpec::Aes256).await;
    let name = AliasName::parse("alias/app").unwrap();
    world.engine.set_alias(admin(), name.clone(), second.clone()).await.unwrap();
    assert_eq!(world.show(&alias("alias/app")).await.key_ref(), second);
    assert!(world.show(&first).await.key.aliases.is_empty());

    world.engine.delete_alias(admin(), name).await.unwrap();
    let gone = world.engine.describe_key(admin(), alias("alias/app")).await;
    assert_eq!(code(gone), "AccessDenied");
    assert!(world.show(&second).await.key.aliases.is_empty());
}

#[tokio::test]
async fn aliases_are_listed_by_page() {
    let world = world().await;
    for name in ["alias/a", "alias/b", "alias/c"] {
        world.create_as(named(name)).await;
    }
    let page = world.engine.list_aliases(admin(), None, 2).await.unwrap();
    assert_eq!((page.items.len(), page.more), (2, true));
    let after = page.items.last().map(|view| view.alias.clone());
    let rest = world.engine.list_aliases(admin(), after, 2).await.unwrap();
    assert_eq!((rest.items.len(), rest.more), (1, false));
    for limit in [0, 1_001] {
        let refused = world.engine.list_aliases(admin(), None, limit).await;
        assert_eq!(code(refused), "InvalidRequest");
    }
}

#[tokio::test]
async fn a_disabled_key_does_nothing_until_it_is_enabled() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let blob = world.encrypt(&key, b"x").await.unwrap();
    world.engine.change_state(admin(), key.clone(), StateChange::Disable).await.unwrap();
    assert_eq!(code(world.encrypt(&key, b"x").await), "KeyState");
    assert_eq!(code(world.decrypt(&blob).await), "KeyState");
    world.engine.change_state(admin(), key.clone(), StateChange::Enable).await.unwrap();
    assert!(world.decrypt(&blob).await.is_ok());
}

#[tokio::test]
async fn a_retired_key_only_processes_and_never_comes_back() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let blob = world.encrypt(&key, b"x").await.unwrap();
    world.engine.change_state(admin(), key.clone(), StateChange::Deactivate).await.unwrap();
    assert_eq!(code(world.encrypt(&key, b"x").await), "KeyState");
    assert!(world.decrypt(&blob).await.is_ok());
    let back = world.engine.change_state(admin(), key, StateChange::Enable).await;
    assert_eq!(code(back), "KeyState");
}

#[tokio::test]
async fn an_older_version_can_be_made_primary_again_in_a_new_generation() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let rotated = world.engine.rotate_key(admin(), key.clone()).await.unwrap().key;
    assert_eq!((rotated.primary, rotated.activation), (VersionNo::new(2), 2));
    let old = VersionNo::FIRST;
    let change = VersionChange::MakePrimary;
    let before = world.audit.events().len();
    let again = world.engine.change_version(admin(), key.clone(), old, change).await.unwrap();
    // Whoever may change a version need not be allowed to describe its key.
    let events = world.audit.events();
    let told: Vec<_> = events[before..].iter().map(|event| event.action).collect();
    assert_eq!(told, ["kms:RotateKey", "kms:RotateKey"]);
    assert_eq!((again.primary, again.version.activation), (true, 3));
    let shown = world.show(&key).await.key;
    assert_eq!((shown.primary, shown.newest, shown.activation), (Some(old), VersionNo::new(2), 3));
    let versions = world.engine.list_versions(admin(), key, None, 10).await.unwrap().items;
    let states: Vec<_> = versions.iter().map(|view| view.version.state).collect();
    assert_eq!(states, [State::Active, State::Deactivated]);
}

#[tokio::test]
async fn a_version_is_destroyed_only_after_a_shadow_disable_that_can_be_undone() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let blob = world.encrypt(&key, b"x").await.unwrap();
    let change =
        |change| world.engine.change_version(admin(), key.clone(), VersionNo::FIRST, change);
    assert_eq!(code(change(VersionChange::ShadowDisable).await), "KeyState");
    world.engine.rotate_key(admin(), key.clone()).await.unwrap();
    assert_eq!(code(change(VersionChange::Destroy).await), "KeyState");

    change(VersionChange::ShadowDisable).await.unwrap();
    assert_eq!(code(world.decrypt(&blob).await), "KeyState");
    let view = world.engine.describe_version(admin(), key.clone(), VersionNo::FIRST).await;
    assert_eq!(view.unwrap().usage.refused, 1);
    change(VersionChange::Reinstate).await.unwrap();
    assert!(world.decrypt(&blob).await.is_ok());

    change(VersionChange::ShadowDisable).await.unwrap();
    let gone = change(VersionChange::Destroy).await.unwrap().version;
    assert_eq!(gone.state, State::Destroyed);
    assert!(gone.destroyed_at.is_some() && gone.material.is_none());
    assert_eq!(code(world.decrypt(&blob).await), "KeyState");
    assert_eq!(code(change(VersionChange::Reinstate).await), "KeyState");

    assert_eq!(gone.erased_at, None);
    world.clock.pass(Duration::from_secs(600));
    world.engine.run_due().await;
    let view = world.engine.describe_version(admin(), key.clone(), VersionNo::FIRST).await;
    assert!(view.unwrap().version.erased_at.is_some());
}

#[tokio::test]
async fn metadata_can_be_changed() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let tag = || vec![("team".to_owned(), "shop".to_owned())];
    world.engine.tag_key(admin(), key.clone(), tag()).await.unwrap();
    let text = lastkey_core::key::Description::parse("for the shop").unwrap();
    world.engine.update_key(admin(), key.clone(), Some(text), Some(true)).await.unwrap();
    let shown = world.show(&key).await.key;
    assert_eq!(shown.tags.iter().collect::<Vec<_>>(), [("team", "shop")]);
    assert_eq!((shown.description.as_str(), shown.deletion_protection), ("for the shop", true));
    world.engine.untag_key(admin(), key.clone(), vec!["team".to_owned()]).await.unwrap();
    assert_eq!(world.show(&key).await.key.tags, Tags::default());
}

#[tokio::test]
async fn what_does_not_go_together_is_refused_at_creation() {
    let world = world().await;
    let refuse = async |request| code(world.engine.create_key(admin(), request).await);
    let sign = Some(KeyUsage::SignVerify);
    assert_eq!(
        refuse(Request { usage: sign, ..request(MaterialSpec::Aes256) }).await,
        "InvalidRequest"
    );
    let imported = Request {
        origin: Origin::Imported,
        rotation: Period::from_secs(3_600).ok(),
        ..request(MaterialSpec::Aes256)
    };
    assert_eq!(refuse(imported).await, "InvalidRequest");
}

#[tokio::test]
async fn sixteen_changes_at_once_all_happen() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let rotate = |_| {
        let (engine, key) = (world.engine.clone(), key.clone());
        tokio::spawn(async move { engine.rotate_key(admin(), key).await })
    };
    let tasks: Vec<_> = (0..16).map(rotate).collect();
    let mut done = 0;
    for task in tasks {
        done += u32::from(task.await.unwrap().is_ok());
    }
    assert_eq!(world.show(&key).await.key.newest, VersionNo::new(done + 1));
}

#[tokio::test]
async fn versions_of_a_protected_key_are_not_destroyed() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    world.engine.rotate_key(admin(), key.clone()).await.unwrap();
    world.engine.update_key(admin(), key.clone(), None, Some(true)).await.unwrap();
    let change =
        |change| world.engine.change_version(admin(), key.clone(), VersionNo::FIRST, change);
    change(VersionChange::ShadowDisable).await.unwrap();
    assert_eq!(code(change(VersionChange::Destroy).await), "DeletionProtected");
    world.engine.update_key(admin(), key.clone(), None, Some(false)).await.unwrap();
    assert!(change(VersionChange::Destroy).await.is_ok());
}

#[tokio::test]
async fn aliases_that_move_and_go_at_once_stay_consistent() {
    let world = world().await;
    let name = AliasName::parse("alias/x").unwrap();
    let (a, b) = (
        world.create_as(named("alias/x")).await.key_ref(),
        world.create(MaterialSpec::Aes256).await,
    );
    for _ in 0..20 {
        let (moved, gone) = tokio::join!(
            world.engine.set_alias(admin(), name.clone(), b.clone()),
            world.engine.delete_alias(admin(), name.clone()),
        );
        let target = world.engine.describe_key(admin(), alias("alias/x")).await;
        for key in [&a, &b] {
            let lists_it = world.show(key).await.key.aliases.contains(&name);
            let is_named = target.as_ref().is_ok_and(|view| view.key_ref() == *key);
            assert_eq!(lists_it, is_named, "{moved:?} {gone:?}");
        }
        while world.engine.set_alias(admin(), name.clone(), a.clone()).await.is_err() {}
    }
}
