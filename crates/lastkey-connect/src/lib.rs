//! Everything that the server calls: devices and services that hold the key of a seal.
//!
//! Room      `connect`. Adapters behind ports of `core`; the binary chooses among them.
//! Holds     nothing here decides who may do what. What comes back from outside is parsed as
//!           hostile bytes, and a device that does not answer is given up.

pub mod seal;
