//! TLS below the protocol of PostgreSQL.
//!
//! Room      `connect`, inside.
//! Source    PostgreSQL, 55.2.11 "SSL Session Encryption".
//! Holds     the certificate is checked against the name in the address, always.

use std::io;
use std::pin::Pin;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::scram::ScramOnly;

/// Makes TLS of a connection.
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

/// A connection that is TLS.
pub(super) type Secured = ScramOnly<TlsStream<TcpStream>>;

impl TlsConnect<TcpStream> for Tls {
    type Stream = Secured;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(
            async move { self.connector.connect(self.name, stream).await.map(ScramOnly::over) },
        )
    }
}

impl tokio_postgres::tls::TlsStream for Secured {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
