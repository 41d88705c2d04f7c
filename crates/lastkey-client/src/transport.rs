//! Requests and answers: bodies in JSON, limits, retries, errors.
//!
//! Room      `client`. The typed calls say what to send; this file says how.
//! Holds     Only a call that may be done twice is sent twice, and nothing after its deadline.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client as Pool},
    rt::{TokioExecutor, TokioTimer},
};
use lastkey_secret::SecretVec;
use lastkey_wire::native::error::ErrorBody;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::{
    config::ClientConfig,
    connect::{ConnectError, Connector},
    error::{Error, Refusal},
    retry::Retries,
};

/// The longest answer that is read, in bytes. The server's own limits are lower.
const MAX_ANSWER_LEN: usize = 8 << 20;
/// Large enough for most bodies: a buffer that grows leaves copies behind.
const BODY_CAPACITY: usize = 16 << 10;
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Whether a call may be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Reads and pure operations: twice is as good as once.
    Allowed,
    /// Calls that change something.
    Never,
}

/// What goes out.
struct Outgoing<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
}

/// The pool of connections to one server, with the caller's token.
pub(crate) struct Transport {
    pool: Pool<Connector, Full<Bytes>>,
    base: String,
    addr: String,
    authorization: Option<HeaderValue>,
    limit: Duration,
    retries: Arc<Retries>,
}

impl Transport {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let connector = Connector::new(config)?;
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .build(connector);
        Ok(Self {
            pool,
            base: config.addr.base(),
            addr: config.addr.to_string(),
            authorization: config.token.as_ref().map(bearer).transpose()?,
            limit: config.request_timeout,
            retries: Arc::new(Retries::new(config.retry)),
        })
    }

    /// The same connections, and the same budget of retries, with another token.
    pub(crate) fn with_token(&self, token: &SecretVec) -> Result<Self, Error> {
        Ok(Self {
            pool: self.pool.clone(),
            base: self.base.clone(),
            addr: self.addr.clone(),
            authorization: Some(bearer(token)?),
            limit: self.limit,
            retries: Arc::clone(&self.retries),
        })
    }

    /// Where the server listens.
    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// How long a call may take when nothing else was said.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Sends `body` as JSON and reads the answer as `R`. An empty answer counts as `{}`.
    pub(crate) async fn call<R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        repeat: Repeat,
        limit: Duration,
    ) -> Result<R, Error> {
        let outgoing = Outgoing { method, path, body };
        let answer = self.exchange(outgoing, repeat, limit).await?;
        let text: &[u8] = if answer.body.is_empty() { b"{}" } else { &answer.body };
        serde_json::from_slice(text).map_err(|_| self.protocol("unexpected JSON"))
    }

    /// Reads what is answered in the same shape whether the status is 200 or 503. Asked once:
    /// who probes wants to know how it is now.
    pub(crate) async fn probe<R: DeserializeOwned>(&self, path: &str) -> Result<R, Error> {
        let outgoing = Outgoing { method: Method::GET, path, body: Bytes::new() };
        let answer = self.once(&outgoing).await?;
        serde_json::from_slice(&answer.body).map_err(|_| self.refused(&answer))
    }

    /// Reads text that is no JSON.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Error> {
        let outgoing = Outgoing { method: Method::GET, path, body: Bytes::new() };
        let answer = self.exchange(outgoing, Repeat::Allowed, self.limit).await?;
        String::from_utf8(answer.body.to_vec()).map_err(|_| self.protocol("text is not UTF-8"))
    }

    /// Reads a file as it is; `None` when there is none.
    pub(crate) async fn file(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let outgoing = Outgoing { method: Method::GET, path, body: Bytes::new() };
        let answer = self.once(&outgoing).await?;
        match answer.head.status {
            http::StatusCode::OK => Ok(Some(answer.body.to_vec())),
            http::StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refused(&answer)),
        }
    }

    /// One attempt, whatever its status.
    async fn once(&self, outgoing: &Outgoing<'_>) -> Result<Answer, Error> {
        let attempt = self.attempt(outgoing);
        tokio::time::timeout(self.limit, attempt).await.map_err(|_| self.timeout())?
    }

    /// Attempts until one succeeds, one fails for good, or the time is up.
    async fn exchange(
        &self,
        outgoing: Outgoing<'_>,
        repeat: Repeat,
        limit: Duration,
    ) -> Result<Answer, Error> {
        // A limit beyond the end of time is none; thirty years are as good.
        let start = Instant::now();
        let deadline = start.checked_add(limit).unwrap_or(start + FOREVER);
        let mut made = 0;
        loop {
            let failure = match timeout_at(deadline, self.attempt(&outgoing)).await {
                Err(_) => return Err(self.timeout()),
                Ok(Ok(answer)) if answer.head.status.is_success() => {
                    self.retries.succeeded();
                    return Ok(answer);
                }
                Ok(Ok(answer)) => self.refused(&answer),
                Ok(Err(failure)) => failure,
            };
            made += 1;
            if repeat == Repeat::Never || !failure.may_pass() {
                return Err(failure);
            }
            let asked = failure.refusal().and_then(|refusal| refusal.retry_after);
            match self.retries.pause(made, asked) {
                Some(pause) if deadline.saturating_duration_since(Instant::now()) > pause => {
                    tokio::time::sleep(pause).await;
                }
                Some(_) | None => return Err(failure),
            }
        }
    }

    async fn attempt(&self, outgoing: &Outgoing<'_>) -> Result<Answer, Error> {
        let request = self.request(outgoing)?;
        let response =
            self.pool.request(request).await.map_err(|failure| self.not_sent(failure))?;
        self.read(response).await
    }

    fn request(&self, outgoing: &Outgoing<'_>) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(&outgoing.method)
            .uri(format!("{}{}", self.base, outgoing.path))
            .header(header::ACCEPT, "application/json");
        if !outgoing.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request
            .body(Full::new(outgoing.body.clone()))
            .map_err(|_| self.protocol("the path is not valid in a URL"))
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, Error> {
        let (head, body) = response.into_parts();
        let mut bytes = Zeroizing::new(Vec::with_capacity(expected_len(&head.headers)));
        let mut body = Limited::new(body, MAX_ANSWER_LEN);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| {
                if source.is::<LengthLimitError>() {
                    self.protocol("the answer is too long")
                } else {
                    self.broken(source)
                }
            })?;
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Answer { head, body: bytes })
    }

    fn refused(&self, answer: &Answer) -> Error {
        let Ok(ErrorBody { error }) = serde_json::from_slice(&answer.body) else {
            return self.protocol("an error answer without an error");
        };
        Error::Refused(Box::new(Refusal {
            status: answer.head.status.as_u16(),
            detail: error,
            retry_after: header_text(&answer.head.headers, header::RETRY_AFTER)
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        }))
    }

    fn not_sent(&self, failure: legacy::Error) -> Error {
        match connect_error_in(&failure) {
            Some(source) => Error::Connect { addr: self.addr.clone(), source },
            None => self.broken(Box::new(failure)),
        }
    }

    fn timeout(&self) -> Error {
        Error::Timeout { addr: self.addr.clone() }
    }

    fn broken(&self, source: Box<dyn StdError + Send + Sync>) -> Error {
        Error::Broken { addr: self.addr.clone(), source }
    }

    fn protocol(&self, problem: &'static str) -> Error {
        Error::Protocol { addr: self.addr.clone(), problem }
    }
}

