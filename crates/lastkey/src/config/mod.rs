//! Configuration in two stages: what was typed, and a resolved form that holds no unsafe mix.
//!
//! Room      the binary.

pub(crate) mod file;
pub(crate) mod resolved;
