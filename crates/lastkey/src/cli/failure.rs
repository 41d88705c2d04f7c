//! How commands fail: exit codes, and what is said on standard error.
//!
//! Room      `lastkey`. The server's refusals are passed on as they are; failures of our own
//!           get a code, a cause and a next step in the same shape.

use std::{
    error::Error as StdError,
    io::{self, Write},
};

use lastkey_client::{
    ConfigError, Error as ClientError, TrustError, envelope::EnvelopeError, file::FileError,
};
use lastkey_crypto::{context::ContextError, stream::StreamError};
use lastkey_wire::native::error::{ErrorBody, ErrorDetail};
use serde_json::json;

use super::args::Format;
use crate::node_key::NodeKeyError;

/// What the exit codes mean; stands in `lastkey --help` and `docs/cli.md`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    refused by the server, or failed; or something was found
  2    wrong usage: arguments, address, token or CA file
  3    the server cannot be reached
  4    not authenticated, or denied
  5    cannot be decrypted; or a signature, MAC or file is not valid
  6    the server is sealed or unavailable; try again later
  7    reading or writing a file failed
  130  interrupted; 141: nobody reads the output any more; 143: terminated";

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const DENIED: u8 = 4;
const NOT_VALID: u8 = 5;
const UNAVAILABLE: u8 = 6;
const INPUT_OUTPUT: u8 = 7;
const BROKEN_PIPE: u8 = 141;
/// A process that a signal ended has this and the number of the signal as its exit code.
const SIGNAL_BASE: u8 = 128;

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The environment holds no usable configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The encryption context makes no sense.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A call of the server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An envelope.
    #[error(transparent)]
    Envelope(EnvelopeError),
    /// An output file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key of a node.
    #[error(transparent)]
    NodeKey(#[from] NodeKeyError),
    /// Any other reading or writing.
    #[error("cannot {doing}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// What went wrong.
        source: io::Error,
    },
    /// Input that is read locally does not have the form it should have.
    #[error("{0}")]
    Input(String),
    /// A signature, a MAC or a context is not right.
    #[error("{0}")]
    NotValid(&'static str),
    /// The audit log, or a receipt, is not what was signed.
    #[error("the audit log is not what was signed: {0}")]
    LogNotValid(String),
    /// A dry run was answered with no; the answer is printed already.
    #[error("the server would refuse this")]
    WouldRefuse,
    /// The server is not ready; the answer is printed already.
    #[error("the server is not ready")]
    NotReady,
    /// Some files of a folder could not be done; each was talked about.
    #[error("{failed} files failed; the others are done, and a second run goes on with these")]
    SomeFiles {
        /// How many.
        failed: u64,
        /// The exit code of the first one.
        code: u8,
    },
    /// The recipients of a file do not fit into its header.
    #[error("the recipients do not fit into the header of {0}")]
    HeaderFull(String),
    /// A scan or check found something; the report is printed already.
    #[error("something was found")]
    Found,
    /// A scan or check found nothing, but could not look everywhere; the report says where.
    #[error("not everything could be checked")]
    NotAllChecked,
    /// A server other than ours: etcd, a plugin, an API server.
    #[error("{said}")]
    Remote {
        /// Who, and what it said.
        said: String,
        /// How it ended.
        end: RemoteEnd,
    },
    /// The person said no.
    #[error("nothing was done")]
    Declined,
    /// A program that was run ended so; it has told why itself.
    #[error("the program ended")]
    Ended(u8),
    /// Nobody reads standard output any more.
    #[error("nobody reads the output")]
    BrokenPipe,
    /// A signal, by number, ended the work.
    #[error("interrupted")]
    Interrupted(u8),
}

/// How a call of a server other than ours failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemoteEnd {
    /// No connection, or no answer.
    Unreachable,
    /// It does not let us.
    Denied,
    /// It said no.
    Refused,
}

impl RemoteEnd {
    const fn exit_code(self) -> u8 {
        match self {
            Self::Unreachable => UNREACHABLE,
            Self::Denied => DENIED,
            Self::Refused => REFUSED,
        }
    }
}

impl Failure {
    /// A server other than ours does not answer.
    pub(crate) fn unreachable(said: String) -> Self {
        Self::Remote { said, end: RemoteEnd::Unreachable }
    }

