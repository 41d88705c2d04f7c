//! What the process denies itself: core dumps and being read by others of the same user.
//!
//! Room      the binary.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Switches core dumps off and makes the process non-dumpable (`prctl(PR_SET_DUMPABLE, 0)`).
///
/// # Errors
/// When the kernel refuses, which it has no reason to.
pub(crate) fn apply() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
