//! The way out: who may be called, how, for how long, and how much is read.
//!
//! Room      `connect`.
//! Holds     Hosts are those that the operator allows, and never one on a link-local address,
//!           where clouds answer with credentials. What is not TLS is loopback. The address that
//!           was judged is the one that is connected to. No redirect is followed and no proxy
//!           asked; nothing is longer or takes longer than was said.

mod address;
mod tls;

use core::net::{IpAddr, SocketAddr};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

pub use self::address::{Address, Allowed, Pattern};
pub use self::tls::{Identity, Trust};

/// Longest answer that is read when nothing else is said, in bytes.
pub const MAX_ANSWER_LEN: usize = 1 << 20;
/// How long a call may take when nothing else is said.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Why nothing came of a call.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// No address that is called at all.
    #[error("this is no address that is called: {0}")]
    Address(&'static str),
    /// The operator does not allow this host.
    #[error("the host {0} is not one of connect.allow")]
    NotAllowed(String),
    /// The name stands for an address that is never called, or in the clear for one that is not
    /// loopback.
    #[error("{0} stands for {1}, which is not called")]
    Forbidden(String, IpAddr),
    /// No name, no connection.
    #[error("{0} cannot be reached")]
    Reach(String, #[source] io::Error),
    /// The certificate, the authority, or TLS itself.
    #[error("TLS with {0} failed")]
    Tls(String, #[source] io::Error),
    /// An authority or identity that is no PEM of certificates and keys.
    #[error("{0}")]
    Pem(&'static str),
    /// Not answered in time.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// The answer is longer than was asked for.
    #[error("the answer of {0} is longer than {1} bytes")]
    TooLong(String, usize),
    /// Another place is named, which is not gone to.
    #[error("{0} answered with a redirect, which is not followed")]
    Redirect(String),
    /// The answer is no HTTP.
    #[error("{0} answered something that is no HTTP")]
    Protocol(String, #[source] hyper::Error),
}

/// How much of an answer is read, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest body, in bytes.
    pub len: usize,
    /// From the first packet to the last byte; for a stream, to the end of the head.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { len: MAX_ANSWER_LEN, time: DEADLINE }
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its method.
    pub method: Method,
    /// Its path and query; they are joined to the path of the route.
    pub path: String,
    /// Its headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Bytes,
}

impl Outgoing {
    /// A GET of the route itself or of what lies below it.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status, which is no redirect.
    pub status: http::StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as it came.
    pub body: Bytes,
}

/// Says who may be called.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allowed: Allowed,
}

impl Guard {
    /// A guard that lets through what is allowed.
    #[must_use]
    pub const fn new(allowed: Allowed) -> Self {
        Self { allowed }
    }

    /// The same, which lets through nobody whom the operator did not name.
    #[must_use]
    pub fn by_name(self) -> Self {
        match self.allowed {
            Allowed::Any => Self::new(Allowed::Only(Vec::new())),
            Allowed::Only(_) => self,
        }
    }

    /// Prepares calls to a URL, or to what lies below it. Connects to nobody.
    ///
    /// # Errors
    /// [`OutboundError::Address`], [`OutboundError::NotAllowed`], [`OutboundError::Pem`],
    /// [`OutboundError::Tls`] when the system has no authorities.
    pub fn route(
        &self,
        url: &str,
        trust: &Trust,
        identity: Option<&Identity>,
    ) -> Result<Route, OutboundError> {
        let address = Address::parse(url)?;
        if !self.allowed.allows(&address) {
            return Err(OutboundError::NotAllowed(address.host));
        }
        let tls = match address.is_secure {
            true => Some(tls::connector(trust, identity, (&address.host, b"http/1.1"))?),
            false => None,
        };
        Ok(Route { address, tls })
    }

    /// Connects to a database that speaks `protocol`, and says how TLS begins there once it agrees to
    /// it; without TLS on loopback, unless an authority is named.
    ///
    /// # Errors
    /// As [`Guard::route`]; [`OutboundError::Forbidden`], [`OutboundError::Reach`].
    pub async fn dial(
        &self,
        host: &str,
        port: u16,
        trust: &Trust,
        protocol: &[u8],
    ) -> Result<(TcpStream, Option<(TlsConnector, ServerName<'static>)>), OutboundError> {
        let address = Address::of(host, port, trust);
        if !self.allowed.allows(&address) {
            return Err(OutboundError::NotAllowed(address.host));
        }
        let tls = match address.is_secure {
            true => Some(tls::connector(trust, None, (&address.host, protocol))?),
            false => None,
        };
        let stream = Route { address, tls: None }.connect_tcp().await?;
        Ok((stream, tls))
    }
}

/// Somebody who may be called.
#[derive(Clone)]
pub struct Route {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl core::fmt::Debug for Route {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Route").field("host", &self.address.host).finish_non_exhaustive()
    }
}

impl Route {
    /// Whom it leads to, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.address.host
    }

    /// Host and port, as the `Host` header of a call has them.
    #[must_use]
    pub fn authority(&self) -> String {
        self.address.authority()
    }

    /// Calls, and reads the whole answer.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn call(&self, outgoing: Outgoing, limits: Limits) -> Result<Answer, OutboundError> {
        let until = Instant::now() + limits.time;
        let whole = async {
            let (response, _connection) = self.send(outgoing).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limits.len).collect().await;
            let body = body.map_err(|error| self.unread(error, limits.len))?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        timeout_at(until, whole).await.map_err(|_| OutboundError::Timeout(self.name()))?
    }

    /// Calls, and hands the answer out piece by piece. What it gives is not counted.
    ///
    /// # Errors
    /// [`OutboundError`], but for the length.
    pub async fn stream(
        &self,
        outgoing: Outgoing,
        limits: Limits,
    ) -> Result<Stream, OutboundError> {
        let until = Instant::now() + limits.time;
        let sent = timeout_at(until, self.send(outgoing)).await;
        let (response, connection) = sent.map_err(|_| OutboundError::Timeout(self.name()))??;
        let status = response.status();
        Ok(Stream {
            status,
            body: response.into_body(),
            host: self.name(),
            _connection: connection,
        })
    }

    async fn send(
        &self,
        outgoing: Outgoing,
    ) -> Result<(Response<Incoming>, Connection), OutboundError> {
        let request = self.request(outgoing)?;
        let protocol = |error| OutboundError::Protocol(self.name(), error);
        let (mut sender, driver) =
            http1::handshake(TokioIo::new(self.connect().await?)).await.map_err(protocol)?;
        // What goes wrong on the connection is told by the answer that does not come.
        let running = tokio::spawn(async move { drop(driver.await) });
        let connection = Connection(running.abort_handle());
        let response = sender.send_request(request).await.map_err(protocol)?;
        if response.status().is_redirection() {
            return Err(OutboundError::Redirect(self.name()));
        }
        Ok((response, connection))
    }

    fn request(&self, outgoing: Outgoing) -> Result<Request<Full<Bytes>>, OutboundError> {
        let Outgoing { method, path, headers, body } = outgoing;
        let malformed = || OutboundError::Address("the path is malformed");
        let len = body.len();
        let mut request = Request::builder()
            .method(&method)
            .uri(self.address.join(&path))
            .body(Full::new(body))
            .map_err(|_| malformed())?;
        let own = request.headers_mut();
        let host = HeaderValue::try_from(self.address.authority()).map_err(|_| malformed())?;
        own.insert(HOST, host);
        own.insert(USER_AGENT, HeaderValue::from_static("lastkey"));
        if !matches!(method, Method::GET | Method::HEAD) {
            own.insert(CONTENT_LENGTH, HeaderValue::from(len));
        }
        own.extend(headers.into_iter().map(|(name, value)| (Some(name), value)));
        Ok(request)
    }

    async fn connect(&self) -> Result<Box<dyn Both>, OutboundError> {
        let tcp = self.connect_tcp().await?;
        let Some((connector, name)) = &self.tls else { return Ok(Box::new(tcp)) };
        let tls = connector.connect(name.clone(), tcp).await;
        Ok(Box::new(tls.map_err(|error| OutboundError::Tls(self.name(), error))?))
    }

    async fn connect_tcp(&self) -> Result<TcpStream, OutboundError> {
        let reach = |error| OutboundError::Reach(self.name(), error);
        let (host, port) = (self.address.host.as_str(), self.address.port);
        let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(reach)?.collect();
        // One bad address among many is enough: somebody wants us to try it.
        let bad = found.iter().map(SocketAddr::ip).find(|ip| !self.address.may_stand_for(*ip));
        if let Some(ip) = bad {
            return Err(OutboundError::Forbidden(self.name(), ip));
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in found {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(reach)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(reach(last))
    }

    fn unread(
        &self,
        error: Box<dyn core::error::Error + Send + Sync>,
        len: usize,
    ) -> OutboundError {
        if error.is::<LengthLimitError>() {
            return OutboundError::TooLong(self.name(), len);
        }
        match error.downcast::<hyper::Error>() {
            Ok(error) => OutboundError::Protocol(self.name(), *error),
            Err(error) => OutboundError::Reach(self.name(), io::Error::other(error)),
        }
    }

    fn name(&self) -> String {
        self.address.host.clone()
    }
}

/// Either kind of connection.
trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// Closes when it is dropped.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer that goes on.
pub struct Stream {
    /// Its status, which is no redirect.
    pub status: http::StatusCode,
    body: Incoming,
    host: String,
    _connection: Connection,
}

impl Stream {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`OutboundError::Protocol`] when the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OutboundError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(OutboundError::Protocol(self.host.clone(), error)),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }
}

impl core::fmt::Debug for Stream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stream").field("host", &self.host).finish_non_exhaustive()
    }
}
