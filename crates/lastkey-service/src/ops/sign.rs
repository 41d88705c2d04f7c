//! Use case: sign a message or its digest.
//!
//! Room      `service`.

use lastkey_core::ids::{KeyId, KeyRef, VersionNo};
use lastkey_core::key::KeyUsage;
use lastkey_core::limits::MAX_MESSAGE_LEN;
use lastkey_core::permit::Sign;
use lastkey_core::state::Purpose;
use lastkey_crypto::material::MaterialSpec;
use lastkey_crypto::sign::{Message, SignAlgorithm, SignError};
use lastkey_secret::SecretVec;

use crate::audited::Trail;
use crate::call::Call;
use crate::engine::{Engine, KeyUse};
use crate::error::Error;
use crate::keyring::OpenMaterial;

/// Whether a message comes whole or hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageType {
    /// The message itself.
    #[default]
    Raw,
    /// Its digest, by the hash of the algorithm.
    Digest,
}

impl MessageType {
    /// The bytes as the message they are.
    pub(crate) const fn message(self, bytes: &[u8]) -> Message<'_> {
        match self {
            Self::Raw => Message::Raw(bytes),
            Self::Digest => Message::Digest(bytes),
        }
    }
}

/// What is to be signed.
#[derive(Debug)]
pub struct Request {
    /// The key.
    pub key: KeyRef,
    /// The version; default the primary one. Only the primary version signs.
    pub version: Option<VersionNo>,
    /// At most 65,536 bytes.
    pub message: SecretVec,
    /// What the message is.
    pub message_type: MessageType,
    /// The algorithm; default the first one of the key's spec.
    pub algorithm: Option<SignAlgorithm>,
}

/// A signature.
#[derive(Debug)]
pub struct Reply {
    /// The signature; ECDSA in DER.
    pub signature: Vec<u8>,
    /// The algorithm.
    pub algorithm: SignAlgorithm,
    /// The key.
    pub key: KeyId,
    /// The version: a verifier may have to name it later.
    pub version: VersionNo,
}

impl Engine {
    /// Signs.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an algorithm that the key has not, or a digest of a wrong length;
    /// [`Error::Denied`], [`Error::KeyState`], [`Error::KeyUsage`], [`Error::DryRun`],
    /// [`Error::Unavailable`], [`Error::Internal`].
    pub async fn sign(&self, call: &Call, request: Request) -> Result<Reply, Error> {
        let mut trail = Trail::of::<Sign>(self, call);
        let outcome = self.try_sign(&mut trail, &request).await;
        trail.close(self, outcome).await
    }

    async fn try_sign(&self, trail: &mut Trail<'_>, request: &Request) -> Result<Reply, Error> {
        check_message(&request.message)?;
        let permit = self.permit_key::<Sign>(trail, &request.key).await?;
        let loaded = self.load_key(trail, &permit).await?;
        let algorithm = algorithm_for(loaded.key.spec, request.algorithm)?;
        let key_use = KeyUse::of(KeyUsage::SignVerify, Purpose::Protect, request.version);
        let open = self.open_for_use(trail, &loaded, key_use).await?;
        let Some(OpenMaterial::Sign(pair)) = &open.material else {
            return Err(Error::KeyUsage);
        };
        let signature = request
            .message
            .expose(|bytes| pair.0.sign(algorithm, request.message_type.message(bytes)))?;
        Ok(Reply { signature, algorithm, key: loaded.key.id, version: open.number })
    }
}

/// Checks the length of a message.
///
/// # Errors
/// [`Error::Invalid`] over the limit.
pub(crate) fn check_message(message: &SecretVec) -> Result<(), Error> {
    if message.len() <= MAX_MESSAGE_LEN {
        Ok(())
    } else {
        Err(Error::invalid("message", "at most 65536 bytes; hash larger ones and send the digest"))
    }
}

/// The algorithm that was asked for, or the default of the spec.
///
/// # Errors
/// [`Error::KeyUsage`] when the spec cannot sign, [`Error::Invalid`] for an algorithm of others.
pub(crate) fn algorithm_for(
    spec: MaterialSpec,
    asked: Option<SignAlgorithm>,
) -> Result<SignAlgorithm, Error> {
    let allowed = SignAlgorithm::for_spec(spec);
    let default = allowed.first().copied().ok_or(Error::KeyUsage)?;
    match asked {
        None => Ok(default),
        Some(asked) if allowed.contains(&asked) => Ok(asked),
        Some(_) => {
            let names: Vec<_> = allowed.iter().map(|algorithm| algorithm.name()).collect();
            let problem = format!("this key signs with {}", names.join(", "));
            Err(Error::invalid("algorithm", problem))
        }
    }
}

impl From<SignError> for Error {
    fn from(error: SignError) -> Self {
        match error {
            SignError::WrongAlgorithm => Self::invalid("algorithm", "this key does not sign so"),
            SignError::DigestNotAllowed => {
                Self::invalid("message_type", "this algorithm signs whole messages only: RAW")
            }
            SignError::DigestLength => {
                Self::invalid("message", "a digest has the length of the algorithm's hash")
            }
            SignError::Failed => Self::Internal(error.into()),
        }
    }
}
