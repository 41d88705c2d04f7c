//! Metrics and health of a door, over HTTP on a loopback address; health alone on any.
//!
//! Room      `node`.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const MAX_CONNECTIONS: usize = 16;
const HEAD_TIME: Duration = Duration::from_secs(5);
/// One question and its answer, however slow: there are few seats, and probes need one.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is shown of a door. Nothing of a request, and no secret.
pub trait Shown: Send + Sync + 'static {
    /// Everything that is counted, in OpenMetrics text.
    fn metrics(&self) -> String;

    /// Whether it does its work, and lines for people.
    fn readiness(&self) -> (bool, String);
}

/// What is served of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// `/metrics`, `/healthz` and `/readyz`.
    All,
    /// `/healthz` and `/readyz` in one word each.
    Health,
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the end of the process.
///
/// # Errors
/// When the runtime cannot take the listener over.
pub async fn serve<S: Shown>(shown: Arc<S>, listener: std::net::TcpListener) -> io::Result<()> {
    serve_pages(shown, listener, Pages::All).await
}

/// Serves `/healthz` and `/readyz` to whoever may not read what a node does.
///
/// # Errors
/// When the runtime cannot take the listener over.
pub async fn serve_health<S: Shown>(
    shown: Arc<S>,
    listener: std::net::TcpListener,
) -> io::Result<()> {
    serve_pages(shown, listener, Pages::Health).await
}

async fn serve_pages<S: Shown>(
    shown: Arc<S>,
    listener: std::net::TcpListener,
    pages: Pages,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let shown = Arc::clone(&shown);
                tokio::spawn(async move {
                    connection(shown, stream, pages).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<S: Shown>(
    shown: Arc<S>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    pages: Pages,
) {
    let service = service_fn(move |request| {
        let answer = answer(&*shown, &request, pages);
        async { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics ended early"),
        Err(_) => tracing::debug!("a connection for metrics took too long"),
    }
}

fn answer<S: Shown>(shown: &S, request: &Request<Incoming>, pages: Pages) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") if pages == Pages::All => {
            text(StatusCode::OK, OPEN_METRICS, shown.metrics())
        }
        (&Method::GET, "/healthz") => text(StatusCode::OK, plain, "ok\n".to_owned()),
        (&Method::GET, "/readyz") => {
            let (ready, lines) = shown.readiness();
            let (status, word) = match ready {
                true => (StatusCode::OK, "ok\n"),
                false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            };
            text(status, plain, if pages == Pages::All { lines } else { word.to_owned() })
        }
        _ => text(StatusCode::NOT_FOUND, plain, "not found\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    struct Much;

    impl Shown for Much {
        fn metrics(&self) -> String {
            "x".repeat(1 << 20)
        }

        fn readiness(&self) -> (bool, String) {
            (true, "a line of its own\n".to_owned())
        }
    }

    const QUESTION: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: node\r\n\r\n";

    /// The clock of this test goes on by itself when nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn connection_ends_though_nobody_reads_the_answer() {
        let (mut client, server) = duplex(64);
        client.write_all(QUESTION).await.unwrap();
        let serving = connection(Arc::new(Much), server, Pages::All);
        timeout(Duration::from_secs(3_600), serving).await.unwrap();
    }

    #[tokio::test]
    async fn connection_is_for_one_question() {
        let (mut client, server) = duplex(64);
        let serving = tokio::spawn(connection(Arc::new(Much), server, Pages::Health));
        client.write_all(QUESTION).await.unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert!(said.contains(" 404 ") && said.contains("connection: close"), "{said}");
        serving.await.unwrap();
    }
}
