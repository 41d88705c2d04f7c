//! Connections of a provider's socket.
//!
//! Room      `node`.
//! Holds     On a stop no request is cut: clients are told by GOAWAY, and what was accepted is
//!           answered.

use std::io;
use std::os::unix::net;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client_check::Checked;
use super::door::Connection;
use super::provider::Provider;
use crate::socket::Peers;

/// An API server has one connection for each `kms:` entry.
const MAX_CONNECTIONS: usize = 256;
const MAX_STREAMS: u32 = 1_024;
/// Usually the process has no file descriptors left; others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longer than any call takes.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves a socket until `stop` says so, and finishes what was accepted.
///
/// # Errors
/// When the runtime cannot take the listener over.
pub async fn serve(
    listener: net::UnixListener,
    peers: Peers,
    provider: Arc<Provider>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.changed() => break,
            accepted = accept(&listener, &seats) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, seat)) if is_welcome(&stream, peers) => {
                let (provider, stop) = (Arc::clone(&provider), stop.clone());
                connections.spawn(async move {
                    connection(stream, provider, stop).await;
                    drop(seat);
                });
            }
            Ok(_) => tracing::warn!(
                provider = provider.name(),
                "a connection of another user was closed"
            ),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let drained = timeout(DRAIN, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(provider = provider.name(), "connections were cut");
    }
    Ok(())
}

async fn accept(
    listener: &UnixListener,
    seats: &Arc<Semaphore>,
) -> io::Result<(UnixStream, OwnedSemaphorePermit)> {
    let seat = Arc::clone(seats).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, seat))
}

fn is_welcome(stream: &UnixStream, peers: Peers) -> bool {
    match peers {
        // The file's group decides.
        Peers::Group => true,
        Peers::RootAndSelf => {
            stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
        }
    }
}

async fn connection(stream: UnixStream, provider: Arc<Provider>, mut stop: watch::Receiver<bool>) {
    let seen = Arc::clone(&provider);
    let stream = Checked::new(stream, Arc::new(move || refused_stream(&seen)));
    let connection = Arc::new(Connection::new(provider));
    let service = service_fn(move |request| Arc::clone(&connection).answer(request));
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn refused_stream(provider: &Provider) {
    provider.metrics.old_client();
    tracing::warn!(
        provider = provider.name(),
        "HTTP/2 refused a request before it was read. A kube-apiserver before 1.32 sends the \
         percent-encoded socket path as :authority, which is no valid one: Kubernetes 1.32 or \
         later is needed"
    );
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender lives as long as the process serves.
    let _ = stop.wait_for(|stop| *stop).await;
}
