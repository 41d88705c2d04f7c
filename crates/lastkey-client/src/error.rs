//! What a call can end with, sorted by what the caller can do next.
//!
//! Room      `client`. A refusal by the server keeps its code, request id and next step, so
//!           that a program can decide and a person can ask the operator.

use std::{fmt, time::Duration};

use lastkey_wire::native::error::ErrorDetail;

use crate::{connect::ConnectError, trust::TrustError};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// TLS cannot be prepared from the configuration; no call can succeed.
    #[error("TLS cannot be prepared")]
    Trust(#[from] TrustError),
    /// The token holds bytes that no header may carry.
    #[error("the token holds bytes that no header may carry")]
    Token,
    /// The request cannot be written as JSON.
    #[error("the request cannot be written as JSON")]
    Request,
    /// The server was not reached; it saw nothing of the call.
    #[error("cannot reach {addr}")]
    Connect {
        /// The address as configured.
        addr: String,
        /// What went wrong.
        source: ConnectError,
    },
    /// The connection broke; the call may or may not have taken effect.
    #[error("the connection to {addr} broke")]
    Broken {
        /// The address as configured.
        addr: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time; the call may or may not have taken effect.
    #[error("no answer from {addr} in time")]
    Timeout {
        /// The address as configured.
        addr: String,
    },
    /// A blocking call where waiting is not possible; nothing was sent.
    #[error("cannot wait here: {0}")]
    CannotWait(&'static str),
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The answer is none of this protocol: another program listens there, or a newer server.
    #[error("{addr} did not answer as a Lastkey server: {problem}")]
    Protocol {
        /// The address as configured.
        addr: String,
        /// What is wrong with the answer.
        problem: &'static str,
    },
}

impl Error {
    /// The server's error code, when the server answered.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.detail.code.as_str())
    }

    /// Whether the same call may go better in a moment: no connection or a broken one, or an
    /// answer that says so (`Throttled`, `Unavailable`, `Timeout`). Calls that may be done twice
    /// have been repeated by then, as [`crate::RetryPolicy`] says.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.may_pass(),
            Self::Broken { .. } => true,
            Self::Refused(refusal) => {
                matches!(refusal.detail.code.as_str(), "Throttled" | "Unavailable" | "Timeout")
            }
            Self::Trust(_)
            | Self::Token
            | Self::Request
            | Self::Timeout { .. }
            | Self::CannotWait(_)
            | Self::Protocol { .. } => false,
        }
    }

    /// The server's answer, when there was one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Trust(_)
            | Self::Token
            | Self::Request
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::CannotWait(_)
            | Self::Protocol { .. } => None,
        }
    }
}

/// An error answer of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Code, message, request id and next step, as the server wrote them.
    pub detail: ErrorDetail,
    /// How long to wait before another attempt, when the server says so.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail.message)
    }
}
