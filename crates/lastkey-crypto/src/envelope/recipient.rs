//! Recipients: ways to recover the data key of an envelope.
//!
//! Room      `crypto`.
//! Source    `docs/formats/envelope.md`, section "Recipients".
//! Holds     A wrapped data key is under a key that wraps nothing else, so its nonce is zero.
//!           What was recovered counts only after the commitment of the header was right.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use lastkey_secret::{SecretArray, SecretVec};
use zeroize::Zeroize;

use super::{EnvelopeError, age::AgeRecipient, passphrase::PassphraseBody};
use crate::{blob, entropy::Entropy, kdf::Argon2Params};

/// A Lastkey key: the body is a ciphertext blob whose plaintext is the data key.
pub const KIND_LASTKEY: u8 = 1;
/// A key of age: the body is a public key and the content of an X25519 stanza.
pub const KIND_AGE: u8 = 2;
/// A passphrase: the body is the cost of Argon2id, a salt and the wrapped data key.
pub const KIND_PASSPHRASE: u8 = 3;

/// A backup: the body is its identity. Its key is wrapped in the head before the envelope
/// (docs/formats/backup.md).
pub const KIND_BACKUP: u8 = 4;

/// Bytes of a wrapped data key.
pub(super) const WRAPPED_LEN: usize = 32 + TAG_LEN;
const TAG_LEN: usize = 16;

/// One way to recover the data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// What `body` is: one of the `KIND_` numbers, or a kind that a later version knows.
    pub kind: u8,
    /// At most 65,535 bytes.
    pub body: Vec<u8>,
}

/// Whom a recipient names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientName {
    /// A key of a Lastkey server and its version.
    Lastkey {
        /// The bytes of the UUID.
        key_id: [u8; 16],
        /// From 1.
        version: u32,
    },
    /// A key of age.
    Age(AgeRecipient),
    /// A passphrase, and what one guess at it costs.
    Passphrase(Argon2Params),
    /// A kind of a later version, or a body that is not of its kind.
    Unknown,
}

impl Recipient {
    /// The recipient that holds the data key as a ciphertext blob.
    #[must_use]
    pub fn lastkey(blob: Vec<u8>) -> Self {
        Self { kind: KIND_LASTKEY, body: blob }
    }

    /// Wraps a data key for a key of age.
    ///
    /// # Errors
    /// [`EnvelopeError::Entropy`]; [`EnvelopeError::Options`] for a public key of low order;
    /// [`EnvelopeError::Failed`].
    pub fn age(
        recipient: &AgeRecipient,
        data_key: &SecretArray<32>,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, EnvelopeError> {
        let body = recipient.wrap(data_key, entropy)?;
        Ok(Self { kind: KIND_AGE, body })
    }

    /// Wraps a data key under a passphrase. Takes the time and memory of `cost`.
    ///
    /// # Errors
    /// [`EnvelopeError::PassphraseCost`] for a cost over the limits of the format;
    /// [`EnvelopeError::Entropy`]; [`EnvelopeError::Failed`] also when the memory is not there.
    pub fn passphrase(
        passphrase: &SecretVec,
        cost: Argon2Params,
        data_key: &SecretArray<32>,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, EnvelopeError> {
        let body = PassphraseBody::wrap(passphrase, cost, data_key, entropy)?;
        Ok(Self { kind: KIND_PASSPHRASE, body })
    }

    /// The data key behind a passphrase. It is not proven to be the one of any envelope. Takes
    /// the time and memory that the body names, within the limits of the format.
    ///
    /// # Errors
    /// [`EnvelopeError::NoRecipient`] when this is no passphrase;
    /// [`EnvelopeError::Malformed`]; [`EnvelopeError::PassphraseCost`];
    /// [`EnvelopeError::Undecryptable`] for another passphrase; [`EnvelopeError::Failed`] also
    /// when the memory is not there.
    pub fn open_by_passphrase(
        &self,
        passphrase: &SecretVec,
    ) -> Result<SecretArray<32>, EnvelopeError> {
        if self.kind != KIND_PASSPHRASE {
            return Err(EnvelopeError::NoRecipient);
        }
        PassphraseBody::parse(&self.body)?.unwrap(passphrase)
    }

    /// Whom it names, as far as its body says. Nothing of it is authenticated.
    #[must_use]
    pub fn name(&self) -> RecipientName {
        match self.kind {
            KIND_LASTKEY => blob::peek(&self.body).ok().map(|header| RecipientName::Lastkey {
                key_id: header.key_id,
                version: header.version,
            }),
            KIND_AGE => AgeRecipient::of_body(&self.body).map(RecipientName::Age),
            KIND_PASSPHRASE => PassphraseBody::parse(&self.body)
                .ok()
                .map(|body| RecipientName::Passphrase(body.cost())),
            _ => None,
        }
        .unwrap_or(RecipientName::Unknown)
    }
}

/// ChaCha20-Poly1305 with the zero nonce, as in the stanzas of age. `key` must be fresh.
pub(super) fn wrap_once(key: &SecretArray<32>, secret: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let mut wrapped = Vec::with_capacity(secret.len().saturating_add(TAG_LEN));
    wrapped.extend_from_slice(secret);
    prepared(key)?
        .seal_in_place_append_tag(zero_nonce(), Aad::empty(), &mut wrapped)
        .map_err(|_| EnvelopeError::Failed)?;
    Ok(wrapped)
}

/// Undoes [`wrap_once`].
pub(super) fn unwrap_once(
    key: &SecretArray<32>,
    wrapped: &[u8],
) -> Result<SecretVec, EnvelopeError> {
    let mut buffer = wrapped.to_vec();
    let opened = prepared(key)?.open_in_place(zero_nonce(), Aad::empty(), &mut buffer);
    match opened.map(|secret| secret.len()) {
        Ok(len) => {
            buffer.truncate(len);
            Ok(SecretVec::take(buffer))
        }
        Err(_) => {
            buffer.zeroize();
            Err(EnvelopeError::Undecryptable)
        }
    }
}

fn prepared(key: &SecretArray<32>) -> Result<LessSafeKey, EnvelopeError> {
    key.expose(|bytes| UnboundKey::new(&CHACHA20_POLY1305, bytes))
        .map(LessSafeKey::new)
        .map_err(|_| EnvelopeError::Failed)
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
