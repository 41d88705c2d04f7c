//! Use cases of Lastkey: one file for each operation; every door calls these and nothing deeper.
//!
//! Room      `service` - reaches the world through the ports of `core` only.
//! Holds     one order, always: authorize, (intend,) act, record. A key is opened only with a
//!           permit, and its id is taken from the permit.

mod access;
mod attempts;
mod audit_head;
mod audited;
mod authenticate;
pub mod backup_schedule;
mod change;
mod clock;
mod custody;
mod gathering;
mod holders;
mod keyring;
mod liveness;
mod renewal;
pub mod restoring;
mod root;
mod seal_authority;
mod seal_book;
mod seats;
mod secret_box;
mod unsealing;
mod usage;

pub mod call;
pub mod engine;
pub mod error;
pub mod jobs;
pub mod ops;
pub mod people;
pub mod rollback;
pub mod sealing;
pub mod seals;
pub mod view;
pub mod weakness;
