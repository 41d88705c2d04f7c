//! What can go wrong in a use case, sorted by what the caller can do about it.
//!
//! Room      `service`.
//! Holds     `Display` is public text and never carries a secret; the cause is for the log.

use std::borrow::Cow;
use std::time::Duration;

use lastkey_core::backup::BackupError;
use lastkey_core::ids::{BadName, Name};
use lastkey_core::key::BadMetadata;
use lastkey_core::permit::Denied;
use lastkey_core::ports::{Cause, SealDeviceError, StoreError};
use lastkey_core::rotation::BadPeriod;
use lastkey_core::secret_item::BadStage;
use lastkey_core::secret_rotation::BadRecipe;
use lastkey_core::state::{Refused, State};

/// Failure of one operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong; sending it again will not help.
    #[error("invalid {field}: {problem}")]
    Invalid {
        /// The field of the request.
        field: &'static str,
        /// What is wrong with it, and what is allowed.
        problem: Cow<'static, str>,
    },
    /// More plaintext than one call protects.
    #[error("the plaintext is longer than 65536 bytes")]
    PlaintextTooLarge,
    /// The caller did not show who he is.
    #[error("the request carries no valid credential")]
    Unauthenticated,
    /// Known caller, not allowed. Also returned for keys that do not exist.
    #[error("no such key or secret, or you may not use it in this way")]
    Denied,
    /// The state of the key or of its version forbids this.
    #[error("the key or its version is {state}, which forbids this operation")]
    KeyState {
        /// The state.
        state: &'static str,
    },
    /// The secret or its version is not there to be used: deleted, destroyed, never current.
    #[error("the secret or its version is {state}, which forbids this operation")]
    SecretState {
        /// The state.
        state: &'static str,
    },
    /// Nobody said how the secret gets a new value.
    #[error("the secret has no rotation: nobody said how it gets a new value")]
    NoRotation,
    /// The key is for something else.
    #[error("the key's usage or spec does not allow this operation")]
    KeyUsage,
    /// Tag mismatch, wrong key, wrong context: deliberately one variant (no oracle).
    #[error("the ciphertext cannot be decrypted")]
    Undecryptable,
    /// Somebody else changed the same thing at the same time.
    #[error("somebody else changed it at the same time")]
    Conflict,
    /// There is one of that name already.
    #[error("it exists already")]
    AlreadyExists,
    /// A limit of the service is reached.
    #[error("limit reached: {0}")]
    LimitExceeded(&'static str),
    /// Deletion protection is on.
    #[error("the key is protected against deletion")]
    DeletionProtected,
    /// A place outside was last reported to hold things under the key or version.
    #[error("still needed: {place} was last reported to hold {count} {what} under it{among}")]
    KeyNeeded {
        /// The place.
        place: Name,
        /// How many.
        count: u64,
        /// Of what, such as `objects`.
        what: &'static str,
        /// One of them by name, as the end of the sentence; empty when the place names none.
        among: String,
    },
    /// The wall clock jumped, and nothing is destroyed or expires until an operator confirms it.
    #[error("the wall clock jumped; nothing expires until an operator confirms it")]
    ClockHeld,
    /// A seal cannot be made, opened or let go of in this way. Says what to do instead.
    #[error("{0}")]
    SealRefused(Cow<'static, str>),
    /// What is outside refused or failed: a database, a program that rotates. Says what it said.
    #[error("{0}")]
    Outside(Cow<'static, str>),
    /// The server is sealed.
    #[error("the server is sealed")]
    Sealed,
    /// Too many attempts.
    #[error("too many attempts")]
    Throttled {
        /// When to try again.
        retry_after: Duration,
    },
    /// A part we need is away (store, audit). Safe to retry.
    #[error("temporarily unavailable")]
    Unavailable(#[source] Cause),
    /// A bug or a broken store. Not safe to retry blindly.
    #[error("internal error")]
    Internal(#[source] Cause),
    /// Everything was permitted, and nothing was done: the caller asked for a dry run.
    #[error("the request would have succeeded")]
    DryRun,
}

impl Error {
    /// The stable code that programs may rely on.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "InvalidRequest",
            Self::PlaintextTooLarge => "PlaintextTooLarge",
            Self::Unauthenticated => "Unauthenticated",
            Self::Denied => "AccessDenied",
            Self::KeyState { .. } => "KeyState",
            Self::SecretState { .. } | Self::NoRotation => "SecretState",
            Self::KeyUsage => "KeyUsage",
            Self::Undecryptable => "Undecryptable",
            Self::Conflict => "Conflict",
            Self::AlreadyExists => "AlreadyExists",
            Self::LimitExceeded(_) => "LimitExceeded",
            Self::DeletionProtected => "DeletionProtected",
            Self::KeyNeeded { .. } => "KeyNeeded",
            Self::ClockHeld => "ClockHeld",
            Self::SealRefused(_) => "SealRefused",
            Self::Outside(_) => "OutsideFailed",
            Self::Sealed => "Sealed",
            Self::Throttled { .. } => "Throttled",
            Self::Unavailable(_) => "Unavailable",
            Self::Internal(_) => "Internal",
            Self::DryRun => "DryRun",
        }
    }

    /// A request whose field is wrong.
    pub(crate) fn invalid(field: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }

    /// A state that forbids the operation, in the words of the doors.
    pub(crate) const fn state(state: State) -> Self {
        Self::KeyState {
            state: match state {
                State::PreActivation => "pending import",
                State::Active => "enabled",
                State::Suspended => "disabled",
                State::Deactivated => "deactivated",
                State::Compromised => "compromised",
                State::Destroyed => "destroyed",
            },
        }
    }
}

impl From<Denied> for Error {
    fn from(_: Denied) -> Self {
        Self::Denied
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Conflict,
            StoreError::Full | StoreError::Failed(_) => Self::Unavailable(error.into()),
            StoreError::Corrupt(_) | StoreError::Newer(_) => Self::Internal(error.into()),
        }
    }
}

impl From<SealDeviceError> for Error {
    fn from(error: SealDeviceError) -> Self {
        match error {
            SealDeviceError::Away(_) => Self::Unavailable(error.into()),
            SealDeviceError::Failed(_) => Self::Internal(error.into()),
            SealDeviceError::PinLocked { .. }
            | SealDeviceError::StateChanged { .. }
            | SealDeviceError::NotThisDevice
            | SealDeviceError::Settings { .. }
            | SealDeviceError::Unsupported(_) => Self::SealRefused(error.to_string().into()),
        }
    }
}

impl From<BackupError> for Error {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Refused(problem) | BackupError::NotConfigured(problem) => {
                Self::invalid("directory", problem)
            }
            BackupError::Full(_)
            | BackupError::NotABackup(_)
            | BackupError::Newer(_)
            | BackupError::Damaged { .. }
            | BackupError::WrongKey(_)
            | BackupError::Stopped
            | BackupError::Failed { .. } => Self::Unavailable(error.into()),
        }
    }
}

