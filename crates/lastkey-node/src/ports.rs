//! What the doors need from a key service.
//!
//! Room      `node`. Implemented by the binary: over the network, or in the same process.

use std::error::Error as StdError;

use async_trait::async_trait;
use lastkey_secret::{SecretArray, SecretVec};

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

    /// Recovers a local key; the wrapped bytes name their key and version.
    ///
    /// # Errors
    /// [`KeyError`].
    async fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<SecretVec, KeyError>;
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
