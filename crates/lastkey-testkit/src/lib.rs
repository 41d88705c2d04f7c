//! Fakes, fixed clock and entropy, fixtures, conformance suites. For tests only.
//!
//! Room      `testkit`. No product crate imports it outside its tests.
//! Holds     nothing here reads a clock, draws randomness of the system or touches a disk:
//!           every test that stands on it runs the same way each time.

#![expect(clippy::expect_used, reason = "a suite or fixture that does not hold fails its test")]

pub mod authenticator;
pub mod clock;
pub mod conformance;
pub mod entropy;
pub mod fakes;
pub mod fixtures;
