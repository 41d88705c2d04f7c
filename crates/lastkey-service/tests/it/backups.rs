//! Backups through the gate: what counts, what waits for them, what a drill asks of them.

use std::time::Duration;

use lastkey_core::backup::BackupState;
use lastkey_core::ids::VersionNo;
use lastkey_core::key::DeletionWindow;
use lastkey_crypto::material::MaterialSpec;
use lastkey_secret::SecretVec;
use lastkey_service::backup_schedule::{BackupKeeper, BackupSchedule};
use lastkey_service::error::Error;
use lastkey_service::ops::backups::BackupReport;

use crate::world::{KEYFILE, World, admin, call_by, code, world};

/// Makes a backup and waits until it has ended.
async fn back_up(world: &World) -> BackupReport {
    back_up_to(world, None).await
}

async fn back_up_to(world: &World, directory: Option<&str>) -> BackupReport {
    let directory = directory.map(str::to_owned);
    let begun = world.gate.start_backup(admin(), directory).await.unwrap();
    loop {
        let report = world.gate.describe_backup(admin(), begun.record.id).await.unwrap();
        if !matches!(report.state, BackupState::Begun | BackupState::Written) {
            return report;
        }
        tokio::task::yield_now().await;
    }
}

async fn health(world: &World) -> &'static str {
    let presented = Some(SecretVec::copy_of(&KEYFILE));
    let report = world.gate.drill_seals(admin(), presented).await.unwrap();
    report.seals[0].health.as_str()
}

#[tokio::test]
async fn what_a_backup_holds_is_not_called_erased() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let window = DeletionWindow::from_days(7).unwrap();
    world.engine.schedule_deletion(admin(), key.clone(), window, None).await.unwrap();
    let backup = back_up(&world).await;
    let erased = async || {
        let view = world.engine.describe_version(admin(), key.clone(), VersionNo::FIRST).await;
        view.unwrap().version.erased_at.is_some()
    };
    world.clock.pass(Duration::from_secs(7 * 86_400));
    world.engine.run_due().await;
    for _ in 0..3 {
        world.clock.pass(Duration::from_secs(600));
        world.engine.run_due().await;
        assert!(!erased().await);
    }
    // One that was made since holds nothing of it.
    back_up(&world).await;
    world.gate.remove_backup(admin(), backup.record.id, false).await.unwrap();
    world.engine.run_due().await;
    assert!(erased().await);
}

#[tokio::test]
async fn a_backup_that_does_not_pass_its_trial_is_none() {
    let world = world().await;
    world.backups.refuse_proof(true);
    let failed = back_up(&world).await;
    assert_eq!(failed.state, BackupState::Failed);
    assert!(failed.record.problem.unwrap().contains("no space is left"));
    let standing = async || world.gate.status().await.unwrap().backup.unwrap();
    let none = standing().await;
    assert_eq!((none.newest, none.proven), (None, 0));
    assert!(none.problem.is_some());
    world.backups.refuse_proof(false);
    assert_eq!(back_up(&world).await.state, BackupState::Proven);
    let some = standing().await;
    assert_eq!((some.newest.is_some(), some.proven, some.problem), (true, 1, None));
}

#[tokio::test]
async fn a_drill_opens_the_newest_backup_too() {
    let world = world().await;
    assert_eq!(health(&world).await, "proven");
    back_up(&world).await;
    assert_eq!(health(&world).await, "proven");
    world.backups.sabotage();
    assert_eq!(health(&world).await, "failed");
    let newest = world.gate.list_backups(admin()).await.unwrap().remove(0).record;
    world.gate.remove_backup(admin(), newest.id, false).await.unwrap();
    assert_eq!(health(&world).await, "proven");
}

#[tokio::test]
async fn a_drill_does_not_wait_for_a_place_that_is_silent() {
    let world = world().await;
    back_up(&world).await;
    world.backups.fall_silent();
    tokio::time::pause();
    let drill = tokio::time::timeout(Duration::from_secs(600), health(&world));
    assert_eq!(drill.await.unwrap(), "failed");
}

#[tokio::test]
async fn every_destruction_is_told_beside_the_backups() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    back_up(&world).await;
    assert_eq!(world.backups.lists().last().unwrap().1.len(), 0);
    let window = DeletionWindow::from_days(7).unwrap();
    world.engine.schedule_deletion(admin(), key.clone(), window, None).await.unwrap();
    world.clock.pass(Duration::from_secs(7 * 86_400));
    world.engine.run_due().await;
    back_up(&world).await;
    let (_, list) = world.backups.lists().pop().unwrap();
    assert_eq!((list.len(), list[0].version), (1, None));
}

