//! Use case: draw a key pair for use outside, and its wrapped private half to keep.
//!
//! Room      `service`.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::permit::GenerateDataKeyPair;
use lastkey_crypto::context::EncryptionContext;
use lastkey_crypto::material::{self, MaterialSpec};
use lastkey_secret::SecretVec;

use super::encrypt;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::Engine;
use crate::error::Error;

/// Which key pair.
#[derive(Debug)]
pub struct Request {
    /// The key that wraps the private half.
    pub key: KeyRef,
    /// What pair; an asymmetric spec.
    pub pair_spec: MaterialSpec,
    /// Bound to the wrapped private half.
    pub context: EncryptionContext,
    /// Whether to leave the private half out of the answer.
    pub without_private: bool,
}

/// A key pair.
#[derive(Debug)]
pub struct Reply {
    /// The private half as PKCS#8 in DER, unless it was left out.
    pub private: Option<SecretVec>,
    /// The private half, wrapped.
    pub private_ciphertext: Vec<u8>,
    /// The public half as SubjectPublicKeyInfo in DER.
    pub public: Vec<u8>,
    /// The key that wraps it.
    pub key: KeyId,
    /// Its version.
    pub version: VersionNo,
}

impl Engine {
    /// Draws a key pair.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a symmetric spec, and those of [`Engine::encrypt`].
    pub async fn generate_data_key_pair(
        &self,
        call: &Call,
        request: Request,
    ) -> Result<Reply, Error> {
        let mut trail = Trail::of::<GenerateDataKeyPair>(self, call).with_context(&request.context);
        let outcome = self.try_data_key_pair(&mut trail, &request).await;
        trail.close(self, outcome).await
    }

    async fn try_data_key_pair(
        &self,
        trail: &mut Trail<'_>,
        request: &Request,
    ) -> Result<Reply, Error> {
        if request.pair_spec.symmetric_len().is_some() {
            return Err(Error::invalid("pair_spec", "a key pair has an asymmetric spec"));
        }
        let permit = self.permit_key::<GenerateDataKeyPair>(trail, &request.key).await?;
        let private = self.generate_material(request.pair_spec).await?;
        let public = material::public_key_der(request.pair_spec, &private)
            .map_err(|error| Error::Internal(error.into()))?;
        let wrapped = self.protect(trail, &permit, &private, &request.context).await?;
        let encrypt::Reply { ciphertext: private_ciphertext, key, version } = wrapped;
        let private = (!request.without_private).then_some(private);
        Ok(Reply { private, private_ciphertext, public, key, version })
    }
}
