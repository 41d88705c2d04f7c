//! What the doors need from a key service.
//!
//! Room      `node`. Implemented by the binary: over the network, or in the same process.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use lastkey_secret::{SecretArray, SecretVec};
use tokio::time::Instant;

/// Why a call of the key service failed, in the chain of its causes.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// The key as it protects new data at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInUse {
    /// UUID of the key.
    pub id: [u8; 16],
    /// The primary version.
    pub version: u32,
    /// Raised by each change of the primary version.
    pub activation: u32,
}

/// Why the key service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nobody answered, or only to say that it cannot serve now. It may pass.
    #[error("the key service does not answer")]
    Away(#[source] Cause),
    /// It answered no, on purpose: disabled, to be deleted, not allowed, no such key.
    #[error("the key service refuses: {message} ({code})")]
    Refused {
        /// The code of the refusal, such as `KeyState`.
        code: String,
        /// What it said; no secret.
        message: String,
    },
    /// It is in an older state than this node has seen, or another installation. What is there may be
    /// recovered, and nothing new is protected by it before an operator says that this is meant.
    #[error("the key service does not continue what was known here: {message}")]
    RolledBack {
        /// What is known here and not there; and what to do.
        message: String,
    },
    /// The ciphertext is not one of this service, or not for this context.
    #[error("the ciphertext cannot be decrypted")]
    Undecryptable,
}

/// The encryption context of a call: names and values.
pub type Context = [(&'static str, String)];

/// What the KMS v2 plugin asks of a key service. Each call ends within the deadline that the
/// implementation keeps: 2.5 seconds in all, failover included, since an API server waits 3.
#[async_trait]
pub trait KeyOps: Send + Sync {
    /// Which version of the key protects new data. Asked every few seconds.
    ///
    /// # Errors
    /// [`KeyError`]; a key that may not protect is [`KeyError::Refused`].
    async fn key_in_use(&self, key: &str) -> Result<KeyInUse, KeyError>;

    /// When a version was made, as the service writes it. Asked at each promotion.
    ///
    /// # Errors
    /// [`KeyError`].
    async fn version_made_at(&self, key: &str, version: u32) -> Result<String, KeyError>;

    /// Protects a local key under the primary version.
    ///
    /// # Errors
    /// [`KeyError`].
    async fn wrap(
        &self,
        key: &str,
        local: &SecretVec,
        context: &Context,
    ) -> Result<Vec<u8>, KeyError>;

    /// Recovers a local key; the wrapped bytes name their key and version. Also by a service in an
    /// older state.
    ///
    /// # Errors
    /// [`KeyError`].
    async fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError>;
}

/// Something that happens to a provider of the KMS v2 plugin and that an operator wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// New seeds are protected under another version from now on.
    Promoted {
        /// The version.
        version: u32,
        /// The key id as metrics show it.
        key_id_hash: String,
    },
    /// The service answers again.
    Answers,
    /// The service is silent, for longer than a restart of it takes.
    Silent {
        /// How long local keys may be used without it, from its last word on.
        bound: Duration,
    },
    /// The service was silent for longer than local keys may be used.
    SilentTooLong,
    /// The service says no.
    Refused {
        /// The code of the refusal.
        code: String,
        /// What it said; no secret.
        message: String,
    },
    /// The service is in an older state than was known here, or another installation.
    RolledBack {
        /// What is known here and not there; and what to do.
        message: String,
    },
}

impl Happening {
    /// In one word, for programs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Promoted { .. } => "KeyVersionPromoted",
            Self::Answers => "KeyServiceAnswers",
            Self::Silent { .. } => "KeyServiceSilent",
            Self::SilentTooLong => "KeyServiceSilentTooLong",
            Self::Refused { .. } => "KeyRefused",
            Self::RolledBack { .. } => "KeyServiceRolledBack",
        }
    }

    /// Whether somebody should look after it.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Promoted { .. } | Self::Answers => false,
            Self::Silent { .. }
            | Self::SilentTooLong
            | Self::Refused { .. }
            | Self::RolledBack { .. } => true,
        }
    }
}

impl std::fmt::Display for Happening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Promoted { version, key_id_hash } => {
                write!(f, "version {version} protects new data, key id hash {key_id_hash}")
            }
            Self::Answers => f.write_str("the key service answers again"),
            Self::Silent { bound } => write!(
                f,
                "the key service does not answer; local keys are used, at most {} s after its last word",
                bound.as_secs()
            ),
            Self::SilentTooLong => f.write_str(
                "the key service was silent for longer than outage.bound_seconds; nothing is encrypted or decrypted until it answers",
            ),
            Self::Refused { code, message } => write!(
                f,
                "the key service refuses: {message} ({code}); the API server stops writing within 3 minutes"
            ),
            Self::RolledBack { message } => write!(
                f,
                "the key service does not continue what was known here: {message}; the API server stops writing within 3 minutes, and reads"
            ),
        }
    }
}

/// Tells operators what happens.
pub trait Herald: Send + Sync {
    /// Takes it up at once, and tells it when it can.
    fn tell(&self, provider: &str, happening: Happening);
}

