//! Use case: recover what a key protects. The ciphertext says which key and version.
//!
//! Room      `service`.
//! Holds     every failure of the ciphertext itself is the same [`Error::Undecryptable`]; the
//!           reason goes to the audit log.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::key::KeyUsage;
use lastkey_core::permit::{Action, Decrypt};
use lastkey_core::state::Purpose;
use lastkey_crypto::blob;
use lastkey_crypto::context::EncryptionContext;
use lastkey_secret::SecretVec;

use super::encrypt::refuse_context;
use crate::audited::Trail;
use crate::call::Call;
use crate::engine::{Engine, KeyUse};
use crate::error::Error;
use crate::keyring::{LoadedKey, OpenMaterial};

/// What is to be recovered.
#[derive(Debug)]
pub struct Request {
    /// A blob, or the raw ciphertext of an RSA key.
    pub ciphertext: Vec<u8>,
    /// The context it was encrypted with.
    pub context: EncryptionContext,
    /// The key; needed for RSA ciphertexts. With a blob it must be the blob's own key.
    pub key: Option<KeyRef>,
    /// The version, for RSA ciphertexts only; default the primary one.
    pub version: Option<VersionNo>,
}

/// What was recovered, and what had protected it.
#[derive(Debug)]
pub struct Reply {
    /// The plaintext.
    pub plaintext: SecretVec,
    /// The key.
    pub key: KeyId,
    /// The version.
    pub version: VersionNo,
}

impl Engine {
    /// Decrypts.
    ///
    /// # Errors
    /// [`Error::Undecryptable`], [`Error::Denied`], [`Error::KeyState`], [`Error::KeyUsage`],
    /// [`Error::Invalid`], [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn decrypt(&self, call: &Call, request: Request) -> Result<Reply, Error> {
        let mut trail = Trail::of::<Decrypt>(self, call).with_context(&request.context);
        let outcome = self.try_decrypt::<Decrypt>(&mut trail, &request).await;
        trail.close(self, outcome).await
    }

    /// Decrypts under whichever action the caller needs: Decrypt itself, or the source side of a
    /// re-encryption.
    ///
    /// # Errors
    /// As [`Engine::decrypt`].
    pub(crate) async fn try_decrypt<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        request: &Request,
    ) -> Result<Reply, Error> {
        let of_blob;
        let name = match &request.key {
            Some(name) => name,
            None => {
                let Ok(header) = blob::peek(&request.ciphertext) else {
                    trail.reason = "not a ciphertext of this service".into();
                    return Err(Error::Undecryptable);
                };
                of_blob = KeyRef::Id(KeyId::from_bytes(header.key_id));
                &of_blob
            }
        };
        let permit = self.permit_key::<A>(trail, name).await?;
        let loaded = self.load_key(trail, &permit).await?;
        if request.key.is_some() && loaded.key.spec.symmetric_len().is_none() {
            return Box::pin(self.decrypt_raw(trail, &loaded, request)).await;
        }
        self.decrypt_blob(trail, &loaded, request).await
    }

    /// Opens a blob with a key that is loaded.
    ///
    /// # Errors
    /// As [`Engine::decrypt`].
    pub(crate) async fn decrypt_blob(
        &self,
        trail: &mut Trail<'_>,
        loaded: &LoadedKey,
        request: &Request,
    ) -> Result<Reply, Error> {
        if request.version.is_some() {
            return Err(Error::invalid("version", "this ciphertext names its version itself"));
        }
        let key = loaded.key.id;
        let header = blob::peek(&request.ciphertext).ok();
        let header = header.filter(|header| header.key_id == *key.as_bytes());
        let version = header.and_then(|header| VersionNo::new(header.version));
        let Some(version) = version else {
            trail.reason = "not a ciphertext of this key".into();
            return Err(Error::Undecryptable);
        };
        let hash = request.context.hash();
        trail.context_hash = (!request.context.is_none()).then_some(hash);
        let key_use = KeyUse::of(KeyUsage::EncryptDecrypt, Purpose::Process, Some(version));
        let open = match self.open_for_use(trail, loaded, key_use).await {
            Err(Error::Denied) => return Err(Error::Undecryptable),
            other => other?,
        };
        let Some(OpenMaterial::Blob(blob_key)) = &open.material else {
            return Err(Error::KeyUsage);
        };
        let plaintext = blob::open(blob_key, &request.ciphertext, &hash).map_err(|_| {
            trail.reason = "wrong context, or the ciphertext was changed".into();
            Error::Undecryptable
        })?;
        Ok(Reply { plaintext, key, version })
    }

    async fn decrypt_raw(
        &self,
        trail: &mut Trail<'_>,
        loaded: &LoadedKey,
        request: &Request,
    ) -> Result<Reply, Error> {
        refuse_context(&request.context)?;
        let key_use = KeyUse::of(KeyUsage::EncryptDecrypt, Purpose::Process, request.version);
        let open = self.open_for_use(trail, loaded, key_use).await?;
        let Some(OpenMaterial::Oaep(rsa)) = &open.material else {
            return Err(Error::KeyUsage);
        };
        let plaintext = rsa.decrypt(&request.ciphertext).map_err(|_| {
            trail.reason = "not an RSAES-OAEP ciphertext of this version".into();
            Error::Undecryptable
        })?;
        Ok(Reply { plaintext, key: loaded.key.id, version: open.number })
    }
}
