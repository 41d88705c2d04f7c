//! Use case: draw random bytes.
//!
//! Room      `service`.

use lastkey_core::limits::MAX_RANDOM_LEN;
use lastkey_core::permit::{GenerateRandom, Resource};
use lastkey_secret::SecretVec;

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;

impl Engine {
    /// Draws 1 to 65,536 random bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another length; [`Error::Denied`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn generate_random(&self, call: &Call, length: usize) -> Result<SecretVec, Error> {
        let mut trail = Trail::of::<GenerateRandom>(self, call);
        let outcome = self.try_random(&mut trail, length);
        trail.close(self, outcome).await
    }

    fn try_random(&self, trail: &mut Trail<'_>, length: usize) -> Result<SecretVec, Error> {
        if !(1..=MAX_RANDOM_LEN).contains(&length) {
            return Err(Error::invalid("bytes", "1 to 65536 random bytes at a time"));
        }
        self.permit::<GenerateRandom>(trail, Resource::Instance)?;
        trail.call().go_on()?;
        self.draw(length)
    }
}
