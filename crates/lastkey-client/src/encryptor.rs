//! Encryption on this machine, with data keys from the server or without any server.
//!
//! Room      `client`.
//! Source    `docs/formats/envelope.md`.
//! Holds     Every envelope has a fresh salt, whether its data key is fresh or cached.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use lastkey_crypto::{
    context::EncryptionContext,
    digest::sha256,
    entropy::{Entropy, SystemEntropy},
    envelope::{
        self, AgeRecipient, EnvelopeError as FormatError, EnvelopeOptions, PayloadKeys, Recipient,
        Sealer, Suite,
    },
    kdf::Argon2Params,
    stream::{StreamError, encrypt_slice},
};
use lastkey_secret::{SecretArray, SecretVec};
use lastkey_wire::{SecretBase64, native::operations::EncryptRequest};
use zeroize::Zeroizing;

use crate::{
    cache::{CacheId, DataKeyCache, Loan, Meter, ProtectedKey},
    client::Client,
    envelope::{EnvelopeError, wire_context},
    writer::EncryptWriter,
};

/// From here on memory for an envelope is taken as the system gives it, zeroed.
const LARGE_LEN: usize = 1 << 20;

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
///
/// The default one encrypts for nobody yet, and cannot before somebody is added.
#[derive(Clone, Default)]
pub struct Encryptor {
    recipients: Vec<Whom>,
    options: EnvelopeOptions,
    cache: Option<DataKeyCache>,
    /// What it is in a cache, once that was asked for; of these recipients and this context.
    cache_id: OnceLock<CacheId>,
}

/// Who can decrypt. One of each kind is an own way to the data key.
#[derive(Clone)]
pub(crate) enum Whom {
    Key { client: Client, key: String },
    Age(AgeRecipient),
    Passphrase { passphrase: Arc<SecretVec>, cost: Argon2Params },
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor").field("recipients", &self.recipients).finish_non_exhaustive()
    }
}

impl fmt::Debug for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { key, .. } => write!(f, "Key({key})"),
            Self::Age(recipient) => write!(f, "Age({recipient})"),
            Self::Passphrase { .. } => f.write_str("Passphrase(..)"),
        }
    }
}

impl Encryptor {
    /// Encrypts under `key`, an id or an alias.
    #[must_use]
    pub fn new(client: &Client, key: impl Into<String>) -> Self {
        Self::of(Whom::Key { client: client.clone(), key: key.into() })
    }

    /// Encrypts for the owner of a key of age, without any server.
    ///
    /// ```
    /// use lastkey_client::{AgeRecipient, Encryptor};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    /// let envelope = Encryptor::for_age(AgeRecipient::parse(recipient)?).encrypt(b"text").await?;
    /// # let _ = envelope;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn for_age(recipient: AgeRecipient) -> Self {
        Self::of(Whom::Age(recipient))
    }

    /// Encrypts under a passphrase, without any server, as [`Self::add_passphrase`] says.
    #[must_use]
    pub fn for_passphrase(passphrase: impl Into<Arc<SecretVec>>) -> Self {
        Self::of(passphrase_of(passphrase))
    }

    fn of(whom: Whom) -> Self {
        Self::default().with(whom)
    }

    fn with(mut self, whom: Whom) -> Self {
        self.recipients.push(whom);
        self.cache_id = OnceLock::new();
        self
    }

    /// Lets one more key decrypt, also one of another server: each envelope opens under any of
    /// its keys.
    #[must_use]
    pub fn add_key(self, client: &Client, key: impl Into<String>) -> Self {
        self.with(Whom::Key { client: client.clone(), key: key.into() })
    }

    /// Lets the owner of a key of age decrypt, without any server: for the day on which all
    /// servers are lost.
    #[must_use]
    pub fn add_age(self, recipient: AgeRecipient) -> Self {
        self.with(Whom::Age(recipient))
    }

    /// Lets who knows a passphrase decrypt. Costs 64 MiB of memory and a noticeable moment for
    /// each data key, on the caller's thread: use a cache.
    #[must_use]
    pub fn add_passphrase(self, passphrase: impl Into<Arc<SecretVec>>) -> Self {
        self.with(passphrase_of(passphrase))
    }

    /// How the segments are protected; AES-256-GCM by default. An envelope tells it itself.
    #[must_use]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.options.suite = suite;
        self
    }

    /// Binds every envelope to names and values. They stand in it, readable; they cannot be
    /// changed, and policies can ask for them.
    #[must_use]
    pub fn context(mut self, context: EncryptionContext) -> Self {
        self.options.context = context;
        self.cache_id = OnceLock::new();
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
        let loan = self.loan().await.inspect_err(|_| out.clear())?;
        if plaintext.len() >= LARGE_LEN && out.capacity() < plaintext.len() {
            *out = vec![0; plaintext.len().saturating_add(plaintext.len() / 128)];
        }
        let options = self.options_for(&loan.key.recipients)?;
        let (data_key, recipients) = (&loan.key.data_key, &loan.key.recipients);
        encrypt_slice(plaintext, &options, data_key, recipients, &mut SystemEntropy, out)
            .inspect_err(|_| out.clear())
            .map_err(wrong)?;
        loan.meter.add(plaintext.len());
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
        let sealer = Sealer::new(&start.keys).map_err(wrong)?;
        Ok(EncryptWriter::new(inner, start.header, sealer, start.meter))
    }

    /// A data key and the options of an envelope, for programs that put the envelope together by
    /// [`lastkey_crypto::stream`]: on many threads, for instance. It counts as one message of the
    /// cache, and as `plaintext_len` bytes.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub async fn data_key(
        &self,
        plaintext_len: u64,
    ) -> Result<(Arc<ProtectedKey>, EnvelopeOptions), EnvelopeError> {
        let Loan { key, meter } = self.loan().await?;
        let options = self.options_for(&key.recipients)?;
        meter.add(usize::try_from(plaintext_len).unwrap_or(usize::MAX));
        Ok((key, options))
    }

    /// Whether nobody was added yet.
    #[must_use]
    pub fn is_for_nobody(&self) -> bool {
        self.recipients.is_empty()
    }

    pub(crate) fn whom(&self) -> &[Whom] {
        &self.recipients
    }

    async fn start(&self) -> Result<Start, EnvelopeError> {
        let Loan { key, meter } = self.loan().await?;
        let options = self.options_for(&key.recipients)?;
        let (header, keys) =
            envelope::build(&options, &key.data_key, &key.recipients, &mut SystemEntropy)
                .map_err(wrong)?;
        Ok(Start { header, keys, meter })
    }

    async fn loan(&self) -> Result<Loan, EnvelopeError> {
        let fetch = || protected_key(&self.recipients, &self.options.context);
        match &self.cache {
            Some(cache) => {
                let id = *self.cache_id.get_or_init(|| self.make_cache_id());
                cache.obtain(id, fetch).await
            }
            None => Ok(Loan::of(fetch().await?)),
        }
    }

    /// With slots that are long enough.
    fn options_for(&self, recipients: &[Recipient]) -> Result<EnvelopeOptions, EnvelopeError> {
        let mut options = self.options.clone();
        options.fit(recipients).map_err(wrong)?;
        Ok(options)
    }

    fn make_cache_id(&self) -> CacheId {
        let of = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        let mut parts = vec![of(b"encrypt"), of(self.options.context.encoded())];
        parts.extend(self.recipients.iter().flat_map(Whom::cache_parts));
        CacheId::of(&parts)
    }
}

