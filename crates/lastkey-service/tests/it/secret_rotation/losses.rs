//! What is not lost, and who is not let in: answers that do not come, hands in the middle, rights.

use lastkey_core::permit::DestroySecret;
use lastkey_core::ports::{Expected, Store as _, Write};
use lastkey_core::record::{Record, RecordPath};

use super::*;

impl World {
    /// Does what is due after a rotation had to wait.
    async fn later(&self) {
        self.clock.pass(Duration::from_secs(300));
        self.engine.run_rotations_due().await;
    }

    /// Lets eve do these, and nothing else.
    async fn let_eve(&self, actions: &str) {
        let text =
            format!("permit(principal == Service::\"eve\", action in [{actions}], resource);");
        let policy = Name::parse("eve").unwrap();
        self.engine.set_policy(admin(), policy, text, None).await.unwrap();
    }
}

/// A lock in the database holds the change of the password up for longer than we wait.
#[tokio::test]
async fn a_root_password_that_is_set_late_is_not_forgotten() {
    let world = world().await;
    world.shop().await;
    let shop = Name::parse("shop").unwrap();
    world.databases.be_late();
    for _ in 0..2 {
        let refused = world.engine.rotate_database_root(admin(), shop.clone()).await;
        assert_eq!(code(refused), "OutsideFailed");
    }
    world.databases.catch_up();
    world.turn("db").await.unwrap();
    world.engine.rotate_database_root(admin(), shop).await.unwrap();
}

#[tokio::test]
async fn a_rotation_waits_where_nobody_knows_what_a_program_did() {
    let world = world().await;
    world.hooked().await;
    for step in ["set", "test"] {
        world.webhooks.lose(Some(step));
        let refused = world.turn("a").await.unwrap_err();
        assert!(refused.to_string().contains("did not answer"), "{refused}");
        let set = world.stage("a", "pending").await.unwrap();
        let told = world.rotation("a").await.rotation.last.unwrap().problem.unwrap();
        assert!(told.contains("did not answer"), "{told}");
        world.webhooks.lose(None);
        world.later().await;
        assert_eq!(world.stage("a", "current").await.unwrap(), set, "{step}");
    }
    // A no in the end: the value may have been set, and is kept.
    world.webhooks.fail(Some("test"));
    assert_eq!(code(world.turn("a").await), "OutsideFailed");
    assert_eq!(world.rotation("a").await.rotation.under_way, None);
    assert_eq!(world.stage("a", "pending").await.unwrap().len(), 32);
    // Who writes a version by hand does not wait for a program that never answers.
    world.webhooks.fail(None);
    world.webhooks.lose(Some("set"));
    assert_eq!(code(world.turn("a").await), "OutsideFailed");
    world.write_text("a", b"by hand").await;
    world.later().await;
    assert_eq!(world.rotation("a").await.rotation.under_way, None);
    assert_eq!(world.stage("a", "current").await.unwrap(), b"by hand");
}

#[tokio::test]
async fn a_version_that_somebody_makes_current_himself_is_not_destroyed() {
    let world = world().await;
    world.hooked().await;
    world.webhooks.lose(Some("test"));
    assert_eq!(code(world.turn("a").await), "OutsideFailed");
    world.make_current("a", 2).await;
    world.later().await;
    let view = world.rotation("a").await.rotation;
    assert_eq!((view.under_way, view.last.unwrap().version), (None, Some(no(2))));
    assert_eq!(world.stage("a", "current").await.unwrap().len(), 32);
    // The same of accounts, when the new one cannot be set any more.
    world.shop().await;
    world.store_faults(1, Fault::Before);
    assert_eq!(code(world.turn("db").await), "Unavailable");
    world.make_current("db", 2).await;
    world.databases.fail(Some("set_password"));
    world.engine.run_rotations_due().await;
    assert_eq!(world.rotation("db").await.rotation.failures, 1);
    assert_eq!(world.login("db", "current").await.0, "shop_b");
}

