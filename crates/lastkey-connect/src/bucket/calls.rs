//! Calls to a bucket: signed, sent, repeated, and what came of them in words.
//!
//! Room      `connect`, inside.
//! Holds     each attempt is signed anew, so a clock that is set right in between helps. Whoever
//!           waits is let go when the work is told to end; what is under way then ends by itself.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use lastkey_core::backup::{BackupError, Stop};
use lastkey_crypto::digest::sha256;
use time::OffsetDateTime;

use super::Running;
use super::answer::error_code;
use super::credential::Credential;
use super::signature::{Unsigned, authorization, encoded, stamp};
use crate::guard::{Answer, Limits, OutboundError, Outgoing, Route};
use crate::seal::hex_of;

/// Pauses between attempts.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(3)];
/// How often somebody who waits looks whether he is told to end.
const LOOK: Duration = Duration::from_millis(100);
/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(60);
/// Longest answer, in bytes: a piece of an object, a list of what was destroyed.
const MAX_ANSWER_LEN: usize = 64 << 20;

/// Calls to one bucket.
pub(super) struct Calls {
    pub(super) route: Route,
    /// Path of the bucket, which ends in `/`.
    pub(super) root: String,
    pub(super) region: String,
    pub(super) credential: Arc<Credential>,
    /// The folder as people write it.
    pub(super) place: String,
    pub(super) runtime: Arc<Running>,
    pub(super) stop: Stop,
    /// How long is waited for the parts of an object to be put together.
    pub(super) completion: Duration,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: Method,
    key: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// Hash of the body, in hexadecimal digits.
    body_hash: String,
    /// How long an attempt may take.
    time: Duration,
    /// Pauses between attempts.
    pauses: &'static [Duration],
}

impl Ask {
    /// A request without a body for an object; for the bucket when the key is empty.
    pub(super) fn of(method: Method, key: &str) -> Self {
        let (key, body_hash) = (key.to_owned(), hex_of(&sha256(b"")));
        let (query, headers, body) = (Vec::new(), Vec::new(), Bytes::new());
        Self { method, key, query, headers, body, body_hash, time: ATTEMPT, pauses: &PAUSES }
    }

    /// The same with a word of its query.
    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// The same with a header, named in lower case.
    pub(super) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// The same with a body.
    pub(super) fn body(self, body: Bytes) -> Self {
        let body_hash = hex_of(&sha256(&body));
        Self { body, body_hash, ..self }
    }

    /// The same with one attempt, which may take as long as that.
    pub(super) fn once_within(self, time: Duration) -> Self {
        Self { time, pauses: &[], ..self }
    }
}

impl Calls {
    /// Asks, and waits for the answer, of whatever status.
    ///
    /// # Errors
    /// [`BackupError::Failed`] when none came, [`BackupError::Stopped`].
    pub(super) fn ask(self: &Arc<Self>, ask: Ask) -> Result<Answer, BackupError> {
        let calls = Arc::clone(self);
        let answer = self.wait(async move { calls.ask_patiently(&ask).await })?;
        answer.map_err(|error| {
            let (place, cause) = (self.place.clone(), chain(&error).into());
            if let OutboundError::Redirect(host) = error {
                return BackupError::Refused(format!(
                    "{place}: {host} sends its callers elsewhere; is backup.s3.region right, and \
                     the endpoint?"
                ));
            }
            BackupError::Failed { doing: "reach", what: place, cause }
        })
    }

    /// Waits, and asks nothing.
    ///
    /// # Errors
    /// [`BackupError::Stopped`].
    pub(super) fn pause(&self, time: Duration) -> Result<(), BackupError> {
        // The clock of the runtime, so it is asked for inside.
        self.wait(async move { tokio::time::sleep(time).await })
    }

    /// The answer, when it is a good one.
    ///
    /// # Errors
    /// What the service refuses, in words that say what to do.
    pub(super) fn good(
        &self,
        answer: Answer,
        doing: &'static str,
        key: &str,
    ) -> Result<Answer, BackupError> {
        if answer.status.is_success() { Ok(answer) } else { Err(self.refusal(&answer, doing, key)) }
    }

