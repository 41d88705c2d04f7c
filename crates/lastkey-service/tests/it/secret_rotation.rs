//! Rotation of secrets: what is drawn, set, tested, made current and revoked; and what is taken
//! back, from wherever it stands.

mod losses;

use std::time::Duration;

use lastkey_core::cron::Cron;
use lastkey_core::database::DatabaseKind;
use lastkey_core::ids::{Name, VersionNo};
use lastkey_core::key::DeletionWindow;
use lastkey_core::permit::{Action as _, RevokeSecretVersion, RotateSecret};
use lastkey_core::rotation::Period;
use lastkey_core::secret_item::{SecretName, Stage, ValueKind};
use lastkey_core::secret_rotation::{Accounts, Recipe, Schedule};
use lastkey_core::secret_value::Fields;
use lastkey_secret::SecretVec;
use lastkey_service::error::Error;
use lastkey_service::ops::databases::DatabaseRequest;
use lastkey_service::ops::secrets::{
    Begin, PutRequest, RotationRequest, RotationView, SecretChange, StrategyRequest, Transfer,
    Value, Which,
};
use lastkey_testkit::fakes::Fault;

use crate::world::{World, admin, call_by, code};

/// A service beside which nothing runs: what is due is done when a test says so.
async fn world() -> World {
    let world = crate::world::world().await;
    world.gate.stop().await;
    world
}

const DAY: Duration = Duration::from_secs(86_400);

fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

fn no(number: u32) -> VersionNo {
    VersionNo::new(number).unwrap()
}

fn drawn(length: u32) -> StrategyRequest {
    StrategyRequest::Generated(Recipe::new(length, Recipe::ALPHANUMERIC, None).unwrap())
}

fn every_day(strategy: StrategyRequest) -> RotationRequest {
    let schedule = Some(Schedule::Every(Period::from_secs(86_400).unwrap()));
    RotationRequest { strategy, schedule, overlap_secs: None }
}

/// Longer than the overlap of accounts.
fn every_other_day(strategy: StrategyRequest) -> RotationRequest {
    let schedule = Some(Schedule::Every(Period::from_secs(2 * 86_400).unwrap()));
    RotationRequest { schedule, ..every_day(strategy) }
}

fn fields(pairs: &[(&str, &[u8])]) -> Value {
    let owned = |(name, value): &(&str, &[u8])| ((*name).to_owned(), SecretVec::copy_of(value));
    let fields = Fields::new(pairs.iter().map(owned).collect()).unwrap();
    Value { kind: ValueKind::Fields, bytes: fields.encode().unwrap() }
}

fn accounts() -> StrategyRequest {
    let pair = ["shop_a".to_owned(), "shop_b".to_owned()];
    StrategyRequest::Accounts(Accounts { database: Name::parse("shop").unwrap(), pair })
}

fn hook() -> RotationRequest {
    let recipe = Recipe::new(32, Recipe::ALPHANUMERIC, None).unwrap();
    let url = "https://rotate.example/a".to_owned();
    every_day(StrategyRequest::Webhook { url, authority: None, recipe })
}

impl World {
    async fn write(&self, at: &str, value: Value) {
        let request = PutRequest {
            value,
            key: None,
            description: None,
            tags: None,
            expected_version: None,
            stage: None,
            keep: None,
        };
        self.engine.put_secret(admin(), name(at), request).await.unwrap();
    }

    async fn write_text(&self, at: &str, value: &[u8]) {
        self.write(at, Value { kind: ValueKind::Opaque, bytes: SecretVec::copy_of(value) }).await;
    }

    async fn set(&self, at: &str, request: RotationRequest) -> Result<RotationView, Error> {
        let set = self.engine.set_secret_rotation(admin(), name(at), request).await;
        set.map(|set| set.view)
    }

    async fn turn(&self, at: &str) -> Result<RotationView, Error> {
        self.engine.rotate_secret(admin(), name(at), Begin::default()).await
    }

