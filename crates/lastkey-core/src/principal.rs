//! Who calls: what a caller presented, and who he is once that was verified.
//!
//! Room      `core`.

use core::fmt;
use std::sync::Arc;

use lastkey_secret::SecretVec;

use crate::ids::RequestId;

/// Who calls, after authentication. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The server itself: rotation, deletion and expiry by schedule.
    pub const SCHEDULER: &'static str = "system:scheduler";
    /// The administrator whose token was minted at `init`.
    pub const ADMIN: &'static str = "admin";

    /// A principal of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The name, as policies and the audit log write it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({})", self.0)
    }
}

/// What a caller presented to show who he is.
#[derive(Debug)]
pub enum Presented {
    /// Nothing.
    Nothing,
    /// A bearer token.
    Bearer(SecretVec),
}

/// One authenticated call: who, and under which request id.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who calls.
    pub principal: Principal,
    /// Identity of the request.
    pub request: RequestId,
}