    /// Asks without waiting; a failure is logged.
    pub(super) fn ask_aside(self: &Arc<Self>, ask: Ask, what_for: &'static str) {
        let calls = Arc::clone(self);
        let work = async move {
            match calls.ask_patiently(&ask).await {
                Ok(answer) if answer.status.is_success() => {}
                Ok(answer) => {
                    let status = answer.status.as_u16();
                    tracing::warn!(place = calls.place, status, "{what_for} was refused");
                }
                Err(error) => tracing::warn!(place = calls.place, %error, "{what_for} failed"),
            }
        };
        if let Some(runtime) = &self.runtime.0 {
            runtime.spawn(work);
        }
    }

    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, BackupError> {
        let gone = || {
            let (doing, what) = ("wait for", self.place.clone());
            BackupError::Failed { doing, what, cause: "the calls have ended".into() }
        };
        let (sender, receiver) = mpsc::channel();
        let runtime = self.runtime.0.as_ref().ok_or_else(gone)?;
        let task = runtime.spawn(async move {
            // Nobody listens any more when the work was told to end.
            let _ = sender.send(work.await);
        });
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) if self.stop.is_set() => {
                    task.abort();
                    return Err(BackupError::Stopped);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    async fn ask_patiently(&self, ask: &Ask) -> Result<Answer, OutboundError> {
        for pause in ask.pauses {
            let outcome = self.ask_once(ask).await;
            let passes = match &outcome {
                Ok(answer) => passes(answer.status),
                Err(
                    OutboundError::Reach(..)
                    | OutboundError::Timeout(_)
                    | OutboundError::Protocol(..),
                ) => true,
                Err(
                    OutboundError::Address(_)
                    | OutboundError::NotAllowed(_)
                    | OutboundError::Forbidden(..)
                    | OutboundError::Tls(..)
                    | OutboundError::Pem(_)
                    | OutboundError::TooLong(..)
                    | OutboundError::Redirect(_),
                ) => false,
            };
            if !passes {
                return outcome;
            }
            tokio::time::sleep(*pause).await;
        }
        self.ask_once(ask).await
    }

    async fn ask_once(&self, ask: &Ask) -> Result<Answer, OutboundError> {
        let outgoing = self.outgoing(ask, OffsetDateTime::now_utc());
        let outgoing = outgoing.ok_or(OutboundError::Address("a header of it is malformed"))?;
        self.route.call(outgoing, Limits { len: MAX_ANSWER_LEN, time: ask.time }).await
    }

    fn outgoing(&self, ask: &Ask, now: OffsetDateTime) -> Option<Outgoing> {
        let stamp = stamp(now);
        let mut headers: Vec<(String, String)> =
            ask.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        headers.push(("host".to_owned(), self.route.authority()));
        headers.push(("x-amz-content-sha256".to_owned(), ask.body_hash.clone()));
        headers.push(("x-amz-date".to_owned(), stamp.clone()));
        if let Some(token) = &self.credential.session_token {
            let token = token.expose(|token| String::from_utf8_lossy(token).into_owned());
            headers.push(("x-amz-security-token".to_owned(), token));
        }
        headers.sort_unstable();
        let path = ask.key.split('/').map(encoded).collect::<Vec<_>>().join("/");
        let path = format!("{}{path}", self.root);
        let mut query: Vec<_> = ask
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        query.sort_unstable();
        let query = query.join("&");
        let unsigned = Unsigned {
            method: ask.method.as_str(),
            path: &path,
            query: &query,
            headers: &headers,
            body_hash: &ask.body_hash,
        };
        let signed = authorization(&unsigned, &self.credential, &self.region, &stamp);
        headers.push(("authorization".to_owned(), signed));
        let header = |(name, value): (String, String)| {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        };
        // The way out writes the host itself.
        let headers = headers.into_iter().filter(|(name, _)| name != "host").map(header);
        let headers = headers.collect::<Option<Vec<_>>>()?;
        let path = if query.is_empty() { path } else { format!("{path}?{query}") };
        Some(Outgoing { method: ask.method.clone(), path, headers, body: ask.body.clone() })
    }

    /// What the service refuses, in words that say what to do.
    pub(super) fn refusal(&self, answer: &Answer, doing: &'static str, key: &str) -> BackupError {
        let place = &self.place;
        let status = answer.status.as_u16();
        let code = error_code(&answer.body).unwrap_or_else(|| status.to_string());
        let refused = |next: &str| {
            BackupError::Refused(format!("{place}: the service answered {code}; {next}"))
        };
        match (status, code.as_str()) {
            (_, "NoSuchBucket") => refused("make the bucket, or name the one that is there"),
            (_, "RequestTimeTooSkewed") => {
                refused("the clock of this machine, or its own, is wrong")
            }
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "ExpiredToken"
                | "AuthorizationHeaderMalformed",
            ) => refused("see to the credentials and to backup.s3.region"),
            (401 | 403, _) => {
                refused("let the key do what docs/backup.md lists, and see to the object lock")
            }
            (412, _) => BackupError::Damaged {
                name: key.to_owned(),
                what: "it changed while it was read".to_owned(),
            },
            (507, _) | (_, "QuotaExceeded" | "XMinioStorageFull") => {
                BackupError::Full(place.clone())
            }
            (404, _) => self.failed(doing, key, "it is not there"),
            _ => self.failed(doing, key, &format!("the service answered {code}")),
        }
    }

    /// A failure with an object.
    pub(super) fn failed(&self, doing: &'static str, key: &str, why: &str) -> BackupError {
        let name = key.rsplit('/').next().unwrap_or_default();
        BackupError::Failed { doing, what: format!("{}/{name}", self.place), cause: why.into() }
    }
}

/// Whether an answer may be another one a moment later.
pub(super) fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// An error and its causes.
fn chain(error: &OutboundError) -> String {
    let first: &dyn std::error::Error = error;
    let links = std::iter::successors(Some(first), |error| error.source());
    links.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
