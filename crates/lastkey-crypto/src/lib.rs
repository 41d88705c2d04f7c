//! Cryptography of Lastkey, composed from aws-lc-rs: blobs, envelopes, key wrap, signatures.
//!
//! Room      `crypto`. Formats and operations on key material; knows no key, no policy, no
//!           state. Reads and writes nothing by itself; randomness comes in as
//!           [`entropy::Entropy`].
//! Source    The formats are in `docs/formats/`; each module names its standard.
//! Holds     Plaintext and key material leave only as `lastkey_secret` types. Nothing is
//!           returned before it was authenticated.

pub mod blob;
pub mod context;
pub mod digest;
pub mod entropy;
pub mod envelope;
pub mod hpke;
pub mod import;
pub mod kdf;
pub mod kubernetes;
pub mod mac;
pub mod material;
pub mod oaep;
pub mod share;
pub mod sign;
pub mod stream;
pub mod wrap;

mod aead;
mod bech32;
mod hkdf;
mod pair;
#[cfg(feature = "sm")]
mod sm;
#[cfg(test)]
mod testing;