impl From<BadName> for Error {
    fn from(error: BadName) -> Self {
        let field = match error {
            BadName::KeyId | BadName::KeyRef => "key",
            BadName::Alias => "alias",
            BadName::Version => "version",
            BadName::Session => "session",
            BadName::Name => "name",
            BadName::Secret => "secret",
            BadName::SecretId => "id",
            BadName::Stage => "stage",
        };
        Self::invalid(field, error.to_string())
    }
}

impl From<BadRecipe> for Error {
    fn from(error: BadRecipe) -> Self {
        let field = match error {
            BadRecipe::Length | BadRecipe::Guessable => "length",
            BadRecipe::Alphabet => "alphabet",
            BadRecipe::Field => "field",
        };
        Self::invalid(field, error.to_string())
    }
}

impl From<BadMetadata> for Error {
    fn from(error: BadMetadata) -> Self {
        match error {
            BadMetadata::Description => Self::invalid("description", error.to_string()),
            BadMetadata::Tag => Self::invalid("tags", error.to_string()),
            BadMetadata::Window => Self::invalid("window_days", error.to_string()),
            BadMetadata::TooManyTags => Self::LimitExceeded("a key has at most 50 tags"),
            BadMetadata::TooManyAliases => Self::LimitExceeded("a key has at most 50 aliases"),
        }
    }
}

impl From<BadStage> for Error {
    fn from(error: BadStage) -> Self {
        match error {
            BadStage::NoSuchVersion => Self::invalid("version", error.to_string()),
            BadStage::Current => Self::invalid("stage", error.to_string()),
            BadStage::TooMany => Self::LimitExceeded("a secret has at most 24 stages"),
        }
    }
}

impl From<BadPeriod> for Error {
    fn from(error: BadPeriod) -> Self {
        Self::invalid("period_seconds", error.to_string())
    }
}

impl Error {
    /// The refusal of a change by the table of states, naming the state it is in.
    pub(crate) fn refused(state: State) -> impl FnOnce(Refused) -> Self {
        move |Refused| Self::state(state)
    }
}
