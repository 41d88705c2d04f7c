//! One call of a use case: who makes it, and whether he only asks.
//!
//! Room      `service`.

use lastkey_core::principal::Caller;

/// One call of a use case.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who makes it.
    pub caller: Caller,
    /// Whether to stop before anything is done, with [`crate::error::Error::DryRun`] if the call
    /// would have been allowed.
    pub dry_run: bool,
}

impl Call {
    /// Stops a dry run that has passed every check.
    ///
    /// # Errors
    /// [`crate::error::Error::DryRun`] in a dry run.
    pub(crate) const fn go_on(&self) -> Result<(), crate::error::Error> {
        if self.dry_run { Err(crate::error::Error::DryRun) } else { Ok(()) }
    }
}
