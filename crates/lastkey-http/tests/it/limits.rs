//! Full servers and slow clients.

use std::time::Duration;

use lastkey_http::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::world::{Setup, World};

async fn limited(limits: Limits) -> World {
    World::with(Setup { limits, ..Setup::default() }).await
}

#[tokio::test]
async fn one_request_too_many_gets_429_and_health_still_answers() {
    let world = limited(Limits { requests_in_flight: 1, ..Limits::default() }).await;
    world.audit.hold();
    let mut held = world.admin().await;
    let held = tokio::spawn(async move { held.send("POST", "/v1/keys", "{}").await });
    world.audit.began().await;
    let mut admin = world.admin().await;
    let answer = admin.send("GET", "/v1/keys", "").await;
    answer.error(429, "Throttled");
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(admin.send("GET", "/healthz", "").await.status, 200);
    world.audit.release();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(admin.send("GET", "/v1/keys", "").await.status, 200);
}

#[tokio::test]
async fn one_connection_too_many_gets_429_and_is_closed() {
    let world = limited(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = world.admin().await;
    first.done("GET", "/healthz", "").await;
    let mut second = world.admin().await;
    let answer = second.send("GET", "/healthz", "").await;
    answer.error(429, "Throttled");
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.headers["connection"], "close");
    assert!(second.try_send("GET", "/healthz", None, b"").await.is_err());
    first.done("GET", "/healthz", "").await;
}

#[tokio::test]
async fn a_request_over_its_time_gets_503() {
    let world =
        limited(Limits { request_time: Duration::from_millis(20), ..Limits::default() }).await;
    world.audit.hold();
    let answer = world.admin().await.send("POST", "/v1/keys", "{}").await;
    answer.error(503, "Timeout");
    assert_eq!(answer.headers["retry-after"], "1");
    world.audit.release();
}

/// What a connection gets to read until its end.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.ok();
    read
}

#[tokio::test]
async fn a_client_that_ends_its_side_after_a_request_gets_its_answer() {
    let world = World::start().await;
    let mut client = TcpStream::connect(world.addr()).await.unwrap();
    client.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let answer = String::from_utf8(rest(client).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let world = limited(Limits { idle_time: Duration::from_millis(20), ..Limits::default() }).await;
    let silent = TcpStream::connect(world.addr()).await.unwrap();
    assert_eq!(rest(silent).await, b"");
}

#[tokio::test]
async fn a_connection_that_never_ends_its_head_is_closed() {
    let world = limited(Limits { idle_time: Duration::from_millis(20), ..Limits::default() }).await;
    let mut slow = TcpStream::connect(world.addr()).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    assert_eq!(rest(slow).await, b"");
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_with_the_time_of_its_request() {
    let limits = Limits { request_time: Duration::from_millis(20), ..Limits::default() };
    let world = limited(limits).await;
    let mut slow = TcpStream::connect(world.addr()).await.unwrap();
    let head = format!(
        "POST /v1/encrypt HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: \
         application/json\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{{",
        world.admin
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let answer = String::from_utf8(rest(slow).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let world = limited(Limits { head_len: 8_192, ..Limits::default() }).await;
    let mut client = Client::connect(world.addr()).await;
    let target = format!("/healthz?{}", "x".repeat(9_000));
    let answer = client.send("GET", &target, "").await;
    assert_eq!(answer.status, 431);
}