    /// A failed read or write; a reader that went away is no failure to talk about.
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::Io { doing: doing.into(), source }
    }

    /// The exit code; see [`EXIT_CODES`].
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Context(_) | Self::Config(_) => USAGE,
            Self::Client(error) => client_exit_code(error),
            Self::Envelope(error) => envelope_exit_code(error),
            Self::File(_) | Self::Io { .. } | Self::NotAllChecked => INPUT_OUTPUT,
            Self::NotValid(_) | Self::LogNotValid(_) => NOT_VALID,
            Self::Input(_)
            | Self::HeaderFull(_)
            | Self::NodeKey(_)
            | Self::WouldRefuse
            | Self::Found
            | Self::Declined => REFUSED,
            Self::NotReady => UNAVAILABLE,
            Self::SomeFiles { code, .. } => *code,
            Self::Ended(code) => *code,
            Self::Remote { end, .. } => end.exit_code(),
            Self::BrokenPipe => BROKEN_PIPE,
            Self::Interrupted(signal) => SIGNAL_BASE + signal,
        }
    }

    /// Whether the next call would fail in the same way: no server, or none that serves.
    pub(crate) fn will_repeat(&self) -> bool {
        matches!(self.exit_code(), UNREACHABLE | UNAVAILABLE)
    }

    /// Whether the credentials were refused, or what they were to do.
    pub(crate) fn is_denied(&self) -> bool {
        self.exit_code() == DENIED
    }

    /// Says on standard error what failed, why, and what to do next.
    pub(crate) fn report(&self, format: Format) {
        let mut text = match (self, format) {
            (
                Self::BrokenPipe
                | Self::Interrupted(_)
                | Self::WouldRefuse
                | Self::NotReady
                | Self::Ended(_)
                | Self::Found
                | Self::NotAllChecked,
                _,
            ) => return,
            (_, Format::Json) => self.json(),
            (_, Format::Table) => self.text(),
        };
        text.push('\n');
        // Standard error is the last place to say anything; when it is gone, nobody listens.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}", printable(&self.chain()));
        if let Some(detail) = self.detail() {
            if let Some(field) = &detail.field {
                text.push_str(&format!("\n  field: {}", printable(field)));
            }
            if let Some(allowed) = detail.allowed.as_ref().filter(|allowed| !allowed.is_empty()) {
                text.push_str(&format!("\n  allowed: {}", printable(&allowed.join(", "))));
            }
            text.push_str(&format!(
                "\n  code: {}  request: {}",
                printable(&detail.code),
                printable(&detail.request_id)
            ));
        }
        if let Some(next) = self.next() {
            text.push_str(&format!("\n  next: {}", printable(&next)));
        }
        text
    }

    /// The server's error body as it came, or one of our own in the same shape.
    fn json(&self) -> String {
        let body = match self.detail() {
            Some(detail) => json!(ErrorBody { error: detail.clone() }),
            None => {
                let mut error = json!({ "code": self.code(), "message": self.chain() });
                if let (Some(next), Some(fields)) = (self.next(), error.as_object_mut()) {
                    fields.insert("next".to_owned(), json!(next));
                }
                json!({ "error": error })
            }
        };
        body.to_string()
    }

    fn detail(&self) -> Option<&ErrorDetail> {
        client_error_in(self)?.refusal().map(|refusal| &refusal.detail)
    }

    /// The code of a failure that is not the server's.
    fn code(&self) -> &'static str {
        match self.exit_code() {
            USAGE => "Usage",
            UNREACHABLE => "Unreachable",
            NOT_VALID => "NotValid",
            INPUT_OUTPUT => "InputOutput",
            _ => "Failed",
        }
    }

    /// What went wrong and each cause behind it.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let part = error.to_string();
            if !part.is_empty() && !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        text
    }

    fn next(&self) -> Option<String> {
        if let Some(error) = client_error_in(self) {
            return client_next(error);
        }
        let next = match self {
            Self::Config(ConfigError::NoAddr) => {
                "set LASTKEY_ADDR or give --addr; `lastkey dev` starts a server and says how"
            }
            Self::File(FileError::Exists { .. }) => "give --force to replace it",
            Self::Envelope(EnvelopeError::NoRecipient) => {
                "`lastkey inspect FILE` shows for whom the file was encrypted"
            }
            Self::HeaderFull(_) => "`lastkey rewrap --rewrite` encrypts it anew with a longer one",
            Self::NodeKey(NodeKeyError::Damaged(_) | NodeKeyError::NotOpened { .. }) => {
                "`lastkey node join --seal-key` gets a certificate for another key"
            }
            Self::Usage(_)
            | Self::Config(_)
            | Self::Context(_)
            | Self::Client(_)
            | Self::Envelope(_)
            | Self::File(_)
            | Self::NodeKey(NodeKeyError::NotSealed { .. } | NodeKeyError::NoKey)
            | Self::Io { .. }
            | Self::Input(_)
            | Self::NotValid(_)
            | Self::LogNotValid(_)
            | Self::WouldRefuse
            | Self::NotReady
            | Self::SomeFiles { .. }
            | Self::Found
            | Self::NotAllChecked
            | Self::Remote { .. }
            | Self::Declined
            | Self::Ended(_)
            | Self::BrokenPipe
            | Self::Interrupted(_) => return None,
        };
        Some(next.to_owned())
    }
}

