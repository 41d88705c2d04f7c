//! The data keys of a run: few calls for many files.
//!
//! Room      `lastkey`.
//! Holds     A data key serves at most 1,000 files; each file has its own salt, and so its own
//!           keys. Threads that need the same data key wait for one call. This is the cache of
//!           the library.

use std::sync::Arc;

use lastkey_client::{DataKeyCache, Decryptor, Encryptor, ProtectedKey};
use lastkey_crypto::envelope::{EnvelopeOptions, Header};
use tokio::runtime::Handle;

use crate::cli::failure::Failure;

/// Data keys for files to encrypt.
pub(super) struct Supply {
    runtime: Handle,
    encryptor: Encryptor,
}

impl Supply {
    /// To be made in the runtime that the calls are made by.
    pub(super) fn new(encryptor: Encryptor, cache: &DataKeyCache) -> Self {
        Self { runtime: Handle::current(), encryptor: encryptor.cache(cache) }
    }

    /// The data key of the next file.
    pub(super) fn next(&self, len: u64) -> Result<(Arc<ProtectedKey>, EnvelopeOptions), Failure> {
        Ok(self.runtime.block_on(self.encryptor.data_key(len))?)
    }
}

/// Data keys of files that are encrypted already.
pub(super) struct Known {
    runtime: Handle,
    decryptor: Option<Decryptor>,
}

impl Known {
    /// To be made in the runtime that the calls are made by.
    pub(super) fn new(decryptor: Option<Decryptor>, cache: &DataKeyCache) -> Self {
        let decryptor = decryptor.map(|decryptor| decryptor.cache(cache));
        Self { runtime: Handle::current(), decryptor }
    }

    /// The data key of an envelope, or why there is none. Decrypting begins with the proof that
    /// it is that of the header.
    pub(super) fn data_key(&self, header: &Header) -> Result<Arc<ProtectedKey>, Failure> {
        Ok(self.runtime.block_on(self.decryptor()?.data_key(header))?)
    }

    /// Proves that the header is that of an envelope which can be decrypted.
    pub(super) fn prove(&self, header: &Header) -> Result<(), Failure> {
        self.runtime.block_on(self.decryptor()?.proven_key(header))?;
        Ok(())
    }

    fn decryptor(&self) -> Result<&Decryptor, Failure> {
        let cannot = Failure::NotValid("an encrypted file whose header cannot be verified");
        self.decryptor.as_ref().ok_or(cannot)
    }
}
