//! A provider behind its socket.
//!
//! Room      `node`.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio::sync::watch;

use super::door::Connection;
use super::provider::Provider;
use crate::grpc;
use crate::socket::Peers;

/// Serves a socket until `stop` says so, and finishes what was accepted.
///
/// # Errors
/// When the runtime cannot take the listener over.
pub async fn serve(
    listener: UnixListener,
    peers: Peers,
    provider: Arc<Provider>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    grpc::serve(listener, peers, provider, stop).await
}

impl grpc::Door for Provider {
    type Line = Connection;

    fn name(&self) -> &str {
        self.name()
    }

    fn line(self: Arc<Self>) -> Connection {
        Connection::new(self)
    }

    fn refused_stream(&self) {
        self.metrics.old_client();
        tracing::warn!(
            provider = self.name(),
            "HTTP/2 refused a request before it was read. A kube-apiserver before 1.32 sends the \
             percent-encoded socket path as :authority, which is no valid one: Kubernetes 1.32 or \
             later is needed"
        );
    }
}
