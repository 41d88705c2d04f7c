//! Watches of managed secrets: news at once, and seats that are not those of other calls.

use std::time::Duration;

use lastkey_core::ids::Name;
use lastkey_core::key::DeletionWindow;
use lastkey_core::secret_item::Stage;
use lastkey_service::call::Call;
use lastkey_service::ops::secrets::{PutRequest, SecretChange, Seen, Transfer};

use super::{name, put_request};
use crate::world::{admin, call_by, code, world};

fn seen(at: &str, version: u32) -> Seen {
    Seen { name: name(at), version: lastkey_core::ids::VersionNo::new(version) }
}

#[tokio::test]
async fn a_watch_answers_at_once_when_the_caller_is_behind() {
    let world = world().await;
    world.put("a", b"1").await.unwrap();
    world.put("a", b"2").await.unwrap();
    let known = [seen("a", 1), seen("none", 0), seen("gone", 3)];
    let wait = Duration::from_secs(3_600);
    let news = world.engine.watch_secrets(admin(), &known, wait).await.unwrap();
    assert_eq!(news, [seen("a", 2), seen("gone", 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_news_ends_in_time() {
    let world = world().await;
    world.put("a", b"1").await.unwrap();
    world.put("b", b"1").await.unwrap();
    let wait = Duration::from_secs(3_600);
    let known = [seen("a", 1)];
    let watching = world.engine.watch_secrets(admin(), &known, wait);
    // Another secret, and a version that is not current, are no news.
    let other = async {
        world.put("b", b"2").await.unwrap();
        let pending = PutRequest { stage: Some(Stage::pending()), ..put_request(b"2") };
        world.engine.put_secret(admin(), name("a"), pending).await.unwrap();
    };
    let (news, ()) = tokio::join!(watching, other);
    assert_eq!(news.unwrap(), []);
}

#[tokio::test]
async fn a_watch_wakes_when_a_secret_is_written_deleted_or_moved() {
    let world = world().await;
    world.put("a", b"1").await.unwrap();
    let wait = Duration::from_secs(3_600);
    let watch = |known: Seen| {
        let engine = world.engine.clone();
        async move { engine.watch_secrets(admin(), &[known], wait).await.unwrap() }
    };
    let (news, written) = tokio::join!(watch(seen("a", 1)), world.put("a", b"2"));
    written.unwrap();
    assert_eq!(news, [seen("a", 2)]);
    let delete = SecretChange::Delete(DeletionWindow::from_days(7).unwrap());
    let (news, deleted) = tokio::join!(watch(seen("a", 2)), world.change_secret("a", delete));
    deleted.unwrap();
    assert_eq!(news, [seen("a", 0)]);
    let (news, restored) =
        tokio::join!(watch(seen("a", 0)), world.change_secret("a", SecretChange::Restore));
    restored.unwrap();
    assert_eq!(news, [seen("a", 2)]);
    let both = (name("a"), name("b"));
    let moving = world.engine.transfer_secret(admin(), both, Transfer::Move);
    let (news, moved) = tokio::join!(watch(seen("b", 0)), moving);
    moved.unwrap();
    assert_eq!(news, [seen("b", 2)]);
}

#[tokio::test]
async fn a_stranger_watches_nothing_and_a_watch_has_a_limit() {
    let world = world().await;
    world.put("a", b"1").await.unwrap();
    let watch = |by: Call, known: Vec<Seen>| {
        let engine = world.engine.clone();
        async move { engine.watch_secrets(&by, &known, Duration::ZERO).await }
    };
    let stranger = call_by("stranger");
    for at in ["a", "none"] {
        assert_eq!(code(watch(stranger.clone(), vec![seen(at, 7)]).await), "AccessDenied");
    }
    assert_eq!(code(watch(admin().clone(), Vec::new()).await), "InvalidRequest");
    let many = (0..1_001).map(|n| seen(&format!("a{n}"), 1)).collect();
    assert_eq!(code(watch(admin().clone(), many).await), "InvalidRequest");
    let twice = vec![seen("a", 1), seen("a", 2)];
    assert_eq!(code(watch(admin().clone(), twice).await), "InvalidRequest");
}

#[tokio::test(start_paused = true)]
async fn watches_have_seats_of_their_own_and_end_when_the_server_is_sealed() {
    let world = world().await;
    world.put("a", b"1").await.unwrap();
    let text = "permit(principal == Service::\"eve\", action, resource);".to_owned();
    let policy = Name::parse("eve").unwrap();
    world.engine.set_policy(admin(), policy, text, None).await.unwrap();
    let (own, eve) = (admin().clone(), call_by("eve"));
    let watch = |by: &Call| {
        let (engine, by) = (world.engine.clone(), by.clone());
        let wait = Duration::from_secs(3_600);
        async move { engine.watch_secrets(&by, &[seen("a", 1)], wait).await }
    };
    // The clock of the test goes on only when everybody waits.
    let began = tokio::time::Instant::now();
    let mut watching: Vec<_> = (0..224).map(|_| tokio::spawn(watch(&eve))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(code(watch(&eve).await), "Throttled");
    // One caller does not keep the others from it.
    watching.extend((0..16).map(|_| tokio::spawn(watch(&own))));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(code(watch(&own).await), "Throttled");
    world.gate.stop().await;
    for one in watching {
        assert_eq!(one.await.unwrap().unwrap(), []);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}
