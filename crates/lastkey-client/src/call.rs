//! One call, ready to be sent: for real or as a dry run.
//!
//! Room      `client`. Every typed method answers a [`Call`]; `.await` sends it.

use std::{
    future::{Future, IntoFuture},
    marker::PhantomData,
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use lastkey_wire::native::error::{DryRun, DryRunReply};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::Error,
    transport::{Repeat, Transport, encode},
};

/// A request that waits to be sent. `.await` sends it; [`Call::dry_run`] only asks whether it
/// would be done.
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<'a, B, R> {
    transport: &'a Transport,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<B>,
    repeat: Repeat,
    limit: Duration,
    flag: DryRunFlag,
    reply: PhantomData<fn() -> R>,
}

/// Where a route takes its dry-run flag.
#[derive(Clone, Copy)]
pub(crate) enum DryRunFlag {
    InBody,
    InQuery,
}

impl<'a, B: Serialize, R: DeserializeOwned> Call<'a, B, R> {
    /// An operation: `POST`, flag in the body, as good twice as once.
    pub(crate) fn operation(transport: &'a Transport, path: &str, body: B) -> Self {
        Self::new(transport, Method::POST, path.to_owned(), Some(body), DryRunFlag::InBody)
            .repeatable()
    }

    /// A route of its own method, with the flag in the query.
    pub(crate) fn route(transport: &'a Transport, method: Method, path: String) -> Self {
        let is_idempotent = method.is_idempotent();
        let call = Self::new(transport, method, path, None, DryRunFlag::InQuery);
        if is_idempotent { call.repeatable() } else { call }
    }

    fn new(
        transport: &'a Transport,
        method: Method,
        path: String,
        body: Option<B>,
        flag: DryRunFlag,
    ) -> Self {
        let (query, repeat) = (Vec::new(), Repeat::Never);
        let limit = transport.limit();
        Self { transport, method, path, query, body, repeat, limit, flag, reply: PhantomData }
    }

    /// Sent once, although its method could be repeated.
    pub(crate) fn once(mut self) -> Self {
        self.repeat = Repeat::Never;
        self
    }

    /// As good twice as once, although its method does not say so.
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeat = Repeat::Allowed;
        self
    }

    pub(crate) fn with_body(mut self, body: B) -> Self {
        self.body = Some(body);
        self
    }

    pub(crate) fn with_query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Gives the call a limit of its own instead of [`crate::ClientConfig::request_timeout`]:
    /// from now to the whole answer, pauses and further attempts included.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends the call.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self) -> Result<R, Error> {
        let body = self.body.as_ref().map_or(Ok(Bytes::new()), encode)?;
        let path = target(&self.path, &self.query);
        self.transport.call(self.method, &path, body, self.repeat, self.limit).await
    }

    /// Asks whether the call would be done, without any effect.
    ///
    /// # Errors
    /// See [`Error`]; a call that would be refused is no error.
    pub async fn dry_run(mut self) -> Result<DryRun, Error> {
        let body = match self.flag {
            DryRunFlag::InBody => self
                .body
                .as_ref()
                .map_or(Ok(Bytes::new()), |body| encode(&WithFlag { body, dry_run: true }))?,
            DryRunFlag::InQuery => {
                self.query.push(("dry_run", "true".to_owned()));
                self.body.as_ref().map_or(Ok(Bytes::new()), encode)?
            }
        };
        let path = target(&self.path, &self.query);
        let reply: DryRunReply =
            self.transport.call(self.method, &path, body, Repeat::Allowed, self.limit).await?;
        Ok(reply.dry_run)
    }
}

impl<'a, B, R> IntoFuture for Call<'a, B, R>
where
    B: Serialize + Send + Sync + 'a,
    R: DeserializeOwned + 'a,
{
    type Output = Result<R, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A body and the flag beside its own fields.
#[derive(Serialize)]
struct WithFlag<'b, B> {
    #[serde(flatten)]
    body: &'b B,
    dry_run: bool,
}

fn target(path: &str, query: &[(&'static str, String)]) -> String {
    let mut target = path.to_owned();
    for (index, (name, value)) in query.iter().enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(name);
        target.push('=');
        target.push_str(&escape(value));
    }
    target
}

/// Percent-encodes one path segment or query value (RFC 3986, 2.3: unreserved stays).
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use lastkey_wire::native::operations::RandomRequest;

    use super::{WithFlag, escape, target};

    #[test]
    fn escape_leaves_no_byte_that_ends_a_path_segment() {
        assert_eq!(escape("alias/app"), "alias%2Fapp");
        assert_eq!(escape("a?b#c%d e\u{e9}"), "a%3Fb%23c%25d%20e%C3%A9");
        assert_eq!(escape("A-z_0.9~"), "A-z_0.9~");
    }

    #[test]
    fn target_joins_query_values_escaped() {
        let query = [("limit", "5".to_owned()), ("marker", "alias/a".to_owned())];
        assert_eq!(target("/v1/aliases", &query), "/v1/aliases?limit=5&marker=alias%2Fa");
        assert_eq!(target("/v1/aliases", &[]), "/v1/aliases");
    }

    #[test]
    fn dry_run_flag_stands_once_beside_the_fields() {
        let body = RandomRequest { bytes: 5, dry_run: false };
        let json = serde_json::to_string(&WithFlag { body: &body, dry_run: true }).unwrap();
        assert_eq!(json, r#"{"bytes":5,"dry_run":true}"#);
    }
}
