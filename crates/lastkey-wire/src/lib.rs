//! Shapes of the native API on the wire, and of gRPC services of others. No logic.
//!
//! Room      `wire` - shared by the HTTP door and the client.
//! Holds     requests refuse unknown fields; a field that carries plaintext, key material, a
//!           passphrase or a token is [`SecretBase64`] or [`SecretText`], which print nothing
//!           and wipe themselves; no error message of this crate repeats what was sent.

mod binary;
pub mod grpc;
mod map;
pub mod native;
mod text;
pub mod words;

pub use binary::{Base64Bytes, SecretBase64};
pub use map::StringMap;
pub use text::SecretText;
