//! Everything that can keep a request from its answer.
//!
//! Room      `http`. A dialect turns a problem into a status and a body.

use std::borrow::Cow;

use lastkey_service::error::Error;
use lastkey_wire::words::ErrorCode;

/// Why a request is not done.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A use case refused it or failed.
    Service(Error),
    /// It cannot be read.
    Syntax(Syntax),
    /// No seal opens to what was presented.
    WrongPassphrase,
    /// The body is over the limit, in bytes.
    BodyTooLarge(usize),
    /// There is no such route.
    NotFound,
    /// The route has other methods: these.
    MethodNotAllowed(String),
    /// The body is not said to be JSON.
    UnsupportedMediaType,
    /// Too many requests or connections at once.
    Busy,
    /// It took longer than the limit.
    Timeout,
}

/// Where a request cannot be read, and what may stand there. Never repeats a value that was sent.
#[derive(Debug)]
pub(crate) struct Syntax {
    /// Path of the field, when it is known.
    pub(crate) field: Option<String>,
    /// What is wrong.
    pub(crate) message: Cow<'static, str>,
    /// What may stand there; empty when that is no list.
    pub(crate) allowed: Vec<String>,
}

impl Syntax {
    /// A field with something wrong.
    pub(crate) fn field(field: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.to_owned()), message: message.into(), allowed: Vec::new() }
    }
}

impl Problem {
    /// The stable code of this problem.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Service(error) => service_code(error),
            Self::Syntax(_) => ErrorCode::InvalidRequest,
            Self::WrongPassphrase => ErrorCode::Unauthenticated,
            Self::BodyTooLarge(_) => ErrorCode::BodyTooLarge,
            Self::NotFound => ErrorCode::NotFound,
            Self::MethodNotAllowed(_) => ErrorCode::MethodNotAllowed,
            Self::UnsupportedMediaType => ErrorCode::UnsupportedMediaType,
            Self::Busy => ErrorCode::Throttled,
            Self::Timeout => ErrorCode::Timeout,
        }
    }
}

const fn service_code(error: &Error) -> ErrorCode {
    match error {
        Error::Invalid { .. } => ErrorCode::InvalidRequest,
        Error::PlaintextTooLarge => ErrorCode::PlaintextTooLarge,
        Error::Unauthenticated => ErrorCode::Unauthenticated,
        Error::Denied => ErrorCode::AccessDenied,
        Error::KeyState { .. } => ErrorCode::KeyState,
        Error::SecretState { .. } | Error::NoRotation => ErrorCode::SecretState,
        Error::KeyUsage => ErrorCode::KeyUsage,
        Error::Undecryptable => ErrorCode::Undecryptable,
        Error::Conflict => ErrorCode::Conflict,
        Error::AlreadyExists => ErrorCode::AlreadyExists,
        Error::LimitExceeded(_) => ErrorCode::LimitExceeded,
        Error::DeletionProtected => ErrorCode::DeletionProtected,
        Error::KeyNeeded { .. } => ErrorCode::KeyNeeded,
        Error::ClockHeld => ErrorCode::ClockHeld,
        Error::SealRefused(_) => ErrorCode::SealRefused,
        Error::Outside(_) => ErrorCode::OutsideFailed,
        Error::Sealed => ErrorCode::Sealed,
        Error::Throttled { .. } => ErrorCode::Throttled,
        Error::Unavailable(_) => ErrorCode::Unavailable,
        // A dry run is settled before it gets here; if one does, that is a fault of ours.
        Error::Internal(_) | Error::DryRun => ErrorCode::Internal,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Service(error)
    }
}

impl From<Syntax> for Problem {
    fn from(syntax: Syntax) -> Self {
        Self::Syntax(syntax)
    }
}

#[cfg(test)]
mod tests {
    use lastkey_core::ids::Name;

    use super::*;

    #[test]
    fn codes_are_those_of_the_service() {
        let cause = || "cause".into();
        let errors = [
            Error::Invalid { field: "key", problem: "wrong".into() },
            Error::PlaintextTooLarge,
            Error::Unauthenticated,
            Error::Denied,
            Error::KeyState { state: "disabled" },
            Error::SecretState { state: "deleted" },
            Error::NoRotation,
            Error::KeyUsage,
            Error::Undecryptable,
            Error::Conflict,
            Error::AlreadyExists,
            Error::LimitExceeded("50"),
            Error::DeletionProtected,
            Error::KeyNeeded {
                place: Name::parse("prod").unwrap(),
                count: 1,
                what: "objects",
                among: String::new(),
            },
            Error::ClockHeld,
            Error::Outside("it refuses".into()),
            Error::Sealed,
            Error::Throttled { retry_after: std::time::Duration::from_secs(1) },
            Error::Unavailable(cause()),
            Error::Internal(cause()),
        ];
        for error in errors {
            let code = error.code();
            assert_eq!(Problem::Service(error).code().as_str(), code);
        }
    }
}
