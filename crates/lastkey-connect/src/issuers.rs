//! Documents of issuers, through the guard.
//!
//! Room      `connect`.

use async_trait::async_trait;
use lastkey_core::outside::Issuers;
use lastkey_core::ports::Cause;

use crate::guard::{Guard, Limits, Outgoing, Trust};

/// Reads over the network whom the guard allows.
#[derive(Debug)]
pub struct GuardedIssuers {
    guard: Guard,
}

impl GuardedIssuers {
    /// Behind this guard.
    #[must_use]
    pub const fn behind(guard: Guard) -> Self {
        Self { guard }
    }
}

#[async_trait]
impl Issuers for GuardedIssuers {
    async fn read(&self, url: &str, authority: Option<&str>) -> Result<Vec<u8>, Cause> {
        let route = self.guard.route(url, &Trust::from(authority), None)?;
        let answer = route.call(Outgoing::get(""), Limits::default()).await?;
        if !answer.status.is_success() {
            return Err(format!("{} answered {}", route.host(), answer.status.as_u16()).into());
        }
        Ok(answer.body.to_vec())
    }
}