#[tokio::test]
async fn a_stranger_makes_and_removes_no_backup() {
    let world = world().await;
    let stranger = call_by("stranger");
    assert_eq!(code(world.gate.start_backup(&stranger, None).await), "AccessDenied");
    let backup = back_up(&world).await;
    assert_eq!(
        code(world.gate.remove_backup(&stranger, backup.record.id, true).await),
        "AccessDenied"
    );
    assert_eq!(code(world.gate.list_backups(&stranger).await), "AccessDenied");
    let relative = world.gate.start_backup(admin(), Some("here".to_owned())).await;
    assert_eq!(code(relative), "InvalidRequest");
}

#[tokio::test]
async fn a_backup_counts_only_once_the_list_lies_beside_it() {
    let world = world().await;
    world.backups.refuse_list(true);
    let failed = back_up(&world).await;
    assert_eq!((failed.state, failed.record.proven_at), (BackupState::Failed, None));
    world.backups.refuse_list(false);
    assert_eq!(back_up(&world).await.state, BackupState::Proven);
}

#[tokio::test]
async fn the_list_is_kept_beside_backups_wherever_they_lie() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    back_up_to(&world, Some("/away")).await;
    let window = DeletionWindow::from_days(7).unwrap();
    world.engine.schedule_deletion(admin(), key, window, None).await.unwrap();
    world.clock.pass(Duration::from_secs(7 * 86_400));
    world.engine.run_due().await;
    let schedule = BackupSchedule { period: None, keep: 1 };
    let mut keeper = BackupKeeper::new(world.gate.clone(), schedule);
    world.backups.refuse_list(true);
    keeper.look_after().await;
    world.backups.refuse_list(false);
    for _ in 0..2 {
        keeper.look_after().await;
        let lists = world.backups.lists();
        let (directory, list) = lists.last().unwrap();
        assert_eq!((directory.as_deref(), list.len(), lists.len()), (Some("/away"), 1, 2));
    }
}

#[tokio::test]
async fn a_place_that_is_refused_leaves_no_record_and_one_from_before_goes_at_a_word() {
    let world = world().await;
    let backup = back_up(&world).await.record.id;
    world.backups.refuse_place(true);
    assert_eq!(code(world.gate.start_backup(admin(), None).await), "InvalidRequest");
    assert_eq!(world.gate.list_backups(admin()).await.unwrap().len(), 1);
    let stays = world.gate.remove_backup(admin(), backup, false).await;
    let Err(Error::Invalid { problem, .. }) = stays else { panic!("{stays:?}") };
    assert!(problem.contains("--forget"), "{problem}");
    world.gate.remove_backup(admin(), backup, true).await.unwrap();
    assert!(world.gate.list_backups(admin()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_backup_that_its_place_does_not_let_go_is_not_forgotten() {
    let world = world().await;
    let backup = back_up(&world).await.record.id;
    world.backups.lock(true);
    for forget in [false, true] {
        let stays = world.gate.remove_backup(admin(), backup, forget).await;
        let Err(Error::Invalid { problem, .. }) = stays else { panic!("{stays:?}") };
        assert!(!problem.contains("--forget"), "{problem}");
        assert_eq!(world.gate.list_backups(admin()).await.unwrap().len(), 1);
    }
    world.backups.lock(false);
    world.gate.remove_backup(admin(), backup, false).await.unwrap();
}

#[tokio::test]
async fn an_older_list_of_what_was_destroyed_does_not_follow_a_newer_one() {
    let world = world().await;
    let key = world.create(MaterialSpec::Aes256).await;
    let window = DeletionWindow::from_days(7).unwrap();
    world.engine.schedule_deletion(admin(), key, window, None).await.unwrap();
    // A backup has read what was destroyed, and its list is not written yet.
    let go_on = world.backups.hold_next_list();
    world.gate.start_backup(admin(), None).await.unwrap();
    while world.backups.awaits_list() {
        tokio::task::yield_now().await;
    }
    world.clock.pass(Duration::from_secs(7 * 86_400));
    world.engine.run_due().await;
    let schedule = BackupSchedule { period: None, keep: 1 };
    let mut keeper = BackupKeeper::new(world.gate.clone(), schedule);
    tokio::join!(keeper.look_after(), async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        go_on.send(()).unwrap();
    });
    let lens: Vec<_> = world.backups.lists().iter().map(|(_, list)| list.len()).collect();
    assert_eq!(lens, [0, 1]);
}
