//! Suites that every implementation of a port has to pass.
//!
//! Room      `testkit`.

pub mod sealed_store;
pub mod store;
