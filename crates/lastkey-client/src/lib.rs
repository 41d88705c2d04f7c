//! Client of Lastkey: remote calls and local envelope encryption.
//!
//! Room      `client`. Programs depend on it alone. [`Client`] has a method for each route of
//!           the native API; [`envelope`] encrypts files of any size with data keys.
//! Holds     The token, plaintext and data keys live in `lastkey_secret` types; bodies are
//!           wiped after use. Buffers of TLS, HTTP and JSON are not ours to wipe.
#![doc = ""]
#![doc = include_str!("../README.md")]

mod access;
mod addr;
mod audit;
pub mod blocking;
mod cache;
mod call;
mod client;
mod config;
mod config_file;
mod connect;
mod databases;
mod decryptor;
mod encryptor;
pub mod envelope;
mod error;
pub mod file;
mod keys;
mod operations;
mod range;
mod reader;
mod retry;
mod rewrap;
mod secrets;
mod transport;
mod trust;
mod writer;

pub use addr::{Addr, AddrError};
pub use cache::{CacheLimits, CacheStats, DataKeyCache, ProtectedKey};
pub use call::Call;
pub use client::Client;
pub use config::{
    ADDR_VARIABLE, CA_FINGERPRINT_VARIABLE, CA_VARIABLE, CONFIG_VARIABLE, ClientConfig,
    ConfigError, IDENTITY_VARIABLE, NODE_SOCKET, SYSTEM_CONFIG, SetupError, TOKEN_VARIABLE,
    identity_from_env, token_from_env, trust_from_env,
};
pub use config_file::FileProblem;
pub use connect::ConnectError;
pub use decryptor::Decryptor;
pub use encryptor::Encryptor;
pub use envelope::EnvelopeError;
pub use error::{Error, Refusal};
pub use keys::{KeyChange, VersionChange};
/// Names and values that are bound to a ciphertext.
pub use lastkey_crypto::context::{ContextError, EncryptionContext};
/// The header of an envelope, who can open it, and keys of age.
pub use lastkey_crypto::envelope::{
    AgeIdentity, AgeKeyError, AgeRecipient, Header, Recipient, RecipientName, Suite,
};
/// What a finished stream amounted to, and why one ended early.
pub use lastkey_crypto::stream::{StreamError, StreamStats, read_header};
/// Bytes that are wiped when they are dropped.
pub use lastkey_secret::{SecretArray, SecretVec};
/// The shapes of requests and replies.
pub use lastkey_wire as wire;
pub use range::RangeReader;
pub use reader::DecryptReader;
pub use retry::RetryPolicy;
pub use rewrap::{Rewrap, Rewrapped, key_id_text};
pub use trust::{Fingerprint, Trust, TrustError, pinned_verifier};
pub use writer::EncryptWriter;
