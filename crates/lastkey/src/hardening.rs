//! What the process denies itself: core dumps, being read by others of the same user, swap; and
//! the memory that it gives back.
//!
//! Room      the binary.

use std::time::Duration;

use lastkey_kernel::{code, heap};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use tokio::time::sleep;

/// Switches core dumps off and makes the process non-dumpable (`prctl(PR_SET_DUMPABLE, 0)`).
///
/// # Errors
/// When the kernel refuses, which it has no reason to.
pub(crate) fn apply() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Keeps every page of the process, those to come as well, out of the swap space; pages that are
/// never touched take no memory.
///
/// # Errors
/// A sentence why not. A process with a limit on locked memory is left as it is: it would run out
/// of memory where it least expects it.
pub(crate) fn lock_memory() -> Result<(), String> {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    if !unlimited && !may_lock_memory() {
        return Err("it needs CAP_IPC_LOCK, or LimitMEMLOCK=infinity".to_owned());
    }
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(all).map_err(|error| format!("the kernel refuses: {error}"))
}

/// Has what long buffers took go back when they are freed: a service lives on for months after a
/// start that read much. A command that ends soon is quicker without.
pub(crate) fn give_back_early() {
    heap::give_back_early();
}

/// Gives the memory back that code and constants of the start take, and takes all of them out of
/// what is locked: they are no secret, and are read from their file again where they are used.
pub(crate) fn release_code() {
    if let Err(error) = code::release() {
        tracing::debug!(%error, "the code of the start stays in memory");
    }
}

/// The same once more, when the first connections are made and the first questions were answered.
pub(crate) async fn release_code_again() {
    sleep(SETTLED).await;
    release_code();
}

const SETTLED: Duration = Duration::from_secs(10);

/// Whether the process has CAP_IPC_LOCK (capabilities(7), bit 14).
fn may_lock_memory() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << 14) != 0)
}
