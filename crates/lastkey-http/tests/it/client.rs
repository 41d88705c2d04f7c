//! A small client: one connection, one request at a time.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    token: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap()).await
    }

    pub(crate) async fn over<I>(stream: I) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender, token: None }
    }

    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Sends JSON, or nothing for an empty body.
    pub(crate) async fn send(&mut self, method: &str, target: &str, body: &str) -> Answer {
        let json = (!body.is_empty()).then_some("application/json");
        self.send_as(method, target, json, body.as_bytes()).await
    }

    pub(crate) async fn send_as(
        &mut self,
        method: &str,
        target: &str,
        content: Option<&str>,
        body: &[u8],
    ) -> Answer {
        self.try_send(method, target, content, body).await.unwrap()
    }

    pub(crate) async fn try_send(
        &mut self,
        method: &str,
        target: &str,
        content: Option<&str>,
        body: &[u8],
    ) -> hyper::Result<Answer> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = Request::builder().method(method).uri(target).header("host", "test");
        if let Some(content) = content {
            request = request.header(CONTENT_TYPE, content);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Sends JSON and takes the answer apart, which must be a success.
    pub(crate) async fn done(&mut self, method: &str, target: &str, body: &str) -> Value {
        let answer = self.send(method, target, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{method} {target}: {:?}", answer.body);
        answer.json()
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.headers[CONTENT_TYPE], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks the shape of an error, and gives it.
    pub(crate) fn error(&self, status: u16, code: &str) -> Value {
        let error = self.json()["error"].clone();
        assert_eq!((self.status.as_u16(), error["code"].as_str()), (status, Some(code)), "{error}");
        assert_eq!(error["request_id"].as_str(), self.headers["x-request-id"].to_str().ok());
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
        error
    }
}
