//! Use case: protect up to 64 KiB under the primary version of a key.
//!
//! Room      `service`.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::key::KeyUsage;
use lastkey_core::limits::MAX_PLAINTEXT_LEN;
use lastkey_core::permit::{Action, Encrypt, Permit};
use lastkey_core::state::Purpose;
use lastkey_crypto::blob::{self, SealError};
use lastkey_crypto::context::EncryptionContext;
use lastkey_crypto::oaep::OaepError;
use lastkey_secret::SecretVec;

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::{Engine, KeyUse};
use crate::error::Error;
use crate::keyring::{OpenMaterial, OpenVersion};

/// What is to be protected, under which key.
#[derive(Debug)]
pub struct Request {
    /// The key.
    pub key: KeyRef,
    /// 0 to 65,536 bytes; for RSA keys at most what RSAES-OAEP takes (190 to 446 bytes).
    pub plaintext: SecretVec,
    /// Bound to the ciphertext; must be none for RSA keys.
    pub context: EncryptionContext,
}

/// A ciphertext, and what protects it.
#[derive(Debug)]
pub struct Reply {
    /// A self-describing blob; for RSA keys the raw RSAES-OAEP ciphertext.
    pub ciphertext: Vec<u8>,
    /// The key.
    pub key: KeyId,
    /// The version.
    pub version: VersionNo,
}

impl Engine {
    /// Encrypts.
    ///
    /// # Errors
    /// [`Error::PlaintextTooLarge`], [`Error::Denied`], [`Error::KeyState`],
    /// [`Error::KeyUsage`], [`Error::Invalid`] for a context with an RSA key,
    /// [`Error::DryRun`], [`Error::Unavailable`], [`Error::Internal`].
    pub async fn encrypt(&self, call: &Call, request: Request) -> Result<Reply, Error> {
        let mut trail = Trail::of::<Encrypt>(self, call).with_context(&request.context);
        let outcome = self.try_encrypt(&mut trail, &request).await;
        trail.close(self, outcome).await
    }

    async fn try_encrypt(&self, trail: &mut Trail<'_>, request: &Request) -> Result<Reply, Error> {
        let permit = self.permit_key::<Encrypt>(trail, &request.key).await?;
        self.protect(trail, &permit, &request.plaintext, &request.context).await
    }

    /// Protects bytes under the primary version of the permit's key.
    ///
    /// # Errors
    /// As [`Engine::encrypt`].
    pub(crate) async fn protect<A: Action>(
        &self,
        trail: &mut Trail<'_>,
        permit: &Permit<A>,
        plaintext: &SecretVec,
        context: &EncryptionContext,
    ) -> Result<Reply, Error> {
        if plaintext.len() > MAX_PLAINTEXT_LEN {
            return Err(Error::PlaintextTooLarge);
        }
        let loaded = self.load_key(trail, permit).await?;
        let key_use = KeyUse::of(KeyUsage::EncryptDecrypt, Purpose::Protect, None);
        let open = self.open_for_use(trail, &loaded, key_use).await?;
        let key = loaded.key.id;
        let ciphertext = match &open.material {
            Some(OpenMaterial::Blob(blob_key)) => {
                let hash = context.hash();
                trail.context_hash = (!context.is_none()).then_some(hash);
                let mut entropy = self.ports.entropy.open();
                let number = open.number.number();
                plaintext.expose(|bytes| {
                    blob::seal(blob_key, key.as_bytes(), number, &hash, bytes, &mut *entropy)
                })?
            }
            Some(OpenMaterial::Oaep(_)) => oaep_encrypt(&open, plaintext, context)?,
            Some(OpenMaterial::Sign(_) | OpenMaterial::Mac(_)) | None => {
                return Err(Error::KeyUsage);
            }
        };
        Ok(Reply { ciphertext, key, version: open.number })
    }
}

fn oaep_encrypt(
    open: &OpenVersion,
    plaintext: &SecretVec,
    context: &EncryptionContext,
) -> Result<Vec<u8>, Error> {
    let Some(OpenMaterial::Oaep(key)) = &open.material else {
        return Err(Error::KeyUsage);
    };
    refuse_context(context)?;
    plaintext.expose(|bytes| key.encrypt(bytes)).map_err(|error| match error {
        OaepError::TooLong => {
            let most = key.max_plaintext_len();
            Error::invalid("plaintext", format!("this RSA key encrypts at most {most} bytes"))
        }
        OaepError::Undecryptable | OaepError::Failed => Error::Internal(error.into()),
    })
}

/// RSA ciphertexts have no room for a context.
///
/// # Errors
/// [`Error::Invalid`] when there is one.
pub(crate) fn refuse_context(context: &EncryptionContext) -> Result<(), Error> {
    if context.is_none() {
        Ok(())
    } else {
        Err(Error::invalid("context", "RSA keys take no encryption context"))
    }
}

impl From<SealError> for Error {
    fn from(error: SealError) -> Self {
        match error {
            SealError::TooLong => Self::PlaintextTooLarge,
            SealError::Entropy | SealError::Failed => Self::Internal(error.into()),
        }
    }
}
