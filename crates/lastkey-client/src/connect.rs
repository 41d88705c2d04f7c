//! One connection to the server: TCP, TLS over TCP, or a unix socket.
//!
//! Room      `client`. What the connection pool calls when it has none to spare.

use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use crate::{
    addr::Addr,
    config::ClientConfig,
    trust::{TrustError, tls_config},
};

/// Why no connection came about. Nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name resolution, TCP or the unix socket.
    #[error("no connection")]
    Reach(#[source] Arc<io::Error>),
    /// The server's certificate or TLS itself was refused.
    #[error("TLS")]
    Tls(#[source] Arc<io::Error>),
    /// The host in the address is no name that a certificate can carry.
    #[error("the host name is not valid for TLS")]
    Name,
    /// Not connected within the limit.
    #[error("no connection in time")]
    Timeout,
}

impl ConnectError {
    /// Whether another attempt in a moment may go better.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Reach(_) | Self::Timeout => true,
            Self::Tls(_) | Self::Name => false,
        }
    }

    fn reach(cause: io::Error) -> Self {
        Self::Reach(Arc::new(cause))
    }
}

/// Makes connections to one server, whatever the request says.
#[derive(Clone)]
pub(crate) struct Connector {
    addr: Arc<Addr>,
    tls: Option<TlsConnector>,
    limit: Duration,
}

impl Connector {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, TrustError> {
        let identity = config.identity.as_ref();
        let tls = match (&config.addr, identity) {
            (Addr::Https { .. }, _) => {
                Some(TlsConnector::from(Arc::new(tls_config(&config.trust, identity)?)))
            }
            (Addr::Http { .. } | Addr::Unix(_), None) => None,
            (Addr::Http { .. } | Addr::Unix(_), Some(_)) => return Err(TrustError::IdentityUnseen),
        };
        Ok(Self { addr: Arc::new(config.addr.clone()), tls, limit: config.connect_timeout })
    }

    async fn connect(self) -> Result<Stream, ConnectError> {
        match (&*self.addr, &self.tls) {
            (Addr::Unix(path), _) => connect_unix(path).await,
            (Addr::Https { host, port }, Some(tls)) => {
                let name = ServerName::try_from(host.clone()).map_err(|_| ConnectError::Name)?;
                let tcp = connect_tcp(host, *port).await?;
                let stream = tls
                    .connect(name, tcp)
                    .await
                    .map_err(|cause| ConnectError::Tls(Arc::new(cause)))?;
                Ok(Stream::Tls(TokioIo::new(Box::new(stream))))
            }
            (Addr::Http { host, port } | Addr::Https { host, port }, _) => {
                Ok(Stream::Tcp(TokioIo::new(connect_tcp(host, *port).await?)))
            }
        }
    }
}

async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let stream = TcpStream::connect((host, port)).await.map_err(ConnectError::reach)?;
    stream.set_nodelay(true).map_err(ConnectError::reach)?;
    Ok(stream)
}

async fn connect_unix(path: &Path) -> Result<Stream, ConnectError> {
    let stream = UnixStream::connect(path).await.map_err(ConnectError::reach)?;
    Ok(Stream::Unix(TokioIo::new(stream)))
}

impl Service<http::Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let limit = connector.limit;
            tokio::time::timeout(limit, connector.connect())
                .await
                .unwrap_or(Err(ConnectError::Timeout))
        })
    }
}

/// An open connection of either kind.
pub(crate) enum Stream {
    Tcp(TokioIo<TcpStream>),
    Tls(TokioIo<Box<TlsStream<TcpStream>>>),
    Unix(TokioIo<UnixStream>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self {
            Self::Tls(tls) if tls.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                connected.negotiated_h2()
            }
            Self::Tls(_) | Self::Tcp(_) | Self::Unix(_) => connected,
        }
    }
}

/// Runs one poll on whichever stream this is.
macro_rules! on_stream {
    ($pinned:expr, $inner:ident => $call:expr) => {
        match $pinned.get_mut() {
            Stream::Tcp($inner) => $call,
            Stream::Tls($inner) => $call,
            Stream::Unix($inner) => $call,
        }
    };
}

impl rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl rt::Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
