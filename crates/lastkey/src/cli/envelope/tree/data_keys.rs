//! The data keys of a run: few calls for many files.
//!
//! Room      `lastkey`.
//! Holds     A data key serves at most 1,000 files; each file has its own salt, and so its own
//!           keys. Threads that need the same data key wait for one call.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use lastkey_crypto::{
    digest::sha256_of,
    envelope::{EnvelopeOptions, Header},
};
use lastkey_secret::SecretArray;
use tokio::runtime::Handle;

use super::super::keys::{Opener, Protected, Recipients, failed};
use crate::cli::failure::Failure;

/// Files that one data key serves.
const FILES: u32 = 1_000;
/// Data keys of foreign envelopes that are remembered.
const REMEMBERED: usize = 64;

/// Data keys for files to encrypt.
pub(super) struct Supply {
    runtime: Handle,
    recipients: Recipients,
    options: EnvelopeOptions,
    current: Mutex<Option<(Arc<Ready>, u32)>>,
}

/// A data key, its recipients, and how envelopes are made of them.
pub(super) struct Ready {
    pub(super) protected: Protected,
    pub(super) options: EnvelopeOptions,
}

impl Supply {
    pub(super) fn new(runtime: Handle, recipients: Recipients, options: EnvelopeOptions) -> Self {
        Self { runtime, recipients, options, current: Mutex::new(None) }
    }

    /// The data key of the next file.
    pub(super) fn next(&self) -> Result<Arc<Ready>, Failure> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((ready, used)) = current.as_mut().filter(|(_, used)| *used < FILES) {
            *used += 1;
            return Ok(Arc::clone(ready));
        }
        let mut options = self.options.clone();
        let protected = self.runtime.block_on(self.recipients.protect(&options.context))?;
        options.fit(&protected.recipients).map_err(failed)?;
        let ready = Arc::new(Ready { protected, options });
        *current = Some((Arc::clone(&ready), 1));
        Ok(ready)
    }
}

/// Data keys of files that are encrypted already.
pub(super) struct Known {
    runtime: Handle,
    opener: Option<Opener>,
    remembered: Mutex<HashMap<[u8; 32], Arc<SecretArray<32>>>>,
}

impl Known {
    pub(super) fn new(runtime: Handle, opener: Option<Opener>) -> Self {
        Self { runtime, opener, remembered: Mutex::new(HashMap::new()) }
    }

    /// The data key of an envelope, or why there is none. It is proven to be the one of the
    /// header.
    pub(super) fn data_key(&self, header: &Header) -> Result<Arc<SecretArray<32>>, Failure> {
        let place = place_of(header);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data_key) = remembered.get(&place) {
            let proven = header.unlock(data_key).map(|_| Arc::clone(data_key));
            return proven.map_err(failed);
        }
        let Some(opener) = &self.opener else {
            return Err(Failure::NotValid("an encrypted file whose header cannot be verified"));
        };
        let data_key = Arc::new(self.runtime.block_on(opener.data_key(header))?);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(place, Arc::clone(&data_key));
        Ok(data_key)
    }
}

/// Files of one data key have the same recipients and context.
fn place_of(header: &Header) -> [u8; 32] {
    let bodies = header.recipients().iter().map(|recipient| recipient.body.as_slice());
    let parts: Vec<&[u8]> = std::iter::once(header.context().encoded()).chain(bodies).collect();
    sha256_of(&parts)
}