    async fn rotation(&self, at: &str) -> RotationView {
        self.engine.secret_rotation(admin(), &name(at)).await.unwrap()
    }

    async fn stage(&self, at: &str, stage: &str) -> Result<Vec<u8>, Error> {
        let which = Which::Stage(Stage::parse(stage).unwrap());
        let read = self.engine.get_secret(admin(), &name(at), &which).await?;
        Ok(read.value.bytes.expose(<[u8]>::to_vec))
    }

    async fn current_no(&self, at: &str) -> u32 {
        let view = self.engine.describe_secret(admin(), &name(at)).await.unwrap();
        view.item.current().map_or(0, VersionNo::number)
    }

    /// Account and password of the version at a stage.
    async fn login(&self, at: &str, stage: &str) -> (String, Vec<u8>) {
        let value = self.stage(at, stage).await.unwrap();
        let fields = Fields::parse(&value).unwrap().into_inner();
        let of = |wanted: &str| {
            let field = fields.iter().find(|(name, _)| name == wanted).unwrap();
            field.1.expose(<[u8]>::to_vec)
        };
        (String::from_utf8(of("username")).unwrap(), of("password"))
    }

    /// A database with two accounts, and a secret with the first one.
    async fn shop(&self) {
        for account in ["root", "shop_a", "shop_b"] {
            self.databases.put(account, b"first");
        }
        let request = DatabaseRequest {
            kind: DatabaseKind::PostgreSql,
            address: "postgresql://db.example/shop".to_owned(),
            authority: None,
            root: "root".to_owned(),
            password: SecretVec::copy_of(b"first"),
            keeps_password: false,
        };
        let shop = Name::parse("shop").unwrap();
        self.engine.add_database(admin(), shop, request).await.unwrap();
        let value = fields(&[("username", b"shop_a"), ("password", b"first"), ("host", b"db")]);
        self.write("db", value).await;
        self.set("db", every_other_day(accounts())).await.unwrap();
    }

    /// A secret that a program rotates.
    async fn hooked(&self) {
        self.write_text("a", b"old").await;
        self.set("a", hook()).await.unwrap();
    }

    async fn make_current(&self, at: &str, number: u32) {
        let place = SecretChange::Place(Stage::current(), no(number));
        self.engine.change_secret(admin(), name(at), place).await.unwrap();
    }

    /// Lets a write of the records go wrong, after some that go well.
    fn store_faults(&self, well: usize, fault: Fault) {
        self.store.fail_later(well, fault);
    }

    fn told(&self, action: &str) -> Vec<String> {
        let events = self.audit.events();
        let of_it = events.iter().filter(|event| event.action == action);
        of_it.map(|event| format!("{:?} {}", event.phase, event.result)).collect()
    }
}

#[tokio::test]
async fn a_generated_value_is_current_and_the_old_one_is_previous() {
    let world = world().await;
    world.write_text("a", b"old").await;
    assert_eq!(code(world.turn("a").await), "SecretState");
    world.set("a", RotationRequest { schedule: None, ..every_day(drawn(40)) }).await.unwrap();
    let view = world.turn("a").await.unwrap();
    assert_eq!(view.rotation.last.unwrap().version, Some(no(2)));
    assert_eq!(view.due_at, None);
    let value = world.stage("a", "current").await.unwrap();
    assert!(value.len() == 40 && value.iter().all(u8::is_ascii_alphanumeric));
    assert_eq!(world.stage("a", "previous").await.unwrap(), b"old");
    assert_eq!(code(world.stage("a", "pending").await), "SecretState");
    assert_eq!(world.told(RotateSecret::NAME).last().unwrap(), "Outcome ok");
}

