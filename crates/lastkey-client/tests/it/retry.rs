//! What is sent again, how often, and what never is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::Response;
use lastkey_client::{
    Client, ClientConfig, Error, KeyChange, RetryPolicy, wire::native::operations::RandomRequest,
};

use crate::scripted::Scripted;

const RANDOM: RandomRequest = RandomRequest { bytes: 3, dry_run: false };

fn policy() -> RetryPolicy {
    RetryPolicy::default().pauses(Duration::from_micros(10), Duration::from_micros(50))
}

async fn client_of(server: &Scripted, retry: RetryPolicy) -> Client {
    let addr = server.on_tcp().await;
    let mut config = ClientConfig::new(format!("http://{addr}").parse().unwrap());
    config.retry = retry;
    Client::new(&config).unwrap()
}

/// Refuses so many times, then answers.
fn recovering(refusals: u32, status: u16, code: &str, retry_after: &str) -> Scripted {
    let left = Arc::new(AtomicU32::new(refusals));
    let refusal = format!(r#"{{"error":{{"code":"{code}","message":"m","request_id":"r"}}}}"#);
    let retry_after = retry_after.to_owned();
    Scripted::new(move |_| {
        let take = |left: u32| left.checked_sub(1);
        let is_refused = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        let builder = Response::builder().header("retry-after", &retry_after);
        if is_refused {
            builder.status(status).body(refusal.clone()).unwrap()
        } else {
            builder.body(r#"{"bytes":"QUJD"}"#.to_owned()).unwrap()
        }
    })
}

#[tokio::test]
async fn operation_is_sent_again_while_the_failure_may_pass() {
    for (status, code) in [(429, "Throttled"), (503, "Unavailable"), (503, "Timeout")] {
        let server = recovering(3, status, code, "0");
        let client = client_of(&server, policy()).await;
        client.random(&RANDOM).await.unwrap();
        assert_eq!(server.seen().len(), 4, "{code}");
    }
}

#[tokio::test]
async fn attempts_end_with_the_failure_of_the_last() {
    let server = recovering(u32::MAX, 503, "Unavailable", "0");
    let client = client_of(&server, policy().attempts(3)).await;
    let failure = client.random(&RANDOM).await.unwrap_err();
    assert_eq!((failure.code(), failure.may_pass()), (Some("Unavailable"), true));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn refusal_that_stays_is_not_asked_for_again() {
    for (status, code) in [
        (403, "AccessDenied"),
        (401, "Unauthenticated"),
        (400, "InvalidRequest"),
        (409, "KeyState"),
        (400, "Undecryptable"),
        (500, "Internal"),
        (503, "Sealed"),
    ] {
        let server = recovering(1, status, code, "0");
        let client = client_of(&server, policy()).await;
        let failure = client.random(&RANDOM).await.unwrap_err();
        assert_eq!((failure.code(), failure.may_pass()), (Some(code), false));
        assert_eq!(server.seen().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn change_is_sent_once() {
    let server = recovering(1, 503, "Unavailable", "0");
    let client = client_of(&server, policy()).await;
    client.change_key("alias/app", KeyChange::Disable).await.unwrap_err();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn pause_that_ends_after_the_deadline_is_not_begun() {
    let server = recovering(1, 429, "Throttled", "3600");
    let client = client_of(&server, policy()).await;
    let failure = client.random(&RANDOM).await.unwrap_err();
    assert_eq!(failure.code(), Some("Throttled"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn budget_ends_before_the_attempts() {
    let server = recovering(u32::MAX, 503, "Unavailable", "0");
    let client = client_of(&server, policy().attempts(100).reserve(5)).await;
    client.random(&RANDOM).await.unwrap_err();
    assert_eq!(server.seen().len(), 6);
    client.random(&RANDOM).await.unwrap_err();
    assert_eq!(server.seen().len(), 7);
}

#[tokio::test]
async fn clones_share_one_budget() {
    let server = recovering(u32::MAX, 503, "Unavailable", "0");
    let client = client_of(&server, policy().attempts(100).reserve(5)).await;
    client.clone().random(&RANDOM).await.unwrap_err();
    client.random(&RANDOM).await.unwrap_err();
    assert_eq!(server.seen().len(), 7);
}

#[tokio::test]
async fn server_that_comes_back_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut config = ClientConfig::from_socket(&path);
    let long = Duration::from_millis(20);
    config.retry = RetryPolicy::default().attempts(1_000).pauses(long, long).reserve(1_000);
    let client = Client::new(&config).unwrap();
    let call = tokio::spawn(async move { client.random(&RANDOM).await.map(|_| ()) });
    tokio::task::yield_now().await;
    let server = recovering(0, 200, "", "0");
    server.on_unix(&path).await;
    call.await.unwrap().unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn deadline_of_one_call_is_its_own() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let client =
        Client::new(&ClientConfig::new(format!("http://{addr}").parse().unwrap())).unwrap();
    let outcome = client.random(&RANDOM).within(Duration::from_millis(1)).await;
    assert!(matches!(outcome, Err(Error::Timeout { .. })));
}
