//! The service through its public face, over the fakes of `testkit`.

#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests start another implementation"
)]

mod audit;
mod backups;
mod deletion;
mod holdings;
mod import;
mod keys;
mod leases;
mod lifecycle;
mod node_kubelet;
mod node_revocation;
mod node_tpm;
mod nodes;
mod operations;
mod oracle;
mod people;
mod rotation;
mod sealing;
mod seals;
mod secret_rotation;
mod secrets;
mod unsealing;
mod world;
