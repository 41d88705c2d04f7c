//! Metrics and health of the plugin, over HTTP on a loopback address.
//!
//! Room      `node`.
//! Holds     Shows states and hashes, no key id and nothing of a request.

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::metrics::Metrics;
use super::provider::{Denial, Health, Provider};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const MAX_CONNECTIONS: usize = 16;
const HEAD_TIME: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the page shows.
#[derive(Debug)]
pub struct Page {
    /// What is counted.
    pub metrics: Metrics,
    /// The providers of the process.
    pub providers: Vec<Arc<Provider>>,
}

impl Page {
    /// Serves `/metrics`, `/healthz` and `/readyz` until the end of the process.
    ///
    /// # Errors
    /// When the runtime cannot take the listener over.
    pub async fn serve(self: Arc<Self>, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let seat = Arc::clone(&seats).acquire_owned().await.map_err(io::Error::other)?;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let page = Arc::clone(&self);
                    tokio::spawn(async move {
                        page.connection(stream).await;
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

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(move |request| {
            let answer = self.answer(&request);
            async { Ok::<_, Infallible>(answer) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a connection for metrics ended early");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let plain = "text/plain; charset=utf-8";
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => {
                self.providers.iter().for_each(|provider| provider.observe());
                text(StatusCode::OK, OPEN_METRICS, self.metrics.scrape())
            }
            (&Method::GET, "/healthz") => text(StatusCode::OK, plain, "ok\n".to_owned()),
            (&Method::GET, "/readyz") => {
                let (ready, lines) = self.readiness();
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(status, plain, lines)
            }
            _ => text(StatusCode::NOT_FOUND, plain, "not found\n".to_owned()),
        }
    }

    /// One line for each provider; ready when every one of them answers Encrypt.
    fn readiness(&self) -> (bool, String) {
        let mut ready = true;
        let mut lines = String::new();
        for provider in &self.providers {
            let state = match provider.health() {
                Ok((_, Health::Ok)) => "ok",
                Ok((_, Health::Coasting { .. })) => "coasting",
                Err(denial) => {
                    ready = false;
                    state_of(&denial)
                }
            };
            lines.push_str(&format!("{}: {state}\n", provider.name()));
        }
        (ready, lines)
    }
}

fn state_of(denial: &Denial) -> &'static str {
    match denial {
        Denial::Starting => "starting",
        Denial::Away { .. } => "away",
        Denial::Refused { .. } => "refused",
        Denial::Invalid(_) | Denial::Undecryptable | Denial::Internal => "failed",
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
