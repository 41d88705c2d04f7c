//! Problems as statuses and bodies of the native dialect.
//!
//! Room      `http`.
//! Holds     a cause never reaches the caller; every failed decryption looks the same, and so do
//!           a key that does not exist and one that the caller may not use.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use lastkey_service::error::Error;
use lastkey_wire::native::error::{ErrorBody, ErrorDetail};
use lastkey_wire::words::ErrorCode;

use crate::answer::{Answer, Content};
use crate::dialect::native::encode::to_json;
use crate::problem::Problem;
use crate::request_id::RequestIdText;

/// The answer that tells of a problem.
pub(crate) fn answer(problem: Problem, request_id: &str) -> Answer {
    let code = problem.code();
    let retry_after = retry_after(&problem);
    let body = to_json(&ErrorBody { error: detail(&problem, request_id) });
    let allow = match problem {
        Problem::MethodNotAllowed(methods) => Some(methods),
        Problem::Service(_)
        | Problem::Syntax(_)
        | Problem::WrongPassphrase
        | Problem::BodyTooLarge(_)
        | Problem::NotFound
        | Problem::UnsupportedMediaType
        | Problem::Busy
        | Problem::Timeout => None,
    };
    Answer {
        status: status(code),
        content: Content::Json,
        body: body.into(),
        error: Some(code),
        retry_after,
        allow,
    }
}

/// The error as it stands in a body.
pub(crate) fn detail(problem: &Problem, request_id: &str) -> ErrorDetail {
    let code = problem.code();
    let (field, message, allowed) = words(problem);
    // Who unseals needs another passphrase, and no token.
    let next = match problem {
        Problem::WrongPassphrase => Some(TRY_ANOTHER),
        Problem::Service(Error::NoRotation) => Some(SAY_HOW),
        Problem::Service(_)
        | Problem::Syntax(_)
        | Problem::BodyTooLarge(_)
        | Problem::NotFound
        | Problem::MethodNotAllowed(_)
        | Problem::UnsupportedMediaType
        | Problem::Busy
        | Problem::Timeout => next(code),
    };
    ErrorDetail {
        code: code.as_str().to_owned(),
        message: message.into_owned(),
        field,
        allowed: (!allowed.is_empty()).then(|| allowed.to_vec()),
        next: next.map(str::to_owned),
        request_id: request_id.to_owned(),
    }
}

/// Writes the causes of a problem that is not the caller's to the log.
pub(crate) fn log(problem: &Problem, route: &'static str, request_id: &RequestIdText) {
    if let Problem::Service(Error::Unavailable(cause) | Error::Internal(cause)) = problem {
        let code = problem.code().as_str();
        let causes = chain(&**cause);
        tracing::error!(%request_id, route, code, causes, "request failed");
    }
}

fn chain(cause: &dyn std::error::Error) -> String {
    let links = std::iter::successors(Some(cause), |error| error.source());
    links.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Field, message and allowed values of a problem.
fn words(problem: &Problem) -> (Option<String>, Cow<'static, str>, &[String]) {
    let message = match problem {
        Problem::Syntax(syntax) => {
            return (syntax.field.clone(), syntax.message.clone(), &syntax.allowed);
        }
        Problem::Service(Error::Invalid { field, problem }) => {
            return (Some((*field).to_owned()), problem.clone(), &[]);
        }
        Problem::Service(error) => error.to_string().into(),
        Problem::WrongPassphrase => "no seal opens to what was presented".into(),
        Problem::BodyTooLarge(limit) => format!("the body is longer than {limit} bytes").into(),
        Problem::NotFound => "there is no such route".into(),
        Problem::MethodNotAllowed(methods) => {
            format!("this route has the methods {methods}").into()
        }
        Problem::UnsupportedMediaType => "the body must be JSON".into(),
        Problem::Busy => "too many requests or connections at once".into(),
        Problem::Timeout => "the request took too long".into(),
    };
    (None, message, &[])
}

/// Status of a code.
const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidRequest
        | ErrorCode::PlaintextTooLarge
        | ErrorCode::KeyUsage
        | ErrorCode::Undecryptable => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::AccessDenied => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::KeyState
        | ErrorCode::SecretState
        | ErrorCode::Conflict
        | ErrorCode::AlreadyExists
        | ErrorCode::LimitExceeded
        | ErrorCode::DeletionProtected
        | ErrorCode::KeyNeeded
        | ErrorCode::SealRefused
        | ErrorCode::ClockHeld => StatusCode::CONFLICT,
        ErrorCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::Throttled => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::OutsideFailed => StatusCode::BAD_GATEWAY,
        ErrorCode::Sealed | ErrorCode::Unavailable | ErrorCode::Timeout => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// What to do when nothing opened.
const TRY_ANOTHER: &str = "try another one, or bring shares one by one: `lastkey unseal --share \
                           FILE`; `lastkey status` lists the seals, and the server's log says when \
                           the record of one was changed";

/// What to do for a new value when nobody said how there is one.
const SAY_HOW: &str = "say how, such as `lastkey secret rotation set NAME --generate`, or write a \
                       value of your own: `lastkey secret put NAME`";

/// What to do about a code.
const fn next(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::PlaintextTooLarge => {
            Some("use a data key: POST /v1/data-key and encrypt locally, or `lastkey encrypt FILE`")
        }
        ErrorCode::BodyTooLarge => Some("send less in one request"),
        ErrorCode::Unauthenticated => Some(
            "send a valid `Authorization: Bearer TOKEN`; `lastkey` takes it from LASTKEY_TOKEN or \
             --token-file, and `lastkey login` opens a session",
        ),
        ErrorCode::KeyState => Some("see the state of the key: GET /v1/keys/{key}"),
        ErrorCode::SecretState => {
            Some("see the secret: GET /v1/secrets/{secret}; a deleted one can be restored")
        }
        ErrorCode::Conflict => Some("read it again and repeat the request"),
        ErrorCode::DeletionProtected => {
            Some("switch deletion_protection off first: PATCH /v1/keys/{key}")
        }
        ErrorCode::KeyNeeded => Some(
            "see what needs it: `lastkey key impact KEY`, or GET /v1/keys/{key}/impact; have it \
             written under another key and report again, or give `in_spite_of_reports` a reason",
        ),
        ErrorCode::ClockHeld => Some("check the clock, then POST /v1/sys/clock/confirm"),
        ErrorCode::NotFound => Some("see the routes: GET /v1/openapi.json"),
        ErrorCode::UnsupportedMediaType => Some("send `Content-Type: application/json`"),
        ErrorCode::Sealed => Some("unseal the server: `lastkey unseal`, or POST /v1/sys/unseal"),
        ErrorCode::Throttled | ErrorCode::Unavailable | ErrorCode::Timeout => {
            Some("try again later; Retry-After says when")
        }
        ErrorCode::Internal => Some("look for the request id in the server's log"),
        ErrorCode::OutsideFailed => {
            Some("mend it there, then repeat the request; nothing was left half done")
        }
        ErrorCode::SealRefused => Some("see the seals: `lastkey seal list`, or GET /v1/sys/seals"),
        ErrorCode::InvalidRequest
        | ErrorCode::AccessDenied
        | ErrorCode::KeyUsage
        | ErrorCode::Undecryptable
        | ErrorCode::AlreadyExists
        | ErrorCode::LimitExceeded
        | ErrorCode::MethodNotAllowed => None,
    }
}

