//! The public face of the room: formats end to end, vectors, other implementations.
//!
//! Room      `crypto`, tests. One binary.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests read vectors and start other implementations; the room touches nothing"
)]
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail loudly"
)]

mod envelope;
mod oracle;
mod stream;
mod support;
mod vectors;
mod wycheproof;
