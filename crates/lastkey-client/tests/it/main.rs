//! The client against servers that answer as they are told: trust, errors, envelopes.
//!
//! Room      `client`, tests. A real server would hide the answers that go wrong; the journeys
//!           with a real one are tests of the binary.
#![cfg(test)]

mod blocking;
mod calls;
mod config;
mod envelope;
mod keeper;
mod library;
mod offline;
mod retry;
mod rewrap;
mod scripted;
mod trust;
