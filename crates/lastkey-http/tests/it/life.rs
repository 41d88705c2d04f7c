//! Listeners of every kind, reload of the TLS identity, and the end of a server.

use std::sync::Arc;
use std::time::Duration;

use lastkey_http::{Address, Limits, Listen, Shutdown, TlsHandle};
use lastkey_secret::SecretVec;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::Client;
use crate::world::{Setup, World};

#[tokio::test]
async fn shutdown_finishes_a_request_that_was_accepted() {
    let mut world = World::start().await;
    world.audit.hold();
    let (mut busy, mut idle) = (world.admin().await, world.admin().await);
    idle.done("GET", "/healthz", "").await;
    let held = tokio::spawn(async move { busy.send("POST", "/v1/keys", "{}").await });
    world.audit.began().await;
    world.stop();
    // The idle connection is closed at once; that tells that the drain has begun.
    while idle.try_send("GET", "/healthz", None, b"").await.is_ok() {}
    assert!(TcpStream::connect(world.addr()).await.is_err());
    world.audit.release();
    assert_eq!(held.await.unwrap().status, 200);
    assert_eq!(world.ended().await, Shutdown::Complete);
}

#[tokio::test]
async fn shutdown_drops_what_is_not_done_in_time() {
    let limits = Limits { drain_time: Duration::from_millis(20), ..Limits::default() };
    let mut world = World::with(Setup { limits, ..Setup::default() }).await;
    world.audit.hold();
    let mut busy = world.admin().await;
    let held =
        tokio::spawn(async move { busy.try_send("POST", "/v1/keys", None, b"").await.is_err() });
    world.audit.began().await;
    world.stop();
    assert_eq!(world.ended().await, Shutdown::Cut { connections: 1 });
    assert!(held.await.unwrap());
}

#[tokio::test]
async fn unix_socket_serves_and_goes_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lastkey.sock");
    let listeners = vec![Listen::Unix { path: path.clone(), users: Vec::new() }];
    let mut world = World::with(Setup { listeners, ..Setup::default() }).await;
    assert_eq!(world.addresses, [Address::Unix(path.clone())]);
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut client = Client::over(stream).await.with_token(&world.admin);
    client.done("GET", "/v1/keys", "").await;
    world.stop();
    assert_eq!(world.ended().await, Shutdown::Complete);
    assert!(!path.exists());
}

struct Identity {
    chain: String,
    key: SecretVec,
    der: CertificateDer<'static>,
}

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Identity {
        chain: made.cert.pem(),
        key: SecretVec::take_text(made.signing_key.serialize_pem()),
        der: made.cert.der().clone(),
    }
}

async fn connect(
    world: &World,
    trusted: &Identity,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(world.addr()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn with_tls(tls: &TlsHandle) -> World {
    let listeners = vec![Listen::Tcp { addr: ([127, 0, 0, 1], 0).into(), tls: Some(tls.clone()) }];
    World::with(Setup { listeners, ..Setup::default() }).await
}

#[tokio::test]
async fn tls_serves_http1_and_http2_as_the_client_asks() {
    let own = identity();
    let world = with_tls(&TlsHandle::from_pem(own.chain.as_bytes(), &own.key).unwrap()).await;
    assert!(matches!(world.addresses[..], [Address::Https(_)]));
    let stream = connect(&world, &own, b"http/1.1").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    Client::over(stream).await.with_token(&world.admin).done("GET", "/v1/keys", "").await;

    let stream = connect(&world, &own, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/v1/keys")
        .header("authorization", format!("Bearer {}", world.admin))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
}

#[tokio::test]
async fn tls_identity_is_reloaded_for_new_connections_and_old_ones_go_on() {
    let (first, second) = (identity(), identity());
    let tls = TlsHandle::from_pem(first.chain.as_bytes(), &first.key).unwrap();
    let world = with_tls(&tls).await;
    let mut old = Client::over(connect(&world, &first, b"http/1.1").await.unwrap()).await;
    old.done("GET", "/healthz", "").await;
    tls.reload(second.chain.as_bytes(), &second.key).unwrap();
    assert!(connect(&world, &first, b"http/1.1").await.is_err());
    let mut new = Client::over(connect(&world, &second, b"http/1.1").await.unwrap()).await;
    new.done("GET", "/healthz", "").await;
    old.done("GET", "/healthz", "").await;
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_disturbs_nobody() {
    let own = identity();
    let world = with_tls(&TlsHandle::from_pem(own.chain.as_bytes(), &own.key).unwrap()).await;
    let mut plain = Client::connect(world.addr()).await;
    assert!(plain.try_send("GET", "/healthz", None, b"").await.is_err());
    let mut good = Client::over(connect(&world, &own, b"http/1.1").await.unwrap()).await;
    good.done("GET", "/healthz", "").await;
}
