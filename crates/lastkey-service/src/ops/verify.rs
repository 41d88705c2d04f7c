//! Use case: verify a signature.
//!
//! Room      `service`.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::key::KeyUsage;
use lastkey_core::permit::Verify;
use lastkey_core::state::Purpose;
use lastkey_crypto::sign::SignAlgorithm;
use lastkey_secret::SecretVec;

use super::sign::{MessageType, algorithm_for, check_message};
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::{Engine, KeyUse};
use crate::error::Error;
use crate::keyring::OpenMaterial;

/// What is to be verified.
#[derive(Debug)]
pub struct Request {
    /// The key.
    pub key: KeyRef,
    /// The version that signed; default the primary one.
    pub version: Option<VersionNo>,
    /// The message, at most 65,536 bytes.
    pub message: SecretVec,
    /// What the message is.
    pub message_type: MessageType,
    /// The algorithm; default the first one of the key's spec.
    pub algorithm: Option<SignAlgorithm>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Whether it holds.
#[derive(Debug)]
pub struct Reply {
    /// Whether the signature is one of this message by this version.
    pub valid: bool,
    /// The algorithm.
    pub algorithm: SignAlgorithm,
    /// The key.
    pub key: KeyId,
    /// The version.
    pub version: VersionNo,
}

impl Engine {
    /// Verifies a signature.
    ///
    /// # Errors
    /// As [`Engine::sign`]; a signature that does not hold is no error.
    pub async fn verify(&self, call: &Call, request: Request) -> Result<Reply, Error> {
        let mut trail = Trail::of::<Verify>(self, call);
        let outcome = self.try_verify(&mut trail, &request).await;
        trail.close(self, outcome).await
    }

    async fn try_verify(&self, trail: &mut Trail<'_>, request: &Request) -> Result<Reply, Error> {
        check_message(&request.message)?;
        let permit = self.permit_key::<Verify>(trail, &request.key).await?;
        let loaded = self.load_key(trail, &permit).await?;
        let algorithm = algorithm_for(loaded.key.spec, request.algorithm)?;
        let key_use = KeyUse::of(KeyUsage::SignVerify, Purpose::Process, request.version);
        let open = self.open_for_use(trail, &loaded, key_use).await?;
        let Some(OpenMaterial::Sign(pair)) = &open.material else {
            return Err(Error::KeyUsage);
        };
        let valid = request.message.expose(|bytes| {
            let message = request.message_type.message(bytes);
            pair.1.verify(algorithm, message, &request.signature)
        })?;
        if !valid {
            trail.reason = "the signature does not hold".into();
        }
        Ok(Reply { valid, algorithm, key: loaded.key.id, version: open.number })
    }
}
