//! One gRPC connection: to etcd over TCP or TLS, to a plugin over a unix socket.
//!
//! Room      `lastkey`.
//! Holds     Over TLS the name in the address is checked against the authority that was given;
//!           the system's own authorities are not asked.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{Code, Status, body::Body, client::Grpc};
use tower_service::Service;

use crate::cli::failure::{Failure, RemoteEnd};

/// Longest time to connect, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time of one call.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How often a quiet connection is asked whether it still stands.
const PING_PERIOD: Duration = Duration::from_secs(20);
/// Received before it was asked for; the default of 64 KiB makes large pages slow.
const WINDOW_LEN: u32 = 16 << 20;

/// A client of one gRPC server.
pub(super) type Client = Grpc<Http2>;

/// One HTTP/2 connection as tonic wants it.
#[derive(Clone)]
pub(super) struct Http2(http2::SendRequest<Body>);

impl Service<Request<Body>> for Http2 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Connects to the socket of a plugin.
pub(super) async fn unix(path: &Path) -> Result<Client, Failure> {
    let name = path.display();
    let stream = timeout(CONNECT_LIMIT, UnixStream::connect(path))
        .await
        .map_err(|_| Failure::unreachable(format!("{name}: no connection in time")))?
        .map_err(|cause| Failure::unreachable(format!("cannot connect to {name}: {cause}")))?;
    handshake(stream, Uri::from_static("http://localhost"), &name.to_string()).await
}

/// Connects to an address such as `https://10.0.0.1:2379`.
pub(super) async fn tcp(address: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Client, Failure> {
    let uri: Uri = address
        .parse()
        .map_err(|_| Failure::Usage(format!("{address:?} is no URL; write https://HOST:2379")))?;
    let (Some(host), Some(scheme)) = (uri.host(), uri.scheme_str()) else {
        return Err(Failure::Usage(format!("{address:?} lacks a part; write https://HOST:2379")));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream =
        timeout(CONNECT_LIMIT, TcpStream::connect((&*host, uri.port_u16().unwrap_or(2379))))
            .await
            .map_err(|_| Failure::unreachable(format!("{address}: no connection in time")))?
            .map_err(|cause| {
                Failure::unreachable(format!("cannot connect to {address}: {cause}"))
            })?;
    // Small requests one after the other: waiting for more would cost each of them 40 ms.
    stream
        .set_nodelay(true)
        .map_err(|cause| Failure::io(format!("connect to {address}"), cause))?;
    match (scheme, tls) {
        ("http", _) => handshake(stream, uri, address).await,
        ("https", Some(tls)) => {
            let name = ServerName::try_from(host)
                .map_err(|_| Failure::Usage(format!("{address:?} has no host name for TLS")))?;
            let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
            let stream = timeout(CONNECT_LIMIT, connecting)
                .await
                .map_err(|_| Failure::unreachable(format!("{address}: no TLS in time")))?
                .map_err(|cause| Failure::unreachable(format!("{address}: TLS: {cause}")))?;
            handshake(stream, uri, address).await
        }
        ("https", None) => Err(Failure::Usage(format!("{address} needs --cacert"))),
        _ => Err(Failure::Usage(format!("{address:?} is neither http:// nor https://"))),
    }
}

async fn handshake<S>(stream: S, origin: Uri, name: &str) -> Result<Client, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaking = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_PERIOD)
        .initial_stream_window_size(WINDOW_LEN)
        .initial_connection_window_size(WINDOW_LEN)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = timeout(CONNECT_LIMIT, shaking)
        .await
        .map_err(|_| Failure::unreachable(format!("{name} does not answer in HTTP/2")))?
        .map_err(|cause| Failure::unreachable(format!("{name}: HTTP/2: {cause}")))?;
    // Ends with the connection; what broke it, the calls say.
    tokio::spawn(connection);
    Ok(Grpc::with_origin(Http2(sender), origin))
}

/// TLS by an authority, and by a certificate of our own where there is one; all in PEM.
pub(super) fn tls(
    authority: &Path,
    identity: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots
            .add(certificate)
            .map_err(|cause| Failure::Input(format!("{}: {cause}", authority.display())))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| Failure::Input(format!("TLS cannot be set up: {cause}")))?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|cause| Failure::Input(format!("{}: {cause}", key.display())))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, private)
                .map_err(|cause| Failure::Input(format!("{}: {cause}", certificate.display())))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let name = path.display();
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|cause| Failure::Input(format!("{name}: {cause}")))?;
    if found.is_empty() {
        return Err(Failure::Input(format!("{name} holds no certificate in PEM")));
    }
    Ok(found)
}

/// A failed call, in words.
pub(super) fn failed(whom: &str, status: &Status) -> Failure {
    let end = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => RemoteEnd::Denied,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            RemoteEnd::Unreachable
        }
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => RemoteEnd::Refused,
    };
    Failure::Remote { said: format!("{whom}: {}", status.message()), end }
}
