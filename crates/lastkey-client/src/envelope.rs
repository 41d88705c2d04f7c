//! Envelope encryption: a data key from the server, the data encrypted here.
//!
//! Room      `client`. Any length in constant memory; the server sees the data key only.
//! Source    `docs/formats/envelope.md`.
//! Holds     The encryption context of the header is that of the data key: a file whose
//!           context was changed gets no key.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use lastkey_crypto::{
    context::EncryptionContext,
    entropy::SystemEntropy,
    envelope::{EnvelopeOptions, Header, KIND_LASTKEY, MAX_PASSPHRASES, Recipient},
    stream::{self, StreamError, StreamStats},
};
use lastkey_secret::SecretArray;
use lastkey_wire::{
    Base64Bytes, StringMap,
    native::operations::{DataKeyRequest, DecryptRequest},
    words::DataKeySpec,
};

use crate::{client::Client, error::Error, file::FileError};

/// Why an envelope was not made or not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The server gave no data key.
    #[error("the server gave no data key")]
    Server(#[source] Error),
    /// The server gave a data key of another length than was asked for.
    #[error("the server gave a data key of the wrong length")]
    DataKey,
    /// No recipient of the envelope is a key of a server, an identity or a passphrase that was
    /// given.
    #[error("the envelope is for none of the keys, identities and passphrases that were given")]
    NoRecipient,
    /// Reading, writing, or the file itself.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The thread that encrypts ended before its work.
    #[error("the encrypting thread ended early")]
    Thread,
    /// The envelope is bound to another encryption context than was asked for.
    #[error("the envelope has another encryption context")]
    Context,
    /// A recipient that was to be removed is none of this envelope.
    #[error("it is not encrypted for {0}")]
    NotFound(String),
    /// Without the recipients that were to be removed there is none.
    #[error("nobody could open it any more: add somebody, or delete the file")]
    Nobody,
    /// More recipients would be passphrases than a reader tries.
    #[error("an envelope has at most {MAX_PASSPHRASES} passphrases; remove those that are there")]
    TooManyPassphrases,
    /// A recipient would have to be made anew, and what that needs was not given.
    #[error(
        "nothing given can make {0} a recipient anew; remove it, or give its server or passphrase"
    )]
    NotRenewed(String),
    /// Another process is changing the file, or has just replaced it.
    #[error("another process is changing the file")]
    Busy,
    /// A new file could not take the place of the old one.
    #[error(transparent)]
    File(#[from] FileError),
    /// A call to the server that several envelopes waited for gave no data key.
    #[error(transparent)]
    Shared(Arc<EnvelopeError>),
}

impl EnvelopeError {
    /// The failed call to the server, when that is the reason.
    #[must_use]
    pub fn server_error(&self) -> Option<&Error> {
        match self {
            Self::Server(error) => Some(error),
            Self::Shared(shared) => shared.server_error(),
            Self::DataKey
            | Self::NoRecipient
            | Self::Stream(_)
            | Self::Thread
            | Self::Context
            | Self::NotFound(_)
            | Self::Nobody
            | Self::TooManyPassphrases
            | Self::NotRenewed(_)
            | Self::Busy
            | Self::File(_) => None,
        }
    }
}

impl From<Error> for EnvelopeError {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// A data key in the clear and the recipient that recovers it.
pub struct EnvelopeKey {
    /// Encrypts one or more files; dropped, it is wiped.
    pub data_key: SecretArray<32>,
    /// Stands in the header of each.
    pub recipient: Recipient,
}

impl Client {
    /// Asks for a fresh data key under `key`, bound to `context`.
    ///
    /// # Errors
    /// [`EnvelopeError::Server`], [`EnvelopeError::DataKey`].
    pub async fn envelope_key(
        &self,
        key: &str,
        context: &EncryptionContext,
    ) -> Result<EnvelopeKey, EnvelopeError> {
        let (context, context_raw) = wire_context(context);
        let request = DataKeyRequest {
            key: key.to_owned(),
            spec: Some(DataKeySpec::Aes256),
            bytes: None,
            context,
            context_raw,
            dry_run: false,
        };
        let reply = self.data_key(&request).send().await.map_err(EnvelopeError::Server)?;
        Ok(EnvelopeKey {
            data_key: reply.plaintext.0.to_array().ok_or(EnvelopeError::DataKey)?,
            recipient: Recipient::lastkey(reply.ciphertext.0),
        })
    }

