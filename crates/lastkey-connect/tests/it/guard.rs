//! What the guard lets through, and what it does not.

use std::time::Duration;

use lastkey_connect::guard::{Allowed, Answer, Guard, Limits, OutboundError, Outgoing, Trust};

use crate::server::{Server, answer};

async fn call(url: &str, trust: &Trust, limits: Limits) -> Result<Answer, OutboundError> {
    Guard::default().route(url, trust, None)?.call(Outgoing::get(""), limits).await
}

#[tokio::test]
async fn answer_of_loopback_is_read_in_the_clear() {
    let server = Server::plain(answer("200 OK", "", b"hello")).await;
    let answered = call(&server.url, &Trust::System, Limits::default()).await.unwrap();
    assert_eq!((answered.status.as_u16(), &answered.body[..]), (200, &b"hello"[..]));
}

#[tokio::test]
async fn tls_is_taken_from_the_named_authority_only() {
    let server = Server::secure(answer("200 OK", "", b"hello")).await;
    let ours = Trust::Authority(server.authority.clone().into_bytes());
    assert!(call(&server.url, &ours, Limits::default()).await.is_ok());
    let other = Server::secure(Vec::new()).await.authority;
    let theirs = Trust::Authority(other.into_bytes());
    let refused = call(&server.url, &theirs, Limits::default()).await;
    assert!(matches!(refused, Err(OutboundError::Tls(_, _))), "{refused:?}");
    let other_name = server.url.replace("localhost", "127.0.0.1");
    let refused = call(&other_name, &ours, Limits::default()).await;
    assert!(matches!(refused, Err(OutboundError::Tls(_, _))), "{refused:?}");
}

#[tokio::test]
async fn database_on_loopback_speaks_tls_when_its_authority_is_named() {
    let server = Server::secure(Vec::new()).await;
    let port = server.url.trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap();
    let named = Trust::Authority(server.authority.clone().into_bytes());
    for (trust, is_tls) in [(named, true), (Trust::System, false)] {
        let dialed = Guard::default().dial("localhost", port, &trust, b"mariadb").await;
        assert_eq!(dialed.unwrap().1.is_some(), is_tls, "{trust:?}");
    }
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let target = Server::plain(answer("200 OK", "", b"secret")).await;
    let location = format!("location: {}\r\n", target.url);
    let server = Server::plain(answer("302 Found", &location, b"")).await;
    let refused = call(&server.url, &Trust::System, Limits::default()).await;
    assert!(matches!(refused, Err(OutboundError::Redirect(_))), "{refused:?}");
}

#[tokio::test]
async fn answer_that_is_too_long_is_cut_off() {
    let limits = Limits { len: 1_000, ..Limits::default() };
    for (len, is_good) in [(1_000, true), (1_001, false), (100_000, false)] {
        let server = Server::plain(answer("200 OK", "", &vec![b'x'; len])).await;
        let answered = call(&server.url, &Trust::System, limits).await;
        assert_eq!(answered.is_ok(), is_good, "{len}");
        if let Err(error) = answered {
            assert!(matches!(error, OutboundError::TooLong(_, 1_000)), "{error}");
        }
    }
    // Without a length, by its end alone.
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n", &vec![b'x'; 5_000][..]].concat();
    let server = Server::plain(endless).await;
    let answered = call(&server.url, &Trust::System, limits).await;
    assert!(matches!(answered, Err(OutboundError::TooLong(_, 1_000))), "{answered:?}");
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    let server = Server::plain(Vec::new()).await;
    let limits = Limits { time: Duration::from_millis(50), ..Limits::default() };
    let refused = call(&server.url, &Trust::System, limits).await;
    assert!(matches!(refused, Err(OutboundError::Timeout(_))), "{refused:?}");
}

#[tokio::test]
async fn host_that_the_operator_does_not_name_is_not_called() {
    let server = Server::plain(answer("200 OK", "", b"hello")).await;
    let only = |pattern: &str| Guard::new(Allowed::Only(vec![pattern.parse().unwrap()]));
    let refused = only("id.example").route(&server.url, &Trust::System, None);
    assert!(matches!(refused, Err(OutboundError::NotAllowed(_))), "{refused:?}");
    let route = only("localhost").route(&server.url, &Trust::System, None).unwrap();
    assert!(route.call(Outgoing::get(""), Limits::default()).await.is_ok());
}

#[tokio::test]
async fn link_local_addresses_are_not_connected_to() {
    for url in ["https://169.254.169.254/", "https://[fe80::1]/", "https://[::ffff:a9fe:a9fe]/"] {
        let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
        let trust = Trust::Authority(made.cert.pem().into_bytes());
        let refused = call(url, &trust, Limits::default()).await;
        assert!(matches!(refused, Err(OutboundError::Forbidden(_, _))), "{url}: {refused:?}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let server = Server::plain(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()).await;
    let refused = call(&server.url, &Trust::System, Limits::default()).await;
    assert!(matches!(refused, Err(OutboundError::Protocol(_, _))), "{refused:?}");
}
