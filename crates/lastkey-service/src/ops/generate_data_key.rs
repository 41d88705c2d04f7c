//! Use case: draw a data key for local encryption, and its wrapped form to keep beside the data.
//!
//! Room      `service`.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::limits::MAX_DATA_KEY_LEN;
use lastkey_core::permit::{Action, GenerateDataKey, GenerateDataKeyWithoutPlaintext};
use lastkey_crypto::context::EncryptionContext;
use lastkey_secret::SecretVec;

use super::encrypt;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;

/// Which data key.
#[derive(Debug)]
pub struct Request {
    /// The key that wraps it.
    pub key: KeyRef,
    /// Its length: 1 to 1,024 bytes.
    pub length: usize,
    /// Bound to the wrapped form.
    pub context: EncryptionContext,
}

/// A data key and its wrapped form.
#[derive(Debug)]
pub struct Reply {
    /// The data key.
    pub plaintext: SecretVec,
    /// The data key, wrapped: what [`Engine::decrypt`] takes.
    pub ciphertext: Vec<u8>,
    /// The key that wraps it.
    pub key: KeyId,
    /// Its version.
    pub version: VersionNo,
}

impl Engine {
    /// Draws a data key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a length outside 1 to 1,024, and those of [`Engine::encrypt`].
    pub async fn generate_data_key(&self, call: &Call, request: Request) -> Result<Reply, Error> {
        let (plaintext, wrapped) = self.wrapped_draw::<GenerateDataKey>(call, &request).await?;
        let encrypt::Reply { ciphertext, key, version } = wrapped;
        Ok(Reply { plaintext, ciphertext, key, version })
    }

    /// Draws a data key and answers only its wrapped form.
    ///
    /// # Errors
    /// As [`Engine::generate_data_key`].
    pub async fn generate_data_key_without_plaintext(
        &self,
        call: &Call,
        request: Request,
    ) -> Result<encrypt::Reply, Error> {
        let drawn = self.wrapped_draw::<GenerateDataKeyWithoutPlaintext>(call, &request).await?;
        Ok(drawn.1)
    }

    async fn wrapped_draw<A: Action>(
        &self,
        call: &Call,
        request: &Request,
    ) -> Result<(SecretVec, encrypt::Reply), Error> {
        let mut trail = Trail::of::<A>(self, call).with_context(&request.context);
        let outcome = self.try_wrapped_draw::<A>(&mut trail, request).await;
        trail.close(self, outcome).await
    }

    async fn try_wrapped_draw<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        request: &Request,
    ) -> Result<(SecretVec, encrypt::Reply), Error> {
        if !(1..=MAX_DATA_KEY_LEN).contains(&request.length) {
            return Err(Error::invalid("bytes", "a data key has 1 to 1024 bytes"));
        }
        let permit = self.permit_key::<A>(trail, &request.key).await?;
        let plaintext = self.draw(request.length)?;
        let wrapped = self.protect(trail, &permit, &plaintext, &request.context).await?;
        Ok((plaintext, wrapped))
    }

    /// Draws secret bytes.
    ///
    /// # Errors
    /// [`Error::Internal`] when no randomness can be had.
    pub(crate) fn draw(&self, length: usize) -> Result<SecretVec, Error> {
        let mut entropy = self.ports.entropy.open();
        SecretVec::try_fill(length, |bytes| entropy.fill(bytes))
            .map_err(|error| Error::Internal(error.into()))
    }
}
