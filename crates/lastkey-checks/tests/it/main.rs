//! The public face of the room: what is found, and what is left.
//!
//! Room      `checks`, tests. Secrets are put together when a test runs, so that no file of this
//!           repository holds one.

#![cfg(test)]

mod archives;
mod foreign;
mod made;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the judge is a program of another language"
)]
mod oracle;
mod planted;
mod planted_posture;
