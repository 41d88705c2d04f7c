//! The door as a client sees it: real sockets, the real service, a store in memory.
//!
//! Room      `http`, tests.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that does not hold fails its test"
)]

mod certificates;
mod client;
mod life;
mod limits;
mod logs;
mod requests;
mod routes;
mod world;