#[tokio::test]
async fn who_names_a_program_may_read_and_write_the_secret() {
    let world = world().await;
    world.hooked().await;
    let eve = call_by("eve");
    let update = "Action::\"secrets:UpdateSecretRotation\", Action::\"secrets:GetSecret\"";
    for (may, told) in [
        ("Action::\"secrets:UpdateSecretRotation\"", "AccessDenied"),
        (update, "AccessDenied"),
        (&format!("{update}, Action::\"secrets:PutSecret\""), "ok"),
    ] {
        world.let_eve(may).await;
        world.engine.set_secret_rotation(&eve, name("a"), every_day(drawn(32))).await.unwrap();
        let set = world.engine.set_secret_rotation(&eve, name("a"), hook()).await;
        assert_eq!(set.map_or_else(|error| error.code(), |_| "ok"), told, "{may}");
    }
}

#[tokio::test]
async fn an_overlap_is_ended_by_who_may_destroy_the_version_and_while_time_counts() {
    let world = world().await;
    world.write_text("a", b"old").await;
    let request = RotationRequest { overlap_secs: Some(3_600), ..every_day(drawn(32)) };
    world.set("a", request).await.unwrap();
    world.turn("a").await.unwrap();
    let now = Begin { ends_overlap: true, ..Begin::default() };
    world.let_eve("Action::\"secrets:RotateSecret\"").await;
    let refused = world.engine.rotate_secret(&call_by("eve"), name("a"), now).await;
    assert_eq!(code(refused), "AccessDenied");
    world.clock.jump_wall(7 * 86_400);
    assert_eq!(code(world.engine.rotate_secret(admin(), name("a"), now).await), "ClockHeld");
    assert_eq!(world.stage("a", "previous").await.unwrap(), b"old");
    world.engine.confirm_clock(admin()).await.unwrap();
    world.engine.rotate_secret(admin(), name("a"), now).await.unwrap();
    assert_eq!(world.told(DestroySecret::NAME).last().unwrap(), "Outcome ok");
    assert!(world.told(RevokeSecretVersion::NAME).is_empty());
}

#[tokio::test]
async fn the_account_that_is_not_in_use_is_locked_and_the_other_one_opens() {
    let world = world().await;
    world.shop().await;
    world.turn("db").await.unwrap();
    // The value that could tell which account it was is gone.
    let gone = SecretChange::DestroyVersion(no(1));
    world.engine.change_secret(admin(), name("db"), gone).await.unwrap();
    world.clock.pass(DAY);
    world.engine.run_rotations_due().await;
    assert!(!world.databases.lets_in("shop_a", b"first"));
    // Somebody goes back to the old version after its account was locked, and before that was
    // written down.
    world.turn("db").await.unwrap();
    let (account, password) = world.login("db", "previous").await;
    world.clock.pass(DAY);
    world.store_faults(0, Fault::Before);
    world.engine.run_rotations_due().await;
    assert!(!world.databases.lets_in(&account, &password));
    world.make_current("db", 2).await;
    world.engine.run_rotations_due().await;
    assert!(world.databases.lets_in(&account, &password));
    assert_eq!(world.rotation("db").await.rotation.overlap, None);
}

/// What is due is looked at in the middle of a move, when the rotation speaks of another name.
#[tokio::test]
async fn a_move_at_the_wrong_moment_does_not_end_a_rotation() {
    let world = world().await;
    world.write_text("a", b"old").await;
    let set = world.set("a", every_day(drawn(32))).await.unwrap().rotation;
    let (path, records) = (RecordPath::secret_rotation(set.secret), world.store.records());
    world.clock.pass(DAY);
    for at in ["b", "a"] {
        let stored = records.get(&path).await.unwrap().unwrap();
        let Record::SecretRotation(mut rotation) = stored.record else { panic!("{path:?}") };
        rotation.name = name(at);
        let (path, expected) = (path.clone(), Expected::At(stored.revision));
        let record = Some(Record::SecretRotation(rotation));
        records.commit(vec![Write { path, expected, record }]).await.unwrap();
        world.engine.run_rotations_due().await;
    }
    assert_eq!(world.current_no("a").await, 2);
}
