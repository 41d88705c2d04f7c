//! The `lastkey` binary.
//!
//! Room      the binary. The only room that knows all others: it reads configuration, builds
//!           the parts and joins them.

mod adapters;
mod buckets;
mod cli;
mod config;
mod device_unseal;
mod devices;
mod hardening;
mod in_cluster;
mod node_key;
mod passphrase;
mod roles;
mod say;
mod telemetry;
mod tls_identity;
mod wiring;
mod witnessing;

use std::process::ExitCode;

/// Version of the product; a release build sets it.
const VERSION: &str = match option_env!("LASTKEY_VERSION") {
    Some(version) => version,
    None => "0.1.0-dev",
};

fn main() -> ExitCode {
    cli::run()
}
