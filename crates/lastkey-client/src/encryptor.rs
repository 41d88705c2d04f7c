//! Encryption on this machine, with data keys from the server or without any server.
//!
//! Room      `client`.
//! Source    `docs/formats/envelope.md`.
//! Holds     Every envelope has a fresh salt, whether its data key is fresh or cached.

use std::fmt;

use lastkey_crypto::{
    context::EncryptionContext,
    entropy::SystemEntropy,
    envelope::{self, EnvelopeOptions, PayloadKeys, Recipient, Sealer},
    stream::StreamError,
};
use lastkey_secret::SecretVec;
use lastkey_wire::{SecretBase64, native::operations::EncryptRequest};

use crate::{
    cache::{CacheId, DataKeyCache, Loan, Meter, ProtectedKey},
    client::Client,
    envelope::{EnvelopeError, wire_context},
    whole,
    writer::EncryptWriter,
};

/// Encrypts data of any length on this machine. The server gives a data key and never sees the
/// data. Cheap to clone; one encryptor may serve many tasks at once.
///
/// ```no_run
/// use lastkey_client::{Client, Decryptor, EncryptionContext, Encryptor};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect()?;
/// let context = EncryptionContext::from_pairs([("patient", "17")])?;
/// let envelope = Encryptor::new(&client, "alias/app").context(context).encrypt(b"text").await?;
/// let text = Decryptor::new(&client).decrypt(&envelope).await?;
/// assert!(text.expose(|text| text == b"text"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Encryptor {
    client: Client,
    keys: Vec<String>,
    options: EnvelopeOptions,
    cache: Option<DataKeyCache>,
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Encryptor {
    /// Encrypts under `key`, an id or an alias.
    #[must_use]
    pub fn new(client: &Client, key: impl Into<String>) -> Self {
        Self {
            client: client.clone(),
            keys: vec![key.into()],
            options: EnvelopeOptions::default(),
            cache: None,
        }
    }

    /// Lets one more key decrypt: each envelope opens under any of its keys.
    #[must_use]
    pub fn add_key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Binds every envelope to names and values. They stand in it, readable; they cannot be
    /// changed, and policies can ask for them.
    #[must_use]
    pub fn context(mut self, context: EncryptionContext) -> Self {
        self.options.context = context;
        self
    }

    /// Uses data keys for several envelopes, within the limits of `cache`.
    #[must_use]
    pub fn cache(mut self, cache: &DataKeyCache) -> Self {
        self.cache = Some(cache.clone());
        self
    }

    /// Length of a segment of plaintext as a power of two, 12 to 24; 18 (256 KiB) by default.
    /// Shorter ones cost 16 bytes each and make reading of small ranges cheaper.
    #[must_use]
    pub fn segment_log2(mut self, segment_log2: u8) -> Self {
        self.options.segment_log2 = segment_log2;
        self
    }

    /// Encrypts bytes that are in memory. It works on the caller's thread: for more than a few
    /// MiB in an async program use [`Self::writer`], or [`crate::blocking`] on a thread for it.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub async fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut envelope = Vec::new();
        self.encrypt_into(plaintext, &mut envelope).await?;
        Ok(envelope)
    }

    /// [`Self::encrypt`] into a buffer, which is used again when it is large enough. Its content
    /// is replaced; after an error it is empty.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub async fn encrypt_into(
        &self,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let start = self.start().await.inspect_err(|_| out.clear())?;
        whole::seal(&start.header, &start.keys, plaintext, out)
            .inspect_err(|_| out.clear())
            .map_err(StreamError::from)?;
        start.meter.add(plaintext.len());
        Ok(())
    }

    /// Encrypts what is written, in constant memory. `inner` is an `AsyncWrite`; the writer must
    /// be shut down, or finished by [`EncryptWriter::finish_async`].
    ///
    /// ```no_run
    /// use lastkey_client::{Client, Encryptor};
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # async fn example(inner: impl tokio::io::AsyncWrite + Unpin)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let encryptor = Encryptor::new(&Client::connect()?, "alias/app");
    /// let mut writer = encryptor.writer(inner).await?;
    /// writer.write_all(b"any length").await?;
    /// writer.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`EnvelopeError`]. Nothing was written then.
    pub async fn writer<W>(&self, inner: W) -> Result<EncryptWriter<W>, EnvelopeError> {
        let start = self.start().await?;
        let sealer = Sealer::new(&start.keys).map_err(StreamError::from)?;
        Ok(EncryptWriter::new(inner, start.header, sealer, start.meter))
    }

    async fn start(&self) -> Result<Start, EnvelopeError> {
        let loan = match &self.cache {
            Some(cache) => cache.obtain(self.cache_id(), || self.protected_key()).await?,
            None => Loan::of(self.protected_key().await?),
        };
        let (header, keys) = envelope::build(
            &self.options,
            &loan.key.data_key,
            &loan.key.recipients,
            &mut SystemEntropy,
        )
        .map_err(StreamError::from)?;
        Ok(Start { header, keys, meter: loan.meter })
    }

    /// A fresh data key, protected under every key.
    async fn protected_key(&self) -> Result<ProtectedKey, EnvelopeError> {
        let (first, others) = self.keys.split_first().ok_or(EnvelopeError::NoRecipient)?;
        let fresh = self.client.envelope_key(first, &self.options.context).await?;
        let mut protected =
            ProtectedKey { data_key: fresh.data_key, recipients: vec![fresh.recipient] };
        for key in others {
            let recipient = self.protect(&protected, key).await?;
            protected.recipients.push(recipient);
        }
        Ok(protected)
    }

    async fn protect(
        &self,
        protected: &ProtectedKey,
        key: &str,
    ) -> Result<Recipient, EnvelopeError> {
        let (context, context_raw) = wire_context(&self.options.context);
        let plaintext = protected.data_key.expose(|bytes| SecretVec::copy_of(bytes));
        let request = EncryptRequest {
            key: key.to_owned(),
            plaintext: SecretBase64(plaintext),
            context,
            context_raw,
            dry_run: false,
        };
        let reply = self.client.encrypt(&request).send().await.map_err(EnvelopeError::Server)?;
        Ok(Recipient::lastkey(reply.ciphertext.0))
    }

    fn cache_id(&self) -> CacheId {
        let caller = self.client.identity();
        let mut parts: Vec<&[u8]> = vec![b"encrypt", caller, self.options.context.encoded()];
        parts.extend(self.keys.iter().map(String::as_bytes));
        CacheId::of(&parts)
    }
}

/// What a new envelope begins with.
struct Start {
    header: Vec<u8>,
    keys: PayloadKeys,
    meter: Meter,
}