#[tokio::test]
async fn a_field_is_drawn_and_the_others_stay() {
    let world = world().await;
    world.write("a", fields(&[("user", b"app"), ("pw", b"old")])).await;
    let recipe = Recipe::new(32, Recipe::ALPHANUMERIC, Some("pw")).unwrap();
    world.set("a", every_day(StrategyRequest::Generated(recipe))).await.unwrap();
    world.turn("a").await.unwrap();
    let value = Fields::parse(&world.stage("a", "current").await.unwrap()).unwrap().into_inner();
    let told: Vec<_> = value.iter().map(|(name, value)| (name.as_str(), value.len())).collect();
    assert_eq!(told, [("pw", 32), ("user", 3)]);
    world.write_text("b", b"no fields").await;
    let recipe = Recipe::new(32, Recipe::ALPHANUMERIC, Some("pw")).unwrap();
    world.set("b", every_day(StrategyRequest::Generated(recipe))).await.unwrap();
    assert_eq!(code(world.turn("b").await), "InvalidRequest");
    assert_eq!(world.rotation("b").await.rotation.failures, 1);
    assert_eq!(world.stage("b", "current").await.unwrap(), b"no fields");
}

#[tokio::test]
async fn a_due_secret_rotates_once_however_many_periods_were_missed() {
    let world = crate::world::world().await;
    world.write_text("a", b"old").await;
    world.set("a", every_day(drawn(32))).await.unwrap();
    world.engine.run_rotations_due().await;
    assert_eq!(world.current_no("a").await, 1);
    world.clock.pass(100 * DAY);
    tokio::join!(world.engine.run_rotations_due(), world.engine.run_rotations_due());
    world.engine.run_rotations_due().await;
    assert_eq!(world.current_no("a").await, 2);
    world.gate.stop().await;
    world.clock.reboot(DAY);
    let world = world.unseal_again().await;
    world.engine.run_rotations_due().await;
    assert_eq!(world.current_no("a").await, 3);
    world.clock.jump_wall(400 * 86_400);
    world.engine.run_rotations_due().await;
    assert_eq!(world.current_no("a").await, 3);
}

#[tokio::test]
async fn nothing_rotates_outside_its_window() {
    let world = world().await;
    world.write_text("a", b"old").await;
    // It is 2027-01-15T08:00:00Z.
    let cron = Cron::parse("0 9 * * *").unwrap();
    let schedule = Some(Schedule::At { cron, window_secs: 3_600 });
    world.set("a", RotationRequest { schedule, ..every_day(drawn(32)) }).await.unwrap();
    world.clock.pass(Duration::from_secs(4 * 3_600));
    world.engine.run_rotations_due().await;
    assert_eq!(world.current_no("a").await, 1);
    let due = world.rotation("a").await.due_at.unwrap();
    let tomorrow = 1_800_000_000 + 25 * 3_600;
    assert!((tomorrow..=tomorrow + 3_600).contains(&due.0), "{due:?}");
    world.clock.pass(Duration::from_secs(22 * 3_600));
    world.engine.run_rotations_due().await;
    assert_eq!(world.current_no("a").await, 2);
}

/// Both clocks are cut to whole seconds: by the one a time has come that by the other is a second
/// away, and would be the next time of the calendar.
#[tokio::test]
async fn a_time_of_the_calendar_rotates_once_when_the_clocks_tick_apart() {
    let world = world().await;
    world.write_text("a", b"old").await;
    // It is 2027-01-15T08:00:00Z.
    let cron = Cron::parse("0 9 * * *").unwrap();
    let schedule = Some(Schedule::At { cron, window_secs: 0 });
    world.set("a", RotationRequest { schedule, ..every_day(drawn(32)) }).await.unwrap();
    world.clock.jump_wall(-1);
    for (pause, expected) in [(3_600, 1), (1, 2), (1, 2), (86_398, 2), (1, 3)] {
        world.clock.pass(Duration::from_secs(pause));
        world.engine.run_rotations_due().await;
        assert_eq!(world.current_no("a").await, expected, "{pause}");
    }
}

