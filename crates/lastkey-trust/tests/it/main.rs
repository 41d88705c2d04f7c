//! The public face of the room: attacks by name, formats end to end, other implementations.
//!
//! Room      `trust`, tests. One binary.

#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests read vectors, start other implementations and take times"
)]

mod attacks;
mod attestation;
mod kubelet;
mod node_authority;
mod oidc;
mod oracle;
mod sessions;
mod sigv4;
mod speed;
mod support;
mod svid;
mod tokens;
mod vectors;
mod x509;