/// When to try again.
fn retry_after(problem: &Problem) -> Option<Duration> {
    match problem {
        Problem::Service(Error::Throttled { retry_after }) => Some(*retry_after),
        Problem::Service(Error::Unavailable(_)) | Problem::Busy | Problem::Timeout => Some(SOON),
        Problem::Service(_)
        | Problem::Syntax(_)
        | Problem::WrongPassphrase
        | Problem::BodyTooLarge(_)
        | Problem::NotFound
        | Problem::MethodNotAllowed(_)
        | Problem::UnsupportedMediaType => None,
    }
}

const SOON: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Syntax;

    #[test]
    fn a_body_has_code_message_field_allowed_next_and_request_id() {
        let syntax = Syntax {
            field: Some("items[2].key".into()),
            message: "expected one of".into(),
            allowed: vec!["a".into()],
        };
        let answer = answer(syntax.into(), "abc");
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let expected = r#"{"error":{"code":"InvalidRequest","message":"expected one of","field":"items[2].key","allowed":["a"],"request_id":"abc"}}"#;
        assert_eq!(answer.body, expected);
    }

    #[test]
    fn who_unseals_is_not_told_to_send_a_token() {
        let advice = |problem: Problem| detail(&problem, "abc").next.unwrap_or_default();
        assert!(advice(Error::Unauthenticated.into()).contains("LASTKEY_TOKEN"));
        let advice = advice(Problem::WrongPassphrase);
        assert!(advice.contains("--share") && !advice.contains("TOKEN"), "{advice}");
    }

    #[test]
    fn who_rotates_what_has_no_rotation_is_told_how_there_is_a_new_value() {
        let told = detail(&Error::NoRotation.into(), "abc");
        assert_eq!((&*told.code, told.message.contains("no rotation")), ("SecretState", true));
        let advice = told.next.unwrap_or_default();
        for words in ["lastkey secret rotation set NAME", "lastkey secret put NAME"] {
            assert!(advice.contains(words), "{advice}");
        }
    }

    #[test]
    fn a_cause_stays_inside() {
        for error in [Error::Internal("SQL at 0x7f".into()), Error::Unavailable("SQL".into())] {
            let body = answer(error.into(), "abc").body;
            assert!(!String::from_utf8_lossy(&body).contains("SQL"));
        }
    }

    #[test]
    fn everything_that_may_pass_says_when_to_try_again() {
        let throttled = Error::Throttled { retry_after: Duration::from_secs(7) };
        for (problem, seconds) in [
            (throttled.into(), 7),
            (Error::Unavailable("x".into()).into(), 1),
            (Problem::Busy, 1),
            (Problem::Timeout, 1),
        ] {
            assert_eq!(answer(problem, "").retry_after, Some(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn statuses_are_those_of_the_documents() {
        let expected = [
            400, 400, 413, 401, 403, 409, 409, 400, 400, 409, 409, 409, 409, 409, 409, 409, 502,
            404, 405, 415, 429, 503, 503, 503, 500,
        ];
        let statuses: Vec<_> = ErrorCode::ALL.iter().map(|code| status(*code).as_u16()).collect();
        assert_eq!(statuses, expected);
    }
}
