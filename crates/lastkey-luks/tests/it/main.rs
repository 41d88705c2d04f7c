//! LUKS2 headers over a medium in memory that crashes, and with cryptsetup as the judge.
//!
//! Room      `luks`, tests. One binary.

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

mod cryptsetup;
mod header;
mod media;
mod vectors;