#[tokio::test]
async fn the_old_version_is_revoked_when_its_overlap_has_ended_and_not_before() {
    let world = world().await;
    world.write_text("a", b"old").await;
    let request = RotationRequest { overlap_secs: Some(3_600), ..every_day(drawn(32)) };
    world.set("a", request).await.unwrap();
    world.turn("a").await.unwrap();
    let refused = world.turn("a").await.unwrap_err();
    assert!(refused.to_string().contains("--end-overlap"), "{refused}");
    world.clock.pass(Duration::from_secs(3_599));
    world.engine.run_rotations_due().await;
    assert_eq!(world.stage("a", "previous").await.unwrap(), b"old");
    world.clock.jump_wall(7 * 86_400);
    world.clock.pass(Duration::from_secs(1));
    world.engine.run_rotations_due().await;
    assert_eq!(world.stage("a", "previous").await.unwrap(), b"old", "the clock is on hold");
    world.engine.confirm_clock(admin()).await.unwrap();
    world.engine.run_rotations_due().await;
    assert_eq!(code(world.stage("a", "previous").await), "SecretState");
    assert_eq!(world.told(RevokeSecretVersion::NAME), ["Intent pending", "Outcome ok"]);
    world.turn("a").await.unwrap();
    let now = Begin { ends_overlap: true, ..Begin::default() };
    world.engine.rotate_secret(admin(), name("a"), now).await.unwrap();
    assert_eq!(world.current_no("a").await, 4);
}

#[tokio::test]
async fn a_version_that_is_current_again_is_not_revoked() {
    let world = world().await;
    world.write_text("a", b"old").await;
    let request = RotationRequest { overlap_secs: Some(3_600), ..every_day(drawn(32)) };
    world.set("a", request).await.unwrap();
    world.turn("a").await.unwrap();
    world.make_current("a", 1).await;
    world.clock.pass(Duration::from_secs(3_600));
    world.engine.run_rotations_due().await;
    assert_eq!(world.stage("a", "current").await.unwrap(), b"old");
    assert_eq!(world.rotation("a").await.rotation.overlap, None);
}

#[tokio::test]
async fn two_accounts_take_turns_and_the_one_in_use_always_opens() {
    let world = world().await;
    world.shop().await;
    assert!(!world.databases.lets_in("root", b"first"), "the root password is our own now");
    world.turn("db").await.unwrap();
    let (account, password) = world.login("db", "current").await;
    assert_eq!(account, "shop_b");
    assert!(world.databases.lets_in("shop_b", &password));
    assert!(world.databases.lets_in("shop_a", b"first"), "the old account counts for a day");
    world.clock.pass(DAY);
    world.engine.run_rotations_due().await;
    assert!(!world.databases.lets_in("shop_a", b"first"));
    assert!(world.databases.lets_in("shop_b", &password));
    world.clock.pass(DAY);
    world.engine.run_rotations_due().await;
    let (account, password) = world.login("db", "current").await;
    assert_eq!(account, "shop_a");
    assert!(world.databases.lets_in("shop_a", &password));
}

#[tokio::test]
async fn what_fails_outside_is_taken_back_told_and_tried_again_later() {
    let world = world().await;
    world.shop().await;
    for step in ["set_password", "log_in"] {
        world.databases.fail(Some(step));
        let refused = world.turn("db").await.unwrap_err();
        assert_eq!(refused.code(), "OutsideFailed");
        assert!(refused.to_string().contains("database shop"), "{refused}");
        assert_eq!(world.login("db", "current").await, ("shop_a".to_owned(), b"first".to_vec()));
        assert!(world.databases.lets_in("shop_a", b"first"));
        assert_eq!(code(world.stage("db", "pending").await), "SecretState");
    }
    let view = world.rotation("db").await;
    assert_eq!((view.rotation.failures, view.rotation.under_way), (2, None));
    assert!(view.rotation.last.unwrap().problem.unwrap().contains("no log_in today"));
    assert_eq!(world.engine.rotation_totals().failed, 2);
    assert_eq!(world.told(RotateSecret::NAME).last().unwrap(), "Outcome OutsideFailed");
    world.databases.fail(None);
    world.clock.pass(Duration::from_secs(600));
    world.engine.run_rotations_due().await;
    assert_eq!(world.login("db", "current").await.0, "shop_b");
    assert_eq!(world.rotation("db").await.rotation.failures, 0);
}