impl Whom {
    /// What tells it from every other in a cache.
    fn cache_parts(&self) -> [Zeroizing<Vec<u8>>; 3] {
        let (kind, server, name): (&[u8], &[u8], Vec<u8>) = match self {
            Self::Key { client, key } => (b"key", client.identity(), key.clone().into_bytes()),
            Self::Age(recipient) => (b"age", b"", recipient.to_string().into_bytes()),
            Self::Passphrase { passphrase, .. } => {
                (b"passphrase", b"", passphrase.expose(sha256).to_vec())
            }
        };
        [kind.to_vec(), server.to_vec(), name].map(Zeroizing::new)
    }
}

/// A fresh data key, from the first server that is named or drawn here, and its recipients.
async fn protected_key(
    recipients: &[Whom],
    context: &EncryptionContext,
) -> Result<ProtectedKey, EnvelopeError> {
    let first = recipients.iter().position(|whom| matches!(whom, Whom::Key { .. }));
    let mut protected = match first.and_then(|at| recipients.get(at)) {
        Some(Whom::Key { client, key }) => {
            let fresh = client.envelope_key(key, context).await?;
            ProtectedKey { data_key: fresh.data_key, recipients: vec![fresh.recipient] }
        }
        Some(Whom::Age(_) | Whom::Passphrase { .. }) | None => {
            ProtectedKey { data_key: fresh_data_key()?, recipients: Vec::new() }
        }
    };
    for (_, whom) in recipients.iter().enumerate().filter(|(at, _)| Some(*at) != first) {
        let recipient = whom.protect(&protected.data_key, context).await?;
        protected.recipients.push(recipient);
    }
    Ok(protected)
}

impl Whom {
    /// Protects a data key that is there already.
    pub(crate) async fn protect(
        &self,
        data_key: &SecretArray<32>,
        context: &EncryptionContext,
    ) -> Result<Recipient, EnvelopeError> {
        match self {
            Self::Key { client, key } => protect_remotely(client, key, data_key, context).await,
            Self::Age(recipient) => {
                Recipient::age(recipient, data_key, &mut SystemEntropy).map_err(wrong)
            }
            Self::Passphrase { passphrase, cost } => {
                Recipient::passphrase(passphrase, *cost, data_key, &mut SystemEntropy)
                    .map_err(wrong)
            }
        }
    }
}

fn passphrase_of(passphrase: impl Into<Arc<SecretVec>>) -> Whom {
    Whom::Passphrase { passphrase: passphrase.into(), cost: Argon2Params::default() }
}

pub(crate) fn fresh_data_key() -> Result<SecretArray<32>, EnvelopeError> {
    SecretArray::try_fill(|bytes| SystemEntropy.fill(bytes))
        .map_err(|_| wrong(FormatError::Entropy))
}

async fn protect_remotely(
    client: &Client,
    key: &str,
    data_key: &SecretArray<32>,
    context: &EncryptionContext,
) -> Result<Recipient, EnvelopeError> {
    let (context, context_raw) = wire_context(context);
    let request = EncryptRequest {
        key: key.to_owned(),
        plaintext: SecretBase64(data_key.expose(|bytes| SecretVec::copy_of(bytes))),
        context,
        context_raw,
        dry_run: false,
    };
    let reply = client.encrypt(&request).send().await.map_err(EnvelopeError::Server)?;
    Ok(Recipient::lastkey(reply.ciphertext.0))
}

/// What a new envelope begins with.
struct Start {
    header: Vec<u8>,
    keys: PayloadKeys,
    meter: Meter,
}

pub(crate) fn wrong(failure: FormatError) -> EnvelopeError {
    StreamError::from(failure).into()
}
