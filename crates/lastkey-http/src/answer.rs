//! What a handler hands back, before it becomes an HTTP response.
//!
//! Room      `http`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use lastkey_wire::words::ErrorCode;

use crate::request_id::RequestIdText;

/// Header with the identity of the request, in every answer.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// What the body is.
    pub(crate) content: Content,
    /// The body.
    pub(crate) body: Bytes,
    /// Code of the error; `None` when there was none.
    pub(crate) error: Option<ErrorCode>,
    /// When to try again.
    pub(crate) retry_after: Option<Duration>,
    /// The methods that the route has, when it was called with another.
    pub(crate) allow: Option<String>,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// JSON.
    Json,
    /// OpenMetrics text.
    Metrics,
    /// Plain text.
    Text,
    /// The size of a log, as a witness remembers it.
    LogSize,
    /// Bytes.
    Octets,
}

impl Answer {
    /// A JSON answer with status 200.
    pub(crate) fn json(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content: Content::Json,
            body: body.into(),
            error: None,
            retry_after: None,
            allow: None,
        }
    }

    /// The HTTP response. With `last`, the connection ends after it.
    pub(crate) fn into_response(self, id: &RequestIdText, last: bool) -> Response<Full<Bytes>> {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(CONTENT_TYPE, self.content.header());
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(X_REQUEST_ID, id.header());
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        if last {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }
}

/// Room for the headers of a usual answer, those that hyper adds included.
const HEADERS: usize = 6;
/// Answers carry plaintext and keys: nobody on the way may keep them.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

impl Content {
    const fn header(self) -> HeaderValue {
        match self {
            Self::Json => HeaderValue::from_static("application/json"),
            Self::Text => HeaderValue::from_static("text/plain; charset=utf-8"),
            Self::LogSize => HeaderValue::from_static("text/x.tlog.size"),
            Self::Octets => HeaderValue::from_static("application/octet-stream"),
            Self::Metrics => HeaderValue::from_static(
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        }
    }
}

/// Whole seconds, rounded up: a client that waits so long is not early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        for (millis, seconds) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