/// The store fails at the n-th write of a rotation, before or after it was made; then the server
/// starts anew.
#[tokio::test]
async fn a_rotation_that_stops_anywhere_goes_on_and_never_loses_the_password_in_use() {
    for fault in [Fault::Before, Fault::After] {
        // The plan with the new value, two steps, and the end.
        for write in 0..4 {
            let world = world().await;
            world.shop().await;
            world.store_faults(write, fault);
            assert_eq!(code(world.turn("db").await), "Unavailable", "{write} {fault:?}");
            let world = world.unseal_again().await;
            let (account, password) = world.login("db", "current").await;
            assert!(world.databases.lets_in(&account, &password), "{write} {fault:?}");
            world.engine.run_rotations_due().await;
            let view = world.rotation("db").await;
            assert_eq!(view.rotation.under_way, None, "{write} {fault:?}");
            let (account, password) = world.login("db", "current").await;
            assert!(world.databases.lets_in(&account, &password), "{write} {fault:?}");
            assert!(world.databases.lets_in("shop_a", b"first"), "{write} {fault:?}");
            if write == 0 && fault == Fault::Before {
                assert_eq!(account, "shop_a");
            } else {
                assert_eq!(account, "shop_b", "{write} {fault:?}");
            }
        }
    }
}

/// The same without a database: with a program there is one write more, between the new version
/// that is current and the end.
#[tokio::test]
async fn a_rotation_of_any_strategy_that_stops_anywhere_goes_on_and_tells_its_program() {
    let stops = [Fault::Before, Fault::After];
    let stops = stops.into_iter().flat_map(|fault| (0..5).map(move |write| (write, fault)));
    for ((write, fault), is_hooked) in stops.flat_map(|stop| [(stop, true), (stop, false)]) {
        if !is_hooked && write == 4 {
            continue;
        }
        let world = world().await;
        world.hooked().await;
        if !is_hooked {
            world.set("a", every_day(drawn(32))).await.unwrap();
        }
        world.store_faults(write, fault);
        let at = format!("{write} {fault:?} {is_hooked}");
        assert_eq!(code(world.turn("a").await), "Unavailable", "{at}");
        let world = world.unseal_again().await;
        assert!(matches!(world.stage("a", "current").await.unwrap().len(), 3 | 32), "{at}");
        world.engine.run_rotations_due().await;
        assert_eq!(world.rotation("a").await.rotation.under_way, None, "{at}");
        let steps = world.webhooks.steps();
        if write == 0 && fault == Fault::Before {
            assert_eq!(world.stage("a", "current").await.unwrap(), b"old", "{at}");
            assert!(steps.iter().all(|step| step == "create"), "{at}: {steps:?}");
            continue;
        }
        assert_eq!(world.current_no("a").await, 2, "{at}");
        assert_eq!(world.stage("a", "previous").await.unwrap(), b"old", "{at}");
        let told = is_hooked.then_some("finish 2");
        assert_eq!(steps.last().map(String::as_str), told, "{at}: {steps:?}");
    }
}

#[tokio::test]
async fn a_root_password_that_was_half_changed_is_found_out() {
    let world = world().await;
    world.shop().await;
    let shop = Name::parse("shop").unwrap();
    world.databases.fail(Some("set_password"));
    let refused = world.engine.rotate_database_root(admin(), shop.clone()).await;
    assert_eq!(code(refused), "OutsideFailed");
    world.databases.fail(None);
    world.turn("db").await.unwrap();
    for (write, fault) in [(0, Fault::After), (1, Fault::Before)] {
        world.store_faults(write, fault);
        let _ = world.engine.rotate_database_root(admin(), shop.clone()).await;
        world.engine.rotate_database_root(admin(), shop.clone()).await.unwrap();
    }
    assert!(!world.databases.lets_in("root", b"first"));
}

