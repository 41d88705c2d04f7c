//! The key of a node's certificate in its file: in the clear, or sealed to the TPM.
//!
//! Room      the binary: `node::sealed_key` by `connect`.
//! Source    docs/formats/node-key.md; ADR 52.
//! Holds     A sealed key is in the clear in memory alone. The TPM is asked once for each file key;
//!           renewals keep that.

use std::fmt;
use std::sync::Arc;

use lastkey_connect::seal::tpm::{MeasureError, Tcti, TpmError, seal_here, unseal_here};
use lastkey_crypto::entropy::{Entropy as _, SystemEntropy};
use lastkey_crypto::wrap::WrapKey;
use lastkey_node::sealed_key::{self, Damaged, SealedKey};
use lastkey_secret::{SecretArray, SecretVec};

/// Why a key cannot be had, or not be sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeKeyError {
    /// The file.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The TPM does not give the key of the file back. It may later.
    #[error("the TPM at {at} does not open the key of the node")]
    NotOpened {
        /// Where it is.
        at: Tcti,
        source: TpmError,
    },
    /// The TPM does not seal a key of a file.
    #[error("the TPM at {at} does not seal a key")]
    NotSealed {
        /// Where it is.
        at: Tcti,
        source: MeasureError,
    },
    /// No randomness.
    #[error("no key can be made")]
    NoKey,
}

/// How the key of a node lies on the disk.
#[derive(Clone, Debug)]
pub(crate) enum Keeping {
    /// As it is, in a file that only its owner can read.
    Clear,
    /// Sealed.
    Sealed(Arc<FileKey>),
}

/// The key of a file, and the header that has it sealed.
pub(crate) struct FileKey {
    header: Vec<u8>,
    key: WrapKey,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(..)")
    }
}

impl Keeping {
    /// Draws a key of a file, and has it sealed to a TPM and the values that these registers have.
    ///
    /// # Errors
    /// [`NodeKeyError::NotSealed`], [`NodeKeyError::NoKey`].
    pub(crate) fn sealed_to(tpm: &Tcti, registers: &[u8]) -> Result<Self, NodeKeyError> {
        let key = SecretArray::try_fill(|bytes| SystemEntropy.fill(bytes));
        let key = key.map_err(|_| NodeKeyError::NoKey)?;
        let sealed = seal_here(tpm, registers, &key)
            .map_err(|source| NodeKeyError::NotSealed { at: tpm.clone(), source })?;
        let header = sealed_key::header_of(&tpm.to_string(), &sealed).ok_or(NodeKeyError::NoKey)?;
        FileKey::new(header, &key).map(Arc::new).map(Self::Sealed)
    }

    /// A private key (PEM) as it is written to the file.
    ///
    /// # Errors
    /// [`NodeKeyError::NoKey`].
    pub(crate) fn written(&self, private: SecretVec) -> Result<SecretVec, NodeKeyError> {
        match self {
            Self::Clear => Ok(private),
            Self::Sealed(file) => {
                sealed_key::seal(&file.header, &file.key, &private, &mut SystemEntropy)
                    .map(SecretVec::take_text)
                    .map_err(|_| NodeKeyError::NoKey)
            }
        }
    }

    /// The key of a file with this header, if it is this one.
    fn file_key(&self, header: &[u8]) -> Option<Arc<FileKey>> {
        match self {
            Self::Clear => None,
            Self::Sealed(file) => (file.header == header).then(|| Arc::clone(file)),
        }
    }
}

impl FileKey {
    fn new(header: Vec<u8>, key: &SecretArray<32>) -> Result<Self, NodeKeyError> {
        let key = WrapKey::new(key).map_err(|_| NodeKeyError::NoKey)?;
        Ok(Self { header, key })
    }

    fn of_tpm(sealed: &SealedKey<'_>) -> Result<Self, NodeKeyError> {
        let at: Tcti = sealed.tpm.parse().map_err(|_| Damaged)?;
        let key = unseal_here(&at, sealed.sealed)
            .map_err(|source| NodeKeyError::NotOpened { at, source })?;
        Self::new(sealed.header.to_vec(), &key)
    }
}

/// A file (PEM) with its key in the clear, and how the key lies there. The TPM is asked when the
/// key of the file is not `known` from before.
///
/// # Errors
/// [`NodeKeyError::Damaged`], [`NodeKeyError::NotOpened`].
pub(crate) fn open(
    file: SecretVec,
    known: Option<&Keeping>,
) -> Result<(SecretVec, Keeping), NodeKeyError> {
    let Some(block) = file.expose(sealed_key::block_in)? else {
        return Ok((file, Keeping::Clear));
    };
    let sealed = SealedKey::parse(&block)?;
    let file_key = match known.and_then(|known| known.file_key(sealed.header)) {
        Some(file_key) => file_key,
        None => Arc::new(FileKey::of_tpm(&sealed)?),
    };
    let private = sealed.open(&file_key.key)?;
    let whole = private.expose(|private| file.expose(|file| [private, file].concat()));
    Ok((SecretVec::take(whole), Keeping::Sealed(file_key)))
}