impl From<EnvelopeError> for Failure {
    fn from(error: EnvelopeError) -> Self {
        let is_closed_pipe = matches!(
            &error,
            EnvelopeError::Stream(StreamError::Write(cause))
                if cause.kind() == io::ErrorKind::BrokenPipe
        );
        if is_closed_pipe { Self::BrokenPipe } else { Self::Envelope(error) }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        EnvelopeError::Stream(error).into()
    }
}

fn client_error_in(failure: &Failure) -> Option<&ClientError> {
    match failure {
        Failure::Client(error) => Some(error),
        Failure::Envelope(error) => error.server_error(),
        Failure::Usage(_)
        | Failure::Config(_)
        | Failure::Context(_)
        | Failure::File(_)
        | Failure::NodeKey(_)
        | Failure::Io { .. }
        | Failure::Input(_)
        | Failure::NotValid(_)
        | Failure::LogNotValid(_)
        | Failure::WouldRefuse
        | Failure::NotReady
        | Failure::SomeFiles { .. }
        | Failure::HeaderFull(_)
        | Failure::Found
        | Failure::NotAllChecked
        | Failure::Remote { .. }
        | Failure::Declined
        | Failure::Ended(_)
        | Failure::BrokenPipe
        | Failure::Interrupted(_) => None,
    }
}

fn client_exit_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Trust(_) | ClientError::Token => USAGE,
        ClientError::Request | ClientError::CannotWait(_) => REFUSED,
        ClientError::Connect { .. }
        | ClientError::Broken { .. }
        | ClientError::Timeout { .. }
        | ClientError::Protocol { .. } => UNREACHABLE,
        ClientError::Refused(refusal) => match refusal.detail.code.as_str() {
            "Unauthenticated" | "AccessDenied" => DENIED,
            "Undecryptable" => NOT_VALID,
            "Sealed" | "Unavailable" | "Throttled" | "Timeout" => UNAVAILABLE,
            _ => REFUSED,
        },
        _ => REFUSED,
    }
}

fn envelope_exit_code(error: &EnvelopeError) -> u8 {
    match error {
        EnvelopeError::Server(error) => client_exit_code(error),
        EnvelopeError::Shared(error) => envelope_exit_code(error),
        EnvelopeError::Stream(error) => stream_exit_code(error),
        EnvelopeError::DataKey | EnvelopeError::NoRecipient | EnvelopeError::Context => NOT_VALID,
        EnvelopeError::Nobody => USAGE,
        EnvelopeError::File(_) => INPUT_OUTPUT,
        EnvelopeError::Thread
        | EnvelopeError::NotFound(_)
        | EnvelopeError::TooManyPassphrases
        | EnvelopeError::NotRenewed(_)
        | EnvelopeError::Busy
        | _ => REFUSED,
    }
}

fn stream_exit_code(error: &StreamError) -> u8 {
    match error {
        StreamError::Envelope(_) => NOT_VALID,
        StreamError::Read(_) | StreamError::Write(_) | StreamError::Changed => INPUT_OUTPUT,
    }
}

fn client_next(error: &ClientError) -> Option<String> {
    let next = match error {
        ClientError::Trust(TrustError::Nothing) => {
            "give --ca FILE (LASTKEY_CA), or the fingerprint that `lastkey init` printed: \
             --ca-fingerprint (LASTKEY_CA_FINGERPRINT)"
        }
        ClientError::Connect { source, .. } if !source.may_pass() => {
            "check that --ca or --ca-fingerprint belongs to this server and that its \
             certificate names the host in the address"
        }
        ClientError::Connect { .. } => {
            "check that the server runs and that --addr or LASTKEY_ADDR is its address"
        }
        ClientError::Broken { .. } | ClientError::Timeout { .. } => {
            "look whether it took effect before trying again"
        }
        ClientError::Protocol { .. } => {
            "check --addr or LASTKEY_ADDR; a server that speaks TLS needs https://"
        }
        ClientError::Refused(refusal) => return refusal_next(refusal),
        ClientError::Trust(_)
        | ClientError::Token
        | ClientError::Request
        | ClientError::CannotWait(_) => return None,
        _ => return None,
    };
    Some(next.to_owned())
}

