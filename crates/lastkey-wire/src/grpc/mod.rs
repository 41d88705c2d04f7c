//! Messages of gRPC services that others have defined, as structs of our own.
//!
//! Room      `wire`. Field numbers and types are facts of the protocol; each file has a test that
//!           compares its bytes with those that the protocol fixes.

pub mod csi;
pub mod csi_provider;
pub mod etcd;
pub mod health;
pub mod kmsv2;
pub mod registration;

/// What every message can do: be encoded and decoded.
pub use prost::Message;
