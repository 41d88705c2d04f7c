//! Doors on a node: the Kubernetes KMS v2 plugin, and the provider of secrets for volumes; and the
//! form in which the key of the node is sealed.
//!
//! Room      `node`. Serves unix sockets and calls what stands behind [`ports`]; the binary puts
//!           a remote server there, or one in the same process.
//! Holds     Knows no Kubernetes API, no server and no client of one: it works before any of
//!           them does.

mod client_check;
pub mod csi;
mod fields;
pub mod grpc;
pub mod kmsv2;
pub mod page;
pub mod ports;
pub mod sealed_key;
pub mod socket;
pub mod tokens;