/// The server's own advice; where it gives none, the command that helps.
fn refusal_next(refusal: &lastkey_client::Refusal) -> Option<String> {
    if let Some(next) = &refusal.detail.next {
        return Some(next.clone());
    }
    match refusal.detail.code.as_str() {
        "Sealed" => Some("run `lastkey unseal`".to_owned()),
        "Unauthenticated" => Some("set LASTKEY_TOKEN or give --token-file".to_owned()),
        _ => refusal
            .retry_after
            .map(|pause| format!("try again in {} seconds", pause.as_secs().max(1))),
    }
}

/// Text from elsewhere, without the characters that would steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() || is_bidi_control(letter) {
            clean.extend(letter.escape_unicode());
        } else {
            clean.push(letter);
        }
    }
    clean
}

/// Unicode's controls of writing direction, which can make text read as other text.
fn is_bidi_control(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use lastkey_client::{
        ConfigError, ConnectError, Error as ClientError, Refusal, TrustError,
        envelope::EnvelopeError,
    };
    use lastkey_wire::native::error::ErrorDetail;

    use super::{Failure, printable};

    fn refused(code: &str) -> Failure {
        Failure::Client(ClientError::Refused(Box::new(Refusal {
            status: 400,
            detail: ErrorDetail {
                code: code.to_owned(),
                message: "the message".to_owned(),
                field: None,
                allowed: None,
                next: None,
                request_id: "r-1".to_owned(),
            },
            retry_after: None,
        })))
    }

    fn unreachable() -> Failure {
        let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
        let source = ConnectError::Reach(cause.into());
        Failure::Client(ClientError::Connect { addr: "http://h:1".to_owned(), source })
    }

    #[test]
    fn exit_code_follows_the_code_of_the_server() {
        for (code, exit) in [
            ("InvalidRequest", 1),
            ("KeyState", 1),
            ("Internal", 1),
            ("CodeOfANewerServer", 1),
            ("Unauthenticated", 4),
            ("AccessDenied", 4),
            ("Undecryptable", 5),
            ("Sealed", 6),
            ("Unavailable", 6),
            ("Throttled", 6),
            ("Timeout", 6),
        ] {
            assert_eq!(refused(code).exit_code(), exit, "{code}");
        }
    }

    #[test]
    fn exit_code_tells_local_failures_apart() {
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        assert_eq!(Failure::Config(ConfigError::NoAddr).exit_code(), 2);
        assert_eq!(Failure::Client(ClientError::Trust(TrustError::Nothing)).exit_code(), 2);
        assert_eq!(unreachable().exit_code(), 3);
        assert_eq!(Failure::NotValid("").exit_code(), 5);
        assert_eq!(Failure::Envelope(EnvelopeError::NoRecipient).exit_code(), 5);
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::io("write", full()).exit_code(), 7);
    }

    #[test]
    fn io_failure_of_a_closed_pipe_is_quiet() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(Failure::io("write", closed), Failure::BrokenPipe));
    }

    #[test]
    fn text_carries_code_request_and_next_step() {
        assert_eq!(
            refused("Sealed").text(),
            "error: the message\n  code: Sealed  request: r-1\n  next: run `lastkey unseal`"
        );
    }

    #[test]
    fn text_names_the_cause_and_says_what_to_do() {
        let text = unreachable().text();
        assert!(text.starts_with("error: cannot reach http://h:1: no connection: "), "{text}");
        assert!(text.contains("\n  next: check that the server runs"), "{text}");
    }

    #[test]
    fn text_passes_on_how_long_to_wait() {
        let Failure::Client(ClientError::Refused(mut refusal)) = refused("Throttled") else {
            panic!("another failure");
        };
        refusal.retry_after = Some(Duration::from_secs(7));
        let text = Failure::Client(ClientError::Refused(refusal)).text();
        assert!(text.ends_with("next: try again in 7 seconds"), "{text}");
    }

    #[test]
    fn json_is_the_body_of_the_server() {
        assert_eq!(
            refused("KeyState").json(),
            r#"{"error":{"code":"KeyState","message":"the message","request_id":"r-1"}}"#
        );
    }

    #[test]
    fn json_of_a_local_failure_has_the_same_shape() {
        let body: serde_json::Value =
            serde_json::from_str(&Failure::Config(ConfigError::NoAddr).json()).unwrap();
        assert_eq!(body["error"]["code"], "Usage");
        assert!(body["error"]["next"].as_str().unwrap().contains("LASTKEY_ADDR"));
    }

    #[test]
    fn printable_escapes_what_steers_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}");
        assert_eq!(printable("Schlüssel 密钥"), "Schlüssel 密钥");
    }
}
