//! Why a call was not done, sorted by what the caller does next.
//!
//! Room      `volumes`.
//! Source    CSI 1.13, "Error scheme".

use std::io;

use lastkey_node::ports::KeyError;

/// What kind of refusal: each is one code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong, whatever the state.
    Invalid,
    /// No such volume, snapshot or path.
    NotFound,
    /// There is one of this name that is different.
    Exists,
    /// The key service says that this node may not.
    Denied,
    /// No room.
    Exhausted,
    /// Not in this state.
    Precondition,
    /// Another call works on it; or a list's token is of no list.
    Busy,
    /// Sizes that nobody can have.
    OutOfRange,
    /// Not served here.
    Unimplemented,
    /// The key service does not answer. It may pass.
    Away,
    /// The machine refused.
    Internal,
}

/// A refusal: a sentence for the person who reads events of Kubernetes, never a secret.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind.
    pub kind: Kind,
    /// What happened and what to do.
    pub message: String,
    /// The cause, for the log.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    /// A refusal without a cause of its own.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub(crate) fn precondition(message: impl Into<String>) -> Self {
        Self::new(Kind::Precondition, message)
    }

    pub(crate) fn no_volume(id: &str) -> Self {
        Self::new(Kind::NotFound, format!("there is no volume {id:.64}"))
    }
}

/// Attaches what was being done; a full disk has a code of its own.
pub(crate) fn io_while(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Fault {
    move |error| {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        let kind = if full.contains(&error.kind()) { Kind::Exhausted } else { Kind::Internal };
        Fault { kind, message: format!("cannot {}: {error}", doing.into()), cause: None }
    }
}

/// What the key service said about a key.
pub(crate) fn key_fault(key: &str, error: KeyError) -> Fault {
    key_fault_of("this node", key, error)
}

/// The same to somebody else than this node.
pub(crate) fn key_fault_of(who: &str, key: &str, error: KeyError) -> Fault {
    let kind = kind_of(&error);
    let message = match &error {
        KeyError::Away(_) => format!("the key service does not answer for the key {key}"),
        KeyError::Refused { code, message } if kind == Kind::Denied => {
            format!("the key service refuses the key {key} to {who}: {message} ({code})")
        }
        KeyError::Refused { code, message } => {
            format!("the key {key} cannot be used: {message} ({code})")
        }
        KeyError::Undecryptable => {
            format!("the data key of this volume does not open under the key {key}")
        }
        KeyError::RolledBack { .. } => error.to_string(),
    };
    Fault { kind, message, cause: Some(error.into()) }
}

/// What the key service said to a pod that asked for a session.
pub(crate) fn session_fault(who: &str, role: &str, error: KeyError) -> Fault {
    let message = match &error {
        KeyError::Away(_) => "the key service does not answer".to_owned(),
        KeyError::Refused { code, message } => {
            format!(
                "the key service opens no session of the role {role} for {who}: {message} ({code})"
            )
        }
        KeyError::RolledBack { .. } => error.to_string(),
        KeyError::Undecryptable => format!("the token of {who} cannot be read"),
    };
    Fault { kind: kind_of(&error), message, cause: Some(error.into()) }
}

fn kind_of(error: &KeyError) -> Kind {
    match error {
        KeyError::Away(_) | KeyError::RolledBack { .. } => Kind::Away,
        KeyError::Refused { code, .. } => match code.as_str() {
            "AccessDenied" | "Unauthenticated" => Kind::Denied,
            _ => Kind::Precondition,
        },
        KeyError::Undecryptable => Kind::Precondition,
    }
}

impl From<lastkey_luks::Error> for Fault {
    fn from(error: lastkey_luks::Error) -> Self {
        use lastkey_luks::Error;
        let kind = match &error {
            Error::Io { .. } | Error::Primitive => Kind::Internal,
            Error::Damaged(_)
            | Error::Unsupported(_)
            | Error::WrongKey
            | Error::Full(_)
            | Error::TooShort => Kind::Precondition,
        };
        Self { kind, message: error.to_string(), cause: Some(error.into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Kind, io_while, key_fault};
    use lastkey_node::ports::KeyError;

    #[test]
    fn refusals_of_the_key_service_have_the_codes_of_the_interface() {
        let refused = |code: &str| {
            let (code, message) = (code.to_owned(), "no".to_owned());
            key_fault("k", KeyError::Refused { code, message }).kind
        };
        assert_eq!(refused("AccessDenied"), Kind::Denied);
        assert_eq!(refused("KeyState"), Kind::Precondition);
        assert_eq!(key_fault("k", KeyError::Undecryptable).kind, Kind::Precondition);
        assert_eq!(key_fault("k", KeyError::Away("x".into())).kind, Kind::Away);
    }

    #[test]
    fn full_disk_is_not_an_internal_error() {
        let full = io_while("write")(io::ErrorKind::StorageFull.into());
        assert_eq!(full.kind, Kind::Exhausted);
        assert_eq!(io_while("write")(io::ErrorKind::Other.into()).kind, Kind::Internal);
    }
}
