//! One connection: handshake, requests, end.
//!
//! Room      `http`.
//! Holds     a request that was accepted is finished before a shutdown closes its connection,
//!           within the limit of the shutdown.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use lastkey_core::principal::Peer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use crate::door::Door;
use crate::idle::Activity;
use crate::limits::Limits;
use crate::tls::TlsHandle;

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Takes connections and requests.
    Serving,
    /// Finishes what it accepted.
    Draining,
    /// Drops what is left.
    Ending,
}

/// Speaks HTTP/1.1 and HTTP/2 within the limits.
pub(crate) fn protocol(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // hyper's own timer for heads would be set anew for each request; `idle` does it for free.
    // A client may end its side once it has asked. Were that refused, hyper would read ahead of
    // each answer, into a new buffer each time, only to notice that a client has gone; here
    // nothing is taken back when one goes.
    builder
        .http1()
        .header_read_timeout(None)
        .max_buf_size(limits.head_len.max(MIN_HEAD_LEN))
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.head_len).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

/// The least that hyper takes.
const MIN_HEAD_LEN: usize = 8 << 10;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Does a TLS handshake; `None` when it fails or takes too long.
pub(crate) async fn handshake(
    tls: &TlsHandle,
    stream: TcpStream,
    door: &Door,
) -> Option<TlsStream<TcpStream>> {
    let accept = tls.acceptor().accept(stream);
    match timeout(door.limits().handshake_time, accept).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("TLS handshake took too long");
            None
        }
    }
}

/// Answers requests until the connection ends. One that is not welcome gets 429.
pub(crate) async fn serve<I>(
    stream: I,
    door: &Arc<Door>,
    peer: Peer,
    mut phase: watch::Receiver<Phase>,
    welcome: bool,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (activity, peer) = (Activity::start(), Arc::new(peer));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (door, peer, busy) = (Arc::clone(door), Arc::clone(&peer), activity.request());
        async move {
            let response = if welcome {
                door.respond(request, &peer, busy).await
            } else {
                door.turn_away(request.version())
            };
            // Other requests that are here already are answered first, and all the answers leave
            // together: to wake a client for one answer at a time costs more than an answer.
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = door.protocol().serve_connection(TokioIo::new(stream), service);
    let idle_time = if welcome { door.limits().idle_time } else { GRACE };
    let grace = GRACE.min(idle_time);
    let mut connection = std::pin::pin!(connection);
    let mut idle = std::pin::pin!(sleep_until(activity.idle_at(idle_time)));
    let mut closing = *phase.borrow() != Phase::Serving;
    if closing {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        tokio::select! {
            biased;
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    tracing::debug!(error, "connection failed");
                }
                return;
            }
            changed = phase.changed() => {
                if changed.is_err() || *phase.borrow_and_update() == Phase::Ending {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                closing = true;
            }
            () = idle.as_mut() => {
                let idle_at = activity.idle_at(idle_time);
                if idle_at > Instant::now() {
                    idle.as_mut().reset(idle_at);
                } else if closing {
                    return;
                } else {
                    connection.as_mut().graceful_shutdown();
                    closing = true;
                    idle.as_mut().reset(Instant::now() + grace);
                }
            }
        }
    }
}

/// How long an idle connection has to end by itself.
const GRACE: Duration = Duration::from_secs(1);
