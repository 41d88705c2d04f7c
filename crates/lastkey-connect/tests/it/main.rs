//! The devices that seal, for real: swtpm and SoftHSM2 are started by these tests. The guard,
//! against servers on loopback.
//!
//! Room      `connect`.

#![cfg(test)]

mod databases;
mod guard;
mod mischief;
mod oracle;
mod pkcs11;
mod server;
mod softhsm;
mod swtpm;
mod tpm;
mod webhooks;

use std::io::Write as _;
use std::process::Command;

/// Whether a program is installed; says loudly that the test did not run when it is not.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").arg("-c").arg(format!("command -v {program}")).output();
    let found = found.unwrap().status.success();
    if !found {
        let _ = writeln!(std::io::stderr(), "NOT RUN: {program} is missing (scripts/setup)");
    }
    found
}