/// An answer as it came.
struct Answer {
    head: http::response::Parts,
    body: Zeroizing<Vec<u8>>,
}

fn bearer(token: &SecretVec) -> Result<HeaderValue, Error> {
    let text = token.expose(|bytes| {
        let mut text = Zeroizing::new(b"Bearer ".to_vec());
        text.extend_from_slice(bytes.trim_ascii());
        text
    });
    let mut value = HeaderValue::from_bytes(&text).map_err(|_| Error::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

/// JSON in memory that is wiped once it was sent.
pub(crate) fn encode<B: Serialize>(body: &B) -> Result<Bytes, Error> {
    let mut text = Zeroizing::new(Vec::with_capacity(BODY_CAPACITY));
    serde_json::to_writer(&mut *text, body).map_err(|_| Error::Request)?;
    Ok(Bytes::from_owner(text))
}

fn expected_len(headers: &HeaderMap) -> usize {
    header_text(headers, header::CONTENT_LENGTH)
        .and_then(|len| len.parse().ok())
        .unwrap_or(BODY_CAPACITY)
        .min(MAX_ANSWER_LEN)
}

fn header_text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn connect_error_in(failure: &legacy::Error) -> Option<ConnectError> {
    let mut cause = failure.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<ConnectError>() {
            return Some(found.clone());
        }
        cause = error.source();
    }
    None
}
