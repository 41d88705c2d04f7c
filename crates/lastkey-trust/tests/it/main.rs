//! The public face of the room: attacks by name, formats end to end, other implementations.
//!
//! Room      `trust`, tests. One binary.

#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests read vectors, start other implementations and take times"
)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "helpers of tests fail loudly"
)]

mod attacks;
mod oidc;
mod sessions;
mod sigv4;
mod speed;
mod support;
mod tokens;
mod x509;
