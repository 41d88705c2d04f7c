//! Client of Lastkey: remote calls and local envelope encryption.
//!
//! Room      `client`. Programs depend on it alone. [`Client`] has a method for each route of
//!           the native API; [`envelope`] encrypts files of any size with data keys.
//! Holds     The token, plaintext and data keys live in `lastkey_secret` types; bodies are
//!           wiped after use. Buffers of TLS, HTTP and JSON are not ours to wipe.

mod access;
mod addr;
mod call;
mod client;
mod config;
mod connect;
pub mod envelope;
mod error;
pub mod file;
mod keys;
mod operations;
mod transport;
mod trust;

pub use addr::{Addr, AddrError};
pub use call::Call;
pub use client::Client;
pub use config::{
    ADDR_VARIABLE, CA_FINGERPRINT_VARIABLE, CA_VARIABLE, ClientConfig, ConfigError, TOKEN_VARIABLE,
    token_from_env, trust_from_env,
};
pub use connect::ConnectError;
pub use error::{Error, Refusal};
pub use keys::{KeyChange, VersionChange};
/// The shapes of requests and replies.
pub use lastkey_wire as wire;
pub use trust::{Fingerprint, Trust, TrustError};
