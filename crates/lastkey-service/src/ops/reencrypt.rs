//! Use case: move a ciphertext to another key, version or context; the plaintext never leaves.
//!
//! Room      `service`.
//! Holds     both sides are authorized and both leave a record of their own.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::permit::{ReEncryptFrom, ReEncryptTo};
use lastkey_crypto::context::EncryptionContext;

use super::{decrypt, encrypt};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;

/// What is to be moved, and whereto.
#[derive(Debug)]
pub struct Request {
    /// The ciphertext as it is.
    pub ciphertext: Vec<u8>,
    /// The context it was encrypted with.
    pub context: EncryptionContext,
    /// Its key; needed for RSA ciphertexts.
    pub from_key: Option<KeyRef>,
    /// Its version, for RSA ciphertexts only.
    pub from_version: Option<VersionNo>,
    /// The key it moves to; its primary version protects it then.
    pub to_key: KeyRef,
    /// The context it has then.
    pub to_context: EncryptionContext,
}

/// The moved ciphertext.
#[derive(Debug)]
pub struct Reply {
    /// The new ciphertext.
    pub ciphertext: Vec<u8>,
    /// The key that protects it now.
    pub key: KeyId,
    /// Its version.
    pub version: VersionNo,
    /// The key that protected it before.
    pub source_key: KeyId,
    /// Its version.
    pub source_version: VersionNo,
}

impl Engine {
    /// Re-encrypts.
    ///
    /// # Errors
    /// Those of [`Engine::decrypt`] and [`Engine::encrypt`].
    pub async fn reencrypt(&self, call: &Call, request: Request) -> Result<Reply, Error> {
        let Request { ciphertext, context, from_key, from_version, to_key, to_context } = request;
        let mut trail = Trail::of::<ReEncryptTo>(self, call).with_context(&to_context);
        let permit = match self.permit_key::<ReEncryptTo>(&mut trail, &to_key).await {
            Ok(permit) => permit,
            Err(error) => return trail.close(self, Err(error)).await,
        };
        let source = decrypt::Request { ciphertext, context, key: from_key, version: from_version };
        let opened = match self.reencrypt_source(call, &source).await {
            Ok(source) => Some(source),
            Err(Error::DryRun) => None,
            Err(error) => {
                trail.reason = "the source does not open".into();
                return trail.close(self, Err(error)).await;
            }
        };
        let nothing = lastkey_secret::SecretVec::copy_of(&[]);
        let plaintext = opened.as_ref().map_or(&nothing, |source| &source.plaintext);
        let outcome = self.protect(&mut trail, &permit, plaintext, &to_context).await;
        let encrypt::Reply { ciphertext, key, version } = trail.close(self, outcome).await?;
        let source = opened.ok_or(Error::DryRun)?;
        let (source_key, source_version) = (source.key, source.version);
        Ok(Reply { ciphertext, key, version, source_key, source_version })
    }

    async fn reencrypt_source(
        &self,
        call: &Call,
        request: &decrypt::Request,
    ) -> Result<decrypt::Reply, Error> {
        let mut trail = Trail::of::<ReEncryptFrom>(self, call).with_context(&request.context);
        let outcome = self.try_decrypt::<ReEncryptFrom>(&mut trail, request).await;
        trail.close(self, outcome).await
    }
}
