//! gRPC on a unix socket: connections, and single calls over them.
//!
//! Room      `node`. Framing, codec and codes are tonic's, connections hyper's.
//! Source    docs/adr/0025-node-and-the-kms-plugin.md.
//! Holds     On a stop no request is cut: clients are told by GOAWAY, and what was accepted is
//!           answered.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::unix::net;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;
pub use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstCodec;

use crate::client_check::Checked;
use crate::socket::Peers;

/// An API server has one connection for each `kms:` entry, a driver one for each provider.
const MAX_CONNECTIONS: usize = 256;
const MAX_STREAMS: u32 = 1_024;
/// Usually the process has no file descriptors left; others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longer than a call usually takes.
const DRAIN: Duration = Duration::from_secs(5);

/// What stands behind a socket.
pub trait Door: Send + Sync + 'static {
    /// What answers on one connection.
    type Line: Line;

    /// Its name, for the log.
    fn name(&self) -> &str;

    /// A connection begins.
    fn line(self: Arc<Self>) -> Self::Line;

    /// HTTP/2 refused a stream before it was read.
    fn refused_stream(&self);
}

/// One connection.
pub trait Line: Send + Sync + 'static {
    /// Answers one request.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Serves a socket until `stop` says so, and finishes what was accepted.
///
/// # Errors
/// When the runtime cannot take the listener over.
pub async fn serve<D: Door>(
    listener: net::UnixListener,
    peers: Peers,
    door: Arc<D>,
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
                let (door, stop) = (Arc::clone(&door), stop.clone());
                connections.spawn(async move {
                    connection(stream, door, stop).await;
                    drop(seat);
                });
            }
            Ok(_) => {
                tracing::warn!(socket = door.name(), "a connection of another user was closed");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let drained = timeout(DRAIN, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(socket = door.name(), "connections were cut");
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

async fn connection<D: Door>(stream: UnixStream, door: Arc<D>, mut stop: watch::Receiver<bool>) {
    let seen = Arc::clone(&door);
    let stream = Checked::new(stream, Arc::new(move || seen.refused_stream()));
    let line = Arc::new(door.line());
    let service = service_fn(move |request| {
        let line = Arc::clone(&line);
        async move { Ok::<_, Infallible>(line.answer(request).await) }
    });
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

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender lives as long as the process serves.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The method of a request for this service; `None` for one of another service.
pub fn method_of<'a>(request: &'a Request<Incoming>, service: &str) -> Option<&'a str> {
    let path = request.uri().path().strip_prefix('/')?;
    path.strip_prefix(service)?.strip_prefix('/')
}

/// One unary call: decoded, answered, encoded.
pub async fn unary<Q, A, F, T>(
    request: Request<Incoming>,
    max_len: usize,
    answer: F,
) -> Response<Body>
where
    Q: Message,
    A: Message,
    F: FnOnce(Q) -> T + Send,
    T: Future<Output = Result<A, Status>> + Send + 'static,
{
    Grpc::new(ProstCodec::<A, Q>::default())
        .max_decoding_message_size(max_len)
        .unary(Once(Some(answer)), request)
        .await
}

/// What prost asks of a message, as bounds of [`unary`].
pub trait Message: lastkey_wire::grpc::Message + Default + Send + 'static {}

impl<M: lastkey_wire::grpc::Message + Default + Send + 'static> Message for M {}

/// A function as the service of one call.
struct Once<F>(Option<F>);

impl<Q, A, F, T> UnaryService<Q> for Once<F>
where
    F: FnOnce(Q) -> T,
    T: Future<Output = Result<A, Status>> + Send + 'static,
{
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = self.0.take().map(|answer| answer(request.into_inner()));
        Box::pin(async {
            match answer {
                Some(answer) => answer.await.map(tonic::Response::new),
                None => Err(Status::internal("called twice")),
            }
        })
    }
}
