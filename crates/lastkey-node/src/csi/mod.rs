//! The provider of secrets: what the Secrets Store CSI driver asks for the files of a volume.
//!
//! Room      `node`. Reads secrets in the name of pods, by their own tokens, and hands their
//!           volumes to an unmodified driver.
//! Source    Secrets Store CSI driver 1.6, `provider/v1alpha1`; docs/kubernetes/secrets.md.
//! Holds     The token of the pod is the only authority for what is read. A volume that is asked
//!           for again costs the service nothing while nothing changed. Every refusal is final to
//!           the driver, so no pod starts with an empty volume.

mod dialect;
mod door;
mod format;
mod held;
mod keystore;
mod logged;
mod metrics;
mod outage;
mod plan;
mod provider;
mod query;
mod reading;
mod refusal;
mod render;
mod request;
mod servers;
mod template;
#[cfg(test)]
mod tests;
mod volume;
mod watch;

pub use dialect::{NoPersonality, Personality};
pub use door::serve;
pub use provider::{OutageConfig, Provider, ProviderConfig};
pub use refusal::Refusal;
pub use servers::Providers;
