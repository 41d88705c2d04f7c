//! Everything that the server calls: devices and services that hold the key of a seal, issuers,
//! buckets and whoever else is reached over the network.
//!
//! Room      `connect`. Adapters behind ports of `core`; the binary chooses among them.
//! Holds     nothing here decides who may do what. What comes back from outside is parsed as
//!           hostile bytes, and a device that does not answer is given up. URLs that somebody
//!           named are called through [`guard`] alone.

pub mod bucket;
pub mod database;
pub mod guard;
pub mod issuers;
pub mod seal;
pub mod webhooks;