/// What became of a mounted volume after one of its secrets had changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeNews {
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod, as the driver names it.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
    /// Nothing when the new files are in the volume; else why it stays as it is. No secret.
    pub kept_because: Option<String>,
}

/// Tells the people of a pod what the driver tells nobody.
pub trait VolumeHerald: Send + Sync {
    /// Takes it up at once, and tells it when it can.
    fn tell(&self, news: VolumeNews);
}

/// Seals a key to the machine that this process runs on, so that it opens there alone.
#[async_trait]
pub trait MachineSeal: Send + Sync {
    /// Seals a key; at most 65,535 bytes. Asked once in the life of a process.
    ///
    /// # Errors
    /// What went wrong, for the log.
    async fn seal(&self, key: &SecretArray<32>) -> Result<Vec<u8>, Cause>;

    /// Opens what [`Self::seal`] sealed. Asked at a start without the service.
    ///
    /// # Errors
    /// As [`Self::seal`]; also when the machine is another one, or in another state.
    async fn unseal(&self, sealed: &[u8]) -> Result<SecretArray<32>, Cause>;
}

/// Why a secret was not had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nobody answered, or only to say that it cannot serve now. It may pass.
    #[error("the key service does not answer")]
    Away(#[source] Cause),
    /// It answered no, on purpose: no such role, not allowed, no such version.
    #[error("the key service refuses: {message} ({code})")]
    Refused {
        /// The code of the refusal, such as `AccessDenied`.
        code: String,
        /// What it said; no secret.
        message: String,
    },
}

/// Which version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// The one at a stage.
    Stage(String),
    /// The one with this number, from 1.
    Number(u32),
    /// No secret: the account of a database that the pod has by the role of this name.
    Account,
}

/// What a pod holds while its token is good: the right to read in its name.
#[derive(Debug)]
pub struct PodSession {
    /// The credential.
    pub bearer: SecretVec,
    /// When it ends.
    pub ends_at: Instant,
}

/// A pod, as its verified token names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
}

/// Verifies tokens without the service, by the public keys of the cluster.
pub trait TokenJudge: Send + Sync {
    /// Whose token it is; nothing for one that is not good now.
    fn judge(&self, token: &SecretVec) -> Option<PodIdentity>;
}

/// A value as it was read.
#[derive(Debug)]
pub struct ReadSecret {
    /// Its version.
    pub version: u32,
    /// When that was written, as the service writes it: a name may come back with the same number.
    pub made_at: String,
    /// The value.
    pub value: ReadValue,
    /// After so long it is asked for again, so that it lives on; `None` when it lives by itself.
    pub ask_after: Option<Duration>,
}

/// A value.
#[derive(Debug)]
pub enum ReadValue {
    /// Bytes.
    Opaque(SecretVec),
    /// Fields with names.
    Fields(BTreeMap<String, SecretVec>),
}

impl ReadValue {
    /// Bytes of it, with the names of its fields.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Opaque(bytes) => bytes.len(),
            Self::Fields(fields) => fields.iter().map(|(name, one)| name.len() + one.len()).sum(),
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A secret and its current version; none when there is none, or none that may be known.
pub type Seen = (String, Option<u32>);

/// A pod on this node that holds a version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The secret.
    // secrets: allow, the name of one
    pub secret: String,
    /// The version.
    pub version: u32,
    /// Namespace of the pod.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
    /// The provider gave it this out of its memory, while the service was away.
    pub given_in_outage: bool,
}

/// What the provider knows, and wants to be told the rest of.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The secrets, at most 1,000, each once.
    pub seen: Vec<Seen>,
    /// Who on this node holds what; left out when it is what the service was told before.
    pub holders: Option<Vec<Holder>>,
    /// Names that statement; left out in further questions beside the one that has it.
    pub holders_digest: Option<String>,
    /// There may be others on this node of whom the provider does not know yet.
    pub holders_incomplete: bool,
}

/// What the service tells.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// Secrets whose current version is another one.
    pub changed: Vec<Seen>,
    /// It does not know the statement of that digest.
    pub holders_wanted: bool,
}

/// What the provider of secrets asks of the service. Each call but the watch ends within the
/// deadline that the implementation keeps; a driver waits two minutes for all of them together.
#[async_trait]
pub trait SecretOps: Send + Sync {
    /// Exchanges the token of a pod for a session in its role.
    ///
    /// # Errors
    /// [`SecretError`].
    async fn open_session(&self, token: &SecretVec, role: &str) -> Result<PodSession, SecretError>;

    /// Reads a value in the name of a pod.
    ///
    /// # Errors
    /// [`SecretError`].
    async fn read(
        &self,
        session: &PodSession,
        name: &str,
        which: &Which,
    ) -> Result<ReadSecret, SecretError>;

    /// Waits for other versions, in the name of the node; 20 seconds at most. The question is the
    /// receipt as well: it says who holds what.
    ///
    /// # Errors
    /// [`SecretError`].
    async fn watch(&self, question: &Question) -> Result<News, SecretError>;
}
