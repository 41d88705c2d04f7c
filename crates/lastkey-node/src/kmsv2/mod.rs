//! The Kubernetes KMS v2 plugin.
//!
//! Room      `node`. The API server encrypts each object under a key derived from a seed of its
//!           own; the plugin protects the seeds: under a local key in memory, which the key
//!           service protects. So Encrypt and Decrypt cost no remote call, and an outage of the
//!           service stops nothing for as long as the operator allows.
//! Source    KEP-3299, `apis/v2/api.proto` of k8s.io/kms; docs/formats/kmsv2.md.
//! Holds     Status never makes a remote call. Encrypt and Status answer from one snapshot.
//!           What an operator refused (a disabled key, a lost right) is refused here within
//!           seconds, and the local keys are dropped.

mod announce;
pub mod ciphertext;
mod door;
#[cfg(test)]
mod fake;
mod kept;
pub mod kept_file;
mod key_id;
mod local_key;
mod metrics;
mod page;
mod provider;
mod refresh;
mod serve;
#[cfg(test)]
mod tests;

pub use key_id::{KEY_ID_PREFIX, key_id_hash};
pub use metrics::{Expiry, Metrics};
pub use page::Page;
pub use provider::{Denial, Health, Provider, ProviderConfig, WhenAway};
pub use refresh::{KEY_VERSION_ANNOTATION, refresh};
pub use serve::serve;