#[tokio::test]
async fn a_program_is_called_in_four_steps_and_its_word_counts() {
    let world = world().await;
    world.write_text("a", b"old").await;
    let set = world.engine.set_secret_rotation(admin(), name("a"), hook()).await.unwrap();
    assert!(set.signing.is_some());
    world.turn("a").await.unwrap();
    assert_eq!(world.webhooks.steps(), ["create", "set 2", "test 2", "finish 2"]);
    assert_eq!(world.stage("a", "current").await.unwrap().len(), 32);
    world.webhooks.make(b"made outside");
    world.turn("a").await.unwrap();
    assert_eq!(world.stage("a", "current").await.unwrap(), b"made outside");
    world.webhooks.fail(Some("test"));
    let refused = world.turn("a").await.unwrap_err();
    assert!(refused.to_string().contains("no test today"), "{refused}");
    assert_eq!(world.current_no("a").await, 3);
}

#[tokio::test]
async fn a_rotation_follows_its_secret_and_ends_with_it() {
    let world = world().await;
    world.write_text("a", b"old").await;
    world.set("a", every_day(drawn(32))).await.unwrap();
    let names = (name("a"), name("b/c"));
    world.engine.transfer_secret(admin(), names, Transfer::Move).await.unwrap();
    world.clock.pass(DAY);
    world.engine.run_rotations_due().await;
    assert_eq!(world.current_no("b/c").await, 2);
    let window = DeletionWindow::from_days(7).unwrap();
    let delete = SecretChange::Delete(window);
    world.engine.change_secret(admin(), name("b/c"), delete).await.unwrap();
    assert_eq!(code(world.turn("b/c").await), "SecretState");
    world.clock.pass(DAY);
    world.engine.run_rotations_due().await;
    world.engine.change_secret(admin(), name("b/c"), SecretChange::Restore).await.unwrap();
    assert_eq!(world.current_no("b/c").await, 2);
    world.engine.change_secret(admin(), name("b/c"), SecretChange::Destroy).await.unwrap();
    assert_eq!(world.engine.run_rotations_due().await, None);
}

#[tokio::test]
async fn who_may_not_change_a_database_gets_no_accounts_of_it() {
    let world = world().await;
    world.shop().await;
    let none = StrategyRequest::Accounts(Accounts {
        database: Name::parse("other").unwrap(),
        pair: ["a".to_owned(), "b".to_owned()],
    });
    assert_eq!(code(world.set("db", every_other_day(none)).await), "AccessDenied");
    let stranger = call_by("stranger");
    let request = every_other_day(accounts());
    let refused = world.engine.set_secret_rotation(&stranger, name("db"), request).await;
    assert_eq!(code(refused), "AccessDenied");
    let refused = world.engine.rotate_secret(&stranger, name("db"), Begin::default()).await;
    assert_eq!(code(refused), "AccessDenied");
    let same = StrategyRequest::Accounts(Accounts {
        database: Name::parse("shop").unwrap(),
        pair: ["a".to_owned(), "a".to_owned()],
    });
    assert_eq!(code(world.set("db", every_other_day(same)).await), "InvalidRequest");
    let long = RotationRequest { overlap_secs: Some(80_000), ..every_day(accounts()) };
    assert_eq!(code(world.set("db", long).await), "InvalidRequest");
}

#[tokio::test]
async fn a_version_that_somebody_writes_in_the_middle_stays_current() {
    let world = world().await;
    world.write_text("a", b"old").await;
    world.set("a", every_day(drawn(32))).await.unwrap();
    // The first step is written down, the second fails.
    world.store_faults(1, Fault::Before);
    assert_eq!(code(world.turn("a").await), "Unavailable");
    world.write_text("a", b"by hand").await;
    world.engine.run_rotations_due().await;
    assert_eq!(world.stage("a", "current").await.unwrap(), b"by hand");
    let view = world.rotation("a").await.rotation;
    assert!(view.under_way.is_none() && view.last.unwrap().problem.is_some());
}