    /// Encrypts everything that `reader` gives under `key`. `writer` holds a whole envelope
    /// only when this succeeds. Runs on a thread for blocking work.
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub async fn encrypt_envelope<R, W>(
        &self,
        key: &str,
        options: EnvelopeOptions,
        mut reader: R,
        mut writer: W,
    ) -> Result<StreamStats, EnvelopeError>
    where
        R: Read + Send + 'static,
        W: Write + Send + 'static,
    {
        let envelope_key = self.envelope_key(key, &options.context).await?;
        let work = move || {
            stream::encrypt_stream(
                &mut reader,
                &mut writer,
                &options,
                &envelope_key.data_key,
                std::slice::from_ref(&envelope_key.recipient),
                &mut SystemEntropy,
            )
        };
        let outcome = tokio::task::spawn_blocking(work).await;
        Ok(outcome.map_err(|_| EnvelopeError::Thread)??)
    }

    /// Recovers the data key of an envelope by whichever of its recipients the server opens.
    ///
    /// # Errors
    /// [`EnvelopeError::NoRecipient`]; [`EnvelopeError::Server`] with the refusal of the last
    /// recipient when all were refused, at once when the server is out of reach.
    pub async fn envelope_data_key(
        &self,
        header: &Header,
    ) -> Result<SecretArray<32>, EnvelopeError> {
        let mut failure = EnvelopeError::NoRecipient;
        let ours = header.recipients().iter().filter(|recipient| recipient.kind == KIND_LASTKEY);
        for recipient in ours {
            let (context, context_raw) = wire_context(header.context());
            let request = DecryptRequest {
                ciphertext: Base64Bytes(recipient.body.clone()),
                context,
                context_raw,
                key: None,
                version: None,
                dry_run: false,
            };
            match self.decrypt(&request).send().await {
                Ok(reply) => return reply.plaintext.0.to_array().ok_or(EnvelopeError::DataKey),
                Err(refused) if is_about_the_recipient(&refused) => {
                    failure = EnvelopeError::Server(refused);
                }
                Err(other) => return Err(EnvelopeError::Server(other)),
            }
        }
        Err(failure)
    }

    /// Decrypts the segments that `reader` gives behind `header`. What `writer` got is whole
    /// only when this succeeds: throw it away otherwise. Runs on a thread for blocking work.
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub async fn decrypt_envelope<R, W>(
        &self,
        header: Header,
        mut reader: R,
        mut writer: W,
    ) -> Result<StreamStats, EnvelopeError>
    where
        R: Read + Send + 'static,
        W: Write + Send + 'static,
    {
        let data_key = self.envelope_data_key(&header).await?;
        let work = move || stream::decrypt_stream(&header, &data_key, &mut reader, &mut writer);
        let outcome = tokio::task::spawn_blocking(work).await;
        Ok(outcome.map_err(|_| EnvelopeError::Thread)??)
    }
}

/// The context in the fields of a request: as a map or as bytes.
#[must_use]
pub fn wire_context(context: &EncryptionContext) -> (Option<StringMap>, Option<Base64Bytes>) {
    if context.is_none() {
        return (None, None);
    }
    match context.raw() {
        Some(raw) => (None, Some(Base64Bytes(raw.to_vec()))),
        None => {
            let pairs = context.pairs().map(|(name, value)| (name.to_owned(), value.to_owned()));
            (Some(pairs.collect()), None)
        }
    }
}

/// Whether another recipient may still be opened.
fn is_about_the_recipient(refused: &Error) -> bool {
    matches!(refused.code(), Some("AccessDenied" | "Undecryptable" | "KeyState" | "KeyUsage"))
}

#[cfg(test)]
mod tests {
    use lastkey_crypto::context::EncryptionContext;

    use super::wire_context;

    #[test]
    fn context_travels_in_the_field_of_its_kind() {
        assert_eq!(wire_context(&EncryptionContext::none()), (None, None));
        let pairs = EncryptionContext::from_pairs([("b", "2"), ("a", "1")]).unwrap();
        let (map, raw) = wire_context(&pairs);
        assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"a":"1","b":"2"}"#);
        assert_eq!(raw, None);
        let (map, raw) = wire_context(&EncryptionContext::from_raw(b"xy").unwrap());
        assert_eq!((map, raw.unwrap().0), (None, b"xy".to_vec()));
    }
}
