//! What a call sends, and what becomes of each kind of answer.

use std::{net::SocketAddr, time::Duration};

use http::Response;
use lastkey_client::{
    Addr, Client, ClientConfig, Error, KeyChange,
    wire::{
        SecretBase64,
        native::{operations::EncryptRequest, query::PageQuery, system::HealthReply},
    },
};
use lastkey_secret::SecretVec;

use crate::scripted::Scripted;

const STATUS: &str = r#"{"server_version":"1","initialised":true,"sealed":false,"seals":[]}"#;

fn client_of(addr: SocketAddr) -> Client {
    let mut config = ClientConfig::new(format!("http://{addr}").parse().unwrap());
    config.token = Some(SecretVec::copy_of(b"the-token\n"));
    Client::new(&config).unwrap()
}

fn encrypt_request() -> EncryptRequest {
    EncryptRequest {
        key: "alias/app".to_owned(),
        plaintext: SecretBase64(SecretVec::copy_of(b"foo")),
        context: None,
        context_raw: None,
        dry_run: false,
    }
}

#[tokio::test]
async fn call_sends_token_path_and_json() {
    let server = Scripted::answering(200, r#"{"ciphertext":"QUJD","key":"k","version":3}"#);
    let client = client_of(server.on_tcp().await);
    let reply = client.encrypt(&encrypt_request()).await.unwrap();
    assert_eq!((reply.ciphertext.0.as_slice(), reply.version), (&b"ABC"[..], 3));
    let seen = server.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/encrypt"));
    assert_eq!(seen.authorization.as_deref(), Some("Bearer the-token"));
    assert_eq!(seen.content_type.as_deref(), Some("application/json"));
    assert_eq!(seen.body, r#"{"key":"alias/app","plaintext":"Zm9v"}"#);
}

#[tokio::test]
async fn call_names_a_key_in_the_path_by_its_escaped_alias() {
    let server = Scripted::answering(400, "");
    let client = client_of(server.on_tcp().await);
    client.change_key("alias/app", KeyChange::Disable).await.unwrap_err();
    let seen = server.seen().remove(0);
    assert_eq!(seen.target, "/v1/keys/alias%2Fapp/disable");
    assert_eq!((seen.body.as_str(), seen.content_type), ("", None));
}

#[tokio::test]
async fn dry_run_flag_stands_where_the_route_reads_it() {
    let server = Scripted::answering(200, r#"{"dry_run":{"allowed":false,"why":"KeyState"}}"#);
    let client = client_of(server.on_tcp().await);
    let verdict = client.encrypt(&encrypt_request()).dry_run().await.unwrap();
    assert_eq!((verdict.allowed, verdict.why.as_deref()), (false, Some("KeyState")));
    let page = PageQuery { limit: Some(5), marker: None, dry_run: false };
    client.list_keys(&page).dry_run().await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].body, r#"{"key":"alias/app","plaintext":"Zm9v","dry_run":true}"#);
    assert_eq!(seen[1].target, "/v1/keys?limit=5&dry_run=true");
}

#[tokio::test]
async fn calls_share_a_connection() {
    let server = Scripted::answering(200, STATUS);
    let client = client_of(server.on_tcp().await);
    for _ in 0..5 {
        client.status().await.unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn call_reaches_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = Scripted::answering(200, STATUS);
    server.on_unix(&path).await;
    let client = Client::new(&ClientConfig::new(Addr::Unix(path))).unwrap();
    assert!(client.status().await.unwrap().initialised);
    assert_eq!(server.seen()[0].authorization, None);
}

#[tokio::test]
async fn refusal_keeps_code_request_and_pause() {
    let server = Scripted::new(|_| {
        Response::builder()
            .status(429)
            .header("retry-after", "3600")
            .body(r#"{"error":{"code":"Throttled","message":"m","request_id":"r"}}"#.to_owned())
            .unwrap()
    });
    let client = client_of(server.on_tcp().await);
    let call = client.status().within(Duration::from_secs(60));
    let Err(Error::Refused(refusal)) = call.await else { panic!("not refused") };
    assert_eq!(refusal.status, 429);
    assert_eq!(
        (refusal.detail.code.as_str(), refusal.detail.request_id.as_str()),
        ("Throttled", "r")
    );
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(3_600)));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn answer_of_another_program_is_a_protocol_error() {
    for (status, body) in [(404, "<html>"), (200, "<html>"), (502, ""), (200, "")] {
        let server = Scripted::answering(status, body);
        let client = client_of(server.on_tcp().await);
        let outcome = client.status().await;
        assert!(matches!(outcome, Err(Error::Protocol { .. })), "{status} {body}: {outcome:?}");
    }
}

#[tokio::test]
async fn answer_over_the_limit_is_not_read() {
    let server = Scripted::answering(200, &"x".repeat(9 << 20));
    let client = client_of(server.on_tcp().await);
    assert!(matches!(client.status().await, Err(Error::Protocol { .. })));
}

#[tokio::test]
async fn not_ready_is_an_answer() {
    let server = Scripted::answering(503, r#"{"ready":false,"reason":"sealed"}"#);
    let client = client_of(server.on_tcp().await);
    let ready = client.ready().await.unwrap();
    assert_eq!((ready.ready, ready.reason.as_deref()), (false, Some("sealed")));
}

#[tokio::test]
async fn health_is_read_without_v1() {
    let server = Scripted::answering(200, r#"{"status":"ok"}"#);
    let client = client_of(server.on_tcp().await);
    assert_eq!(client.health().await.unwrap(), HealthReply { status: "ok".to_owned() });
    assert_eq!(server.seen()[0].target, "/healthz");
}

#[tokio::test]
async fn missing_server_is_a_connect_error() {
    let folder = tempfile::tempdir().unwrap();
    let addr = Addr::Unix(folder.path().join("nobody"));
    let client = Client::new(&ClientConfig::new(addr)).unwrap();
    assert!(matches!(client.status().await, Err(Error::Connect { .. })));
}

#[tokio::test]
async fn silent_server_is_a_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut config = ClientConfig::new(format!("http://{addr}").parse().unwrap());
    config.request_timeout = Duration::from_millis(1);
    let outcome = Client::new(&config).unwrap().status().await;
    assert!(matches!(outcome, Err(Error::Timeout { .. })));
}

#[test]
fn token_that_no_header_may_carry_is_refused() {
    let mut config = ClientConfig::new("http://127.0.0.1:1".parse().unwrap());
    config.token = Some(SecretVec::copy_of(b"two\nlines"));
    assert!(matches!(Client::new(&config), Err(Error::Token)));
}
