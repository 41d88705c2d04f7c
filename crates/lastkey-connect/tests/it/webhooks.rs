//! Calls of programs that rotate secrets, against servers on loopback.

use lastkey_connect::guard::{Allowed, Guard};
use lastkey_connect::webhooks::GuardedWebhooks;
use lastkey_core::outside::{HookCall, HookError, HookStep, Webhooks as _};
use lastkey_core::secret_item::ValueKind;
use lastkey_core::time::Timestamp;
use lastkey_secret::SecretVec;

use crate::server::Server;

fn answer(status: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\n\r\n{body}").into_bytes()
}

/// Programs on loopback are named, and no others.
fn programs() -> GuardedWebhooks {
    GuardedWebhooks::behind(Guard::new(Allowed::Only(vec!["localhost".parse().unwrap()])))
}

async fn call(url: &str, step: HookStep) -> Result<Option<(ValueKind, SecretVec)>, HookError> {
    let signing = SecretVec::copy_of(b"key");
    let call = HookCall {
        url,
        authority: None,
        signing: &signing,
        rotation: "0f",
        at: Timestamp(1_800_000_000),
        step,
        secret: "a/b",
        version: Some(2),
        value: None,
    };
    programs().call(call).await
}

#[tokio::test]
async fn what_a_program_makes_is_taken_at_the_first_step_alone() {
    let server = Server::plain(answer("200 OK", r#"{"value":"AQI="}"#)).await;
    let (kind, value) = call(&server.url, HookStep::Create).await.unwrap().unwrap();
    assert!(kind == ValueKind::Opaque && value.expose(|bytes| bytes == [1, 2]));
    assert!(call(&server.url, HookStep::Test).await.unwrap().is_none());
    let server = Server::plain(answer("204 No Content", "")).await;
    assert!(call(&server.url, HookStep::Create).await.unwrap().is_none());
}

#[tokio::test]
async fn anything_but_yes_is_a_no_that_says_which_step() {
    let server = Server::plain(answer("500 Oops", r#"{"value":"AQI="}"#)).await;
    let told = call(&server.url, HookStep::Set).await.unwrap_err();
    assert!(matches!(told, HookError::No(_)), "{told}");
    let told = told.to_string();
    assert!(told.contains("500") && told.contains("set"), "{told}");
    let server = Server::plain(answer("200 OK", "hello")).await;
    let told = call(&server.url, HookStep::Create).await.unwrap_err().to_string();
    assert!(told.contains("something else"), "{told}");
    // In the clear to somewhere else than loopback, and to where clouds answer.
    for url in ["http://rotate.example/", "https://169.254.169.254/"] {
        assert!(call(url, HookStep::Create).await.is_err(), "{url}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_not_a_no() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b"hello\r\n\r\n"] {
        let server = Server::plain(answer.to_vec()).await;
        let told = call(&server.url, HookStep::Set).await.unwrap_err();
        assert!(matches!(told, HookError::Away(_)), "{told}");
    }
    let server = Server::plain(b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n".to_vec()).await;
    let told = call(&server.url, HookStep::Set).await.unwrap_err();
    assert!(matches!(told, HookError::No(_)), "{told}");
}

#[tokio::test]
async fn a_program_is_called_where_the_operator_named_its_host_and_nowhere_else() {
    let server = Server::plain(answer("200 OK", "")).await;
    assert!(programs().check(&server.url, None).is_ok());
    assert!(programs().check("https://rotate.example/", None).is_err());
    let unnamed = GuardedWebhooks::behind(Guard::default());
    let told = unnamed.check(&server.url, None).unwrap_err();
    assert!(told.to_string().contains("connect.allow"), "{told}");
}
