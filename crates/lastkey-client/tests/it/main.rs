//! The client against servers that answer as they are told: trust, errors, envelopes.
//!
//! Room      `client`, tests. A real server would hide the answers that go wrong; the journeys
//!           with a real one are tests of the binary.
#![expect(clippy::unwrap_used, reason = "helpers of tests stop at the first surprise, as tests do")]

mod blocking;
mod calls;
mod config;
mod envelope;
mod keeper;
mod library;
mod retry;
mod scripted;
mod trust;
